"""Returns and advantages: numbers written out, rlax as oracle, and what must hold for every window."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxpg.losses.returns import (
    generalized_advantage_estimation,
    lambda_returns,
    monte_carlo_returns,
    n_step_returns,
)

# Three episodes in one window: cut at step 1, terminal at step 3, still running at the window's end.
# The value after the terminal step is garbage that must never count.
REWARDS = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])
VALUES = jnp.array([0.5, 1.0, 4.0, 2.0, 3.0])
NEXT_VALUES = jnp.array([1.0, 8.0, 2.0, 100.0, 6.0])
TERMINATED = jnp.array([False, False, False, True, False])
TRUNCATED = jnp.array([False, True, False, False, False])
NEVER = jnp.zeros(5, bool)

gae = jax.jit(generalized_advantage_estimation)
td_lambda = jax.jit(lambda_returns)
monte_carlo = jax.jit(monte_carlo_returns)
n_step = jax.jit(n_step_returns, static_argnums=5)


# Computed by hand.


def test_gae_by_hand():
    # deltas: 1+.5*1-.5, 2+.5*8-1, 3+.5*2-4, 4-2, 5+.5*6-3 = 1, 5, 0, 2, 5; the trace decays by .5*.5
    advantages, targets = gae(REWARDS, VALUES, NEXT_VALUES, TERMINATED, TRUNCATED, 0.5, 0.5)
    np.testing.assert_allclose(advantages, [1 + 0.25 * 5, 5, 0 + 0.25 * 2, 2, 5])
    np.testing.assert_allclose(targets, [2.75, 6, 4.5, 4, 8])


def test_lambda_returns_by_hand():
    returns = td_lambda(REWARDS, NEXT_VALUES, TERMINATED, TRUNCATED, 0.5, 0.5)
    expected = [1 + 0.5 * (0.5 * 1 + 0.5 * 6), 2 + 0.5 * 8, 3 + 0.5 * (0.5 * 2 + 0.5 * 4), 4, 5 + 0.5 * 6]
    np.testing.assert_allclose(returns, expected)


def test_monte_carlo_returns_by_hand():
    returns = monte_carlo(REWARDS, NEXT_VALUES, TERMINATED, TRUNCATED, 0.5)
    np.testing.assert_allclose(returns, [1 + 0.5 * 6, 2 + 0.5 * 8, 3 + 0.5 * 4, 4, 5 + 0.5 * 6])


def test_both_flags_at_one_step_are_a_termination():
    both = TRUNCATED
    advantages, targets = gae(REWARDS, VALUES, NEXT_VALUES, both, both, 0.5, 0.5)
    # delta_1 = 2 - 1, and steps 2 to 4 now form one episode with delta_3 = 4 + .5*100 - 2
    np.testing.assert_allclose(advantages, [1.25, 1, 0.25 * 53.25, 52 + 0.25 * 5, 5])
    np.testing.assert_allclose(targets, advantages + VALUES)
    np.testing.assert_allclose(n_step(REWARDS, NEXT_VALUES, both, both, 0.5, 2), [2, 2, 3 + 2 + 25, 4 + 2.5 + 1.5, 8])


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, [1 + 8, 2 + 16, 4 + 32, 8 + 64]),
        (2, [1 + 1 + 8, 2 + 2 + 16, 4 + 4 + 32, 8 + 64]),
        (3, [1 + 1 + 1 + 8, 2 + 2 + 2 + 16, 4 + 4 + 32, 8 + 64]),
        (4, [1 + 1 + 1 + 1 + 8, 2 + 2 + 2 + 16, 4 + 4 + 32, 8 + 64]),
        (9, [1 + 1 + 1 + 1 + 8, 2 + 2 + 2 + 16, 4 + 4 + 32, 8 + 64]),
    ],
)
def test_n_step_returns_inside_one_episode_by_hand(n, expected):
    rewards, next_values = jnp.array([1.0, 2.0, 4.0, 8.0]), jnp.array([16.0, 32.0, 64.0, 128.0])
    returns = n_step(rewards, next_values, NEVER[:4], NEVER[:4], 0.5, n)
    np.testing.assert_allclose(returns, expected)


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, [1 + 0.5, 2 + 4, 3 + 1, 4, 5 + 3]), (2, [1 + 3, 6, 3 + 2, 4, 8]), (5, [4, 6, 5, 4, 8])],
)
def test_n_step_returns_across_episodes_by_hand(n, expected):
    returns = n_step(REWARDS, NEXT_VALUES, TERMINATED, TRUNCATED, 0.5, n)
    np.testing.assert_allclose(returns, expected)


@pytest.mark.parametrize(("terminated", "truncated", "expected"), [(False, False, 7.0), (True, False, 2.0), (False, True, 7.0)])
def test_a_window_of_one_step(terminated, truncated, expected):
    rewards, values, next_values = jnp.array([2.0]), jnp.array([3.0]), jnp.array([10.0])
    flags = jnp.array([terminated]), jnp.array([truncated])
    advantages, targets = gae(rewards, values, next_values, *flags, 0.5, 0.9)
    np.testing.assert_allclose(advantages, [expected - 3])
    np.testing.assert_allclose(targets, [expected])
    np.testing.assert_allclose(td_lambda(rewards, next_values, *flags, 0.5, 0.9), [expected])
    np.testing.assert_allclose(monte_carlo(rewards, next_values, *flags, 0.5), [expected])
    np.testing.assert_allclose(n_step(rewards, next_values, *flags, 0.5, 3), [expected])


# Against rlax, whose discount and lambda per step can express both kinds of ends.


def random_window(seed, time=7, envs=3):
    rng = np.random.default_rng(seed)
    rewards, values, next_values = rng.normal(size=(3, time, envs)).astype(np.float32)
    terminated, truncated = rng.random((2, time, envs)) < 0.25
    return tuple(map(jnp.asarray, (rewards, values, next_values, terminated, truncated)))


def rlax_discounts(terminated, truncated, discount, lambda_):
    done = terminated | truncated
    return discount * (1.0 - terminated), lambda_ * (1.0 - done)


@pytest.mark.parametrize("seed", range(3))
def test_lambda_returns_and_targets_equal_rlax(seed):
    rewards, values, next_values, terminated, truncated = random_window(seed)
    discounts, lambdas = rlax_discounts(terminated, truncated, 0.9, 0.7)
    expected = jax.vmap(rlax.lambda_returns, 1, 1)(rewards, discounts, next_values, lambdas)
    returns = td_lambda(rewards, next_values, terminated, truncated, 0.9, 0.7)
    np.testing.assert_allclose(returns, expected, rtol=1e-5, atol=1e-6)

    window = consistent(rewards, values, next_values, terminated, truncated)
    expected = jax.vmap(rlax.lambda_returns, 1, 1)(rewards, discounts, window[2], lambdas)
    advantages, targets = gae(*window, 0.9, 0.7)
    np.testing.assert_allclose(targets, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(advantages, expected - values, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("seed", range(3))
def test_gae_equals_rlax_where_successors_are_the_next_states(seed):
    rewards, values, next_values, terminated, truncated = random_window(seed)
    states = jnp.concatenate([values, next_values[-1:]])
    discounts = 0.9 * (1.0 - terminated)
    oracle = jax.vmap(rlax.truncated_generalized_advantage_estimation, (1, 1, None, 1), 1)
    advantages, _ = gae(rewards, values, states[1:], terminated, jnp.zeros_like(truncated), 0.9, 0.7)
    np.testing.assert_allclose(advantages, oracle(rewards, discounts, 0.7, states), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10])
def test_n_step_returns_equal_rlax(n):
    rewards, _, next_values, terminated, truncated = random_window(n)
    discounts, lambdas = rlax_discounts(terminated, truncated, 0.9, 1.0)
    oracle = jax.vmap(rlax.n_step_bootstrapped_returns, (1, 1, 1, None, 1), 1)
    returns = n_step(rewards, next_values, terminated, truncated, 0.9, n)
    expected = oracle(rewards, discounts, next_values, n, lambdas)
    np.testing.assert_allclose(returns, expected, rtol=1e-5, atol=1e-6)


def test_monte_carlo_returns_equal_rlax():
    rewards, _, next_values, terminated, _ = random_window(0)
    returns = monte_carlo(rewards, next_values, terminated, jnp.zeros_like(terminated), 0.9)
    oracle = jax.vmap(rlax.discounted_returns, 1, 1)
    expected = oracle(rewards, 0.9 * (1.0 - terminated), next_values)
    np.testing.assert_allclose(returns, expected, rtol=1e-5, atol=1e-6)


# What must hold for every window.

TIME = 6
FLOATS = arrays(np.float32, TIME, elements=st.floats(-8, 8, width=16))
FLAGS = arrays(np.bool_, TIME)
UNIT = st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0])


def consistent(rewards, values, next_values, terminated, truncated):
    """Inside an episode the successor of a step is the state of the next one."""
    states = jnp.concatenate([values[1:], next_values[-1:]])
    next_values = jnp.where(jnp.asarray(terminated) | truncated, next_values, states)
    return tuple(map(jnp.asarray, (rewards, values, next_values, terminated, truncated)))


WINDOWS = st.tuples(FLOATS, FLOATS, FLOATS, FLAGS, FLAGS).map(lambda window: consistent(*window))
every = settings(max_examples=20, deadline=None, derandomize=True)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-3)


@every
@given(WINDOWS, UNIT)
def test_lambda_zero_is_the_one_step_temporal_difference(window, discount):
    rewards, values, next_values, terminated, truncated = window
    one_step = rewards + discount * jnp.where(terminated, 0.0, next_values)
    advantages, targets = gae(*window, discount, 0.0)
    close(advantages, one_step - values)
    close(targets, one_step)
    close(td_lambda(rewards, next_values, terminated, truncated, discount, 0.0), one_step)
    close(n_step(rewards, next_values, terminated, truncated, discount, 1), one_step)


@every
@given(WINDOWS, UNIT)
def test_lambda_one_is_the_discounted_return_plus_bootstrap(window, discount):
    rewards, values, next_values, terminated, truncated = map(np.asarray, window)
    expected = np.zeros(TIME)
    for start in range(TIME):
        scale = 1.0
        for t in range(start, TIME):
            expected[start] += scale * rewards[t]
            scale *= discount
            if terminated[t]:
                break
            if truncated[t] or t == TIME - 1:
                expected[start] += scale * next_values[t]
                break
    _, _, *rest = window
    advantages, targets = gae(*window, discount, 1.0)
    close(targets, expected)
    close(advantages, expected - values)
    close(monte_carlo(window[0], *rest, discount), expected)
    close(n_step(window[0], *rest, discount, TIME), expected)
    close(n_step(window[0], *rest, discount, TIME + 5), expected)


@every
@given(WINDOWS, UNIT, UNIT)
def test_lambda_returns_are_the_geometric_mixture_of_n_step_returns(window, discount, lambda_):
    rewards, _, *rest = window
    mixture = lambda_ ** (TIME - 1) * n_step(rewards, *rest, discount, TIME)
    for n in range(1, TIME):
        mixture += (1 - lambda_) * lambda_ ** (n - 1) * n_step(rewards, *rest, discount, n)
    close(td_lambda(rewards, *rest, discount, lambda_), mixture)
    close(gae(*window, discount, lambda_)[1], mixture)


@every
@given(WINDOWS, UNIT, UNIT, st.integers(0, TIME - 2), st.booleans())
def test_episodes_do_not_touch_each_other(window, discount, lambda_, last, by_truncation):
    """Cut a window after the end of an episode: its pieces, computed apart, are the whole."""
    rewards, values, next_values, terminated, truncated = window
    ended = truncated if by_truncation else terminated
    window = (
        rewards,
        values,
        next_values,
        terminated.at[last].set(not by_truncation),
        ended.at[last].set(True) if by_truncation else truncated,
    )
    first, second = ([x[: last + 1] for x in window], [x[last + 1 :] for x in window])
    for whole, *pieces in zip(
        gae(*window, discount, lambda_),
        gae(*first, discount, lambda_),
        gae(*second, discount, lambda_),
        strict=True,
    ):
        close(whole, jnp.concatenate(pieces))
    for n in (1, 3):
        whole, *pieces = (n_step(x[0], *x[2:], discount, n) for x in (window, first, second))
        close(whole, jnp.concatenate(pieces))


@every
@given(WINDOWS, UNIT, UNIT)
def test_exact_values_leave_no_advantage(window, discount, lambda_):
    _, values, next_values, terminated, truncated = window
    rewards = values - discount * jnp.where(terminated, 0.0, next_values)
    advantages, targets = gae(rewards, values, next_values, terminated, truncated, discount, lambda_)
    close(advantages, 0)
    close(targets, values)


@every
@given(WINDOWS, UNIT, UNIT, st.floats(-8, 8, width=16), st.booleans())
def test_one_more_step_with_exact_values_changes_nothing_before_it(window, discount, lambda_, reward, truncate):
    """Bootstrapping a window's end stands for what follows; a time limit, or none, comes to the same."""
    window = (*window[:3], window[3].at[-1].set(False), window[4].at[-1].set(False))
    value = window[2][-1]
    next_value = (value - reward) / (discount or 1.0)
    # r + discount * V(next) = V: with discount 0 the reward alone has to be the value
    step = (reward if discount else value, value, next_value, False, truncate)
    longer = [jnp.append(x, jnp.asarray(y, x.dtype)) for x, y in zip(window, step, strict=True)]
    for before, after in zip(gae(*window, discount, lambda_), gae(*longer, discount, lambda_), strict=True):
        close(after[:-1], before)


@every
@given(WINDOWS, WINDOWS, UNIT, UNIT)
def test_returns_are_linear_in_rewards_and_values(window, other, discount, lambda_):
    flags = window[3:]
    combined = [2.0 * x - 3.0 * y for x, y in zip(window[:3], other[:3], strict=True)]
    for whole, x, y in zip(
        gae(*combined, *flags, discount, lambda_),
        gae(*window, discount, lambda_),
        gae(*other[:3], *flags, discount, lambda_),
        strict=True,
    ):
        close(whole, 2.0 * x - 3.0 * y)
    whole, x, y = (n_step(r, v, *flags, discount, 3) for r, _, v in (combined, window[:3], other[:3]))
    close(whole, 2.0 * x - 3.0 * y)


# As JAX functions.


def test_batch_axes_are_independent_trajectories():
    window = random_window(1, time=5, envs=6)
    folded = [x.reshape(5, 2, 3) for x in window]
    alone = jax.vmap(gae, (1, 1, 1, 1, 1, None, None), 1)(*window, 0.9, 0.7)
    for batched, cubic, expected in zip(gae(*window, 0.9, 0.7), gae(*folded, 0.9, 0.7), alone, strict=True):
        np.testing.assert_allclose(batched, expected, rtol=1e-6)
        np.testing.assert_allclose(cubic.reshape(5, 6), expected, rtol=1e-6)
    rewards, _, *rest = window
    folded_returns = n_step(folded[0], *folded[2:], 0.9, 3)
    alone = jax.vmap(lambda *x: n_step(*x, 0.9, 3), 1, 1)(rewards, *rest)
    np.testing.assert_allclose(folded_returns.reshape(5, 6), alone, rtol=1e-6)


def test_compiled_equals_interpreted():
    window = random_window(2, time=3, envs=2)
    rewards, _, *rest = window
    with jax.disable_jit():
        advantages, targets = generalized_advantage_estimation(*window, 0.9, 0.7)
        returns = n_step_returns(rewards, *rest, 0.9, 2)
    np.testing.assert_allclose(gae(*window, 0.9, 0.7)[0], advantages, rtol=1e-6)
    np.testing.assert_allclose(gae(*window, 0.9, 0.7)[1], targets, rtol=1e-6)
    np.testing.assert_allclose(n_step(rewards, *rest, 0.9, 2), returns, rtol=1e-6)


def test_discount_and_lambda_may_be_traced():
    discounts, lambdas = jnp.array([0.5, 1.0]), jnp.array([0.25, 0.75])
    window = (REWARDS, VALUES, NEXT_VALUES, TERMINATED, TRUNCATED)
    swept, _ = jax.vmap(lambda g, lam: gae(*window, g, lam))(discounts, lambdas)
    for i in range(2):
        np.testing.assert_allclose(swept[i], gae(*window, float(discounts[i]), float(lambdas[i]))[0])
    # A_0 = delta_0 + discount * lambda * delta_1, with delta_0 = .5 + discount and delta_1 = 1 + 8 * discount
    first_advantage = lambda discount, lambda_: gae(*window, discount, lambda_)[0][0]
    by_discount, by_lambda = jax.jit(jax.grad(first_advantage, (0, 1)))(0.5, 0.5)
    np.testing.assert_allclose(by_discount, 1 + 0.5 * 5 + 0.5 * 0.5 * 8)
    np.testing.assert_allclose(by_lambda, 0.5 * 5)


def test_flags_may_be_booleans_or_floats():
    window = (REWARDS, VALUES, NEXT_VALUES)
    floats = (TERMINATED.astype(jnp.float32), TRUNCATED.astype(jnp.float32))
    for flags in ((TERMINATED, TRUNCATED), floats, (TERMINATED, floats[1])):
        advantages, targets = gae(*window, *flags, 0.5, 0.5)
        assert advantages.dtype == targets.dtype == jnp.float32
        np.testing.assert_array_equal(advantages, [2.25, 5, 0.5, 2, 5])
        returns = n_step(REWARDS, NEXT_VALUES, *flags, 0.5, 2)
        assert returns.dtype == jnp.float32
        np.testing.assert_array_equal(returns, [4, 6, 5, 4, 8])


def test_gradients_flow_into_values_and_respect_the_ends():
    def advantages(values, next_values):
        return generalized_advantage_estimation(REWARDS, values, next_values, TERMINATED, TRUNCATED, 0.5, 0.5)[0]

    by_value, by_next_value = jax.jit(jax.jacobian(advantages, (0, 1)))(VALUES, NEXT_VALUES)
    trace = np.eye(5) + np.diag([0.25, 0, 0.25, 0], 1)  # d A / d delta: the trace joins 0-1 and 2-3 only
    np.testing.assert_allclose(by_value, -trace)
    np.testing.assert_allclose(by_next_value, trace @ np.diag([0.5, 0.5, 0.5, 0, 0.5]))
    returns = jax.jit(jax.jacobian(lambda v: n_step(REWARDS, v, TERMINATED, TRUNCATED, 0.5, 2)))(NEXT_VALUES)
    np.testing.assert_allclose(returns[0], [0, 0.25, 0, 0, 0])


# Misuse.

FUNCTIONS = {
    "gae": (generalized_advantage_estimation, 3, (0.9, 0.9)),
    "lambda": (lambda_returns, 2, (0.9, 0.9)),
    "monte_carlo": (monte_carlo_returns, 2, (0.9,)),
    "n_step": (n_step_returns, 2, (0.9, 3)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_mismatched_shapes_are_refused(name):
    function, floats, scalars = FUNCTIONS[name]
    function = inspect.unwrap(function)  # its own check, not that of the tests' import hook
    shapes = [(5, 2)] * (floats + 2)
    for i in range(len(shapes)):
        for wrong in ((6, 2), (5, 1), (5,)):
            given_shapes = [wrong if i == j else shape for j, shape in enumerate(shapes)]
            window = [jnp.zeros(s, float if j < floats else bool) for j, s in enumerate(given_shapes)]
            with pytest.raises(Exception, match=r"rewards.*terminated|type-check"):
                jax.eval_shape(lambda *x: function(*x, *scalars), *window)


def test_n_below_one_is_refused():
    with pytest.raises(ValueError, match="n = 0"):
        n_step_returns(REWARDS, NEXT_VALUES, TERMINATED, TRUNCATED, 0.9, 0)
