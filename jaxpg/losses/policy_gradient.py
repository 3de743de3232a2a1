"""Policy-gradient losses: scalars to minimise, means over all elements.

Every function takes log pi(a|s) of the actions taken, whatever the distribution, in arrays of any one shape.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from jaxpg.losses._assertions import assert_same_shape


def policy_gradient_loss(log_prob: Float[Array, "*batch"], advantages: Float[Array, "*batch"]) -> Float[Array, ""]:
    """-mean(log pi(a|s) * A): the score-function estimator of REINFORCE and of actor-critic methods.

    Its gradient is an unbiased policy gradient for actions drawn from the current policy when A is a return
    minus anything that does not depend on the action.

    Source: Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
    Learning", theorem 1; with a critic's advantage Mnih et al. 2016 (A3C, arXiv 1602.01783), section 4.

    Args:
        log_prob: log-probability, under the policy being learned, of each action taken.
        advantages: how much better the action was than the state's average.

    Raises:
        AssertionError: if the shapes differ.
    """
    assert_same_shape(log_prob=log_prob, advantages=advantages)
    return -jnp.mean(log_prob * advantages)


def clipped_surrogate(
    log_prob: Float[Array, "*batch"],
    behaviour_log_prob: Float[Array, "*batch"],
    advantages: Float[Array, "*batch"],
    clip_epsilon: ScalarLike,
) -> Float[Array, ""]:
    """-mean(min(rho * A, clip(rho, 1 - epsilon, 1 + epsilon) * A)), with rho = pi(a|s) / pi_behaviour(a|s).

    The gradient vanishes where the ratio has already left the interval in the direction that A asks for, and
    nowhere else.

    Source: Schulman et al. 2017, "Proximal Policy Optimization Algorithms" (arXiv 1707.06347), equation 7.

    Args:
        log_prob: log-probability of each action taken, under the policy being learned.
        behaviour_log_prob: the same under the policy that acted.
        advantages: advantage of each action.
        clip_epsilon: half-width of the interval of ratios, in (0, 1); may be traced.

    Raises:
        AssertionError: if the shapes differ.
    """
    assert_same_shape(log_prob=log_prob, behaviour_log_prob=behaviour_log_prob, advantages=advantages)
    ratio = jnp.exp(_log_ratio(log_prob, behaviour_log_prob))
    clipped_ratio = jnp.clip(ratio, 1.0 - clip_epsilon, 1.0 + clip_epsilon)
    return -jnp.mean(jnp.minimum(ratio * advantages, clipped_ratio * advantages))


def kl_penalized_surrogate(
    log_prob: Float[Array, "*batch"],
    behaviour_log_prob: Float[Array, "*batch"],
    advantages: Float[Array, "*batch"],
    kl_coefficient: ScalarLike,
) -> Float[Array, ""]:
    """-mean(rho * A) + kl_coefficient * KL(behaviour || pi), the divergence estimated by `approximate_kl`.

    Source: Schulman et al. 2017, "Proximal Policy Optimization Algorithms" (arXiv 1707.06347), equation 8.

    Args:
        log_prob: log-probability of each action taken, under the policy being learned.
        behaviour_log_prob: the same under the policy that acted.
        advantages: advantage of each action.
        kl_coefficient: beta of the paper, in units of advantage per nat; may be traced.

    Raises:
        AssertionError: if the shapes differ.
    """
    assert_same_shape(log_prob=log_prob, behaviour_log_prob=behaviour_log_prob, advantages=advantages)
    ratio = jnp.exp(_log_ratio(log_prob, behaviour_log_prob))
    surrogate = jnp.mean(ratio * advantages)
    return -surrogate + kl_coefficient * approximate_kl(log_prob, behaviour_log_prob)


def entropy_loss(entropy: Float[Array, "*batch"]) -> Float[Array, ""]:
    """-mean(entropy): added to a loss with a positive coefficient, it keeps the policy from collapsing.

    Source: Williams and Peng 1991, "Function Optimization using Connectionist Reinforcement Learning
    Algorithms".

    Args:
        entropy: entropy of the policy at each state, in nats.
    """
    return -jnp.mean(entropy)


def approximate_kl(log_prob: Float[Array, "*batch"], behaviour_log_prob: Float[Array, "*batch"]) -> Float[Array, ""]:
    """mean((rho - 1) - log rho): an estimate of KL(behaviour || pi), in nats, from the behaviour's actions.

    Unbiased, and so is its gradient; unlike mean(-log rho) no term is negative, which lowers the variance.

    Source: Schulman 2020, "Approximating KL Divergence" (http://joschu.net/blog/kl-approx.html), estimator
    k3.

    Args:
        log_prob: log-probability of each action taken, under the policy being learned.
        behaviour_log_prob: the same under the policy that acted.

    Raises:
        AssertionError: if the shapes differ.
    """
    assert_same_shape(log_prob=log_prob, behaviour_log_prob=behaviour_log_prob)
    log_ratio = _log_ratio(log_prob, behaviour_log_prob)
    # expm1: near a ratio of 1, where the estimate is used, rho - 1 would lose all its digits.
    return jnp.mean(jnp.expm1(log_ratio) - log_ratio)


def clip_fraction(
    log_prob: Float[Array, "*batch"], behaviour_log_prob: Float[Array, "*batch"], clip_epsilon: ScalarLike
) -> Float[Array, ""]:
    """Fraction of the actions whose ratio lies outside [1 - epsilon, 1 + epsilon].

    Args:
        log_prob: log-probability of each action taken, under the policy being learned.
        behaviour_log_prob: the same under the policy that acted.
        clip_epsilon: half-width of the interval, as in `clipped_surrogate`; may be traced.

    Raises:
        AssertionError: if the shapes differ.
    """
    assert_same_shape(log_prob=log_prob, behaviour_log_prob=behaviour_log_prob)
    ratio = jnp.exp(_log_ratio(log_prob, behaviour_log_prob))
    return jnp.mean(jnp.abs(ratio - 1.0) > clip_epsilon, dtype=jnp.float32)


def _log_ratio(log_prob: Float[Array, "*batch"], behaviour_log_prob: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    return log_prob - behaviour_log_prob
