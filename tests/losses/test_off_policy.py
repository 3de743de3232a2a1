"""V-trace and Retrace: numbers written out, rlax as oracle, what they are on-policy, and their fixed points on a small MDP."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxpg.losses import generalized_advantage_estimation, monte_carlo_returns, n_step_returns, retrace, vtrace

# As in test_returns: cut at step 1, terminal at step 3 (whose successor's value must never count), running at the end.
REWARDS = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])
VALUES = jnp.array([0.5, 1.0, 4.0, 2.0, 3.0])
NEXT_VALUES = jnp.array([1.0, 8.0, 2.0, 100.0, 6.0])
TERMINATED = jnp.array([False, False, False, True, False])
TRUNCATED = jnp.array([False, True, False, False, False])
LOG_RATIO = jnp.log(jnp.array([0.5, 2.0, 1.0, 0.25, 4.0]))

compiled_vtrace = jax.jit(vtrace)
compiled_retrace = jax.jit(retrace)


def test_vtrace_by_hand():
    advantages, targets = compiled_vtrace(LOG_RATIO, REWARDS, VALUES, NEXT_VALUES, TERMINATED, TRUNCATED, 0.5)
    # temporal differences 1, 5, 0, 2, 5 times the ratios .5, 1, 1, .25, 1 clipped at 1: .5, 5, 0, .5, 5
    corrections = np.array([0.5 + 0.5 * 0.5 * 5, 5, 0 + 0.5 * 1 * 0.5, 0.5, 5])
    np.testing.assert_allclose(targets, np.asarray(VALUES) + corrections)
    v = np.asarray(VALUES) + corrections
    expected = [0.5 * (1 + 0.5 * v[1] - 0.5), 1 * (2 + 0.5 * 8 - 1), 1 * (3 + 0.5 * v[3] - 4), 0.25 * (4 - 2), 5 + 3 - 3]
    np.testing.assert_allclose(advantages, expected)


def test_retrace_by_hand():
    targets = compiled_retrace(LOG_RATIO, REWARDS, VALUES, NEXT_VALUES, TERMINATED, TRUNCATED, 0.5, 0.8)
    # the trace of step t is the ratio of step t + 1, clipped at 1: 1 (cut), -, .25
    corrections = [1 + 0.5 * 0.8 * 1 * 5, 5, 0 + 0.5 * 0.8 * 0.25 * 2, 2, 5]
    np.testing.assert_allclose(targets, np.asarray(VALUES) + np.array(corrections))


@pytest.fixture(scope="module")
def window():
    """20 steps of one trajectory with two terminal steps, for oracles that know nothing of truncation."""
    rng = np.random.default_rng(0)
    log_ratio, rewards, values, next_value = (rng.normal(size=20).astype(np.float32) for _ in range(4))
    terminated = np.isin(np.arange(20), [6, 15])
    next_values = np.concatenate([values[1:], next_value[:1]])
    return tuple(map(jnp.asarray, (log_ratio, rewards, values, next_values, terminated)))


@pytest.mark.parametrize(("lambda_", "rho_clip"), [(1.0, 1.0), (0.7, 1.0), (0.9, 2.0)])
def test_vtrace_equals_rlax(window, lambda_, rho_clip):
    log_ratio, rewards, values, next_values, terminated = window
    never = jnp.zeros_like(terminated)
    advantages, targets = compiled_vtrace(
        log_ratio, rewards, values, next_values, terminated, never, 0.9, lambda_, rho_clip, 1.0, rho_clip
    )
    oracle = jax.jit(rlax.vtrace_td_error_and_advantage)
    expected = oracle(values, next_values, rewards, 0.9 * (1 - terminated), jnp.exp(log_ratio), lambda_, rho_clip, rho_clip)
    np.testing.assert_allclose(targets - values, expected.errors, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(advantages, expected.pg_advantage, rtol=1e-4, atol=1e-5)


def test_retrace_equals_rlax(window):
    log_ratio, rewards, q, next_q, terminated = window
    expected_q = jnp.roll(next_q, 3)
    targets = compiled_retrace(log_ratio, rewards, q, expected_q, terminated, jnp.zeros_like(terminated), 0.9, 0.8)
    c = 0.8 * jnp.minimum(1.0, jnp.exp(log_ratio))
    oracle = jax.jit(rlax.general_off_policy_returns_from_q_and_v)
    expected = oracle(q[1:], expected_q, rewards, 0.9 * (1 - terminated), c[1:])
    np.testing.assert_allclose(targets, expected, rtol=1e-4, atol=1e-5)


def test_on_policy_vtrace_is_the_return_to_the_end_of_the_window(window):
    _, rewards, values, next_values, terminated = window
    never, on_policy = jnp.zeros_like(terminated), jnp.zeros_like(rewards)
    advantages, targets = compiled_vtrace(on_policy, rewards, values, next_values, terminated, never, 0.9)
    n_step = n_step_returns(rewards, next_values, terminated, never, 0.9, 20)
    np.testing.assert_allclose(targets, n_step, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(advantages, n_step - values, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31 - 1), st.floats(0, 1), st.floats(0, 1))
def test_on_policy_and_any_flags(seed, discount, lambda_):
    """V-trace of lambda has GAE's targets, Retrace of 1 the Monte-Carlo return; both whatever ends where."""
    rng = np.random.default_rng(seed)
    rewards, values, next_values = map(jnp.asarray, rng.normal(size=(3, 7, 2)).astype(np.float32))
    terminated, truncated = map(jnp.asarray, rng.random((2, 7, 2)) < 0.3)
    # Inside an episode the successor's value is the next one, as in a real window.
    inside = jnp.concatenate([~(terminated | truncated)[:-1], jnp.zeros((1, 2), bool)])
    next_values = jnp.where(inside, jnp.roll(values, -1, axis=0), next_values)
    flags, zeros = (terminated, truncated), jnp.zeros_like(rewards)
    expected = generalized_advantage_estimation(rewards, values, next_values, *flags, discount, lambda_)[1]
    actual = compiled_vtrace(zeros, rewards, values, next_values, *flags, discount, lambda_)[1]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    returns = monte_carlo_returns(rewards, next_values, *flags, discount)
    np.testing.assert_allclose(
        compiled_retrace(zeros, rewards, values, next_values, *flags, discount), returns, rtol=1e-4, atol=1e-4
    )


# --- A two-state MDP: action a leads to state a with reward R[s, a]; mu is uniform, pi is not ----------------------------

R = np.array([[1.0, 0.0], [2.0, -1.0]])
PI = np.array([[0.9, 0.1], [0.2, 0.8]])
DISCOUNT = 0.8


def trajectory(length=200_000):
    rng = np.random.default_rng(1)
    actions = rng.integers(2, size=length)
    states = np.concatenate([[0], actions[:-1]])
    return states, actions


def values_of(policy):
    return np.linalg.solve(np.eye(2) - DISCOUNT * policy, (policy * R).sum(axis=1))


def mean_by_state(x, states):
    return np.array([np.asarray(x)[states == s][:-50].mean() for s in range(2)])


def test_vtrace_at_its_fixed_point_leaves_the_values_of_the_clipped_policy():
    """Espeholt et al., theorem 1: with rho_clip = r the values are those of pi_r ~ min(r mu, pi); with none, of pi itself."""
    states, actions = trajectory()
    rewards = jnp.asarray(R[states, actions], jnp.float32)
    log_ratio = jnp.asarray(np.log(PI[states, actions] / 0.5), jnp.float32)
    never = jnp.zeros(len(states), bool)
    clipped = np.minimum(0.5, PI)
    for rho_clip, policy in ((1.0, clipped / clipped.sum(axis=1, keepdims=True)), (100.0, PI)):
        v = values_of(policy)
        values, next_values = jnp.asarray(v[states], jnp.float32), jnp.asarray(v[actions], jnp.float32)
        targets = compiled_vtrace(log_ratio, rewards, values, next_values, never, never, DISCOUNT, 0.9, rho_clip)[1]
        np.testing.assert_allclose(mean_by_state(targets, states), v, atol=0.02)
    assert np.abs(values_of(PI) - values_of(clipped / clipped.sum(axis=1, keepdims=True))).max() > 0.3


def test_retrace_at_its_fixed_point_leaves_the_action_values():
    states, actions = trajectory()
    v = values_of(PI)
    q = R + DISCOUNT * v[None, :]
    rewards = jnp.asarray(R[states, actions], jnp.float32)
    log_ratio = jnp.asarray(np.log(PI[states, actions] / 0.5), jnp.float32)
    never = jnp.zeros(len(states), bool)
    of = lambda q: compiled_retrace(
        log_ratio,
        rewards,
        jnp.asarray(q[states, actions], jnp.float32),
        jnp.asarray((PI * q).sum(axis=1)[actions], jnp.float32),
        never,
        never,
        DISCOUNT,
        0.9,
    )
    np.testing.assert_allclose(of(q), q[states, actions], atol=1e-4)  # deterministic: every temporal difference is zero
    shifted = q + 3.0  # from elsewhere, the targets contract towards it
    assert np.abs(np.asarray(of(shifted)) - q[states, actions]).mean() < DISCOUNT * 3.0


@pytest.mark.parametrize("function", [vtrace, retrace])
def test_nothing_is_broadcast(function):
    function = inspect.unwrap(function)  # its own check, not that of the tests' import hook
    with pytest.raises(AssertionError, match=r"log_ratio.*one common shape"):
        function(jnp.zeros((5, 1)), REWARDS, VALUES, NEXT_VALUES, TERMINATED, TRUNCATED, 0.5)
