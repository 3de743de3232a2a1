"""Random orders without a sort."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

ROUNDS = 3
SMALLEST_SIDE = 16  # of the grid; on smaller ones pairs are not placed quite evenly


def shuffled_indices(key: jax.Array, size: int) -> Int[Array, " size"]:
    """0, 1, ..., size - 1 in a random order.

    The indices are laid out on a grid as square as `size` allows; each round shifts every row, then every column, cyclically
    by a random number of places of its own. That is a Feistel network of random functions (Luby and Rackoff, 1988): not every
    order can occur, but any few indices land as if it could. It takes a few passes over the indices, where
    `jax.random.permutation` sorts twice; that one is used where `size` allows no large grid: below 256, and for primes.
    """
    rows = next(d for d in range(math.isqrt(size), 0, -1) if size % d == 0) if size else 0
    if rows < SMALLEST_SIDE:
        return jax.random.permutation(key, size)
    columns = size // rows
    # The remainder favours some shifts, by less than one part in 2^32 / size.
    bits = jax.random.bits(key, (ROUNDS, rows + columns))
    row_shifts = (bits[:, :rows] % columns).astype(jnp.int32)
    column_shifts = (bits[:, rows:] % rows).astype(jnp.int32)

    def shift(place: tuple[Array, Array], shifts: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        (row, column), (shift_of_row, shift_of_column) = place, shifts
        column = _wrapped(column + shift_of_row[row], columns)
        return (_wrapped(row + shift_of_column[column], rows), column), None

    # A loop, whose inputs are computed once: written out, XLA draws the bits anew for each index.
    (row, column), _ = jax.lax.scan(shift, jnp.divmod(jnp.arange(size), columns), (row_shifts, column_shifts))
    return row * columns + column


def _wrapped(place: Int[Array, " size"], size: int) -> Int[Array, " size"]:
    return jnp.where(place >= size, place - size, place)
