"""Returns of a policy over whole episodes, apart from any training data."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxpg.algorithm import LARGEST, InputError, Policy, in_32_bits, whole_number
from jaxpg.transforms import nothing


def evaluate(
    policy: Policy, env: Any, params: PyTree, key: jax.Array, num_episodes: int = 128, max_steps: int = 100_000
) -> Float[Array, " episode"]:
    """Undiscounted returns of `num_episodes` whole episodes.

    Each episode runs in an environment of its own from a fresh reset to its first end, so that short episodes do not
    count more often than long ones. Pure: `vmap` over policies or `params` evaluates many.

    Args:
      policy: `algorithm.policy(state)`; whether it is deterministic was chosen there.
      max_steps: a bound for environments that may never end; an episode that has not ended by then is NaN (-inf with
        `jax_debug_nans`).

    Raises:
      InputError: `num_episodes` or `max_steps` is no positive whole number, or too large.
    """
    num_episodes = whole_number("num_episodes", num_episodes, 1, LARGEST)
    max_steps = whole_number("max_steps", max_steps, 1, LARGEST)
    try:
        return _evaluate(policy, env, params, key, num_episodes, max_steps)
    except OverflowError as error:
        raise InputError(f"num_episodes = {num_episodes} make arrays of more rows than 32 bits can number") from error


@partial(jax.jit, static_argnums=(1, 4, 5))
@in_32_bits
def _evaluate(
    policy: Policy, env: Any, params: PyTree, key: jax.Array, num_episodes: int, max_steps: int
) -> Float[Array, " episode"]:
    reset_key, step_key = jax.random.split(key)
    observation, env_state = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, num_episodes), params)
    carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_episodes, *jnp.shape(x))), policy.initial_carry)

    def act_and_step(key: jax.Array, observation: PyTree, env_state: PyTree, carry: PyTree) -> tuple:
        act_key, env_key = jax.random.split(key)
        action, carry = policy.act(policy.params, act_key, observation, carry)
        observation, env_state, reward, terminated, truncated, _ = env.step(env_key, env_state, action, params)
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        return observation, env_state, carry, reward, jnp.asarray(terminated, bool) | jnp.asarray(truncated, bool)

    def unfinished(loop: tuple) -> Array:
        step, *_, ended = loop
        return (step < max_steps) & ~ended.all()

    def body(loop: tuple) -> tuple:
        step, observation, env_state, carry, returns, ended = loop
        keys = jax.random.split(jax.random.fold_in(step_key, step), num_episodes)
        observation, env_state, carry, reward, done = jax.vmap(act_and_step)(keys, observation, env_state, carry)
        return step + 1, observation, env_state, carry, returns + jnp.where(ended, 0.0, reward), ended | done

    start = (0, observation, env_state, carry, jnp.zeros(num_episodes), jnp.zeros(num_episodes, bool))
    *_, returns, ended = jax.lax.while_loop(unfinished, body, start)
    return jnp.where(ended, returns, nothing())
