"""What JAX's transformations leave to be said."""

import jax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool


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
