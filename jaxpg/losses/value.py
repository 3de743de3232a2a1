"""Losses of a state-value function: scalars to minimise, means over all elements of arrays of any one shape."""

import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from jaxpg.losses._assertions import assert_same_shape


def value_loss(values: Float[Array, "*batch"], targets: Float[Array, "*batch"]) -> Float[Array, ""]:
    """0.5 * mean((V - target)^2).

    Source: Sutton and Barto 2018, "Reinforcement Learning: An Introduction", 2nd edition, equation 9.7.

    Args:
        values: V(s) of the value function being learned.
        targets: the returns to regress onto.

    Raises:
        AssertionError: if the shapes differ.
    """
    assert_same_shape(values=values, targets=targets)
    return 0.5 * jnp.mean(jnp.square(values - targets))


def clipped_value_loss(
    values: Float[Array, "*batch"],
    behaviour_values: Float[Array, "*batch"],
    targets: Float[Array, "*batch"],
    clip_epsilon: ScalarLike,
) -> Float[Array, ""]:
    """0.5 * mean(max((V - target)^2, (V_b + clip(V - V_b, -epsilon, epsilon) - target)^2)).

    The larger of the two errors: a value that moved more than epsilon towards its target gets no further
    gradient.

    Source: the PPO of OpenAI Baselines; Engstrom et al. 2020, "Implementation Matters in Deep Policy
    Gradients" (arXiv 2005.12729), section 3, item 1. It is not in the PPO paper.

    Args:
        values: V(s) of the value function being learned.
        behaviour_values: V_b(s), the values when the data was collected.
        targets: the returns to regress onto.
        clip_epsilon: largest change of a value, in units of return; may be traced.

    Raises:
        AssertionError: if the shapes differ.
    """
    assert_same_shape(values=values, behaviour_values=behaviour_values, targets=targets)
    clipped_values = behaviour_values + jnp.clip(values - behaviour_values, -clip_epsilon, clip_epsilon)
    return 0.5 * jnp.mean(jnp.maximum(jnp.square(values - targets), jnp.square(clipped_values - targets)))


def explained_variance(values: Float[Array, "*batch"], targets: Float[Array, "*batch"]) -> Float[Array, ""]:
    """1 - Var(target - V) / Var(target): 1 for values perfect up to a constant, 0 for constant ones, no lower
    bound.

    0 where the targets do not vary, as there is nothing to explain. A measure, not a loss.

    Args:
        values: V(s).
        targets: the returns that V predicts.

    Raises:
        AssertionError: if the shapes differ.
    """
    assert_same_shape(values=values, targets=targets)
    variance = jnp.var(targets)
    # The variance of equal numbers is a rounding error, not 0, hence the comparison of extremes.
    varies = (jnp.max(targets) > jnp.min(targets)) & (variance > 0.0)
    return jnp.where(varies, 1.0 - jnp.var(targets - values) / jnp.where(varies, variance, 1.0), 0.0)
