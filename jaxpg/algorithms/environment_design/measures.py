"""What a policy and a distribution of levels are worth: transfer to other levels, drift from the training set, memorisation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from jaxpg.algorithm import InputError, Policy
from jaxpg.evaluation import evaluate
from jaxpg.gradient_descent import descend
from jaxpg_envs.levels import Level, level_statistics


def returns_on_levels(
    policy: Policy, env: Any, params: PyTree, levels: PyTree, key: jax.Array, num_episodes: int = 4
) -> Float[Array, "level episode"]:
    """Returns of whole episodes on every level of a set; their mean is the zero-shot score, the share above 0 the solved rate.

    Pure: `vmap` it over policies.

    Args:
      params: whose level is replaced.
      levels: stacked.
      num_episodes: on every level, with a first state drawn anew; from a few only a set's mean is precise.
    """
    keys = jax.random.split(key, jax.tree.leaves(levels)[0].shape[0])
    returns = lambda level, key: evaluate(policy, env, params.replace(level=level), key, num_episodes)
    return jax.vmap(returns)(levels, keys)


def statistics_of(levels: Level) -> dict[str, Float[np.ndarray, " level"]]:
    """`level_statistics` of every level of a stack."""
    return {name: np.asarray(values) for name, values in jax.jit(jax.vmap(level_statistics))(levels).items()}


def distribution_distance(
    statistics: dict[str, Float[np.ndarray, " level"]], reference: dict[str, Float[np.ndarray, " other"]]
) -> dict[str, float]:
    """Wasserstein-1 distance of each statistic to that of a reference set, in standard deviations of the reference.

    Where the reference does not vary, in the statistic's own units.
    """
    from scipy import stats  # here, because it takes a second, and every import of jaxpg would

    distance = lambda a, b: float(stats.wasserstein_distance(a, b) / (np.std(b) or 1.0))
    return {name: distance(statistics[name], reference[name]) for name in reference}


def mutual_information_probe(
    policy: Policy,
    env: Any,
    params: PyTree,
    levels: PyTree,
    key: jax.Array,
    num_steps: int = 128,
    num_gradient_steps: int = 500,
) -> dict[str, Float[Array, ""]]:
    """How well a linear classifier tells from a policy's memory on which level it is.

    The memory is recorded along two rollouts on every level; the classifier is trained on one and measured on the other. The
    less a policy knows of the level, the less it can have learned by heart.

    Args:
      policy: with a memory.
      levels: stacked.
      num_steps: of each rollout, over several episodes.

    Returns:
      `accuracy` (of a guess: 1 / number of levels), and `information`, log of the number of levels less the cross-entropy, in
      nats, an estimate of I(level; memory) from below.

    Raises:
      InputError: the policy has no memory.

    Source: Garcin et al. 2024 (arXiv 2402.03479), whose classifier reads the recurrent layer of the policy.
    """
    if not jax.tree.leaves(policy.initial_carry):
        raise InputError("the probe reads a policy's memory, but this one has none: train it with memory = gru or lstm")
    number = jax.tree.leaves(levels)[0].shape[0]
    memories = jax.vmap(lambda key: record_memories(policy, env, params, levels, key, num_steps))(jax.random.split(key))
    training, held_out = memories.reshape(2, num_steps * number, -1)
    mean, deviation = training.mean(0), training.std(0) + 1e-6
    labels = jnp.tile(jnp.arange(number), num_steps)
    optimizer = optax.adamw(1e-2, weight_decay=1e-2)

    def log_prob(weights: PyTree, features: Array) -> Array:
        return jax.nn.log_softmax((features - mean) / deviation @ weights["kernel"] + weights["bias"])

    def loss(weights: PyTree) -> Array:
        return -jnp.take_along_axis(log_prob(weights, training), labels[:, None], axis=-1).mean()

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        weights, optimizer_state = carry
        return descend(optimizer, jax.grad(loss)(weights), weights, optimizer_state), None

    weights = {"kernel": jnp.zeros((training.shape[1], number)), "bias": jnp.zeros(number)}
    (weights, _), _ = jax.lax.scan(step, (weights, optimizer.init(weights)), None, num_gradient_steps)
    found = log_prob(weights, held_out)
    return {
        "accuracy": (found.argmax(-1) == labels).mean(),
        "information": jnp.log(float(number)) + jnp.take_along_axis(found, labels[:, None], axis=-1).mean(),
    }


def record_memories(
    policy: Policy, env: Any, params: PyTree, levels: PyTree, key: jax.Array, num_steps: int
) -> Float[Array, "time level unit"]:
    """A policy's memory after each observation, along a rollout on each level."""

    def on_level(level: PyTree, key: jax.Array) -> Float[Array, "time unit"]:
        reset_key, step_key = jax.random.split(key)
        rows = params.replace(level=level)

        def step(state: tuple, key: jax.Array) -> tuple[tuple, Array]:
            observation, env_state, carry = state
            act_key, env_key = jax.random.split(key)
            action, carry = policy.act(policy.params, act_key, observation, carry)
            memory = jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(carry)])
            observation, env_state, _, terminated, truncated, _ = env.step(env_key, env_state, action, rows)
            done = terminated | truncated
            carry = jax.tree.map(lambda start, now: jnp.where(done, start, now), policy.initial_carry, carry)
            return (observation, env_state, carry), memory

        start = (*env.reset(reset_key, rows), policy.initial_carry)
        return jax.lax.scan(step, start, jax.random.split(step_key, num_steps))[1]

    keys = jax.random.split(key, jax.tree.leaves(levels)[0].shape[0])
    return jax.vmap(on_level, out_axes=1)(levels, keys)
