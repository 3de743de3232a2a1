"""Parallelised Q-network, PQN (Gallici et al., 2025, arXiv 2407.04811).

Q-learning without replay and without a target network: many environments at once make the data diverse enough, and layer
normalisation keeps the network from diverging. A rollout is collected by an epsilon-greedy policy, its Q(lambda) targets are
computed once, from the action values at the time of acting, and fitted in several epochs of minibatches by RAdam.

Difference from the authors' code: bootstrapping at time limits. Defaults are theirs for CartPole.
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

from jaxpg import losses
from jaxpg.algorithm import LONGEST, Algorithm, Metrics, Policy, Scalar, hyperparameter, register, static
from jaxpg.algorithms.online.dqn import annealed_epsilon, epsilon_greedy
from jaxpg.counting import fraction, increment, init_count
from jaxpg.gradient_descent import clip_by_global_norm, descend, global_norm
from jaxpg.networks import DiscreteActionValues
from jaxpg.normalization import RunningStatistics, init_statistics, normalize, update_statistics
from jaxpg.off_policy import discrete_actions
from jaxpg.on_policy import (
    ANNEAL_HELP,
    ANNEALED,
    ANNEALING_HELP,
    RATE_END_HELP,
    require_divisible,
    scale_by_learning_rate,
    values_of_successors,
)
from jaxpg.rollout import RolloutState, episode_metrics, existing_successors, init_rollout, nonfinite_metrics, rollout
from jaxpg.shuffling import shuffled_indices
from jaxpg.spaces import observation_encoder, observation_size


@struct.dataclass
class PQNConfig:
    """Hyperparameters."""

    total_steps: int = static(
        500_000, "environment steps of the whole run: its length and the horizon of annealing", high=LONGEST
    )
    num_envs: int = static(32, "environments stepped side by side")
    num_steps: int = static(64, "steps per environment and update")
    num_epochs: int = static(4, "passes over the batch per update")
    num_minibatches: int = static(16, "gradient steps per pass")
    hidden_sizes: tuple[int, ...] = static((128, 128), "hidden layers of the network")
    activation: Literal["tanh", "relu", "swish"] = static("relu", "activation of the hidden layers", needs={"hidden_sizes": ()})
    layer_norm: bool = static(
        True, "normalise the hidden layers, without which Q-learning may diverge here", needs={"hidden_sizes": ()}
    )
    dueling: bool = static(False, "separate heads for the state's value and the actions' advantages")
    normalize_observations: bool = static(False, "divide observations by their running standard deviation")
    anneal_learning_rate: bool = static(True, ANNEAL_HELP)
    learning_rate: Scalar = hyperparameter(1e-4, "step size", low=0)
    annealing_fraction: Scalar = hyperparameter(1.0, ANNEALING_HELP, low=0, high=1, needs=ANNEALED)
    learning_rate_end: Scalar = hyperparameter(0.0, RATE_END_HELP, low=0, needs=ANNEALED)
    discount: Scalar = hyperparameter(0.99, "gamma", low=0, high=1)
    trace_lambda: Scalar = hyperparameter(0.95, "lambda of the returns", low=0, high=1)
    reward_scale: Scalar = hyperparameter(0.1, "factor of rewards when they are learned from")
    epsilon_start: Scalar = hyperparameter(1.0, "probability of a random action at first", low=0, high=1)
    epsilon_end: Scalar = hyperparameter(0.2, "probability of a random action in the end", low=0, high=1)
    exploration_fraction: Scalar = hyperparameter(0.2, "part of the run in which epsilon falls linearly", low=0, high=1)
    max_gradient_norm: Scalar = hyperparameter(10.0, "gradients are scaled down to this global norm", low=0)


class PQNState(NamedTuple):
    """The whole state of a run; `updates` have been made."""

    key: jax.Array
    params: PyTree
    optimizer_state: PyTree
    observation_statistics: RunningStatistics
    rollout: RolloutState
    updates: Int[Array, "*digit"]


@register(
    "pqn",
    PQNConfig,
    paper="Gallici et al. 2025, arXiv 2407.04811",
    field="online",
    actions="discrete",
    status="complete",
)
def pqn(config: PQNConfig, env: Any, env_params: PyTree) -> Algorithm:
    """Q(lambda) on the newest rollout of many environments.

    Raises:
      InputError: the batch does not divide into `num_minibatches`.
    """
    actions = discrete_actions("pqn", env, env_params)
    batch_size = config.num_envs * config.num_steps
    product = f"num_envs * num_steps = {config.num_envs} * {config.num_steps} = {batch_size}"
    require_divisible(f"a batch of {product} steps", batch_size, config.num_minibatches)
    num_updates = math.ceil(config.total_steps / batch_size)
    num_gradient_steps = config.num_epochs * config.num_minibatches
    encode = observation_encoder(env, env_params)
    network = DiscreteActionValues(actions.size, config.hidden_sizes, config.activation, config.layer_norm, config.dueling)
    optimizer = optax.flatten(
        optax.chain(
            clip_by_global_norm(config.max_gradient_norm),
            optax.chain(optax.scale_by_radam(), scale_by_learning_rate(config, num_gradient_steps)),
        )
    )

    def action_values(params: PyTree, statistics: RunningStatistics, observation: PyTree) -> Float[Array, "*batch action"]:
        features = encode(observation)
        return network.apply(params, normalize(statistics, features) if config.normalize_observations else features)

    def init(key: jax.Array) -> PQNState:
        key, network_key, env_key = jax.random.split(key, 3)
        size = observation_size(env, env_params)
        params = network.init(network_key, jnp.zeros(size))
        start = init_rollout(env_key, env, env_params, config.num_envs)
        return PQNState(key, params, optimizer.init(params), init_statistics((size,)), start, init_count(num_updates))

    def update(state: PQNState) -> tuple[PQNState, Metrics]:
        key, act_key, shuffle_key = jax.random.split(state.key, 3)
        epsilon = annealed_epsilon(config, fraction(state.updates, num_updates))

        def act(key: jax.Array, observation: PyTree, carry: PyTree) -> tuple[Array, tuple[Array, Array], PyTree]:
            values = action_values(state.params, state.observation_statistics, observation)
            action = epsilon_greedy(key, values, epsilon)
            return actions.to_env(action), (action, values.max(-1)), carry

        rollout_state, t = rollout(act_key, act, env, env_params, state.rollout, config.num_steps)
        taken, best_values = t.extras

        def best_values_of_successors(steps: tuple[Any, Any]) -> Float[Array, "*step"]:
            at = lambda tree: jax.tree.map(lambda x: x[steps], tree)
            following = existing_successors(*map(at, (t.next_observation, t.observation, t.terminated)))
            return action_values(state.params, state.observation_statistics, following).max(-1)

        next_values = values_of_successors(best_values, t.truncated & ~t.terminated, best_values_of_successors)
        targets = losses.lambda_returns(
            config.reward_scale * t.reward, next_values, t.terminated, t.truncated, config.discount, config.trace_lambda
        )
        samples = jax.tree.map(lambda x: x.reshape(batch_size, *x.shape[2:]), (t.observation, taken, targets))

        def loss(params: PyTree, batch: tuple) -> tuple[Float[Array, ""], Metrics]:
            observation, action, target = batch
            values = action_values(params, state.observation_statistics, observation)
            values = losses.value_of_action(values, action)
            q_loss = losses.weighted_squared_error(values, target)
            return q_loss, {"q_loss": q_loss, "q_value": values.mean()}

        def minibatch_step(carry: tuple[PyTree, PyTree], indices: Array) -> tuple[tuple[PyTree, PyTree], Metrics]:
            params, optimizer_state = carry
            batch = jax.tree.map(lambda x: x[indices], samples)
            gradient, metrics = jax.grad(loss, has_aux=True)(params, batch)
            metrics["gradient_norm"] = global_norm(gradient)
            return descend(optimizer, gradient, params, optimizer_state), metrics

        epochs = jax.vmap(lambda key: shuffled_indices(key, batch_size))(jax.random.split(shuffle_key, config.num_epochs))
        (params, optimizer_state), metrics = jax.lax.scan(
            minibatch_step, (state.params, state.optimizer_state), epochs.reshape(num_gradient_steps, -1)
        )
        metrics = jax.tree.map(jnp.mean, metrics) | {"parameter_norm": global_norm(params), "epsilon": epsilon}
        statistics = state.observation_statistics
        if config.normalize_observations:
            statistics = update_statistics(statistics, encode(t.observation))
        new = PQNState(key, params, optimizer_state, statistics, rollout_state, increment(state.updates))
        return new, metrics | episode_metrics(rollout_state.episodes) | nonfinite_metrics(t)

    def act(deterministic: bool) -> Any:
        def act(params: PyTree, key: jax.Array, observation: PyTree, carry: PyTree) -> tuple[Array, PyTree]:
            network_params, statistics = params
            values = action_values(network_params, statistics, observation)
            return actions.to_env(epsilon_greedy(key, values, 0.0 if deterministic else config.epsilon_end)), carry

        return act

    acts = {True: act(True), False: act(False)}  # one function object each, so that compiled evaluations are found again

    def policy(state: PQNState, deterministic: bool = True) -> Policy:
        return Policy((state.params, state.observation_statistics), acts[deterministic])

    return Algorithm(init, update, policy, config, batch_size, num_updates)
