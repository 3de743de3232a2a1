"""The meta-gradient of LPG: how agents do after some updates, differentiated through those updates by the rule's parameters."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PyTree

from jaxpg import losses
from jaxpg.algorithm import Metrics, Scalar, hyperparameter, static
from jaxpg.algorithms.meta_learning.lives import Lives
from jaxpg.algorithms.meta_learning.rule_agent import AgentConfig, Learner, Measures, RuleAgent
from jaxpg.gradient_descent import descend
from jaxpg.rollout import RolloutState, Transition, existing_successors, nonfinite_metrics

LEGACY_CRITIC_HELP = "the critic of the meta-gradient never learns, as in GROOVE's code"
LEGACY_ROW_HELP = "every step of a row is credited with the row's mean advantage, as in GROOVE's code"


@struct.dataclass
class MetaConfig(AgentConfig):
    """And of the meta-gradient."""

    num_inner_updates: int = static(5, "K, updates of an agent that the meta-gradient goes through")
    discount: Scalar = hyperparameter(0.99, "gamma of the meta-gradient's advantages", low=0, high=1)
    gae_lambda: Scalar = hyperparameter(0.95, "lambda of these advantages", low=0, high=1)
    policy_entropy_coefficient: Scalar = hyperparameter(0.05, "weight of the agents' policies' entropy", low=0)
    prediction_entropy_coefficient: Scalar = hyperparameter(0.001, "weight of the agents' predictions' entropy", low=0)
    policy_target_coefficient: Scalar = hyperparameter(0.005, "weight of the policy targets' mean square", low=0)
    prediction_target_coefficient: Scalar = hyperparameter(0.001, "weight of the prediction targets' mean square", low=0)
    remat: bool = static(True, "compute each update anew in the backward pass: a fraction of the memory")
    legacy_frozen_critic: bool = static(False, LEGACY_CRITIC_HELP)
    legacy_row_advantage: bool = static(False, LEGACY_ROW_HELP)


class Critic(NamedTuple):
    """An agent's value function, which only the meta-gradient reads."""

    params: PyTree
    optimizer: PyTree


class Outlook(NamedTuple):
    """Of one agent, from the rollout after its updates: parts of the meta-loss, and what values make of its level.

    `nonfinite` counts what was collected in all rollouts, see `rollout.nonfinite_metrics`.
    """

    meta_loss: Float[Array, ""]
    policy_loss: Float[Array, ""]
    value_loss: Float[Array, ""]
    measures: Measures
    value_l1: Float[Array, ""]
    positive_value_loss: Float[Array, ""]
    reward: Float[Array, ""]
    nonfinite: Metrics


class MetaGradient(NamedTuple):
    """Functions of one agent.

    Attributes:
      init_critic: `key -> critic`.
      loss: `(rule_params, key, life, env_params) -> (meta_loss, (life, outlook))`; its derivative by the rule is the
        meta-gradient.
    """

    init_critic: Callable[[jax.Array], Critic]
    loss: Callable[..., tuple[Float[Array, ""], tuple[Lives, Outlook]]]


def credit(config: MetaConfig, advantages: Float[Array, "time env"]) -> Float[Array, "time env"]:
    """What actions are credited with, of their advantages: in units of the batch's deviation from its mean."""
    normalized = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    return jnp.broadcast_to(normalized.mean(axis=0), normalized.shape) if config.legacy_row_advantage else normalized


def make_meta_gradient(config: MetaConfig, agent: RuleAgent, example: PyTree) -> MetaGradient:
    """The meta-gradient of agents.

    Source: Oh et al. 2020 (arXiv 2007.08794), equation 4, with the estimates and the regularisation of GROOVE (Jackson et al.
    2023, arXiv 2310.02782) and its code, whose critic's loss does not depend on the critic (`legacy_frozen_critic`) and which
    multiplies advantages (T, 1) by log-probabilities (T,) (`legacy_row_advantage`).

    Args:
      example: an observation.
    """
    module = agent.critic(1)
    value = lambda params, observation: module.apply(params, agent.inputs(observation))[..., 0]

    def init_critic(key: jax.Array) -> Critic:
        params = module.init(key, agent.inputs(example))
        return Critic(params, agent.optimizer.init(params))

    def advantages_of(params: PyTree, t: Transition) -> tuple[Float[Array, "time env"], Float[Array, "time env"]]:
        values = value(params, t.observation)
        next_values = value(params, existing_successors(t.next_observation, t.observation, t.terminated))
        return losses.generalized_advantage_estimation(
            t.reward, values, next_values, t.terminated, t.truncated, config.discount, config.gae_lambda
        )

    def learn_values(critic: Critic, t: Transition) -> tuple[Critic, tuple[Float[Array, "time env"], Float[Array, ""]]]:
        """One step towards the targets, which with the advantages are those of the critic before it."""
        advantages, targets = jax.lax.stop_gradient(advantages_of(critic.params, t))
        loss = lambda params: jnp.square(value(params, t.observation) - targets).mean()
        error, gradient = jax.value_and_grad(loss)(critic.params)
        if config.legacy_frozen_critic:
            return critic, (advantages, error)
        return Critic(*descend(agent.optimizer, gradient, *critic)), (advantages, error)

    def loss(
        rule_params: PyTree, key: jax.Array, life: Lives, env_params: PyTree
    ) -> tuple[Float[Array, ""], tuple[Lives, Outlook]]:
        keys = jax.random.split(key, config.num_inner_updates + 1)

        def inner(carry: tuple[Learner, RolloutState, Critic], key: jax.Array) -> tuple[tuple, tuple[Measures, Metrics]]:
            learner, state, critic = carry
            state, t = jax.lax.stop_gradient(agent.collect(key, learner, state, env_params))
            learner, measures = agent.learn(rule_params, learner, t, life.lifetime)
            critic, _ = learn_values(critic, t)
            return (learner, state, jax.lax.stop_gradient(critic)), (measures, nonfinite_metrics(t))

        inner = jax.checkpoint(inner) if config.remat else inner
        carry, (measures, nonfinite) = jax.lax.scan(inner, (life.learner, life.rollout, life.critic), keys[:-1])
        learner, state, critic = carry
        state, t = jax.lax.stop_gradient(agent.collect(keys[-1], learner, state, env_params))
        critic, (advantages, value_loss) = learn_values(critic, t)
        policy_loss = losses.policy_gradient_loss(agent.log_prob(learner.actor, t), credit(config, advantages))
        measures = jax.tree.map(jnp.mean, measures)
        meta_loss = (
            policy_loss
            - config.policy_entropy_coefficient * measures.policy_entropy
            - config.prediction_entropy_coefficient * measures.prediction_entropy
            + config.policy_target_coefficient * measures.policy_target_l2
            + config.prediction_target_coefficient * measures.prediction_target_l2
        )
        outlook = Outlook(
            meta_loss=meta_loss,
            policy_loss=policy_loss,
            value_loss=value_loss,
            measures=measures,
            value_l1=jnp.abs(advantages).mean(),
            positive_value_loss=jnp.maximum(advantages, 0.0).mean(),
            reward=t.reward.mean(),
            nonfinite=jax.tree.map(lambda x, y: x.sum() + y, nonfinite, nonfinite_metrics(t)),
        )
        return meta_loss, (life._replace(learner=learner, rollout=state, critic=critic), outlook)

    return MetaGradient(init_critic, loss)


def mean_gradient(
    loss: Callable[..., tuple[Float[Array, ""], tuple[Lives, Outlook]]],
    rule_params: PyTree,
    keys: jax.Array,
    lives: Lives,
    env_params_of: Callable[[PyTree], PyTree],
    num_minibatches: int,
) -> tuple[PyTree, Lives, Outlook]:
    """The mean of the agents' meta-gradients, computed for some agents at a time, with what became of all agents.

    Of the mean of a batch there is one gradient: none of single agents is stored.
    """

    def of_batch(rule_params: PyTree, keys: jax.Array, lives: Lives) -> tuple[Float[Array, ""], tuple[Lives, Outlook]]:
        one = lambda key, life: loss(rule_params, key, life, env_params_of(life.level))
        means, rest = jax.vmap(one)(keys, lives)
        return means.mean(), rest

    def add(total: PyTree, batch: tuple[jax.Array, Lives]) -> tuple[PyTree, tuple[Lives, Outlook]]:
        gradient, rest = jax.grad(of_batch, has_aux=True)(rule_params, *batch)
        return jax.tree.map(jnp.add, total, gradient), rest

    batches = jax.tree.map(lambda x: x.reshape(num_minibatches, -1, *x.shape[1:]), (keys, lives))
    total, rest = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, rule_params), batches)
    lives, outlook = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rest)
    return jax.tree.map(lambda x: x / num_minibatches, total), lives, outlook
