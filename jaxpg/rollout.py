"""Interaction with a batch of environments, compiled as one scan."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxpg.algorithm import Metrics
from jaxpg.networks import restart
from jaxpg.transforms import mean_of


class Transition(NamedTuple):
    """What happened, time leading, then environment.

    `next_observation` is the true successor: at an episode's end the final observation, never that of the reset state.
    `extras` is whatever the acting function returned beside the action, such as `log_prob`.
    """

    observation: PyTree[Array, "Observation"]
    action: PyTree[Array]
    reward: Float[Array, "*time env"]
    terminated: Bool[Array, "*time env"]
    truncated: Bool[Array, "*time env"]
    next_observation: PyTree[Array, "Observation"]
    extras: PyTree[Array]

    @property
    def done(self) -> Bool[Array, "*time env"]:
        """Whether the episode ended with this step, for either reason."""
        return self.terminated | self.truncated


class EpisodeStatistics(NamedTuple):
    """The running episode of each environment, and sums over the episodes completed in the current rollout."""

    running_return: Float[Array, " env"]
    running_length: Int[Array, " env"]
    completed: Float[Array, ""]
    return_sum: Float[Array, ""]
    length_sum: Float[Array, ""]


class RolloutState(NamedTuple):
    """Where the environments stand between two rollouts; `carry` is the acting policy's memory, `()` if it has none."""

    env_state: PyTree
    observation: PyTree
    episodes: EpisodeStatistics
    carry: PyTree = ()


def existing_successors(
    next_observation: PyTree[Array], observation: PyTree[Array], terminated: Bool[Array, "*step"]
) -> PyTree[Array]:
    """`next_observation`, but `observation` where the episode terminated.

    Behind a termination is no state, and what a simulator reports there may be NaN. Its value counts with a factor of 0, but 0
    times NaN is NaN, forwards and, through the network, backwards: it must not be computed from the report.
    """

    def choose(next_leaf: Array, leaf: Array) -> Array:
        return jnp.where(terminated.reshape(*terminated.shape, *(1,) * (leaf.ndim - terminated.ndim)), leaf, next_leaf)

    return jax.tree.map(choose, next_observation, observation)


def init_rollout(
    key: jax.Array, env: Any, params: PyTree, num_envs: int, params_axis: int | None = None, initial_carry: PyTree = ()
) -> RolloutState:
    """Resets `num_envs` environments; `params_axis=0` gives each its own row of `params`."""
    reset = jax.vmap(env.reset, in_axes=(0, params_axis))
    observation, env_state = reset(jax.random.split(key, num_envs), params)
    zeros, zero = jnp.zeros(num_envs), jnp.float32(0)
    episodes = EpisodeStatistics(zeros, jnp.zeros(num_envs, jnp.int32), zero, zero, zero)
    carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_envs, *jnp.shape(x))), initial_carry)
    return RolloutState(env_state, observation, episodes, carry)


def rollout(
    key: jax.Array,
    act: Callable[[jax.Array, PyTree, PyTree], tuple[PyTree, PyTree, PyTree]],
    env: Any,
    params: PyTree,
    state: RolloutState,
    num_steps: int,
    params_axis: int | None = None,
    initial_carry: PyTree = (),
) -> tuple[RolloutState, Transition]:
    """Acts for `num_steps` steps in every environment.

    Args:
      act: `(key, observations (env, ...), carry (env, ...)) -> (actions (env, ...), extras, carry)`.
      env: an environment with the interface of gymnax 1.0 (automatic reset, `info["final_observation"]`).
      params: one environment's parameters, or a batch of them with `params_axis=0`.
      state: from `init_rollout` or the previous rollout.
      initial_carry: what the carry of one environment is set back to where an episode ended.

    Returns:
      The new state and the transitions with axes (time, env, ...). Gradients do not flow through the environment.
    """
    num_envs = state.episodes.running_return.shape[0]
    step_envs = jax.vmap(env.step, in_axes=(0, 0, 0, params_axis))

    def step(state: RolloutState, keys: jax.Array) -> tuple[RolloutState, Transition]:
        act_key, env_keys = keys[0], keys[1:]
        action, extras, carry = act(act_key, state.observation, state.carry)
        observation, env_state, reward, terminated, truncated, info = step_envs(
            env_keys, state.env_state, jax.lax.stop_gradient(action), params
        )
        reward = jnp.asarray(reward, jnp.float32).reshape(num_envs)
        terminated, truncated = jnp.asarray(terminated, bool), jnp.asarray(truncated, bool)
        transition = Transition(state.observation, action, reward, terminated, truncated, info["final_observation"], extras)
        episodes = _count(state.episodes, reward, transition.done)
        carry = restart(carry, transition.done, initial_carry)
        return RolloutState(env_state, observation, episodes, carry), transition

    zero = jnp.float32(0)
    state = state._replace(episodes=state.episodes._replace(completed=zero, return_sum=zero, length_sum=zero))
    # All keys at once: few environments cost less than the calls that would split keys within the loop.
    return jax.lax.scan(step, state, jax.random.split(key, (num_steps, 1 + num_envs)))


def _count(episodes: EpisodeStatistics, reward: Float[Array, " env"], done: Bool[Array, " env"]) -> EpisodeStatistics:
    running_return = episodes.running_return + reward
    running_length = optax.safe_increment(episodes.running_length)
    return EpisodeStatistics(
        running_return=jnp.where(done, 0.0, running_return),
        running_length=jnp.where(done, 0, running_length),
        completed=episodes.completed + done.sum(),
        return_sum=episodes.return_sum + jnp.where(done, running_return, 0.0).sum(),
        length_sum=episodes.length_sum + jnp.where(done, running_length, 0).sum(),
    )


def episode_metrics(episodes: EpisodeStatistics) -> Metrics:
    """`episodes` completed in the last rollout and the means of their returns and lengths; if none were, `nothing()`: NaN."""
    return {
        "episodes": episodes.completed,
        "episode_return": mean_of(episodes.return_sum, episodes.completed),
        "episode_length": mean_of(episodes.length_sum, episodes.completed),
    }


def nonfinite_metrics(*rollouts: Transition) -> Metrics:
    """How many numbers that are none, NaN or infinite, an update collected: a run with any must stop before they are saved.

    `nonfinite_rewards` counts rewards, `nonfinite_observations` the steps that were taken from such an observation or led to
    one, each once. What is reported behind a termination does not count (see `existing_successors`).
    """

    def are_finite(t: Transition) -> Bool[Array, "*time env"]:
        seen = t.observation, existing_successors(t.next_observation, t.observation, t.terminated)
        of_leaf = lambda x: jnp.isfinite(x).all(axis=tuple(range(t.reward.ndim, x.ndim)))
        return functools.reduce(jnp.logical_and, map(of_leaf, jax.tree.leaves(seen)))

    number = lambda flags: sum(((~x).sum(dtype=jnp.float32) for x in flags), start=jnp.float32(0))
    return {
        "nonfinite_rewards": number(jnp.isfinite(t.reward) for t in rollouts),
        "nonfinite_observations": number(map(are_finite, rollouts)),
    }
