"""One step of an optimiser, and what it is measured by."""

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree, ScalarLike


def descend(
    optimizer: optax.GradientTransformation, gradient: PyTree, params: PyTree, optimizer_state: PyTree
) -> tuple[PyTree, PyTree]:
    """One step of the optimiser: parameters and optimiser state."""
    changes, optimizer_state = optimizer.update(gradient, optimizer_state, params)
    return optax.apply_updates(params, changes), optimizer_state


def global_norm(tree: PyTree) -> Float[Array, ""]:
    """The Euclidean norm of all leaves together."""
    # Of one vector, as the optimisers have it (`optax.flatten`): computed once for both.
    return _norm(ravel_pytree(tree)[0])


def clip_by_global_norm(max_norm: ScalarLike) -> optax.GradientTransformation:
    """optax's, with a derivative also where gradients are zero: without reward, or where PPO has clipped all of a minibatch."""
    return optax.GradientTransformation(
        lambda params: optax.EmptyState(), lambda gradient, state, params=None: (_clip(gradient, max_norm), state)
    )


@jax.custom_jvp
def _clip(gradient: PyTree, max_norm: ScalarLike) -> PyTree:
    return optax.clip_by_global_norm(max_norm).update(gradient, optax.EmptyState())[0]


@_clip.defjvp
def _(primals: tuple[PyTree, ScalarLike], tangents: tuple[PyTree, ScalarLike]) -> tuple[PyTree, PyTree]:
    def clip(gradient: PyTree, max_norm: ScalarLike) -> PyTree:
        norm = _norm(gradient)
        fits = norm < max_norm
        scale = jnp.where(fits, 1.0, max_norm / jnp.where(fits, 1.0, norm))
        return jax.tree.map(lambda x: scale * x, gradient)

    return jax.jvp(clip, primals, tangents)


def _norm(tree: PyTree) -> Float[Array, ""]:
    return _root(optax.tree.norm(tree, squared=True))


@jax.custom_jvp
def _root(x: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.sqrt(x)


@_root.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """0 at 0: there the slope is infinite, which times the 0 that comes from metrics nobody differentiates would be NaN."""
    value = _root(*primals)
    return value, jnp.where(value > 0, 0.5 / jnp.where(value > 0, value, 1.0), 0.0) * tangents[0]
