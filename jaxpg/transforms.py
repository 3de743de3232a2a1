"""What JAX's transformations leave to be said."""

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float


@custom_vmap
def any_in_batch(flags: Bool[Array, "..."]) -> Bool[Array, ""]:
    """Whether any flag is set, here or elsewhere under `vmap`.

    It is a scalar to `vmap` as well, so that a `lax.cond` on it stays a branch where it would become a selection between
    two results that are both computed.
    """
    return flags.any()


@any_in_batch.def_vmap
def _(size: int, is_batched: list[bool], flags: Bool[Array, "..."]) -> tuple[jax.Array, bool]:
    del size, is_batched
    return any_in_batch(flags), False


def nothing() -> float:
    """What stands for a number that there is none of: NaN, but -inf with `jax_debug_nans`, to which each NaN is a mistake."""
    return -jnp.inf if jax.config.jax_debug_nans else jnp.nan


def mean_of(total: Float[Array, "..."], count: Float[Array, "..."]) -> Float[Array, "..."]:
    """`total / count`, and `nothing()` where the count is zero."""
    if jax.config.jax_debug_nans:
        return jnp.where(count > 0, total / jnp.maximum(count, 1), nothing())
    return total / count
