"""Shape assertions shared by the losses."""

import chex
from jaxtyping import Array, Shaped


def assert_same_shape(**arrays: Shaped[Array, "..."]) -> None:
    """Raise `AssertionError`, naming the arguments, unless all arrays have exactly one shape.

    Broadcasting is refused on purpose: (n, 1) against (n,) silently averages over n * n pairs.
    """
    chex.assert_equal_shape(
        list(arrays.values()),
        custom_message=f"Give {', '.join(arrays)} (in this order) one common shape",
    )
