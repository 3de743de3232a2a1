"""Counters that hold however long a run is, in the 32 bits that JAX computes with.

A count is an int32 number or, of updates in a run of more than fit, two digits of base `LARGE`. A number at its limit falls
back as far as nobody notices: what is past stays past, remainders and differences stay what they are.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, ScalarLike

LARGE = 2**30


def init_count(total: int) -> Int[Array, "*digit"]:
    """Zero, to count to `total` and beyond."""
    return jnp.zeros(() if total < LARGE else 2, jnp.int32)


def increment(count: Int[Array, "*digit"], period: int = 1) -> Int[Array, "*digit"]:
    """One more; a number that would not fit falls back by about `LARGE`, a multiple of `period`."""
    if count.ndim == 0:
        fallen = max(2 * LARGE - max(LARGE // period, 1) * period, 1)
        return jnp.where(count < 2 * LARGE - 1, count + 1, fallen)
    full = count[1] == LARGE - 1
    return jnp.stack([count[0] + full, jnp.where(full, 0, count[1] + 1)])


def wrap(rows: Int[Array, ""], capacity: int) -> Int[Array, ""]:
    """How many rows were written to a ring or, if they are many, a smaller number that fills it as well to the same place."""
    return jnp.where(rows < LARGE, rows, capacity + rows % capacity)


def last_digit(count: Int[Array, "*digit"] | int) -> Int[Array, ""]:
    """The count as far as `elapsed` needs it."""
    count = jnp.asarray(count, jnp.int32)
    return count if count.ndim == 0 else count[1]


def elapsed(now: Int[Array, "*digit"] | int, then: Int[Array, "*batch"]) -> Int[Array, "*batch"]:
    """How often it was counted since the count's last digit was `then`, if less than `LARGE` times."""
    return (last_digit(now) - then) % LARGE


def has_reached(count: Int[Array, "*digit"], number: int) -> Bool[Array, ""]:
    """Whether the count is at least `number`."""
    if count.ndim == 0:
        return count >= min(number, LARGE)
    high, low = divmod(number, LARGE)
    return (count[0] > high) | ((count[0] == high) & (count[1] >= low))


def fraction(count: Int[Array, "*digit"], total: int) -> Float[Array, ""]:
    """The share of `total` that was counted, at most 1."""
    number = count.astype(jnp.float32)
    if count.ndim > 0:
        number = number[0] * LARGE + number[1]
    return jnp.minimum(number / float(total), 1.0)


def falling(start: ScalarLike, end: ScalarLike, progress: ScalarLike, share: ScalarLike) -> Float[Array, ""]:
    """Linearly from `start` to `end` over the first `share` of a run, whose progress is from 0 to 1; then `end`."""
    return start + jnp.minimum(progress / jnp.maximum(share, 1e-8), 1.0) * (end - start)


def divisors(number: int) -> list[int]:
    """Of a positive number, in order; found in as many steps as its square root."""
    small = [divisor for divisor in range(1, math.isqrt(number) + 1) if number % divisor == 0]
    return sorted({*small, *(number // divisor for divisor in small)})
