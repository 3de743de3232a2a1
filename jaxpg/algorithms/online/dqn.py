"""Deep Q-networks (Mnih et al., 2015, "Human-level control through deep reinforcement learning").

Act greedily but for a random action now and then, remember, and regress Q(s, a) onto r + gamma * max_a' Q_target(s', a') on
remembered steps. On by default is double Q-learning (van Hasselt et al., 2016): the network chooses a', the target network
judges it. Options: a dueling head (Wang et al., 2016), targets over `n_step` rewards, prioritised replay (Schaul et al., 2016).

Differences from the paper: squared errors without clipping, Adam, target networks that follow as moving averages (the paper's
periodic copy is `target_period` with `target_ema_rate=1`), bootstrapping at time limits. Defaults are for classic control.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

from jaxpg import losses
from jaxpg.algorithm import Algorithm, Metrics, Scalar, hyperparameter, register, static
from jaxpg.counting import falling, increment
from jaxpg.gradient_descent import descend, global_norm
from jaxpg.networks import DiscreteActionValues
from jaxpg.off_policy import OffPolicyConfig, Parts, adam, as_algorithm, discrete_actions, move_towards
from jaxpg.replay import Sample
from jaxpg.spaces import observation_size


@struct.dataclass
class DQNConfig(OffPolicyConfig):
    """Hyperparameters."""

    num_envs: int = static(10, "environments stepped side by side")
    gradient_steps: int = static(5, "gradient steps per update, after its environment steps")
    batch_size: int = static(128, "remembered steps per gradient step")
    buffer_size: int = static(50_000, "steps that are remembered, the newest ones; never more than total_steps")
    hidden_sizes: tuple[int, ...] = static((64, 64), "hidden layers of the network")
    double: bool = static(True, "let the network choose the successor's action, the target network judge it")
    dueling: bool = static(False, "separate heads for the state's value and the actions' advantages")
    prioritized: bool = static(False, "sample in proportion to errors")
    target_period: int = static(1, "gradient steps from one move of the target network to the next")
    learning_rate: Scalar = hyperparameter(5e-4, "step size", low=0)
    epsilon_start: Scalar = hyperparameter(1.0, "probability of a random action at first", low=0, high=1)
    epsilon_end: Scalar = hyperparameter(0.05, "probability of a random action in the end", low=0, high=1)
    exploration_fraction: Scalar = hyperparameter(0.5, "part of the run in which epsilon falls linearly", low=0, high=1)
    priority_exponent: Scalar = hyperparameter(0.5, "alpha: 0 samples uniformly", low=0, needs={"prioritized": (True,)})
    importance_exponent: Scalar = hyperparameter(
        0.4, "beta at first; 1, fully corrected, in the end", low=0, high=1, needs={"prioritized": (True,)}
    )


class Learner(NamedTuple):
    """What learning changes."""

    params: PyTree
    target_params: PyTree
    optimizer_state: PyTree
    gradient_steps: Int[Array, ""]


def epsilon_greedy(key: jax.Array, action_values: Float[Array, "*batch action"], epsilon: Scalar) -> Int[Array, "*batch"]:
    """The best action or, with probability epsilon, any."""
    choice_key, action_key = jax.random.split(key)
    batch, number = action_values.shape[:-1], action_values.shape[-1]
    is_random = jax.random.uniform(choice_key, batch) < epsilon
    return jnp.where(is_random, jax.random.randint(action_key, batch, 0, number), jnp.argmax(action_values, axis=-1))


def annealed_epsilon(config: Any, progress: Float[Array, ""]) -> Float[Array, ""]:
    """Linearly from `epsilon_start` to `epsilon_end` over the exploration's part of the run."""
    return falling(config.epsilon_start, config.epsilon_end, progress, config.exploration_fraction)


def exponents_of(config: DQNConfig) -> tuple[Scalar, Scalar] | None:
    """Of prioritised replay, if it is asked for."""
    return (config.priority_exponent, config.importance_exponent) if config.prioritized else None


def make_parts(
    config: DQNConfig,
    network: DiscreteActionValues,
    feature_size: int,
    action_values: Callable[[PyTree, Float[Array, "*batch feature"]], Float[Array, "*batch action"]],
    loss: Callable[[PyTree, PyTree, Sample], tuple[Float[Array, ""], tuple[Float[Array, " batch"], Metrics]]],
) -> Parts:
    """Q-learning around any loss of a network.

    Args:
      action_values: `(params, features) -> Q(s, .)`, to act on.
      loss: `(params, target_params, batch) -> (loss, (errors, metrics))`.
    """
    optimizer = adam(config)

    def init(key: jax.Array) -> Learner:
        params = network.init(key, jnp.zeros(feature_size))
        return Learner(params, params, optimizer.init(params), jnp.int32(0))

    def explore(
        key: jax.Array, learner: Learner, features: Float[Array, "env feature"], carry: PyTree, progress: Float[Array, ""]
    ) -> tuple[Int[Array, " env"], PyTree]:
        values = action_values(learner.params, features)
        return epsilon_greedy(key, values, annealed_epsilon(config, progress)), carry

    def learn(
        key: jax.Array, learner: Learner, batch: Sample, progress: Float[Array, ""]
    ) -> tuple[Learner, Float[Array, " batch"], Metrics]:
        del key, progress
        gradient, (errors, metrics) = jax.grad(loss, has_aux=True)(learner.params, learner.target_params, batch)
        params, optimizer_state = descend(optimizer, gradient, learner.params, learner.optimizer_state)
        gradient_steps = increment(learner.gradient_steps, config.target_period)
        rate = jnp.where(gradient_steps % config.target_period == 0, config.target_ema_rate, 0.0)
        target_params = move_towards(learner.target_params, params, rate)
        metrics |= {"gradient_norm": global_norm(gradient), "parameter_norm": global_norm(params)}
        return Learner(params, target_params, optimizer_state, gradient_steps), errors, metrics

    def act(
        params: PyTree, key: jax.Array, features: Float[Array, " feature"], carry: PyTree, deterministic: bool
    ) -> tuple[Int[Array, ""], PyTree]:
        return epsilon_greedy(key, action_values(params, features), 0.0 if deterministic else config.epsilon_end), carry

    return Parts(init, explore, learn, act, lambda learner: learner.params)


@register(
    "dqn",
    DQNConfig,
    paper="Mnih et al. 2015, Nature 518",
    field="online",
    actions="discrete",
    status="complete",
)
def dqn(config: DQNConfig, env: Any, params: PyTree) -> Algorithm:
    """Q-learning of every action's value, with options of its descendants."""
    actions = discrete_actions("dqn", env, params)
    network = DiscreteActionValues(actions.size, config.hidden_sizes, config.activation, config.layer_norm, config.dueling)

    def loss(
        params: PyTree, target_params: PyTree, batch: Sample
    ) -> tuple[Float[Array, ""], tuple[Float[Array, " batch"], Metrics]]:
        judged = network.apply(target_params, batch.next_observation)
        chosen_by = network.apply(params, batch.next_observation) if config.double else judged
        targets = batch.reward + batch.bootstrap * losses.double_q_value(chosen_by, judged)
        targets = jax.lax.stop_gradient(targets)
        values = losses.value_of_action(network.apply(params, batch.observation), batch.action)
        q_loss = losses.weighted_squared_error(values, targets, batch.weight)
        return q_loss, (values - targets, {"q_loss": q_loss, "q_value": values.mean()})

    size = observation_size(env, params)
    parts = make_parts(config, network, size, network.apply, loss)
    return as_algorithm(config, parts, env, params, actions, exponents_of(config))
