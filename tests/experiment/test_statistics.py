import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxpg.experiment.statistics import bootstrap_interval, interquartile_mean

NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([5.0], 5.0),
        ([1.0, 2.0, 6.0], 3.0),  # floor(3 / 4) = 0: nothing is cut
        ([1.0, 2.0, 4.0, 100.0], 3.0),  # 1 and 100 are cut
        ([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0], 3.5),  # -50, 1 | 2, 3, 4, 5 | 6, 9
        ([NAN, 1.0, 2.0, 4.0, 100.0], 3.0),  # missing, not zero
        ([1, 2, 4, 100], 3.0),
    ],
)
def test_interquartile_mean_by_hand(scores, expected):
    assert interquartile_mean(np.array(scores)) == pytest.approx(expected)


def test_interquartile_mean_agrees_with_scipy_along_any_axis():
    scores = np.random.default_rng(0).normal(size=(9, 5))
    np.testing.assert_allclose(interquartile_mean(scores), scipy.stats.trim_mean(scores, 0.25, axis=0))
    np.testing.assert_allclose(interquartile_mean(scores, axis=1), scipy.stats.trim_mean(scores, 0.25, axis=1))
    np.testing.assert_allclose(interquartile_mean(scores, axis=None), scipy.stats.trim_mean(scores.ravel(), 0.25))
    np.testing.assert_allclose(interquartile_mean(jnp.asarray(scores)), interquartile_mean(scores), rtol=1e-6)


def test_a_point_without_any_value_is_nan_and_silent(recwarn):
    curve = np.array([[NAN, 1.0], [NAN, 3.0]])
    np.testing.assert_array_equal(interquartile_mean(curve), [NAN, 2.0])
    np.testing.assert_array_equal(bootstrap_interval(curve)[0][0], NAN)
    assert not recwarn.list


def test_interval_of_the_mean_agrees_with_the_normal_theory():
    scores = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    low, high = bootstrap_interval(scores, statistic=np.mean, num_resamples=5000)
    half = 1.96 * scores.std() / np.sqrt(len(scores))
    assert low == pytest.approx(scores.mean() - half, abs=0.02)
    assert high == pytest.approx(scores.mean() + half, abs=0.02)


def test_interval_covers_the_true_value_about_as_often_as_it_says():
    # 500 experiments of 20 seeds each, as the points of one curve
    scores = np.random.default_rng(2).normal(size=(20, 500))
    low, high = bootstrap_interval(scores, num_resamples=500)
    coverage = np.mean((low <= 0) & (high >= 0))
    assert 0.88 < coverage < 0.97  # the percentile interval is a little short at 20 seeds
    narrow_low, narrow_high = bootstrap_interval(scores, confidence=0.5, num_resamples=500)
    assert 0.43 < np.mean((narrow_low <= 0) & (narrow_high >= 0)) < 0.55


def test_interval_is_deterministic_and_depends_on_its_seed():
    scores = np.random.default_rng(3).normal(size=12)
    assert bootstrap_interval(scores) == bootstrap_interval(scores.copy())
    assert bootstrap_interval(scores) != bootstrap_interval(scores, seed=1)


def test_interval_of_one_seed_is_its_value():
    curve = np.array([[1.0, 2.0, NAN]])
    low, high = bootstrap_interval(curve)
    np.testing.assert_array_equal(low, [1.0, 2.0, NAN])
    np.testing.assert_array_equal(high, low)
    low, high = bootstrap_interval(np.array([7.0]))
    assert (low, high, low.shape) == (7.0, 7.0, ())


def test_missing_seeds_are_left_out_point_by_point():
    scores = np.random.default_rng(4).normal(size=(10, 3))
    scores[2, 1] = scores[7, 1] = NAN
    low, high = bootstrap_interval(scores)
    for point in range(3):
        present = scores[~np.isnan(scores[:, point]), point]
        assert (low[point], high[point]) == bootstrap_interval(present)
        assert low[point] < interquartile_mean(present) < high[point]


def test_interval_says_what_it_cannot_do():
    with pytest.raises(ValueError, match="confidence must lie strictly between 0 and 1, got 95"):
        bootstrap_interval(np.ones(3), confidence=95.0)
    with pytest.raises(ValueError, match="at least one seed"):
        bootstrap_interval(np.ones((0, 4)))
