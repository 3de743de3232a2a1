"""The bandit over agents' hyperparameters, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
from checks import quick_jit

from jaxpg.algorithms.meta_learning.bandit import DECAY, NUM_ARMS, Bandit, choose_arms, factors, init_bandit, note_returns

KEY = jax.random.key(0)


def test_arms_are_all_pairs_of_factors():
    pace, weight = factors(jnp.arange(NUM_ARMS))
    assert sorted(zip(pace.tolist(), weight.tolist(), strict=True)) == [(p, w) for p in (0.5, 1, 2) for w in (0.5, 1, 2)]


def test_what_was_never_tried_comes_first():
    bandit = note_returns(init_bandit(), jnp.array([0, 1, 8]), jnp.array([9.0, 9.0, 9.0]), jnp.array([True, True, False]))
    chosen = choose_arms(KEY, bandit, 4000, 0.1, 0.2)
    np.testing.assert_allclose(np.bincount(chosen, minlength=NUM_ARMS) / 4000, [0, 0, *[1 / 7] * 7], atol=0.03)


def test_means_are_of_what_exists_and_forget():
    bandit = note_returns(init_bandit(), jnp.array([3, 3, 4]), jnp.array([1.0, 2.0, 5.0]), jnp.array([True, True, False]))
    assert (bandit.total[3], bandit.count[3], bandit.count.sum()) == (3, 2, 2)
    bandit = note_returns(bandit, jnp.array([3]), jnp.array([4.0]), jnp.array([True]))
    np.testing.assert_allclose([bandit.total[3], bandit.count[3]], [3 * DECAY + 4, 2 * DECAY + 1], rtol=1e-6)


def test_shares_are_a_softmax_of_means_and_of_a_bonus_for_what_is_rare():
    count = jnp.array([4.0] * 8 + [1.0])
    mean = jnp.array([0.3, 0.2, 0.1, 0, 0, 0, 0, -0.1, 0.1])
    chosen = quick_jit(choose_arms, static_argnums=2)(KEY, Bandit(mean * count, count), 20_000, 0.1, 0.2)
    weights = np.exp((np.asarray(mean) + 0.2 / np.sqrt(np.asarray(count))) / 0.1)
    np.testing.assert_allclose(np.bincount(chosen, minlength=NUM_ARMS) / 20_000, weights / weights.sum(), atol=0.015)
