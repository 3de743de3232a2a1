"""Proximal policy optimisation (Schulman et al., 2017, arXiv 1707.06347).

Collect a batch with the current policy, then take several epochs of minibatch steps on a surrogate that stops paying once
the new policy has moved away from the old one. Advantages are generalised advantage estimates (Schulman et al., 2016).

Differences from the paper: separate actor and critic, value clipping, advantages normalised per minibatch, global-norm
clipping of the gradient, normalised observations and scaled rewards, after "The 37 implementation details of PPO" (Huang et
al., 2022). Unlike most implementations, an episode cut by a time limit is bootstrapped with the value of its final
observation (`time_limit`).

Collecting and learning are separate functions (`PPO.collect`, `PPO.learn`): curricula, robust control and meta-learning
train this PPO inside theirs.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, PyTree

from jaxpg import losses
from jaxpg.algorithm import Algorithm, InputError, Metrics, Policy, Scalar, hyperparameter, register, static
from jaxpg.networks import ActorCritic, categorical_actor_critic, gaussian_actor_critic
from jaxpg.normalization import (
    RewardScaling,
    RunningStatistics,
    init_reward_scaling,
    init_statistics,
    normalize,
    scale_rewards,
    update_statistics,
)
from jaxpg.rollout import RolloutState, Transition, episode_metrics, init_rollout, rollout
from jaxpg.spaces import is_discrete, observation_encoder, observation_size, require_box_actions, to_action_space


@struct.dataclass
class PPOConfig:
    """Hyperparameters; one default for discrete and continuous actions."""

    total_steps: int = static(500_000, "environment steps of the whole run: its length and the horizon of annealing")
    num_envs: int = static(16, "environments stepped side by side")
    num_steps: int = static(128, "steps per environment and update")
    num_epochs: int = static(10, "passes over the batch per update")
    num_minibatches: int = static(8, "gradient steps per pass")
    hidden_sizes: tuple[int, ...] = static((64, 64), "hidden layers of actor and critic")
    activation: Literal["tanh", "relu", "swish"] = static("tanh", "activation of the hidden layers")
    surrogate: Literal["clip", "kl"] = static("clip", "clipped ratio (eq. 7) or penalised KL (eq. 8)")
    time_limit: Literal["bootstrap", "terminal", "mask"] = static(
        "bootstrap",
        "at a time limit: use the final observation's value, treat it as an end of the task, or drop the step",
    )
    normalize_observations: bool = static(True, "divide observations by their running standard deviation")
    normalize_rewards: bool = static(True, "divide rewards by the running standard deviation of returns")
    anneal_learning_rate: bool = static(True, "let the learning rate fall linearly to zero over total_steps")
    learning_rate: Scalar = hyperparameter(3e-4, "step size of Adam", low=0)
    discount: Scalar = hyperparameter(0.99, "gamma", low=0, high=1)
    gae_lambda: Scalar = hyperparameter(0.95, "lambda of the advantage estimates", low=0, high=1)
    clip_epsilon: Scalar = hyperparameter(0.2, "how far ratio and value may move within an update", low=0)
    kl_coefficient: Scalar = hyperparameter(1.0, "weight of the KL penalty (surrogate kl)", low=0)
    entropy_coefficient: Scalar = hyperparameter(0.0, "weight of the entropy bonus", low=0)
    value_coefficient: Scalar = hyperparameter(0.5, "weight of the value loss", low=0)
    max_gradient_norm: Scalar = hyperparameter(0.5, "gradients are scaled down to this global norm", low=0)


class Learner(NamedTuple):
    """What learning changes."""

    params: PyTree
    optimizer_state: PyTree
    observation_statistics: RunningStatistics
    reward_scaling: RewardScaling


class PPOState(NamedTuple):
    """The whole state of a run."""

    key: jax.Array
    learner: Learner
    rollout: RolloutState


class Behaviour(NamedTuple):
    """Of each step: the action as sampled, before it was clipped to the action space, and its log-probability."""

    action: Array
    log_prob: Float[Array, "*batch"]


class Batch(NamedTuple):
    """What the loss reads, one leading axis."""

    features: Float[Array, "sample feature"]
    action: Array
    log_prob: Float[Array, " sample"]
    value: Float[Array, " sample"]
    advantage: Float[Array, " sample"]
    target: Float[Array, " sample"]


class PPO(NamedTuple):
    """The parts of the algorithm.

    Attributes:
      init: `key -> learner`.
      collect: `(key, learner, rollout_state, env_params, params_axis=None) -> (rollout_state, transitions)`; with
        `params_axis=0`, every environment has a row of `env_params`.
      learn: `(key, learner, transitions) -> (learner, metrics)`.
      policy: `(learner, deterministic=True) -> Policy`.
    """

    init: Callable[[jax.Array], Learner]
    collect: Callable[..., tuple[RolloutState, Transition]]
    learn: Callable[[jax.Array, Learner, Transition], tuple[Learner, Metrics]]
    policy: Callable[..., Policy]


AuxiliaryLoss = Callable[[PyTree, Batch, jax.Array], tuple[Float[Array, ""], Metrics]]


def no_auxiliary_loss(params: PyTree, batch: Batch, key: jax.Array) -> tuple[Float[Array, ""], Metrics]:
    """Plain PPO."""
    return jnp.float32(0), {}


def make_parts(
    config: PPOConfig,
    env: Any,
    env_params: PyTree,
    network: ActorCritic,
    auxiliary_loss: AuxiliaryLoss = no_auxiliary_loss,
    best_action: Callable[[Any, jax.Array], Array] = lambda distribution, key: distribution.mode(),
) -> PPO:
    """PPO around any actor-critic.

    Args:
      auxiliary_loss: `(params, batch, key) -> (loss, metrics)`, added to the loss of every minibatch.
      best_action: `(distribution, key) -> action` of the deterministic policy.

    Raises:
      InputError: `num_envs * num_steps` does not divide into `num_minibatches`.
    """
    batch_size = config.num_envs * config.num_steps
    if batch_size % config.num_minibatches:
        raise InputError(
            f"a batch of num_envs * num_steps = {config.num_envs} * {config.num_steps} = {batch_size} steps does not divide "
            f"into num_minibatches = {config.num_minibatches}; the nearest that does is "
            f"{_nearest_divisor(batch_size, config.num_minibatches)}"
        )
    action_space = env.action_space(env_params)
    encode = observation_encoder(env, env_params)
    num_updates = math.ceil(config.total_steps / batch_size)

    def learning_rate(gradient_steps: Array) -> Array:
        update = gradient_steps // (config.num_epochs * config.num_minibatches)
        return config.learning_rate * jnp.maximum(1.0 - update / num_updates, 0.0)

    # eps_root is far below what changes a step, but without it the derivative of training through a parameter whose
    # gradient is zero (a silent rectified unit) would be NaN.
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.max_gradient_norm),
        optax.adam(learning_rate if config.anneal_learning_rate else config.learning_rate, eps=1e-5, eps_root=1e-16),
    )

    def init(key: jax.Array) -> Learner:
        params = network.init(key)
        statistics = init_statistics((observation_size(env, env_params),))
        return Learner(params, optimizer.init(params), statistics, init_reward_scaling(config.num_envs))

    def features_of(statistics: RunningStatistics, observation: Array) -> Float[Array, "*batch feature"]:
        features = encode(observation)
        return normalize(statistics, features) if config.normalize_observations else features

    def collect(
        key: jax.Array, learner: Learner, state: RolloutState, env_params: PyTree, params_axis: int | None = None
    ) -> tuple[RolloutState, Transition]:
        def act(key: jax.Array, observation: Array) -> tuple[Array, Behaviour]:
            features = features_of(learner.observation_statistics, observation)
            distribution = network.distribution(learner.params, features)
            action = jax.lax.stop_gradient(distribution.sample(seed=key))  # data, also to a meta-gradient
            return to_action_space(action_space, action), Behaviour(action, distribution.log_prob(action))

        return rollout(key, act, env, env_params, state, config.num_steps, params_axis)

    def estimate_advantages(learner: Learner, transitions: Transition) -> tuple[Learner, Batch]:
        rewards, terminated = transitions.reward, transitions.terminated
        scaling = learner.reward_scaling
        if config.normalize_rewards:
            scaling, rewards = scale_rewards(scaling, rewards, transitions.done, config.discount)
        features = features_of(learner.observation_statistics, transitions.observation)
        values = network.value(learner.params, features)
        next_features = features_of(learner.observation_statistics, transitions.next_observation)
        next_values = network.value(learner.params, next_features)
        if config.time_limit == "terminal":
            terminated = transitions.done
        elif config.time_limit == "mask":  # a reward and a successor that make the temporal difference zero, as in Brax
            cut = transitions.truncated & ~terminated
            rewards, next_values = jnp.where(cut, values, rewards), jnp.where(cut, 0.0, next_values)
        advantages, targets = losses.generalized_advantage_estimation(
            rewards, values, next_values, terminated, transitions.truncated, config.discount, config.gae_lambda
        )
        behaviour: Behaviour = transitions.extras
        batch = Batch(features, behaviour.action, behaviour.log_prob, values, advantages, targets)
        batch = jax.tree.map(lambda x: x.reshape(batch_size, *x.shape[2:]), batch)
        return learner._replace(reward_scaling=scaling), batch

    def loss(params: PyTree, batch: Batch, key: jax.Array) -> tuple[Float[Array, ""], Metrics]:
        distribution = network.distribution(params, batch.features)
        log_prob = distribution.log_prob(batch.action)
        advantages = (batch.advantage - batch.advantage.mean()) / jnp.sqrt(batch.advantage.var() + 1e-8)
        if config.surrogate == "clip":
            policy_loss = losses.clipped_surrogate(log_prob, batch.log_prob, advantages, config.clip_epsilon)
        else:
            policy_loss = losses.kl_penalized_surrogate(log_prob, batch.log_prob, advantages, config.kl_coefficient)
        values = network.value(params, batch.features)
        value_loss = losses.clipped_value_loss(values, batch.value, batch.target, config.clip_epsilon)
        entropy = distribution.entropy().mean()
        extra_loss, extra_metrics = auxiliary_loss(params, batch, key)
        total = policy_loss + config.value_coefficient * value_loss - config.entropy_coefficient * entropy + extra_loss
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approximate_kl": losses.approximate_kl(log_prob, batch.log_prob),
            "clip_fraction": losses.clip_fraction(log_prob, batch.log_prob, config.clip_epsilon),
            **extra_metrics,
        }
        return total, metrics

    def learn(key: jax.Array, learner: Learner, transitions: Transition) -> tuple[Learner, Metrics]:
        learner, batch = estimate_advantages(learner, transitions)

        def minibatch_step(carry: tuple[PyTree, PyTree], step: tuple[Array, jax.Array]) -> tuple[tuple, Metrics]:
            params, optimizer_state = carry
            indices, key = step
            minibatch = jax.tree.map(lambda x: x[indices], batch)
            gradient, metrics = jax.grad(loss, has_aux=True)(params, minibatch, key)
            changes, optimizer_state = optimizer.update(gradient, optimizer_state, params)
            metrics["gradient_norm"] = optax.global_norm(gradient)
            return (optax.apply_updates(params, changes), optimizer_state), metrics

        def epoch(carry: tuple[PyTree, PyTree], key: jax.Array) -> tuple[tuple, Metrics]:
            shuffle_key, loss_key = jax.random.split(key)
            indices = jax.random.permutation(shuffle_key, batch_size).reshape(config.num_minibatches, -1)
            keys = jax.random.split(loss_key, config.num_minibatches)
            return jax.lax.scan(minibatch_step, carry, (indices, keys))

        keys = jax.random.split(key, config.num_epochs)
        (params, optimizer_state), metrics = jax.lax.scan(epoch, (learner.params, learner.optimizer_state), keys)
        metrics = jax.tree.map(jnp.mean, metrics)
        metrics["explained_variance"] = losses.explained_variance(batch.value, batch.target)
        metrics["parameter_norm"] = optax.global_norm(params)
        # Only now, so that acting and learning within an update saw the same statistics and ratios started at 1.
        statistics = update_statistics(learner.observation_statistics, encode(transitions.observation))
        return Learner(params, optimizer_state, statistics, learner.reward_scaling), metrics

    def distribution(params: PyTree, observation: Array) -> Any:
        network_params, statistics = params
        return network.distribution(network_params, features_of(statistics, observation))

    def act(deterministic: bool) -> Callable[..., tuple[Array, tuple]]:
        def act(params: PyTree, key: jax.Array, observation: Array, carry: tuple) -> tuple[Array, tuple]:
            actions = distribution(params, observation)
            action = best_action(actions, key) if deterministic else actions.sample(seed=key)
            return to_action_space(action_space, action), carry

        return act

    acts = {True: act(True), False: act(False)}  # one function object each, so that compiled evaluations are found again

    def policy(learner: Learner, deterministic: bool = True) -> Policy:
        return Policy((learner.params, learner.observation_statistics), acts[deterministic], distribution=distribution)

    return PPO(init, collect, learn, policy)


def as_algorithm(config: PPOConfig, parts: PPO, env: Any, env_params: PyTree) -> Algorithm:
    """An update is: collect, then learn."""

    def init(key: jax.Array) -> PPOState:
        key, learner_key, env_key = jax.random.split(key, 3)
        return PPOState(key, parts.init(learner_key), init_rollout(env_key, env, env_params, config.num_envs))

    def update(state: PPOState) -> tuple[PPOState, Metrics]:
        key, collect_key, learn_key = jax.random.split(state.key, 3)
        rollout_state, transitions = parts.collect(collect_key, state.learner, state.rollout, env_params)
        learner, metrics = parts.learn(learn_key, state.learner, transitions)
        return PPOState(key, learner, rollout_state), metrics | episode_metrics(rollout_state.episodes)

    def policy(state: PPOState, deterministic: bool = True) -> Policy:
        return parts.policy(state.learner, deterministic)

    steps = config.num_envs * config.num_steps
    return Algorithm(init, update, policy, config, steps, math.ceil(config.total_steps / steps))


@register(
    "ppo",
    PPOConfig,
    paper="Schulman et al. 2017, arXiv 1707.06347",
    field="online",
    actions="discrete, continuous",
    status="complete",
)
def ppo(config: PPOConfig, env: Any, params: PyTree) -> Algorithm:
    """PPO with a softmax policy for discrete actions and a Gaussian one for continuous actions."""
    size = observation_size(env, params)
    if is_discrete(env.action_space(params)):
        num_actions = int(env.action_space(params).n)
        network = categorical_actor_critic(size, num_actions, config.hidden_sizes, config.activation)
    else:
        action_size = math.prod(require_box_actions("ppo", env, params).shape)
        network = gaussian_actor_critic(size, action_size, config.hidden_sizes, config.activation)
    return as_algorithm(config, make_parts(config, env, params, network), env, params)


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted))
