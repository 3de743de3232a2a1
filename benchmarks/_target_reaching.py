"""Mixtures of experts on target reaching: success while they learn, what each expert does alone, robustness to noise.

They learn half of their time on a new layout in every episode, the other half on the fixed one, and are tried on both all the
while. Noise that lasts explores, from the first step on; the temperature starts at 0.1, because at 1 the entropy bonus alone is
worth more than arriving. Episodes are cut after 1,000 steps, and success is the environment's flag: a return can be had by
loitering too. A disc costs 10 on the fixed layout as well: where it costs 100, who comes from new layouts learns to loiter.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from matplotlib.patches import Circle

import jaxpg
import jaxpg_envs
from jaxpg.experiment.plots import COLOURS, INK, Picture, plain_axes
from jaxpg.networks import Experts
from jaxpg.training import advance

PIECES = 20  # of training; on new layouts in the first half
EPISODES = 64
STARTS = 64
LIMIT = 1_000
ARRIVAL = 100.0  # what the step to the target earns, and no other
EXPLORATION = {"initial_actions": "policy", "noise_correlation": 0.9, "initial_temperature": 0.1}
NOISES = (0.0, 0.05, 0.1, 0.2)


class Outcome(NamedTuple):
    """Of each seed, after each piece of training: the rate of success on the fixed layout and on new ones, and the steps in the
    buffer that arrive at a target. Then: the former before training; the rate of success on the fixed layout with noise in what
    is observed; the final parameters."""

    success: Float[np.ndarray, "seed piece 2"]
    arrivals: Int[np.ndarray, "seed piece"]
    initial_success: Float[np.ndarray, "seed 2"]
    noisy_success: Float[np.ndarray, "seed noise"]
    actors: Any


class Paths(NamedTuple):
    """Where each expert's mean alone goes from starts that differ a little, and whether it arrives; after its end a path stays
    where it ended."""

    positions: Float[np.ndarray, "seed expert start time 2"]
    arrived: Bool[np.ndarray, "seed expert start"]


class Success:
    """An environment that pays 1 for success and nothing for all else, so that a mean return is a rate of success."""

    def __init__(self, env: Any) -> None:
        self._env, self.reset = env, env.reset

    def step(self, *arguments: Any) -> tuple:
        """As the environment's, but for the reward."""
        observation, state, _, terminated, truncated, info = self._env.step(*arguments)
        return observation, state, info["success"].astype(jnp.float32), terminated, truncated, info


def make(anew: Bool[Array, ""] | bool, **fields: Any) -> tuple[Any, Any]:
    """The environment with new layouts or the fixed one; touching a disc costs 10 in both."""
    env, params = jaxpg_envs.make("RandomTargetReaching-v0")
    return env, params.replace(random=anew, max_steps_in_episode=LIMIT, **fields)


def learn(hyperparameters: dict[str, Any], num_seeds: int) -> Outcome:
    """Trains `pmoe_sac`, or the `algorithm` named with the hyperparameters.

    Success is that of the deterministic policy: the mean of an expert drawn by weight.
    """
    fields = {"algorithm": "pmoe_sac", **EXPLORATION, **hyperparameters}
    name = fields.pop("algorithm")
    agent_on = lambda anew: jaxpg.make(name, *make(anew), **fields)

    @partial(jax.jit, donate_argnums=0)
    @partial(jax.vmap, in_axes=(0, None))
    def train(state: Any, anew: Array) -> tuple[Any, Int[Array, ""]]:
        """A piece, and the arrivals in the buffer after it."""
        agent = agent_on(anew)
        state, _ = advance(agent.update, state, agent.num_updates // PIECES)
        return state, (state.buffer.steps.reward == ARRIVAL).sum()

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, None, None))
    def success(state: Any, key: jax.Array, anew: Array, deviation: Array) -> Float[Array, ""]:
        """With normal noise of a standard deviation in what is observed."""

        def act(params: Any, key: jax.Array, observation: Array, carry: Any) -> tuple[Array, Any]:
            policy_params, deviation = params
            act_key, noise_key = jax.random.split(key)
            seen = observation + deviation * jax.random.normal(noise_key, observation.shape)
            return policy.act(policy_params, act_key, seen, carry)

        env, params = make(anew)
        policy = agent_on(anew).policy(state)
        noisy = policy.replace(params=(policy.params, deviation), act=act)
        return jaxpg.evaluate(noisy, Success(env), params, key, EPISODES).mean()

    keys = jax.random.split(jax.random.key(0), (2, num_seeds))
    on_both = lambda state: np.stack([success(state, keys[1], anew, 0.0) for anew in (False, True)], axis=-1)
    state = jax.jit(jax.vmap(agent_on(True).init))(keys[0])
    initial_success, curve, arrivals = on_both(state), [], []
    for number in range(PIECES):
        state, arrived = train(state, 2 * number < PIECES)
        curve.append(on_both(state))
        arrivals.append(np.asarray(arrived))
    noisy = [success(state, keys[1], False, deviation) for deviation in NOISES]
    actors = jax.device_get(state.learner.actor)
    return Outcome(np.stack(curve, 1), np.stack(arrivals, 1), initial_success, np.stack(noisy, 1), actors)


def paths(actors: Any, num_experts: int, hidden_sizes: tuple[int, ...]) -> Paths:
    """Every expert of every seed on the fixed layout."""
    env, params = make(anew=False, start_noise=0.05)
    network = Experts(num_experts, 2, hidden_sizes)

    def path(actor: Any, expert: Array, key: jax.Array) -> tuple[Float[Array, "time 2"], Bool[Array, ""]]:
        observation, state = env.reset(key, params)

        def step(carry: tuple, key: jax.Array) -> tuple[tuple, Array]:
            observation, state, position, ended, arrived = carry
            action = jnp.tanh(network.apply(actor, observation)[1][expert])
            observation, state, _, terminated, truncated, info = env.step(key, state, action, params)
            position = jnp.where(ended, position, 5.0 * info["final_observation"][:2])
            arrived |= ~ended & info["success"]
            return (observation, state, position, ended | terminated | truncated, arrived), position

        start = (observation, state, 5.0 * observation[:2], jnp.bool_(False), jnp.bool_(False))
        (*_, arrived), positions = jax.lax.scan(step, start, jax.random.split(key, LIMIT))
        return positions, arrived

    over_starts = jax.vmap(path, (None, None, 0))
    over_experts = jax.vmap(over_starts, (None, 0, None))
    all_of_them = jax.jit(jax.vmap(over_experts, (0, None, None)))
    keys = jax.random.split(jax.random.key(1), STARTS)
    return Paths(*jax.device_get(all_of_them(actors, jnp.arange(num_experts), keys)))


def way(position: Float[np.ndarray, "time 2"]) -> tuple[int, ...]:
    """Round which side of each disc a path goes: how many whole turns it makes about the centre, rounded down.

    Of paths from start to target, those that can be deformed into each other without crossing a disc have the same numbers; to
    the left of a disc there is one turn less than to the right.
    """
    centres = np.asarray(make(anew=False)[1].centres)
    across = position[:, None] - centres
    angles = np.unwrap(np.arctan2(across[..., 1], across[..., 0]), axis=0)
    return tuple(int(turns) for turns in np.floor((angles[-1] - angles[0]) / (2 * np.pi)))


def primitives(found: Paths) -> dict[str, Any]:
    """What the experts of each seed that arrive do, who do so from at least half of the starts.

    `ways` counts the different ways of `way`, an expert's being that of most of its paths that arrive. Apart: the distance
    between two such experts' mean paths, averaged over time and pairs; spread: the distance of a path that arrives from its
    expert's mean. Both are None where fewer than two arrive.
    """
    rows: dict[str, list[Any]] = {"arriving experts": [], "ways": [], "apart": [], "spread": []}
    for positions, arrived in zip(found.positions, found.arrived, strict=True):
        able = [of_starts[ends] for of_starts, ends in zip(positions, arrived, strict=True) if ends.mean() >= 0.5]
        ways = [[way(path) for path in of_starts] for of_starts in able]
        means = [of_starts.mean(0) for of_starts in able]
        pairs = zip(*np.triu_indices(len(able), 1), strict=True)
        distance = lambda path, other: np.linalg.norm(path - other, axis=-1).mean()
        spreads = [distance(of_starts, mean) for of_starts, mean in zip(able, means, strict=True)]
        rows["arriving experts"].append(len(able))
        rows["ways"].append(len({max(set(of_expert), key=of_expert.count) for of_expert in ways}))
        rows["apart"].append(float(np.mean([distance(means[i], means[j]) for i, j in pairs])) if len(able) > 1 else None)
        rows["spread"].append(float(np.mean(spreads)) if len(able) > 1 else None)
    return rows


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


def picture(outcomes: dict[str, Outcome], found: dict[str, Paths], steps: int) -> Picture:
    """Success and arrivals while learning (means over seeds), and the experts' paths of some seeds."""
    shown = [(label, seed) for label, of_label in found.items() for seed in range(min(3, len(of_label.arrived)))]
    figure = Picture(figsize=(9, 3.2 + 2.7 * -(-len(shown) // 3)), layout="constrained")
    grid = figure.add_gridspec(1 + -(-len(shown) // 3), 6)
    at = np.linspace(steps / PIECES, steps, PIECES) / 1_000
    panels = {
        "success, fixed layout": lambda outcome: outcome.success[..., 0],
        "success, new layouts": lambda outcome: outcome.success[..., 1],
        "arrivals in the buffer": lambda outcome: outcome.arrivals,
    }
    for place, (title, curve_of) in enumerate(panels.items()):
        axes = figure.add_subplot(grid[0, 2 * place : 2 * place + 2])
        plain_axes(axes)
        for index, (label, outcome) in enumerate(outcomes.items()):
            again, colour = divmod(index, len(COLOURS))
            curve = curve_of(outcome).mean(0)
            axes.plot(at, curve, label=label, color=COLOURS[colour], linestyle="--" if again else "-")
        axes.axvline(at[-1] / 2, color=INK, linewidth=0.8, linestyle=":")  # where the fixed layout begins
        axes.set_xlabel("thousand environment steps")
        axes.set_title(title, loc="left", fontsize=9)
    axes.legend(fontsize=6, frameon=False)
    for place, (label, seed) in enumerate(shown):
        cell = figure.add_subplot(grid[1 + place // 3, 2 * (place % 3) : 2 * (place % 3) + 2])
        draw(cell, found[label].positions[seed], f"{label}, seed {seed}")
    return figure
