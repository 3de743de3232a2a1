"""What algorithms with a replay buffer share: acting, remembering, and gradient steps on what is remembered.

An update is `num_steps` steps of `num_envs` environments, then `gradient_steps` gradient steps: the replay ratio is
gradient_steps / (num_steps * num_envs). Observations are stored as they came and normalised when they are read; continuous
actions are stored, and seen by critics, scaled to [-1, 1]. Before `learning_starts`, metrics of learning are zero.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

from jaxpg.algorithm import LONGEST, Algorithm, InputError, Metrics, Policy, Scalar, hyperparameter, static
from jaxpg.counting import fraction, has_reached, increment, init_count
from jaxpg.errors import name_of
from jaxpg.normalization import RunningStatistics, init_statistics, normalize, update_statistics
from jaxpg.replay import Buffer, Sample, Step, add, init_buffer, reprioritize, sample
from jaxpg.rollout import RolloutState, episode_metrics, existing_successors, init_rollout, nonfinite_metrics, rollout
from jaxpg.spaces import (
    action_decoder,
    box_bounds,
    choices,
    observation_encoder,
    observation_size,
    require_box_actions,
)
from jaxpg.transforms import any_in_batch


@struct.dataclass
class OffPolicyConfig:
    """Hyperparameters of every algorithm with a replay buffer."""

    total_steps: int = static(
        100_000, "environment steps of the whole run, the random ones at its start included", high=LONGEST
    )
    num_envs: int = static(1, "environments stepped side by side")
    num_steps: int = static(1, "steps per environment and update")
    gradient_steps: int = static(1, "gradient steps per update, after its environment steps")
    batch_size: int = static(256, "remembered steps per gradient step")
    buffer_size: int = static(1_000_000, "steps that are remembered, the newest ones; never more than total_steps")
    learning_starts: int = static(1_000, "environment steps before the first gradient step", low=0, high=LONGEST)
    initial_actions: Literal["uniform", "policy"] = static(
        "uniform", "actions until learning_starts: uniform, or those with which the untrained policy explores"
    )
    n_step: int = static(1, "rewards that a target sums before it trusts the value")
    hidden_sizes: tuple[int, ...] = static((256, 256), "hidden layers of every network")
    activation: Literal["tanh", "relu", "swish"] = static("relu", "activation of the hidden layers", needs={"hidden_sizes": ()})
    layer_norm: bool = static(False, "normalise the critics' hidden layers: for high replay ratios", needs={"hidden_sizes": ()})
    normalize_observations: bool = static(False, "divide observations by their running standard deviation")
    learning_rate: Scalar = hyperparameter(3e-4, "step size of every optimiser", low=0)
    discount: Scalar = hyperparameter(0.99, "gamma", low=0, high=1)
    reward_scale: Scalar = hyperparameter(1.0, "factor of rewards when they are learned from")
    target_ema_rate: Scalar = hyperparameter(
        0.005, "how far the target networks move towards the learning ones at a gradient step", low=0, high=1
    )


class OffPolicyState(NamedTuple):
    """The whole state of a run; `updates` have been made."""

    key: jax.Array
    learner: PyTree
    observation_statistics: RunningStatistics
    rollout: RolloutState
    buffer: Buffer
    updates: Int[Array, "*digit"]


class Parts(NamedTuple):
    """An off-policy algorithm; `features` are encoded, normalised observations, in `Sample`s too.

    Attributes:
      init: `key -> learner`.
      explore: `(key, learner, features (env, feature), carry (env, ...), progress) -> (actions (env, ...), carry)`: actions
        as they are stored; progress runs from 0 to 1 with the run.
      learn: `(key, learner, sample, progress) -> (learner, errors (batch,), metrics)`, one gradient step; the errors' size
        becomes the priority. Where an episode terminated, the sample's `next_observation` is its last observation again.
      act: `(params, key, features (feature,), carry, deterministic) -> (action, carry)`, the trained policy.
      policy_params: `learner -> params` that `act` reads.
      initial_carry: memory at the start of an episode.
    """

    init: Callable[[jax.Array], PyTree]
    explore: Callable[..., tuple[Array, PyTree]]
    learn: Callable[[jax.Array, PyTree, Sample, Float[Array, ""]], tuple[PyTree, Float[Array, " batch"], Metrics]]
    act: Callable[..., tuple[Array, PyTree]]
    policy_params: Callable[[PyTree], PyTree]
    initial_carry: PyTree = ()


class Actions(NamedTuple):
    """An action space as the buffer has it.

    Attributes:
      size: the number of discrete actions, or of an action's components.
      to_env: stored actions, of any leading axes, as the environment takes them.
      random: `(key, number) -> actions`, uniform.
    """

    size: int
    to_env: Callable[[Array], Array]
    random: Callable[[jax.Array, int], Array]


def discrete_actions(name: str, env: Any, env_params: PyTree) -> Actions:
    """Actions that are one of n, stored as 0, ..., n - 1.

    Raises:
      InputError: the environment has others.
    """
    space = env.action_space(env_params)
    numbers = choices(space)
    if numbers is None or numbers.ndim > 0:
        raise InputError(
            f"{name} needs discrete actions, but {name_of(env)} has {space}: choose a discrete environment "
            "(CartPole-v1, Breakout-MinAtar, ...) or an algorithm for others: sac, td3 (continuous), ppo (also several at once)"
        )
    number = int(numbers)
    return Actions(number, action_decoder(env, env_params), lambda key, n: jax.random.randint(key, (n,), 0, number))


def bounded_actions(name: str, env: Any, env_params: PyTree) -> Actions:
    """Vectors within bounds, stored scaled to [-1, 1].

    Raises:
      InputError: the environment has others.
    """
    space = require_box_actions(name, env, env_params)
    to_env = action_decoder(env, env_params)
    if any(isinstance(bound, np.ndarray) and not np.isfinite(bound).all() for bound in box_bounds(space)):
        raise InputError(f"{name} needs actions within finite bounds, but {name_of(env)} has {space}; ppo does not")
    size = math.prod(space.shape)
    random = lambda key, n: jax.random.uniform(key, (n, size), minval=-1.0, maxval=1.0)
    return Actions(size, to_env, random)


def correlated_noise(
    key: jax.Array, noise: Float[Array, "*batch action"], correlation: Scalar
) -> Float[Array, "*batch action"]:
    """The step after `noise` of an Ornstein-Uhlenbeck process of unit variance, where an episode starts with zeros."""
    return correlation * noise + jnp.sqrt(1.0 - jnp.square(correlation)) * jax.random.normal(key, noise.shape)


def adam(config: OffPolicyConfig) -> optax.GradientTransformation:
    """Adam on one long vector: one kernel, not one for every parameter."""
    return optax.flatten(optax.adam(config.learning_rate))


def move_towards(target: PyTree, params: PyTree, rate: Scalar) -> PyTree:
    """An exponential moving average's next value: target + rate * (params - target)."""
    return optax.incremental_update(params, target, rate)


def as_algorithm(
    config: OffPolicyConfig,
    parts: Parts,
    env: Any,
    env_params: PyTree,
    actions: Actions,
    exponents: tuple[Scalar, Scalar] | None = None,
) -> Algorithm:
    """An update is: act, remember, learn.

    Args:
      exponents: with them, steps are sampled in proportion to their errors: of the priorities, and of the weights that
      correct for
        them, which rises from this to 1 with the run (alpha and beta of Schaul et al. 2016, arXiv 1511.05952).

    Raises:
      InputError: the buffer is too small for what is written or sampled at once.
    """
    steps_per_update = config.num_envs * config.num_steps
    capacity = min(config.buffer_size, config.total_steps)
    needed = config.num_envs * (config.num_steps + config.n_step)
    if capacity < needed:
        raise InputError(
            f"a buffer of {capacity} steps, the smaller of buffer_size and total_steps, must hold at least {needed}: "
            f"num_envs * (num_steps + n_step) = {config.num_envs} * ({config.num_steps} + {config.n_step})"
        )
    num_updates = math.ceil(config.total_steps / steps_per_update)
    # In updates: environment steps may be too many to be counted.
    random_updates = math.ceil(config.learning_starts / steps_per_update)
    first_learning = math.ceil(max(config.learning_starts, config.num_envs * config.n_step) / steps_per_update)
    policy_delay = getattr(config, "policy_delay", 1)
    learns_from = max(first_learning, 1) + math.ceil(policy_delay / config.gradient_steps) - 1
    encode = observation_encoder(env, env_params)

    def features_of(statistics: RunningStatistics, observation: PyTree) -> Float[Array, "*batch feature"]:
        features = encode(observation)
        return normalize(statistics, features) if config.normalize_observations else features

    def init(key: jax.Array) -> OffPolicyState:
        key, learner_key, env_key = jax.random.split(key, 3)
        start = init_rollout(env_key, env, env_params, config.num_envs, initial_carry=parts.initial_carry)
        action = jax.eval_shape(lambda key: actions.random(key, config.num_envs), key)
        reward, flag = (jax.ShapeDtypeStruct((config.num_envs,), dtype) for dtype in (jnp.float32, bool))
        example = Step(start.observation, action, reward, flag, flag, start.observation)
        buffer = init_buffer(example, capacity, config.num_steps, exponents is not None)
        statistics = init_statistics((observation_size(env, env_params),))
        return OffPolicyState(key, parts.init(learner_key), statistics, start, buffer, init_count(num_updates))

    def update(state: OffPolicyState) -> tuple[OffPolicyState, Metrics]:
        key, act_key, learn_key = jax.random.split(state.key, 3)
        progress = fraction(state.updates, num_updates)
        at_random = ~has_reached(state.updates, random_updates)
        updates = increment(state.updates)

        def act(key: jax.Array, observation: PyTree, carry: PyTree) -> tuple[Array, Array, PyTree]:
            explore_key, random_key = jax.random.split(key)
            features = features_of(state.observation_statistics, observation)
            action, carry = parts.explore(explore_key, state.learner, features, carry, progress)
            if config.initial_actions == "uniform":
                action = jnp.where(at_random, actions.random(random_key, config.num_envs), action)
            return actions.to_env(action), action, carry

        rollout_state, t = rollout(
            act_key, act, env, env_params, state.rollout, config.num_steps, initial_carry=parts.initial_carry
        )
        steps = Step(t.observation, t.extras, t.reward, t.terminated, t.truncated, t.next_observation)
        buffer = add(state.buffer, steps, config.n_step)
        statistics = state.observation_statistics
        if config.normalize_observations:
            statistics = update_statistics(statistics, encode(t.observation))

        def gradient_step(carry: tuple[PyTree, PyTree], key: jax.Array) -> tuple[tuple[PyTree, PyTree], Metrics]:
            learner, priorities = carry
            sample_key, learn_key = jax.random.split(key)
            memory = buffer._replace(priorities=priorities)
            beta = exponents[1] + progress * (1.0 - exponents[1]) if exponents else 1.0
            drawn = sample(sample_key, memory, config.batch_size, config.discount, config.n_step, beta)
            following = existing_successors(drawn.next_observation, drawn.observation, drawn.bootstrap == 0)
            batch = drawn._replace(
                observation=features_of(statistics, drawn.observation),
                next_observation=features_of(statistics, following),
                reward=config.reward_scale * drawn.reward,
            )
            learner, errors, metrics = parts.learn(learn_key, learner, batch, progress)
            if exponents:
                sizes = (jnp.abs(errors) + 1e-6) ** exponents[0]
                priorities = reprioritize(memory, drawn, sizes).priorities
            return (learner, priorities), metrics

        def learn() -> tuple[PyTree, PyTree, Metrics]:
            keys = jax.random.split(learn_key, config.gradient_steps)
            (learner, priorities), metrics = jax.lax.scan(gradient_step, (state.learner, buffer.priorities), keys)
            return learner, priorities, jax.tree.map(lambda x: x.mean(0), metrics)

        def wait() -> tuple[PyTree, PyTree, Metrics]:
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(learn)[2])
            return state.learner, buffer.priorities, zeros

        enough = has_reached(updates, first_learning)
        learner, priorities, metrics = jax.lax.cond(any_in_batch(enough), learn, wait)
        buffer = buffer._replace(priorities=priorities)
        new = OffPolicyState(key, learner, statistics, rollout_state, buffer, updates)
        return new, metrics | episode_metrics(rollout_state.episodes) | nonfinite_metrics(t)

    def act(deterministic: bool) -> Callable[..., tuple[Array, PyTree]]:
        def act(params: PyTree, key: jax.Array, observation: PyTree, carry: PyTree) -> tuple[Array, PyTree]:
            policy_params, statistics = params
            features = features_of(statistics, observation)
            action, carry = parts.act(policy_params, key, features, carry, deterministic)
            return actions.to_env(action), carry

        return act

    acts = {True: act(True), False: act(False)}  # one function object each, so that compiled evaluations are found again

    def policy(state: OffPolicyState, deterministic: bool = True) -> Policy:
        params = (parts.policy_params(state.learner), state.observation_statistics)
        return Policy(params, acts[deterministic], parts.initial_carry)

    delay = f", policy_delay = {policy_delay}" if policy_delay > 1 else ""
    until_then = f"the policy learns nothing (learning_starts = {config.learning_starts}, n_step = {config.n_step}{delay})"
    return Algorithm(init, update, policy, config, steps_per_update, num_updates, learns_from, until_then)
