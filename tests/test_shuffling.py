"""Random orders: every size gives a permutation, places are uniform, and neighbours do not stay neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import quick_jit

from jaxpg.shuffling import shuffled_indices

shuffle = jax.jit(shuffled_indices, static_argnums=1)
SIZES = [0, 1, 2, 7, 63, 64, 72, 97, 100, 128, 512, 1000, 1536, 4096]  # among them primes, squares, and no power of two


@pytest.mark.parametrize("size", SIZES)
def test_every_index_once(size):
    for seed in range(3):
        np.testing.assert_array_equal(np.sort(shuffle(jax.random.key(seed), size)), np.arange(size))


def test_keys_decide():
    one, same, other = (np.asarray(shuffle(jax.random.key(seed), 512)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).mean() > 0.98


@pytest.mark.parametrize("size", [256, 384])
def test_one_index_and_two_are_placed_as_if_any_order_could_occur(size):
    """Over 40,000 keys: where index 3 lands, and how far from it 4, of its row, and 3 + columns, of its column, land."""
    place = quick_jit(jax.vmap(lambda key: jnp.argsort(shuffled_indices(key, size))))
    places = np.asarray(place(jax.random.split(jax.random.key(0), 40_000)))
    columns = {256: 16, 384: 24}[size]

    def chi_square(x, number):
        counts, expected = np.bincount(x, minlength=number), len(x) / number
        return (np.square(counts - expected) / expected).sum()

    assert chi_square(places[:, 3], size) < size + 5 * np.sqrt(2 * size)
    for other in (4, 3 + columns):
        apart = (places[:, other] - places[:, 3]) % size
        assert (apart > 0).all()
        assert chi_square(apart - 1, size - 1) < size + 5 * np.sqrt(2 * size)


def test_neighbours_are_parted():
    """The share of neighbours that stay neighbours is 2 / n, the number of indices that stay is 1, as for a random order."""
    size = 4096
    orders = np.asarray(jax.vmap(lambda key: shuffled_indices(key, size))(jax.random.split(jax.random.key(1), 200)))
    stay = (np.abs(np.diff(orders, axis=1)) == 1).sum(axis=1)
    np.testing.assert_allclose(stay.mean(), 2.0, atol=0.5)
    np.testing.assert_allclose((orders == np.arange(size)).sum(axis=1).mean(), 1.0, atol=0.35)
    correlation = np.corrcoef(orders[:, :-1].ravel(), orders[:, 1:].ravel())[0, 1]
    assert abs(correlation) < 0.01
