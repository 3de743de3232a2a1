"""IMPALA's learner (Espeholt et al., 2018, arXiv 1802.01561): an actor-critic on V-trace targets.

Experience comes from a policy that is `policy_lag` updates old, as it does when actors and learner run apart; V-trace
corrects values and policy gradient for the difference by truncated importance ratios. One gradient step per window.

Differences from the paper: acting and learning alternate in one program, and the lag is exact instead of whatever the
machines make it; separate actor and critic; Adam instead of RMSProp; observations are normalised, rewards scaled instead
of clipped, and episodes cut by a time limit bootstrapped. Windows are of 5 steps instead of 20 or 100: classic control needs
many updates (CartPole after 150,000 steps: 495 on average over 16 seeds, with windows of 20 steps 168).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PyTree

from jaxpg import losses
from jaxpg.algorithm import Algorithm, Metrics, Scalar, hyperparameter, register, static
from jaxpg.networks import ActorCritic
from jaxpg.on_policy import (
    Experience,
    JointConfig,
    Learner,
    Parts,
    actor_critic_step,
    as_algorithm,
    clipped_adam,
    contexts_of,
    make_actor,
    make_network,
)
from jaxpg.rollout import RolloutState, Transition


@struct.dataclass
class IMPALAConfig(JointConfig):
    """Hyperparameters of IMPALA."""

    num_steps: int = static(5, "steps per environment and update")
    policy_lag: int = static(1, "updates by which the acting policy is older than the learner's", low=0)
    learning_rate: Scalar = hyperparameter(6e-4, "step size of Adam", low=0)
    entropy_coefficient: Scalar = hyperparameter(0.01, "weight of the entropy bonus", low=0)
    max_gradient_norm: Scalar = hyperparameter(40.0, "gradients are scaled down to this global norm", low=0)
    trace_lambda: Scalar = hyperparameter(1.0, "lambda of the V-trace targets", low=0, high=1)
    rho_clip: Scalar = hyperparameter(1.0, "bound of the importance ratio in targets and policy gradient", low=0)
    c_clip: Scalar = hyperparameter(1.0, "bound of the importance ratio in the trace", low=0)


def make_parts(config: IMPALAConfig, env: Any, env_params: PyTree, network: ActorCritic) -> Parts:
    """IMPALA around any actor-critic; `Learner.extra` holds the last `policy_lag` parameters, oldest first."""
    actor = make_actor(config, env, env_params, network)
    optimizer = clipped_adam(config, 1)

    def init(key: jax.Array) -> Learner:
        learner = actor.init(key, optimizer.init)
        past = jax.tree.map(lambda x: jnp.broadcast_to(x, (config.policy_lag, *x.shape)), learner.params)
        return learner._replace(extra=past)

    def collect(
        key: jax.Array, learner: Learner, state: RolloutState, env_params: PyTree, params_axis: PyTree = None
    ) -> tuple[RolloutState, Transition]:
        acting = jax.tree.map(lambda x: x[0], learner.extra) if config.policy_lag else learner.params
        return actor.collect(key, learner._replace(params=acting), state, env_params, params_axis)

    def correct(params: PyTree, e: Experience) -> tuple[Float[Array, "time env"], Float[Array, "time env"], Array]:
        """Advantages and value targets of the learner's policy from another's experience, and the log ratios."""
        log_prob = network.distribution(params, contexts_of(network, params, e)).log_prob(e.action)
        log_ratio = log_prob - e.log_prob
        advantages, targets = losses.vtrace(
            log_ratio,
            e.reward,
            e.value,
            e.next_value,
            e.terminated,
            e.truncated,
            config.discount,
            config.trace_lambda,
            config.rho_clip,
            config.c_clip,
            config.rho_clip,
        )
        return advantages, targets, log_ratio

    def learn(key: jax.Array, learner: Learner, transitions: Transition) -> tuple[Learner, Metrics]:
        learner, experience = actor.appraise(learner, transitions)
        advantages, targets, log_ratio = correct(learner.params, experience)
        past = jax.tree.map(lambda old, new: jnp.concatenate([old[1:], new[None]]), learner.extra, learner.params)
        if config.policy_lag:
            learner = learner._replace(extra=past)
        learner, metrics = actor_critic_step(config, network, optimizer, learner, experience, advantages, targets)
        metrics["clipped_ratios"] = (log_ratio > jnp.log(config.rho_clip)).mean(dtype=jnp.float32)
        return actor.observe(learner, transitions), metrics

    return Parts(init, collect, learn, actor.policy, actor.appraise, network.initial_carry)


@register(
    "impala",
    IMPALAConfig,
    paper="Espeholt et al. 2018, arXiv 1802.01561",
    field="online",
    actions="discrete, continuous",
    status="complete",
)
def impala(config: IMPALAConfig, env: Any, params: PyTree) -> Algorithm:
    """V-trace actor-critic with a softmax policy for discrete actions and a Gaussian one for continuous actions."""
    network = make_network("impala", config, env, params)
    return as_algorithm(config, make_parts(config, env, params, network), env, params)
