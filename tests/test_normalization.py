"""Running statistics against numpy over everything at once, reward scaling against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxpg.normalization import (
    init_reward_scaling,
    init_statistics,
    normalize,
    scale_rewards,
    update_statistics,
)

update = jax.jit(update_statistics)
SHAPES = [(1, 2), (5, 2), (3, 2, 2)]


def of_everything(samples, prior_weight=1e-4):
    """Mean and variance of samples and of the prior of mean 0 and variance 1, in float64."""
    samples = np.asarray(samples, np.float64)
    weight = prior_weight + len(samples)
    mean = samples.sum(0) / weight
    return mean, (prior_weight * (1 + mean**2) + np.square(samples - mean).sum(0)) / weight


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(SHAPES), st.floats(-100, 100), st.floats(0, 10)), min_size=1, max_size=6),
    st.integers(0, 99),
)
def test_batches_in_turn_are_the_whole_at_once(batches, seed):
    random = np.random.default_rng(seed)
    data = [np.float32(random.normal(mean, std, shape)) for shape, mean, std in batches]
    statistics = init_statistics((2,))
    for batch in data:
        statistics = update(statistics, batch)
    everything = np.concatenate([batch.reshape(-1, 2) for batch in data])
    mean, variance = of_everything(everything)
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(statistics.variance, variance, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(statistics.count, len(everything), rtol=1e-3)


def test_scalars_are_features_too():
    statistics = update_statistics(init_statistics(), jnp.array([[1.0, 2.0], [3.0, 6.0]]))
    np.testing.assert_allclose([statistics.mean, statistics.variance], [3.0, 3.5], rtol=1e-3)
    assert statistics.mean.shape == ()


def test_a_large_offset_and_a_long_run_keep_float32_precise():
    """A sum of squares would reach 1e12 here, and the variance of 1 would drown in its rounding."""
    batches = 1e4 + jax.random.normal(jax.random.key(0), (300, 32, 1))
    statistics, _ = jax.jit(lambda x: jax.lax.scan(lambda s, b: (update_statistics(s, b), None), init_statistics((1,)), x))(
        batches
    )
    everything = np.asarray(batches, np.float64).reshape(-1, 1)
    prior = 1e-4 * 1e8 / len(everything)  # the prior's mean of 0 lies 1e4 away
    np.testing.assert_allclose(statistics.variance, everything.var(0) + prior, rtol=2e-2)
    np.testing.assert_allclose(statistics.mean, everything.mean(0), rtol=1e-5)


def test_normalized_samples_have_mean_0_and_variance_1_and_are_clipped():
    samples = 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (1000, 2))
    statistics = update(init_statistics((2,)), samples)
    normalized = normalize(statistics, samples)
    np.testing.assert_allclose(normalized.mean(0), 0.0, atol=1e-3)
    np.testing.assert_allclose(normalized.std(0), 1.0, atol=1e-3)
    np.testing.assert_array_equal(normalize(statistics, jnp.array([1e4, -1e4])), [10.0, -10.0])
    constant = update(init_statistics((1,)), jnp.ones((8, 1)))
    assert np.isfinite(normalize(constant, jnp.ones((1, 1)))).all()


def test_before_any_sample_nothing_changes():
    np.testing.assert_allclose(normalize(init_statistics((3,)), jnp.array([-1.0, 0.0, 2.0])), [-1.0, 0.0, 2.0])


def test_rewards_are_divided_by_the_deviation_of_discounted_returns():
    """Two windows in a row against a loop: returns run on between windows and restart after an episode's end."""
    random, discount = np.random.default_rng(0), 0.9
    scaling, running, returns = init_reward_scaling(3), np.zeros(3), []
    scale = jax.jit(scale_rewards)
    for _ in range(2):
        rewards, done = np.float32(random.normal(2.0, 1.0, (6, 3))), random.random((6, 3)) < 0.3
        assert done.any()
        scaling, scaled = scale(scaling, rewards, done, discount)
        for reward, ended in zip(rewards, done, strict=True):
            running = discount * running + reward
            returns.extend(running)
            running = np.where(ended, 0.0, running)
        variance = of_everything(returns)[1]
        np.testing.assert_allclose(scaled, rewards / np.sqrt(variance), rtol=1e-4)
        np.testing.assert_allclose(scaling.discounted_return, running, rtol=1e-5)
        np.testing.assert_allclose(scaling.statistics.variance, variance, rtol=1e-4)
        np.testing.assert_array_equal(np.sign(scaled), np.sign(rewards))


def test_scaled_rewards_are_clipped():
    rewards = jnp.array([[0.0]] * 999 + [[1.0]])
    _, scaled = scale_rewards(init_reward_scaling(1), rewards, jnp.ones((1000, 1), bool), 0.99)
    assert scaled[-1, 0] == 10.0
    _, silent = scale_rewards(init_reward_scaling(1), jnp.zeros((4, 1)), jnp.zeros((4, 1), bool), 0.99)
    np.testing.assert_array_equal(silent, 0.0)
