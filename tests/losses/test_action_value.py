"""Losses of action values: numbers written out, rlax as oracle, and what they are minimised by."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxpg.losses import (
    double_q_value,
    quantile_huber_loss,
    soft_value,
    temperature_loss,
    value_of_action,
    weighted_squared_error,
)


def test_double_q_value_by_hand():
    online, target = jnp.array([[1.0, 2.0, 0.0], [5.0, 4.0, 3.0]]), jnp.array([[10.0, 20.0, 30.0], [1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(double_q_value(online, target), [20.0, 1.0])
    np.testing.assert_array_equal(double_q_value(target, target), [30.0, 3.0])
    with pytest.raises(AssertionError, match="one common shape"):
        inspect.unwrap(double_q_value)(online, target[:1])


def test_squared_error_by_hand():
    values, targets, weights = jnp.array([1.0, 2.0]), jnp.array([3.0, 1.0]), jnp.array([0.5, 1.0])
    assert float(weighted_squared_error(values, targets)) == 0.5 * (4 + 1) / 2
    assert float(weighted_squared_error(values, targets, weights)) == 0.5 * (0.5 * 4 + 1) / 2
    with pytest.raises(AssertionError, match="one common shape"):
        inspect.unwrap(weighted_squared_error)(values, targets[:, None])


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_temporal_difference_is_rlaxs(seed):
    rng = np.random.default_rng(seed)
    q, online, target = (jnp.asarray(rng.normal(size=4), jnp.float32) for _ in range(3))
    action, reward, discount = int(rng.integers(4)), float(rng.normal()), float(rng.random())
    ours = reward + discount * double_q_value(online, target) - value_of_action(q, jnp.int32(action))
    oracle = rlax.double_q_learning(q, jnp.int32(action), reward, discount, target, online)
    np.testing.assert_allclose(ours, oracle, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kappa", [0.5, 1.0, 3.0])
def test_quantile_regression_is_rlaxs(kappa):
    rng = np.random.default_rng(0)
    quantiles, targets = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((6, 5), (6, 7)))
    levels = (jnp.arange(5) + 0.5) / 5
    oracle = jax.vmap(lambda q, z: rlax.quantile_regression_loss(q, levels, z, kappa))(quantiles, targets)
    # rlax has the older form, which is not divided by kappa.
    np.testing.assert_allclose(kappa * quantile_huber_loss(quantiles, targets, kappa), oracle, rtol=1e-5)


def test_quantile_regression_finds_the_quantiles():
    samples = jnp.sort(jax.random.normal(jax.random.key(0), (400,)))
    quantiles = jnp.zeros(4)
    step = jax.jit(lambda q: q - 0.5 * jax.grad(lambda q: quantile_huber_loss(q, samples, 0.01))(q))
    for _ in range(300):
        quantiles = step(quantiles)
    np.testing.assert_allclose(quantiles, jnp.quantile(samples, jnp.array([0.125, 0.375, 0.625, 0.875])), atol=0.03)


def test_soft_value_by_hand_and_without_an_impossible_action():
    q, log_pi = jnp.array([1.0, 3.0]), jnp.log(jnp.array([0.25, 0.75]))
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    np.testing.assert_allclose(soft_value(q, log_pi, 0.5), 0.25 + 2.25 + 0.5 * entropy, rtol=1e-6)
    value, gradient = jax.value_and_grad(soft_value, 1)(q, jnp.array([0.0, -jnp.inf]), 0.5)
    assert float(value) == 1.0
    assert np.isfinite(gradient).all()
    assert np.isnan(soft_value(q, jnp.array([0.0, jnp.nan]), 0.5)), "a broken policy is not an impossible action"


@given(st.integers(0, 10_000), st.floats(0.1, 3.0))
@settings(max_examples=20, deadline=None)
def test_soft_value_is_largest_at_the_softmax(seed, temperature):
    q = jnp.asarray(np.random.default_rng(seed).normal(size=5), jnp.float32)
    best = soft_value(q, jax.nn.log_softmax(q / temperature), temperature)
    np.testing.assert_allclose(best, temperature * jax.nn.logsumexp(q / temperature), rtol=1e-4, atol=1e-5)
    other = soft_value(q, jax.nn.log_softmax(1.1 * q / temperature + jnp.arange(5) * 0.1), temperature)
    assert float(other) <= float(best) + 1e-6


def test_the_temperature_rises_while_entropy_is_below_its_target():
    slope = jax.grad(temperature_loss)
    assert float(slope(0.3, jnp.array([0.5, 1.5]), 2.0)) == -1.0  # descending, it rises
    assert float(slope(0.3, jnp.array([0.5, 1.5]), 1.0)) == 0.0
    assert float(slope(0.3, jnp.array([0.5, 1.5]), -1.0)) == 2.0
