"""Random orders without a sort."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

ROUNDS = 3
SMALLEST_SIDE = 8


def shuffled_indices(key: jax.Array, size: int) -> Int[Array, " size"]:
    """0, 1, ..., size - 1 in a random order.

    The indices are laid out on a grid as square as `size` allows; each round shifts every row, then every column, cyclically
    by a random number of places of its own. That is a Feistel network of random functions (Luby and Rackoff, 1988): not every
    order can occur, but any few indices land as if it could. It takes a few passes over the indices, where
    `jax.random.permutation` sorts twice; that one is used where `size` allows no grid, such as a prime.
    """
    rows = next(d for d in range(math.isqrt(size), 0, -1) if size % d == 0) if size else 0
    if rows < SMALLEST_SIDE:
        return jax.random.permutation(key, size)
    columns = size // rows
    row_key, column_key = jax.random.split(key)
    row_shifts = jax.random.randint(row_key, (ROUNDS, rows), 0, columns)
    column_shifts = jax.random.randint(column_key, (ROUNDS, columns), 0, rows)
    row, column = jnp.divmod(jnp.arange(size), columns)
    for shift_of_row, shift_of_column in zip(row_shifts, column_shifts, strict=True):
        column = _wrapped(column + shift_of_row[row], columns)
        row = _wrapped(row + shift_of_column[column], rows)
    return row * columns + column


def _wrapped(place: Int[Array, " size"], size: int) -> Int[Array, " size"]:
    return jnp.where(place >= size, place - size, place)
