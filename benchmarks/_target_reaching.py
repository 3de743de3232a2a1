"""Mixtures of experts on target reaching: success while they learn, what each expert does alone, robustness to noise."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.patches import Circle

import jaxpg
import jaxpg_envs
from jaxpg.algorithm import Policy
from jaxpg.experiment.plots import COLOURS, Picture, plain_axes
from jaxpg.networks import Experts
from jaxpg.training import advance

PIECES = 20
EPISODES = 64
STARTS = 64
SUCCESS = 50.0  # only the target earns so much: speed at most 0.1 * sqrt(2) * 300
SETTING = {"num_envs": 8, "gradient_steps": 4, "batch_size": 128, "hidden_sizes": (64, 64)}
NOISES = (0.0, 0.05, 0.1, 0.2)


class Outcome(NamedTuple):
    """Of each seed: success rate and mean return after each piece of training, success with noise in what is observed; the
    final parameters."""

    success: Float[np.ndarray, "seed piece"]
    returns: Float[np.ndarray, "seed piece"]
    noisy_success: Float[np.ndarray, "seed noise"]
    actors: Any


def learn(hyperparameters: dict[str, Any], steps: int, num_seeds: int) -> Outcome:
    """Trains `pmoe_sac`, or the `algorithm` named with the hyperparameters.

    Success is that of the policy that learns, an expert drawn by weight and its noise.
    """
    env, params = jaxpg_envs.make("TargetReaching-v0")
    fields = {"algorithm": "pmoe_sac", **SETTING, **hyperparameters}
    agent = jaxpg.make(fields.pop("algorithm"), env, params, total_steps=steps, **fields)
    updates = agent.num_updates // PIECES

    def success_and_return(policy: Policy, key: jax.Array) -> tuple[Float[Array, ""], Float[Array, ""]]:
        returns = jaxpg.evaluate(policy, env, params, key, EPISODES)
        return (returns > SUCCESS).mean(), returns.mean()

    def with_noise(policy: Policy, deviation: Array) -> Policy:
        def act(params: Any, key: jax.Array, observation: Array, carry: Any) -> tuple[Array, Any]:
            policy_params, deviation = params
            act_key, noise_key = jax.random.split(key)
            seen = observation + deviation * jax.random.normal(noise_key, observation.shape)
            return policy.act(policy_params, act_key, seen, carry)

        return Policy((policy.params, deviation), act, policy.initial_carry)

    def run(key: jax.Array) -> tuple[Array, Array, Array, Any]:
        def piece(state: Any, key: jax.Array) -> tuple[Any, tuple[Array, Array]]:
            state, _ = advance(agent.update, state, updates)
            return state, success_and_return(agent.policy(state, deterministic=False), key)

        keys = jax.random.split(key, PIECES + 2)
        state, (rates, returns) = jax.lax.scan(piece, agent.init(keys[0]), keys[2:])
        noisy = lambda deviation: success_and_return(with_noise(agent.policy(state), deviation), keys[1])[0]
        return rates, returns, jax.lax.map(noisy, jnp.array(NOISES)), state.learner.actor

    results = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), num_seeds))
    return Outcome(*jax.device_get(results))


def paths(actors: Any, num_experts: int) -> Float[np.ndarray, "seed expert start time 2"]:
    """Where each expert's mean alone goes from starts that differ a little; after its end a path stays where it ended."""
    env, params = jaxpg_envs.make("TargetReaching-v0")
    params = params.replace(start_noise=0.05)
    network = Experts(num_experts, 2, SETTING["hidden_sizes"])  # type: ignore[arg-type]

    def path(actor: Any, expert: Array, key: jax.Array) -> Float[Array, "time 2"]:
        observation, state = env.reset(key, params)

        def step(carry: tuple, key: jax.Array) -> tuple[tuple, Array]:
            observation, state, position, ended = carry
            action = jnp.tanh(network.apply(actor, observation)[1][expert])
            observation, state, _, terminated, truncated, info = env.step(key, state, action, params)
            position = jnp.where(ended, position, 5.0 * info["final_observation"][:2])
            return (observation, state, position, ended | terminated | truncated), position

        start = (observation, state, 5.0 * observation[:2], jnp.bool_(False))
        return jax.lax.scan(step, start, jax.random.split(key, 300))[1]

    over_starts = jax.vmap(path, (None, None, 0))
    over_experts = jax.vmap(over_starts, (None, 0, None))
    all_of_them = jax.jit(jax.vmap(over_experts, (0, None, None)))
    return np.asarray(all_of_them(actors, jnp.arange(num_experts), jax.random.split(jax.random.key(1), STARTS)))


def primitives(trajectories: Float[np.ndarray, "seed expert start time 2"]) -> dict[str, Any]:
    """How far the experts' paths are apart, in units of how far one expert's paths spread, and on which side they pass.

    Apart: the distance between two experts' mean paths, averaged over time and pairs; spread: the distance of a path from
    its expert's mean. A side is that of the first disc, left or right, at the point of a mean path that is closest to it.
    """
    mean = trajectories.mean(axis=2)
    spread = np.linalg.norm(trajectories - mean[:, :, None], axis=-1).mean(axis=(1, 2, 3))
    pairs = list(zip(*np.triu_indices(mean.shape[1], 1), strict=True))
    apart = np.mean([np.linalg.norm(mean[:, i] - mean[:, j], axis=-1).mean(-1) for i, j in pairs], axis=0)
    disc = np.array([-2.5, -2.5])
    closest = np.linalg.norm(mean - disc, axis=-1).argmin(-1)
    point = np.take_along_axis(mean, closest[..., None, None], axis=2)[:, :, 0]
    # The way to the target is the diagonal: a positive cross product lies to its left.
    sides = np.sign((point - disc) @ np.array([-1.0, 1.0]))
    return {
        "apart": apart.tolist(),
        "spread": spread.tolist(),
        "ratio": float(np.mean(apart) / np.mean(spread)),
        "sides": sides.tolist(),
        "number_of_sides": len(np.unique(sides)),
    }


def draw(axes: Any, trajectories: Float[np.ndarray, "expert start time 2"], title: str) -> None:
    """One seed's experts, each in its colour, among the obstacles."""
    params = jaxpg_envs.make("TargetReaching-v0")[1]
    plain_axes(axes, grid=False)
    for centre, radius in zip(params.centres, params.radii, strict=True):
        axes.add_patch(Circle(centre, radius, color="#BBBBBB", linewidth=0))
    axes.add_patch(Circle(params.target, params.target_radius, color="#88CC88", linewidth=0))
    for expert, of_expert in enumerate(trajectories):
        for path in of_expert[::4]:
            axes.plot(*path.T, color=COLOURS[expert % len(COLOURS)], alpha=0.25, linewidth=0.8)
    axes.set(xlim=(-5, 5), ylim=(-5, 5), aspect="equal", xticks=[], yticks=[])
    axes.set_title(title, loc="left", fontsize=9)


def picture(curves: dict[str, Float[np.ndarray, "seed piece"]], trajectories: dict[str, Any], steps: int) -> Picture:
    """Returns while learning (mean over seeds), and the experts' paths of some seeds."""
    shown = [(label, seed) for label, all_paths in trajectories.items() for seed in range(min(3, len(all_paths)))]
    figure = Picture(figsize=(8, 3.2 + 2.7 * -(-len(shown) // 3)), layout="constrained")
    grid = figure.add_gridspec(1 + -(-len(shown) // 3), 3)
    axes = figure.add_subplot(grid[0, :])
    plain_axes(axes)
    at = np.linspace(steps / PIECES, steps, PIECES)
    for index, (label, returns) in enumerate(curves.items()):
        axes.plot(at, returns.mean(0), label=label, color=COLOURS[index % len(COLOURS)], linestyle="-" if index < 8 else "--")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return")
    axes.legend(fontsize=7, ncols=2, frameon=False)
    for place, (label, seed) in enumerate(shown):
        cell = figure.add_subplot(grid[1 + place // 3, place % 3])
        draw(cell, trajectories[label][seed], f"{label}, seed {seed}")
    return figure
