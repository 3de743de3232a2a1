"""Counters at their limits: what is read from them goes on as if they had no limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import quick_jit

from jaxpg.counting import LARGE, divisors, elapsed, fraction, has_reached, increment, init_count, last_digit, wrap

TOP = 2**31 - 1


def counted(start, number, period=1):
    """The counts after `start`."""
    step = quick_jit(lambda count: increment(count, period))
    counts = [start]
    for _ in range(number):
        counts.append(step(counts[-1]))
    return counts


@pytest.mark.parametrize("period", [1, 2, 3, 50, 20_000])
def test_a_number_at_its_limit_keeps_remainders_and_what_is_past(period):
    counts = counted(jnp.int32(TOP - 3), 6, period)
    assert {count.dtype.name for count in counts} == {"int32"}
    for i, count in enumerate(counts):
        assert count % period == (TOP - 3 + i) % period
        assert count >= LARGE
        assert fraction(count, LARGE - 1) == 1
        assert has_reached(count, LARGE - 1)
    assert counted(jnp.int32(0), 3)[-1] == 3


def test_differences_survive_the_limit():
    counts = counted(jnp.int32(TOP - 3), 6)
    for i, now in enumerate(counts):
        for j, then in enumerate(counts[: i + 1]):
            assert elapsed(now, last_digit(then)) == i - j
    np.testing.assert_array_equal(elapsed(5, jnp.array([5, 2, 0])), [0, 3, 5])


def test_two_digits_count_to_10_to_the_12_and_on():
    total = 10**12
    start = total - 2
    counts = counted(jnp.array(divmod(start, LARGE), jnp.int32), 4)
    assert init_count(total).shape == (2,)
    assert init_count(100).shape == ()
    for i, count in enumerate(counts):
        assert int(count[0]) * LARGE + int(count[1]) == start + i
        assert has_reached(count, total) == (i >= 2)
        assert has_reached(count, total - 2)
        np.testing.assert_allclose(fraction(count, total), 1.0, rtol=1e-6)
        assert fraction(count, total) <= 1
    over = counted(jnp.array([3, LARGE - 1], jnp.int32), 1)
    np.testing.assert_array_equal(over[1], [4, 0])
    assert elapsed(over[1], last_digit(over[0])) == 1
    np.testing.assert_allclose(fraction(over[1], total), 4 * LARGE / total, rtol=1e-6)
    assert not has_reached(over[0], 4 * LARGE)
    assert has_reached(over[1], 4 * LARGE)


@pytest.mark.parametrize("capacity", [1, 6, 1000])
def test_a_ring_that_was_written_often_is_full_to_the_same_place(capacity):
    for rows in (0, 1, capacity - 1, capacity, LARGE - 1):
        assert wrap(jnp.int32(rows), capacity) == rows
    for rows in (LARGE, LARGE + 5, TOP):
        wrapped = jax.jit(lambda x: wrap(x, capacity))(rows)
        assert capacity <= wrapped < 2 * capacity
        assert wrapped % capacity == rows % capacity


@pytest.mark.parametrize("number", [1, 2, 12, 36, 97, 2**10])
def test_divisors(number):
    assert divisors(number) == [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def test_divisors_of_large_numbers_are_found_at_once():
    assert divisors(2**31 - 1) == [1, 2**31 - 1]  # a prime
    assert divisors(2**30) == [2**i for i in range(31)]
