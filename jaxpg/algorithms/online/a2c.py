"""Advantage actor-critic (Mnih et al., 2016, arXiv 1602.01783), synchronous.

Collect a few steps in every environment and take one gradient step: the policy along the score function weighted by the
advantage, the value towards the n-step return. With `gae_lambda` = 1 (the default) that return runs to the end of the
window, as in the paper.

Differences from the paper: the environments step together instead of in threads of their own, so that one gradient serves
all; separate actor and critic; observations are normalised, rewards scaled, and episodes cut by a time limit are bootstrapped.

Defaults are those of Stable-Baselines3 (its value loss is a mean square of weight 0.5, ours half a mean square of weight 1)
but for the number of environments, the rate, which falls, and RMSProp's epsilon: it lies within the root, as in TensorFlow
but not in PyTorch, because beside it the derivative of training would not be finite where a gradient is zero.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax
from flax import struct
from jaxtyping import Array, Float, PyTree

from jaxpg import losses
from jaxpg.algorithm import Algorithm, Metrics, Scalar, hyperparameter, register, static
from jaxpg.gradient_descent import clip_by_global_norm
from jaxpg.networks import ActorCritic
from jaxpg.on_policy import (
    JointConfig,
    Learner,
    Parts,
    actor_critic_step,
    as_algorithm,
    make_actor,
    make_network,
    scale_by_learning_rate,
)
from jaxpg.rollout import Transition


@struct.dataclass
class A2CConfig(JointConfig):
    """Hyperparameters of A2C."""

    num_steps: int = static(5, "steps per environment and update")
    learning_rate: Scalar = hyperparameter(7e-4, "step size of RMSProp", low=0)
    value_coefficient: Scalar = hyperparameter(1.0, "weight of the value loss", low=0)
    gae_lambda: Scalar = hyperparameter(1.0, "lambda of the advantage estimates; 1 gives n-step returns", low=0, high=1)


def make_parts(
    config: A2CConfig,
    env: Any,
    env_params: PyTree,
    network: ActorCritic,
    optimizer: optax.GradientTransformation | None = None,
    credit: Callable[[Float[Array, "time env"]], Float[Array, "time env"]] = lambda advantages: advantages,
) -> Parts:
    """A2C around any actor-critic.

    Args:
      optimizer: in the place of RMSProp behind a bound on the gradient's norm.
      credit: what actions are credited with, of their advantages.
    """
    actor = make_actor(config, env, env_params, network)
    if optimizer is None:
        optimizer = optax.chain(
            clip_by_global_norm(config.max_gradient_norm),
            optax.chain(optax.scale_by_rms(decay=0.99, eps=1e-5), scale_by_learning_rate(config, 1)),
        )

    def learn(key: jax.Array, learner: Learner, transitions: Transition) -> tuple[Learner, Metrics]:
        learner, e = actor.appraise(learner, transitions)
        advantages, targets = losses.generalized_advantage_estimation(
            e.reward, e.value, e.next_value, e.terminated, e.truncated, config.discount, config.gae_lambda
        )
        learner, metrics = actor_critic_step(config, network, optimizer, learner, e, credit(advantages), targets)
        return actor.observe(learner, transitions), metrics

    return Parts(
        lambda key: actor.init(key, optimizer.init), actor.collect, learn, actor.policy, actor.appraise, network.initial_carry
    )


@register(
    "a2c",
    A2CConfig,
    paper="Mnih et al. 2016, arXiv 1602.01783",
    field="online",
    actions="discrete, continuous",
    status="complete",
)
def a2c(config: A2CConfig, env: Any, params: PyTree) -> Algorithm:
    """A2C with a softmax policy for discrete actions and a Gaussian one for continuous actions."""
    network = make_network("a2c", config, env, params)
    return as_algorithm(config, make_parts(config, env, params, network), env, params)
