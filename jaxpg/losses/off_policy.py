"""Returns corrected for actions that another policy chose: V-trace and Retrace.

Conventions as in `jaxpg.losses.returns`: arrays are `(time, ...)`, a return never crosses an episode's end, the true
successor's value is the bootstrap there and at the window's end. rho_t = pi(a_t|s_t) / mu(a_t|s_t) is the ratio of the
policy that learns to the one that acted.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from jaxpg.losses._assertions import assert_same_shape
from jaxpg.losses.returns import Flags, accumulate, discounts, existing


def vtrace(
    log_ratio: Float[Array, "time *batch"],
    rewards: Float[Array, "time *batch"],
    values: Float[Array, "time *batch"],
    next_values: Float[Array, "time *batch"],
    terminated: Flags,
    truncated: Flags,
    discount: ScalarLike,
    trace_lambda: ScalarLike = 1.0,
    rho_clip: ScalarLike = 1.0,
    c_clip: ScalarLike = 1.0,
    policy_rho_clip: ScalarLike = 1.0,
) -> tuple[Float[Array, "time *batch"], Float[Array, "time *batch"]]:
    """V-trace targets and the advantages for the policy gradient.

        delta_t = min(rho_clip, rho_t) * (r_t + discount * (1 - terminated_t) * V(next_t) - V_t)
        v_t = V_t + delta_t + discount * (1 - done_t) * lambda * min(c_clip, rho_t) * (v_{t+1} - V_{t+1})
        A_t = min(policy_rho_clip, rho_t) * (r_t + discount * (1 - terminated_t) * q_t - V_t)

    where q_t mixes lambda of v_{t+1} with 1 - lambda of V(next_t), and is V(next_t) at the episode's and the window's end.
    On-policy (rho = 1) with lambda = 1, v_t is the n-step return to the window's end.

    Source: Espeholt et al. 2018, IMPALA (arXiv 1802.01561), equation 1 and remark 2 (lambda); section 4.2 (advantage).

    Args:
        log_ratio: log rho_t, in nats.
        rewards: r_t, received for the action of step t.
        values: V_t of the state in which the action was chosen.
        next_values: value of the true successor of step t.
        terminated: whether the successor is terminal, as booleans or 0/1.
        truncated: whether the episode was cut after step t, as booleans or 0/1.
        discount: discount per step, in [0, 1]; may be traced.
        trace_lambda: weight of longer returns, in [0, 1]; may be traced.
        rho_clip: bound of the ratio in the temporal difference: decides which policy's value is learned.
        c_clip: bound of the ratio in the trace: decides how fast, and with what variance.
        policy_rho_clip: bound of the ratio in the advantage.

    Returns:
        `(advantages, targets)`, both shaped as `rewards` and in its units.

    Raises:
        AssertionError: if the arrays differ in shape (nothing is broadcast).
    """
    assert_same_shape(
        log_ratio=log_ratio, rewards=rewards, values=values, next_values=next_values, terminated=terminated, truncated=truncated
    )
    ratio = jnp.exp(log_ratio)
    bootstrap, trace, done = discounts(terminated, truncated, discount)
    next_values = existing(next_values, terminated)
    deltas = jnp.minimum(rho_clip, ratio) * (rewards + bootstrap * next_values - values)
    corrections = accumulate(deltas, trace_lambda * trace * jnp.minimum(c_clip, ratio), done, jnp.zeros_like(deltas[-1]))
    targets = values + corrections
    following = existing(jnp.concatenate([targets[1:], next_values[-1:]]), done)
    # Where the trace ends, only the bootstrap counts.
    successor = bootstrap * next_values + trace_lambda * trace * (following - next_values)
    return jnp.minimum(policy_rho_clip, ratio) * (rewards + successor - values), targets


def retrace(
    log_ratio: Float[Array, "time *batch"],
    rewards: Float[Array, "time *batch"],
    action_values: Float[Array, "time *batch"],
    next_expected_values: Float[Array, "time *batch"],
    terminated: Flags,
    truncated: Flags,
    discount: ScalarLike,
    trace_lambda: ScalarLike = 1.0,
) -> Float[Array, "time *batch"]:
    """Retrace(lambda) targets of the action values Q(s_t, a_t).

        delta_t = r_t + discount * (1 - terminated_t) * E_pi[Q(next_t, .)] - Q_t
        target_t = Q_t + delta_t + discount * (1 - done_t) * lambda * min(1, rho_{t+1}) * (target_{t+1} - Q_{t+1})

    Source: Munos et al. 2016, "Safe and Efficient Off-Policy Reinforcement Learning" (arXiv 1606.02647), equations 3 and 4.

    Args:
        log_ratio: log rho_t, in nats; that of the first step does not matter.
        rewards: r_t, received for the action of step t.
        action_values: Q(s_t, a_t) of the action taken.
        next_expected_values: expectation of Q over the learning policy's actions in the true successor of step t.
        terminated: whether the successor is terminal, as booleans or 0/1.
        truncated: whether the episode was cut after step t, as booleans or 0/1.
        discount: discount per step, in [0, 1]; may be traced.
        trace_lambda: weight of longer returns, in [0, 1]; may be traced.

    Returns:
        Targets shaped as `rewards` and in its units.

    Raises:
        AssertionError: if the arrays differ in shape (nothing is broadcast).
    """
    assert_same_shape(
        log_ratio=log_ratio,
        rewards=rewards,
        action_values=action_values,
        next_expected_values=next_expected_values,
        terminated=terminated,
        truncated=truncated,
    )
    bootstrap, trace, done = discounts(terminated, truncated, discount)
    deltas = rewards + bootstrap * existing(next_expected_values, terminated) - action_values
    next_log_ratio = existing(jnp.concatenate([log_ratio[1:], jnp.zeros_like(log_ratio[-1:])]), done)
    factors = trace_lambda * trace * jnp.minimum(1.0, jnp.exp(next_log_ratio))
    return action_values + accumulate(deltas, factors, done, jnp.zeros_like(deltas[-1]))
