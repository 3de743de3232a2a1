"""Evaluation: whole first episodes, short and long alike, each with the policy's memory from its start."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_close, quick_jit, row
from environments import Cycle, Lifetimes

import jaxpg
import jaxpg_envs
from jaxpg import Policy

LIFETIMES = Lifetimes()
KEY = jax.random.key(0)


def stepping(params, key, observation, carry):
    """Acts 1 at every other step, by memory alone, and remembers the observations too."""
    count, seen = carry
    return count % 2, (count + 1, seen + observation)


ALWAYS_1 = Policy((), lambda params, key, observation, carry: (jnp.int32(1), carry))
RANDOM = Policy(0.5, lambda odds, key, observation, carry: (jax.random.bernoulli(key, odds).astype(jnp.int32), carry))
EVERY_OTHER = Policy((), stepping, (jnp.int32(0), jnp.zeros(1)))


@pytest.fixture(scope="module")
def evaluate():
    return quick_jit(jaxpg.evaluate, static_argnums=(1, 4, 5))


def test_returns_of_a_cycle(evaluate):
    env = Cycle(3)
    returns = evaluate(ALWAYS_1, env, env.params([1.0, 10.0, 100.0], 7), KEY, 5, 50)
    np.testing.assert_array_equal(returns, [223.0] * 5)
    assert returns.dtype == jnp.float32


def test_only_first_episodes_count_and_short_ones_no_more_than_long_ones(evaluate):
    """Half of the episodes last 1 step, half 40: counting all episodes that end in a window gives a mean near 2.

    Later episodes pay 1000 per step, and none is seen.
    """
    returns = np.asarray(evaluate(ALWAYS_1, LIFETIMES, LIFETIMES.params(1, 40), KEY, 400, 100))
    assert set(returns) == {1.0, 40.0}
    assert abs((returns == 40.0).mean() - 0.5) < 0.1  # four standard deviations


def test_unfinished_episodes_are_nan(evaluate):
    params = LIFETIMES.params(3, 40)
    returns = np.asarray(evaluate(ALWAYS_1, LIFETIMES, params, KEY, 32, 39))
    assert 0 < np.isnan(returns).sum() < 32
    np.testing.assert_array_equal(returns[~np.isnan(returns)], 3.0)
    assert not np.isnan(evaluate(ALWAYS_1, LIFETIMES, params, KEY, 32, 40)).any()


@pytest.mark.parametrize("length", [4, 7])
def test_memory_starts_afresh_and_is_carried(evaluate, length):
    returns = evaluate(EVERY_OTHER, LIFETIMES, LIFETIMES.params(length, length), KEY, 3, 100)
    np.testing.assert_array_equal(returns, [length // 2] * 3)


def test_episodes_and_steps_have_keys_of_their_own(evaluate):
    params = LIFETIMES.params(100, 100)
    returns = np.asarray(evaluate(RANDOM, LIFETIMES, params, KEY, 200, 100))
    np.testing.assert_allclose(returns.mean(), 50, atol=1.5)  # binomial: standard deviation 5, of the mean 0.35
    np.testing.assert_allclose(returns.std(), 5, atol=1)
    np.testing.assert_array_equal(returns, evaluate(RANDOM, LIFETIMES, params, KEY, 200, 100))
    assert (returns != evaluate(RANDOM, LIFETIMES, params, jax.random.key(1), 200, 100)).any()


def test_many_policies_and_params_at_once(evaluate):
    """Lanes that end early wait for the others and keep their returns."""
    odds, lengths = jnp.array([0.1, 0.9]), jnp.array([[2, 5], [30, 70]])
    evaluate_one = lambda odds, lengths: jaxpg.evaluate(
        RANDOM.replace(params=odds), LIFETIMES, {"lengths": lengths, "time_limit": jnp.int32(99)}, KEY, 6, 60
    )
    table = quick_jit(jax.vmap(jax.vmap(evaluate_one, (None, 0)), (0, None)))(odds, lengths)
    assert table.shape == (2, 2, 6)
    for i, j in np.ndindex(2, 2):
        params = {"lengths": lengths[j], "time_limit": jnp.int32(99)}
        assert_close(row(table, i, j), evaluate(RANDOM.replace(params=odds[i]), LIFETIMES, params, KEY, 6, 60))
    assert np.isnan(table[:, 1]).any()


def test_a_second_evaluation_traces_nothing():
    env = Cycle(2)
    for seed, reward in ((0, 1.0), (1, 2.0)):
        returns = jaxpg.evaluate(ALWAYS_1, env, env.params([reward, 0.0], 3), jax.random.key(seed), 4, 9)
        np.testing.assert_array_equal(returns, 2 * reward)
        assert env.traces == 1


@pytest.mark.parametrize("numbers", [{"num_episodes": 0}, {"max_steps": -1}, {"num_episodes": 0.5}])
def test_there_must_be_something_to_evaluate(numbers):
    with pytest.raises(jaxpg.InputError, match=r"(num_episodes|max_steps) must be (at least 1|a whole number), got"):
        inspect.unwrap(jaxpg.evaluate)(ALWAYS_1, LIFETIMES, LIFETIMES.params(1, 2), KEY, **numbers)


def test_episodes_beyond_32_bits_are_refused_before_the_compile():
    """Also where it is their product with the seeds."""
    env, params = jaxpg_envs.make("CartPole-v1")
    evaluate = lambda number: jax.vmap(lambda key: jaxpg.evaluate(ALWAYS_1, env, params, key, number))(jax.random.split(KEY, 4))
    with pytest.raises(jaxpg.InputError, match="num_episodes must be at most 2147483647, got 10000000000000"):
        jax.eval_shape(lambda: evaluate(10**13))
    with pytest.raises(jaxpg.InputError, match="num_episodes = 1000000000 make arrays of more rows than 32 bits can number"):
        jax.eval_shape(lambda: evaluate(10**9))
