"""Natural gradient steps within a trust region, for any objective and divergence.

Source: Schulman et al. 2015, "Trust Region Policy Optimization" (arXiv 1502.05477), appendix C; Kakade 2001, "A Natural Policy
Gradient".
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree, ScalarLike

Vector = Float[Array, " parameter"]


def fisher_vector_product(divergence: Callable[[PyTree], Float[Array, ""]], params: PyTree, vector: PyTree) -> PyTree:
    """F v, with F the Hessian of `divergence` at `params`, without ever forming F: forward over reverse differentiation.

    For `divergence(theta) = mean_s KL(pi_params(.|s) || pi_theta(.|s))` F is the Fisher matrix of the policy, averaged over
    the states. Costs about twice a gradient.
    """
    return jax.jvp(jax.grad(divergence), (params,), (vector,))[1]


def conjugate_gradient(
    product: Callable[[Vector], Vector], target: Vector, num_iterations: int, tolerance: ScalarLike = 1e-10
) -> Vector:
    """An x with A x close to `target`, for a symmetric positive A given by `product(v) = A v`, starting at zero.

    Stops after `num_iterations` products or when the squared residual is at most `tolerance` times that of the start: in
    float32, further directions would be noise.

    Source: Hestenes and Stiefel 1952.
    """
    start = jnp.vdot(target, target)

    def unfinished(loop: tuple) -> Bool[Array, ""]:
        iteration, *_, residual_norm = loop
        return (iteration < num_iterations) & (residual_norm > tolerance * start)

    def iterate(loop: tuple) -> tuple:
        iteration, x, residual, direction, residual_norm = loop
        mapped = product(direction)
        length = residual_norm / jnp.vdot(direction, mapped)
        residual = residual - length * mapped
        new_norm = jnp.vdot(residual, residual)
        return iteration + 1, x + length * direction, residual, residual + new_norm / residual_norm * direction, new_norm

    return jax.lax.while_loop(unfinished, iterate, (0, jnp.zeros_like(target), target, target, start))[1]


class NaturalGradientStep(NamedTuple):
    """The new parameters, and how the line search went.

    Attributes:
      params: unchanged if no step was accepted.
      accepted: whether one was.
      improvement: of the objective, in its units.
      divergence: from the old parameters, in the units of `divergence` (nats).
      fraction: of the full natural step that was taken, 0 if none.
    """

    params: PyTree
    accepted: Bool[Array, ""]
    improvement: Float[Array, ""]
    divergence: Float[Array, ""]
    fraction: Float[Array, ""]


def natural_gradient_step(
    objective: Callable[[PyTree], Float[Array, ""]],
    divergence: Callable[[PyTree], Float[Array, ""]],
    params: PyTree,
    *,
    max_divergence: ScalarLike,
    damping: ScalarLike,
    num_cg_iterations: int = 10,
    num_backtracks: int = 10,
    backtrack_ratio: float = 0.8,
) -> NaturalGradientStep:
    """Raises `objective` as far as `divergence` <= `max_divergence` allows.

    The direction x solves (F + damping I) x = g with g the objective's gradient; the full step sqrt(2 max_divergence / x'Fx) x
    has the largest divergence allowed to second order. It is shortened by `backtrack_ratio` up to `num_backtracks` times until
    the objective improves and the divergence keeps its bound; otherwise the parameters stay as they are.

    Args:
      objective: `params -> scalar`, to be raised.
      divergence: `params -> scalar`, zero at the given `params` and nowhere less, such as a mean KL divergence.
      max_divergence: delta, in the divergence's units (nats).
      damping: added to F's diagonal; keeps directions short along which F hardly bends.
      num_cg_iterations, num_backtracks: static.
    """
    flat, unravel = ravel_pytree(params)
    value, gradient = jax.value_and_grad(lambda x: objective(unravel(x)))(flat)
    divergence_of = lambda x: divergence(unravel(x))

    def damped_fisher(vector: Vector) -> Vector:
        return fisher_vector_product(divergence_of, flat, vector) + damping * vector

    direction = conjugate_gradient(damped_fisher, gradient, num_cg_iterations)
    curvature = jnp.vdot(direction, damped_fisher(direction))
    # At a stationary point there is no direction: the step is zero, and nothing is accepted.
    length = jnp.sqrt(2 * max_divergence / jnp.where(curvature > 0, curvature, 1.0))
    full_step = jnp.where(curvature > 0, length, 0.0) * direction

    def judge(backtracks: Array) -> tuple[Bool[Array, ""], Vector, Array, Array, Array]:
        fraction = jnp.float32(backtrack_ratio) ** backtracks
        candidate = flat + fraction * full_step
        improvement, reached = objective(unravel(candidate)) - value, divergence_of(candidate)
        return (improvement > 0) & (reached <= max_divergence), candidate, improvement, reached, fraction

    def rejected(loop: tuple) -> Bool[Array, ""]:
        backtracks, (accepted, *_) = loop
        return ~accepted & (backtracks < num_backtracks)

    first = (jnp.int32(0), judge(jnp.int32(0)))
    _, (accepted, candidate, improvement, reached, fraction) = jax.lax.while_loop(
        rejected, lambda loop: (loop[0] + 1, judge(loop[0] + 1)), first
    )
    keep = lambda x: jnp.where(accepted, x, 0.0)
    new = unravel(jnp.where(accepted, candidate, flat))
    return NaturalGradientStep(new, accepted, keep(improvement), keep(reached), keep(fraction))
