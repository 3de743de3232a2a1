"""Estimators against the truth: on a small MDP every trajectory is enumerated, so expectations are sums.

The task has 3 states and 2 actions and resets itself: entering state 2 terminates the episode, and what is
left of the window of 3 steps belongs to the next one. Whatever follows the window is worth FUTURE. The
objective is the expected discounted return of the window's first episode, by backward recursion; the
estimators see only rewards, values and flags. A return that leaked across the reset, or a missing bootstrap,
would break the equalities.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpg.losses.policy_gradient import clipped_surrogate, kl_penalized_surrogate, policy_gradient_loss
from jaxpg.losses.returns import (
    generalized_advantage_estimation,
    lambda_returns,
    monte_carlo_returns,
    n_step_returns,
)

STATES, ACTIONS, HORIZON, DISCOUNT, START, TERMINAL = 3, 2, 3, 0.9, 0, 2
rng = np.random.default_rng(3)
TRANSITION = rng.dirichlet(np.ones(STATES), (STATES, ACTIONS)).astype(np.float32)  # P(s' | s, a)
REWARD = rng.normal(size=(STATES, ACTIONS, STATES)).astype(np.float32)  # r(s, a, s')
FUTURE = np.array([1.5, -2.0, 9.0], np.float32)  # a terminal state has none: 9 is there to be ignored
LOGITS = jnp.asarray(rng.normal(size=(STATES, ACTIONS)), jnp.float32)


def exact_values(logits):
    """V[t, s] of the first episode's remaining return, t = 0 .. HORIZON."""
    policy, values = jax.nn.softmax(logits), [jnp.asarray(FUTURE)]
    for _ in range(HORIZON):
        successors = jnp.where(jnp.arange(STATES) == TERMINAL, 0.0, values[0])
        values.insert(0, jnp.einsum("sa,sab,sab->s", policy, TRANSITION, REWARD + DISCOUNT * successors))
    return jnp.stack(values)


def objective(logits):
    return exact_values(logits)[0, START]


def enumerate_trajectories(logits):
    """All windows, as arrays (time, trajectory), and their probabilities (trajectory,)."""
    policy = np.asarray(jax.nn.softmax(logits))
    outcomes = list(itertools.product(range(ACTIONS), range(STATES)))
    rows, probabilities = [], []
    for window in itertools.product(outcomes, repeat=HORIZON):
        state, probability, row = START, 1.0, []
        for action, successor in window:
            probability *= policy[state, action] * TRANSITION[state, action, successor]
            row.append((state, action, successor))
            state = START if successor == TERMINAL else successor
        rows.append(row)
        probabilities.append(probability)
    states, actions, successors = np.moveaxis(np.array(rows), (2, 1), (0, 1))
    terminated = successors == TERMINAL
    first_episode = np.cumsum(terminated, 0) - terminated == 0
    return states, actions, successors, terminated, first_episode, np.array(probabilities, np.float32)


STATE, ACTION, SUCCESSOR, TERMINATED, FIRST_EPISODE, PROBABILITY = enumerate_trajectories(LOGITS)
TRUNCATED = np.zeros_like(TERMINATED)
TIME = np.arange(HORIZON)[:, None]
# The objective discounts from the window's start; after a reset nothing counts towards it.
WEIGHT = jnp.asarray(DISCOUNT**TIME * FIRST_EPISODE, jnp.float32)
VALUES = np.asarray(exact_values(LOGITS))
WINDOW = tuple(
    map(
        jnp.asarray,
        (
            REWARD[STATE, ACTION, SUCCESSOR],
            VALUES[TIME, STATE],
            VALUES[TIME + 1, SUCCESSOR],
            TERMINATED,
            TRUNCATED,
        ),
    )
)


def estimates():
    """Advantages or returns (time, trajectory), all of which must give the same expected gradient."""
    rewards, values, next_values, *flags = WINDOW
    end_only = jnp.zeros_like(values).at[-1].set(next_values[-1])
    wrong_values = jnp.asarray(STATE, jnp.float32)
    wrong_next_values = end_only.at[:-1].set(SUCCESSOR[:-1])
    return {
        "monte carlo": monte_carlo_returns(rewards, end_only, *flags, DISCOUNT),
        "monte carlo with baseline": monte_carlo_returns(rewards, end_only, *flags, DISCOUNT) - values,
        "2-step": n_step_returns(rewards, next_values, *flags, DISCOUNT, 2),
        "lambda 0.4": lambda_returns(rewards, next_values, *flags, DISCOUNT, 0.4),
        "gae 0": generalized_advantage_estimation(*WINDOW, DISCOUNT, 0.0)[0],
        "gae 0.7": generalized_advantage_estimation(*WINDOW, DISCOUNT, 0.7)[0],
        "gae 1, wrong critic": generalized_advantage_estimation(
            rewards, wrong_values, wrong_next_values, *flags, DISCOUNT, 1.0
        )[0],
    }


def log_prob(logits):
    return jax.nn.log_softmax(logits)[STATE, ACTION]


def test_the_enumeration_is_complete():
    np.testing.assert_allclose(PROBABILITY.sum(), 1, rtol=1e-5)
    returns = np.sum(np.asarray(WEIGHT * WINDOW[0]), 0)
    survivors = FIRST_EPISODE[-1] & ~TERMINATED[-1]
    returns = returns + DISCOUNT**HORIZON * survivors * FUTURE[SUCCESSOR[-1]]
    np.testing.assert_allclose(PROBABILITY @ returns, objective(LOGITS), rtol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, _, advantages: policy_gradient_loss(x, advantages),
        lambda x, behaviour, advantages: clipped_surrogate(x, behaviour, advantages, 0.2),
        lambda x, behaviour, advantages: kl_penalized_surrogate(x, behaviour, advantages, 3.0),
    ],
    ids=["policy gradient", "clipped surrogate", "penalized surrogate"],
)
def test_expected_gradients_are_the_gradient_of_the_expected_return(loss):
    def expectation(logits, advantages):
        losses = jax.vmap(loss, 1)(log_prob(logits), log_prob(LOGITS), WEIGHT * advantages)
        return -HORIZON * jnp.sum(PROBABILITY * losses)  # a loss is a mean over the window's steps

    named = estimates()
    gradients = jax.jit(jax.vmap(jax.grad(expectation), (None, 0)))(LOGITS, jnp.stack(list(named.values())))
    exact = jax.jit(jax.grad(objective))(LOGITS)
    assert np.abs(exact).max() > 0.05  # the comparison is about something
    for name, gradient in zip(named, gradients, strict=True):
        np.testing.assert_allclose(gradient, exact, rtol=1e-4, atol=1e-5, err_msg=name)


def test_expected_targets_are_the_exact_values():
    """Targets are unbiased: the mean over the windows whose first episode is in s at t is V[t, s]."""
    rewards, _, next_values, *flags = WINDOW
    targets = {
        "gae": generalized_advantage_estimation(*WINDOW, DISCOUNT, 0.7)[1],
        "monte carlo": monte_carlo_returns(rewards, next_values, *flags, DISCOUNT),
        "2-step": n_step_returns(rewards, next_values, *flags, DISCOUNT, 2),
    }
    for target in targets.values():
        for t, s in itertools.product(range(HORIZON), range(STATES)):
            visits = PROBABILITY * (STATE[t] == s) * FIRST_EPISODE[t]
            if visits.sum() > 0:
                np.testing.assert_allclose(visits @ np.asarray(target[t]) / visits.sum(), VALUES[t, s], atol=1e-5)


def test_the_unclipped_surrogate_is_the_advantage_of_the_other_policy():
    """Importance sampling over one action: at the last step, in each state, what the other policy gains."""
    other = LOGITS.at[0, 0].add(0.8).at[1, 1].add(0.5)
    advantages, _ = generalized_advantage_estimation(*(x[-1:] for x in WINDOW), DISCOUNT, 0.0)
    arguments = log_prob(other)[-1:], log_prob(LOGITS)[-1:], advantages
    losses = np.asarray(jax.jit(jax.vmap(lambda *x: kl_penalized_surrogate(*x, 0.0), 1))(*arguments))
    successors = np.where(np.arange(STATES) == TERMINAL, 0.0, FUTURE)
    action_values = np.sum(TRANSITION * (REWARD + DISCOUNT * successors), -1)
    expected = np.sum((jax.nn.softmax(other) - jax.nn.softmax(LOGITS)) * action_values, -1)
    for s in (0, 1):
        visits = PROBABILITY * (STATE[-1] == s)
        np.testing.assert_allclose(-(visits @ losses) / visits.sum(), expected[s], rtol=1e-4, atol=1e-5)
