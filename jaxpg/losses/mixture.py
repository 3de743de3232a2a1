"""Losses of mixture-of-experts policies: pi(a|s) = sum_k w_k(s) pi_k(a|s), experts on the last axis.

Source: Ren et al. 2021, "Probabilistic Mixture-of-Experts for Efficient Deep Reinforcement Learning"
(PMOE, arXiv 2104.09122).
"""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jaxpg.losses._assertions import assert_same_shape


def frequency_routing_loss(
    routing_probs: Float[Array, "*batch expert"], action_values: Float[Array, "*batch expert"]
) -> Float[Array, ""]:
    """mean((onehot(argmax_k Q_k) - w)^2) over batch and experts: PMOE's frequency-approximate gradient.

    For actions freshly drawn from every expert, the minimiser is w_k(s) = Pr[expert k's action is the best at
    s]. That is a frequency of winning, not the policy gradient: experts that overlap keep shares although one
    is better on average.

    Args:
        routing_probs: w_k(s), summing to 1 over experts.
        action_values: Q(s, a_k) of one action from each expert. Ties go to the first expert.

    Raises:
        AssertionError: if the shapes differ.
    """
    assert_same_shape(routing_probs=routing_probs, action_values=action_values)
    winner = jax.nn.one_hot(jnp.argmax(action_values, axis=-1), action_values.shape[-1], dtype=routing_probs.dtype)
    return jnp.mean(jnp.square(winner - routing_probs))


def select_best(action_values: Float[Array, "*batch expert"], *xs: Shaped[Array, "..."]) -> tuple[Shaped[Array, "..."], ...]:
    """Take from each of `xs` the slice of the expert whose action value is highest.

    Gradients reach the winner's slices only (PMOE's back-propagation through the maximum); the choice itself
    has none.

    Args:
        action_values: Q(s, a_k), shape (*batch, expert). Ties go to the first expert.
        *xs: arrays of shape (*batch, expert, ...).

    Returns:
        One array of shape (*batch, ...) for each of `xs`.

    Raises:
        AssertionError: if the leading axes of one of `xs` are not those of `action_values`.
    """
    chex.assert_tree_shape_prefix(xs, action_values.shape)
    best = jnp.argmax(action_values, axis=-1, keepdims=True)
    axis = action_values.ndim - 1

    def take(x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        index = jnp.expand_dims(best, tuple(range(best.ndim, x.ndim)))
        return jnp.take_along_axis(x, index, axis).squeeze(axis)

    return tuple(take(x) for x in xs)


def mixture_log_prob(
    log_weights: Float[Array, "*batch expert"], component_log_probs: Float[Array, "*batch expert"]
) -> Float[Array, "*batch"]:
    """log sum_k w_k(s) pi_k(a|s), without underflow however unlikely the action is.

    Args:
        log_weights: log w_k(s), normalised over experts (a `log_softmax`); -inf switches an expert off.
        component_log_probs: log pi_k(a|s) of the one action a under each expert.

    Returns:
        log pi(a|s), without the expert axis.

    Raises:
        AssertionError: if the shapes differ.
    """
    assert_same_shape(log_weights=log_weights, component_log_probs=component_log_probs)
    return jax.nn.logsumexp(log_weights + component_log_probs, axis=-1)
