"""What lies behind an episode's end may be anything, NaN included: returns, targets and their gradients do not notice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpg.losses.off_policy import retrace, vtrace
from jaxpg.losses.returns import generalized_advantage_estimation, lambda_returns, monte_carlo_returns, n_step_returns

# Two episodes: steps 0 to 2 terminate, steps 3 and 4 run on beyond the window. Only steps 0, 1, 3 and 4 have successors.
TERMINATED = jnp.array([0.0, 0.0, 1.0, 0.0, 0.0])
NEVER = jnp.zeros(5)
REWARDS = jnp.array([1.0, 1.0, 1.0, 2.0, 3.0])
VALUES = jnp.array([0.5, -0.25, 1.0, 0.75, 2.0])
ENDS = [np.nan, np.inf, -np.inf]
TARGETS = {
    "gae": lambda next_values, ratio, discount: generalized_advantage_estimation(
        REWARDS, VALUES, next_values, TERMINATED, NEVER, discount, 0.8
    ),
    "lambda": lambda next_values, ratio, discount: lambda_returns(REWARDS, next_values, TERMINATED, NEVER, discount, 0.8),
    "monte carlo": lambda next_values, ratio, discount: monte_carlo_returns(REWARDS, next_values, TERMINATED, NEVER, discount),
    "n steps": lambda next_values, ratio, discount: n_step_returns(REWARDS, next_values, TERMINATED, NEVER, discount, 3),
    "vtrace": lambda next_values, ratio, discount: vtrace(
        ratio, REWARDS, VALUES, next_values, TERMINATED, NEVER, discount, 0.8
    ),
    "retrace": lambda next_values, ratio, discount: retrace(
        ratio, REWARDS, VALUES, next_values, TERMINATED, NEVER, discount, 0.8
    ),
}


@pytest.mark.parametrize("garbage", ENDS)
def test_advantages_by_hand(garbage):
    """delta = 1 at each step; A_1 = 1 + .9 * .8 * 1, A_0 = 1 + .72 * 1.72. Both flags at once are a termination."""
    zeros, ones, next_values = jnp.zeros(3), jnp.ones(3), jnp.array([0.0, 0.0, garbage])
    for truncated in (zeros, jnp.array([0.0, 0.0, 1.0])):
        for terminated in (jnp.array([0.0, 0.0, 1.0]), jnp.array([False, False, True])):
            advantages, targets = generalized_advantage_estimation(ones, zeros, next_values, terminated, truncated, 0.9, 0.8)
            np.testing.assert_allclose(advantages, [2.2384, 1.72, 1.0], rtol=1e-6)
            np.testing.assert_allclose(targets, advantages, rtol=1e-6)


@pytest.mark.parametrize("garbage", ENDS)
@pytest.mark.parametrize("name", TARGETS)
def test_targets_and_gradients_are_those_of_a_zero_there(name, garbage):
    ratio = jnp.array([0.1, -0.3, 0.2, 0.4, -0.1])
    clean = jnp.array([-0.25, 1.0, 0.0, 2.0, 1.5])

    def summed(next_values, ratio, discount):
        return sum(jnp.square(x).sum() for x in jax.tree.leaves(TARGETS[name](next_values, ratio, discount)))

    measured = jax.jit(jax.value_and_grad(summed, argnums=(0, 1, 2)))
    expected, gradient = measured(clean, ratio, 0.9)
    actual, found = measured(clean.at[2].set(garbage), ratio, 0.9)
    np.testing.assert_array_equal(actual, expected)
    for a, b in zip(found, gradient, strict=True):
        np.testing.assert_array_equal(a, b)
    assert found[0][2] == 0


@pytest.mark.parametrize("name", TARGETS)
def test_a_fault_stays_in_its_episode(name):
    """NaN is the value behind the window: the second episode is lost, the first is not."""
    clean = jnp.array([-0.25, 1.0, 0.0, 2.0, 1.5])
    faulty = clean.at[4].set(jnp.nan)
    target = jax.jit(TARGETS[name])
    for x, y in zip(*(jax.tree.leaves(target(values, jnp.zeros(5), 0.9)) for values in (faulty, clean)), strict=True):
        assert np.isnan(x[4])
        np.testing.assert_array_equal(x[:3], y[:3])


def test_inside_an_episode_no_value_counts_towards_a_monte_carlo_return():
    cut = jnp.array([0.0, 1.0, 0.0])
    next_values = jnp.array([jnp.nan, 4.0, 8.0])
    returns = monte_carlo_returns(jnp.ones(3), next_values, jnp.zeros(3), cut, 0.5)
    np.testing.assert_allclose(returns, [1 + 0.5 * 3, 1 + 0.5 * 4, 1 + 0.5 * 8])


def test_a_cut_episode_needs_its_value():
    for function in TARGETS.values():
        assert np.isnan(jax.tree.leaves(function(jnp.full(5, jnp.nan), jnp.zeros(5), 0.9))[0][3:]).all()
