"""Returns and advantages from a window of experience, as one backward pass over time.

Arrays are `(time, ...)`: time leads, any axes after it are independent trajectories. A window may hold
several episodes and may begin or end inside one. Three facts about step t decide everything, and are kept
apart:

- `terminated[t]`: the successor is terminal, its value is 0;
- `truncated[t]`: the episode was cut (a time limit), its successor still has a value;
- `next_values[t]`: the value of the *true* successor of step t; at an episode's end that is the final
  observation, never the state after the reset.

A return never crosses an episode's end. It bootstraps from `next_values` at truncation and at the window's
end, and does not at termination; where both flags are set, termination wins.

What does not count may be anything, NaN and infinity included: it is selected away, not multiplied by 0, so
that returns and their gradients stay finite.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, ScalarLike

from jaxpg.losses._assertions import assert_same_shape

Flags = Bool[Array, "time *batch"] | Float[Array, "time *batch"]


def generalized_advantage_estimation(
    rewards: Float[Array, "time *batch"],
    values: Float[Array, "time *batch"],
    next_values: Float[Array, "time *batch"],
    terminated: Flags,
    truncated: Flags,
    discount: ScalarLike,
    gae_lambda: ScalarLike,
) -> tuple[Float[Array, "time *batch"], Float[Array, "time *batch"]]:
    """Generalised advantage estimates and the value targets that belong to them.

        delta_t = r_t + discount * (1 - terminated_t) * V(next_t) - V_t
        A_t     = delta_t + discount * gae_lambda * (1 - done_t) * A_{t+1}
        target_t = A_t + V_t

    with done = terminated or truncated. `gae_lambda` = 0 is the one-step temporal difference, 1 the
    discounted return minus the baseline. The targets are the returns of `lambda_returns`, given that
    next_values[t] = values[t + 1] inside an episode.

    Source: Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation"
    (arXiv 1506.02438), equations 11 and 16, with episode ends as in Pardo et al. 2018 (arXiv 1712.00378).

    Args:
        rewards: r_t, received for the action of step t.
        values: V(s_t).
        next_values: value of the true successor of step t (see the module's docstring).
        terminated: whether the successor is terminal, as booleans or 0/1.
        truncated: whether the episode was cut after step t, as booleans or 0/1.
        discount: discount per step, in [0, 1]; may be traced.
        gae_lambda: weight of longer returns, in [0, 1]; may be traced.

    Returns:
        `(advantages, targets)`, both shaped as `rewards` and in its units.

    Raises:
        AssertionError: if the arrays differ in shape (nothing is broadcast).
    """
    assert_same_shape(rewards=rewards, values=values, next_values=next_values, terminated=terminated, truncated=truncated)
    bootstrap, trace, done = discounts(terminated, truncated, discount)
    deltas = rewards + bootstrap * existing(next_values, terminated) - values
    advantages = accumulate(deltas, gae_lambda * trace, done, jnp.zeros_like(deltas[-1]))
    return advantages, advantages + values


def lambda_returns(
    rewards: Float[Array, "time *batch"],
    next_values: Float[Array, "time *batch"],
    terminated: Flags,
    truncated: Flags,
    discount: ScalarLike,
    lambda_: ScalarLike,
) -> Float[Array, "time *batch"]:
    """TD(lambda) returns: the geometric mixture of all n-step returns within the episode.

        G_t = r_t + discount * [(1 - lambda) * V(next_t) + lambda * G_{t+1}]    inside an episode
        G_t = r_t + discount * (1 - terminated_t) * V(next_t)                   at its end and the window's

    With next_values = max_a Q(next_t, a) this is Peng's Q(lambda), as PQN uses it.

    Source: Sutton and Barto 2018, "Reinforcement Learning: An Introduction", 2nd edition, equations 12.2 and
    12.18.

    Args:
        rewards: r_t, received for the action of step t.
        next_values: value of the true successor of step t (see the module's docstring).
        terminated: whether the successor is terminal, as booleans or 0/1.
        truncated: whether the episode was cut after step t, as booleans or 0/1.
        discount: discount per step, in [0, 1]; may be traced.
        lambda_: 0 gives one-step returns, 1 Monte-Carlo returns; may be traced.

    Returns:
        G_t, shaped as `rewards` and in its units.

    Raises:
        AssertionError: if the arrays differ in shape (nothing is broadcast).
    """
    assert_same_shape(rewards=rewards, next_values=next_values, terminated=terminated, truncated=truncated)
    bootstrap, trace, done = discounts(terminated, truncated, discount)
    next_values = existing(next_values, terminated)
    # What the trace does not carry on is bootstrapped; the last value as y_time makes the window's end a cut.
    one_step = rewards + (bootstrap - lambda_ * trace) * next_values
    return accumulate(one_step, lambda_ * trace, done, next_values[-1])


def monte_carlo_returns(
    rewards: Float[Array, "time *batch"],
    next_values: Float[Array, "time *batch"],
    terminated: Flags,
    truncated: Flags,
    discount: ScalarLike,
) -> Float[Array, "time *batch"]:
    """Discounted reward-to-go of each step until its episode's end: `lambda_returns` with lambda = 1.

    Only a terminated episode has a complete return. Where it is cut, by truncation or by the window's end,
    the rest is estimated by `next_values`. Zeros there count what was cut off as nothing: right for a finite
    horizon that is part of the task (flag it as terminated), a bias otherwise.

    Source: Sutton and Barto 2018, "Reinforcement Learning: An Introduction", 2nd edition, equation 3.9.

    Args:
        rewards: r_t, received for the action of step t.
        next_values: value of the true successor of step t; it counts only at cuts.
        terminated: whether the successor is terminal, as booleans or 0/1.
        truncated: whether the episode was cut after step t, as booleans or 0/1.
        discount: discount per step, in [0, 1]; may be traced.

    Returns:
        G_t, shaped as `rewards` and in its units.

    Raises:
        AssertionError: if the arrays differ in shape (nothing is broadcast).
    """
    assert_same_shape(rewards=rewards, next_values=next_values, terminated=terminated, truncated=truncated)
    cut = jnp.asarray(truncated, bool).at[-1].set(True)
    return lambda_returns(rewards, existing(next_values, ~cut), terminated, truncated, discount, 1.0)


def n_step_returns(
    rewards: Float[Array, "time *batch"],
    next_values: Float[Array, "time *batch"],
    terminated: Flags,
    truncated: Flags,
    discount: ScalarLike,
    n: int,
) -> Float[Array, "time *batch"]:
    """Returns over n rewards, then bootstrapped; shorter where the episode or the window ends first.

        G_t = sum_{k<m} discount^k r_{t+k} + discount^m * (1 - terminated_{t+m-1}) * V(next_{t+m-1})

    with m the smallest of n, the steps to the first end of an episode, and the steps left in the window.
    Costs min(n, time) passes over the arrays; for n >= time use `monte_carlo_returns`, which is the same in
    one.

    Source: Sutton and Barto 2018, "Reinforcement Learning: An Introduction", 2nd edition, equation 7.1.

    Args:
        rewards: r_t, received for the action of step t.
        next_values: value of the true successor of step t (see the module's docstring).
        terminated: whether the successor is terminal, as booleans or 0/1.
        truncated: whether the episode was cut after step t, as booleans or 0/1.
        discount: discount per step, in [0, 1]; may be traced.
        n: number of rewards, at least 1; static.

    Returns:
        G_t, shaped as `rewards` and in its units.

    Raises:
        AssertionError: if the arrays differ in shape (nothing is broadcast).
        ValueError: if n < 1.
    """
    if n < 1:
        raise ValueError(f"n-step returns need n >= 1 rewards, got n = {n}")
    assert_same_shape(rewards=rewards, next_values=next_values, terminated=terminated, truncated=truncated)
    bootstrap, trace, done = discounts(terminated, truncated, discount)
    one_step = rewards + bootstrap * existing(next_values, terminated)

    def one_reward_more(_: ScalarLike, returns: Float[Array, "time *batch"]) -> Float[Array, "time *batch"]:
        extended = rewards[:-1] + trace[:-1] * existing(returns[1:], done[:-1])
        # A return that met an end, or the window's, is complete as it is.
        return jnp.concatenate([jnp.where(done[:-1], one_step[:-1], extended), one_step[-1:]])

    return jax.lax.fori_loop(0, min(n, rewards.shape[0]) - 1, one_reward_more, one_step)


def existing(following: Float[Array, "*batch"], none: Bool[Array, "*batch"] | Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """What follows each step, 0 where nothing of its episode does."""
    return jnp.where(jnp.asarray(none, bool), 0.0, following)


def discounts(
    terminated: Flags, truncated: Flags, discount: ScalarLike
) -> tuple[Float[Array, "time *batch"], Float[Array, "time *batch"], Bool[Array, "time *batch"]]:
    """Discounts of the successor's value (0 at termination) and of the next return (0 at any episode's
    end), and where episodes end."""
    terminated = jnp.asarray(terminated, jnp.float32)
    done = jnp.maximum(terminated, jnp.asarray(truncated, jnp.float32))
    return discount * (1.0 - terminated), discount * (1.0 - done), done > 0


def accumulate(
    terms: Float[Array, "time *batch"],
    factors: Float[Array, "time *batch"],
    done: Bool[Array, "time *batch"],
    last: Float[Array, "*batch"],
) -> Float[Array, "time *batch"]:
    """Solve y_t = terms_t + factors_t * y_{t+1} backwards from y_time = last, y_{t+1} being 0 behind an episode's end."""

    def step(following: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        term, factor, ended = now
        current = term + factor * existing(following, ended)
        return current, current

    last = last.astype(jnp.result_type(terms, factors))
    return jax.lax.scan(step, last, (terms, factors, done), reverse=True)[1]
