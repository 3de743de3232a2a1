"""REINFORCE (Williams, 1992): the score function weighted by the return that followed.

Collect a window, compute each step's discounted return to go, subtract a baseline that does not depend on the action, and
take one gradient step.

Two baselines. `value`: a learned value function, which also stands for what lies beyond the window's end (Sutton and Barto,
2018, section 13.4). `mean`: the mean return of the batch, without any learned value; then only steps whose episode ended
within the window count, so windows should be several episodes long, and a time limit counts as the end of the task.

Differences from the paper: normalised observations, scaled rewards, Adam, and a bound on the gradient's norm. The state
distribution is not discounted (no factor gamma^t), as nearly everywhere in practice.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, PyTree

from jaxpg import losses
from jaxpg.algorithm import Algorithm, Metrics, Scalar, hyperparameter, register, static
from jaxpg.networks import ActorCritic
from jaxpg.on_policy import (
    TIME_LIMIT_HELP,
    Experience,
    JointConfig,
    Learner,
    Parts,
    actor_critic_step,
    as_algorithm,
    clipped_adam,
    make_actor,
    make_network,
    require_several,
)
from jaxpg.rollout import Transition

VALUE = {"baseline": ("value",)}


@struct.dataclass
class REINFORCEConfig(JointConfig):
    """Hyperparameters of REINFORCE."""

    num_envs: int = static(8, "environments stepped side by side")
    baseline: Literal["value", "mean"] = static("value", "what is subtracted from returns")
    time_limit: Literal["bootstrap", "terminal", "mask"] = static("bootstrap", TIME_LIMIT_HELP, needs=VALUE)
    learning_rate: Scalar = hyperparameter(3e-3, "step size of Adam", low=0)
    entropy_coefficient: Scalar = hyperparameter(0.001, "weight of the entropy bonus", low=0)
    value_coefficient: Scalar = hyperparameter(0.5, "weight of the value loss", low=0, needs=VALUE)


def make_parts(config: REINFORCEConfig, env: Any, env_params: PyTree, network: ActorCritic) -> Parts:
    """REINFORCE around any actor-critic (with the baseline `mean` the critic is not trained).

    Raises:
      InputError: the mean is one of a single step.
    """
    if config.baseline == "mean":
        require_several("the batch", config.num_envs * config.num_steps)
    coefficients = config if config.baseline == "value" else dataclasses.replace(config, value_coefficient=0.0)
    actor = make_actor(config, env, env_params, network)
    optimizer = clipped_adam(config, 1)

    def weigh(e: Experience) -> tuple[Float[Array, "time env"], Float[Array, "time env"]]:
        """The weight of every action, and the returns."""
        if config.baseline == "value":
            returns = losses.monte_carlo_returns(e.reward, e.next_value, e.terminated, e.truncated, config.discount)
            return returns - e.value, returns
        nothing_more = jnp.zeros_like(e.reward)
        returns = losses.monte_carlo_returns(e.reward, nothing_more, e.terminated, e.truncated, config.discount)
        complete = has_ended(e.terminated | e.truncated)
        baseline = jnp.mean(returns, where=complete)
        share = complete.mean()  # of the steps, so that the loss is a mean over those that count
        return jnp.where(complete & (share > 0), (returns - baseline) / jnp.maximum(share, 1e-6), 0.0), returns

    def learn(key: jax.Array, learner: Learner, transitions: Transition) -> tuple[Learner, Metrics]:
        learner, experience = actor.appraise(learner, transitions)
        weights, returns = weigh(experience)
        learner, metrics = actor_critic_step(coefficients, network, optimizer, learner, experience, weights, returns)
        return actor.observe(learner, transitions), metrics

    return Parts(
        lambda key: actor.init(key, optimizer.init), actor.collect, learn, actor.policy, actor.appraise, network.initial_carry
    )


def has_ended(done: Bool[Array, "time env"]) -> Bool[Array, "time env"]:
    """Whether the episode of each step ended within the window."""
    return jax.lax.cummax(done.astype(jnp.int32), axis=0, reverse=True) > 0


@register(
    "reinforce",
    REINFORCEConfig,
    paper="Williams 1992",
    field="online",
    actions="discrete, continuous",
    status="complete",
)
def reinforce(config: REINFORCEConfig, env: Any, params: PyTree) -> Algorithm:
    """REINFORCE with a softmax policy for discrete actions and a Gaussian one for continuous actions."""
    network = make_network("reinforce", config, env, params)
    return as_algorithm(config, make_parts(config, env, params, network), env, params)
