"""One step of an optimiser, and what it is measured by."""

import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree


def descend(
    optimizer: optax.GradientTransformation, gradient: PyTree, params: PyTree, optimizer_state: PyTree
) -> tuple[PyTree, PyTree]:
    """One step of the optimiser: parameters and optimiser state."""
    changes, optimizer_state = optimizer.update(gradient, optimizer_state, params)
    return optax.apply_updates(params, changes), optimizer_state


def global_norm(tree: PyTree) -> Float[Array, ""]:
    """The Euclidean norm of all leaves together."""
    # Of one vector, as the optimisers have it (`optax.flatten`): computed once for both.
    return optax.global_norm(ravel_pytree(tree)[0])
