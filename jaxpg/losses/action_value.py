"""Losses and targets of action-value functions.

Action values of discrete actions have them on the last axis, those of several critics on the first one.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, ScalarLike

from jaxpg.losses._assertions import assert_same_shape


def value_of_action(action_values: Float[Array, "*batch action"], actions: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Q(s, a) of one action for each state."""
    return jnp.take_along_axis(action_values, actions[..., None], axis=-1)[..., 0]


def double_q_value(
    online_values: Float[Array, "*batch action"], target_values: Float[Array, "*batch action"]
) -> Float[Array, "*batch"]:
    """Q_target(s, argmax_a Q_online(s, a)): one network chooses, the other one judges.

    Source: van Hasselt et al. 2016, "Deep Reinforcement Learning with Double Q-learning" (arXiv 1509.06461), equation 4.
    With the same values twice it is their maximum, Q-learning's own target.

    Raises:
        AssertionError: if the shapes differ.
    """
    assert_same_shape(online_values=online_values, target_values=target_values)
    return value_of_action(target_values, jnp.argmax(online_values, axis=-1))


def weighted_squared_error(
    values: Float[Array, "*batch"], targets: Float[Array, "*batch"], weights: Float[Array, "..."] | ScalarLike = 1.0
) -> Float[Array, ""]:
    """0.5 * mean(w (Q - target)^2).

    Source: Mnih et al. 2015, "Human-level control through deep reinforcement learning", equation 2; the weights of
    prioritised sampling are those of Schaul et al. 2016 (arXiv 1511.05952), section 3.4.

    Raises:
        AssertionError: if the shapes of values and targets differ.
    """
    assert_same_shape(values=values, targets=targets)
    return 0.5 * jnp.mean(weights * jnp.square(values - targets))


def quantile_huber_loss(
    quantiles: Float[Array, "*batch quantile"],
    target_samples: Float[Array, "*batch sample"],
    kappa: ScalarLike = 1.0,
) -> Float[Array, "*batch"]:
    """Quantile regression with Huber's loss, summed over quantiles and averaged over the samples of the target.

        sum_i mean_j |tau_i - 1[z_j < theta_i]| * H_kappa(z_j - theta_i) / kappa,   tau_i = (i + 1/2) / N

    with H_kappa(u) = u^2 / 2 where |u| <= kappa and kappa (|u| - kappa / 2) elsewhere.

    Source: Dabney et al. 2018, "Distributional Reinforcement Learning with Quantile Regression" (arXiv 1710.10044),
    equations 9 and 10; divided by kappa as in "Implicit Quantile Networks" (arXiv 1806.06923), equation 3, so that small kappas
    approach quantile regression.

    Args:
        quantiles: theta_i of the return, at the midpoints tau_i.
        target_samples: z_j, equally likely values of the target.
        kappa: width of the quadratic part, positive.

    Returns:
        One loss for each element of the batch.
    """
    number = quantiles.shape[-1]
    levels = (jnp.arange(number) + 0.5) / number
    errors = target_samples[..., None, :] - quantiles[..., :, None]
    size = jnp.abs(errors)
    huber = jnp.where(size <= kappa, 0.5 * jnp.square(errors), kappa * (size - 0.5 * kappa))
    weights = jnp.abs(levels[:, None] - (errors < 0.0))
    return (weights * huber / kappa).mean(-1).sum(-1)


def soft_value(
    action_values: Float[Array, "*batch action"], log_probs: Float[Array, "*batch action"], temperature: ScalarLike
) -> Float[Array, "*batch"]:
    """sum_a pi(a|s) (Q(s, a) - temperature * log pi(a|s)): the value of a state under a policy that is paid for entropy.

    An action of probability zero (log-probability -inf) counts nothing.

    Source: Christodoulou 2019, "Soft Actor-Critic for Discrete Action Settings" (arXiv 1910.07207), equation 10.

    Args:
        action_values: Q(s, .).
        log_probs: log pi(.|s), normalised.
        temperature: alpha, in units of return per nat.

    Raises:
        AssertionError: if the shapes differ.
    """
    assert_same_shape(action_values=action_values, log_probs=log_probs)
    possible = ~jnp.isneginf(log_probs)  # a NaN is not passed over
    finite = jnp.where(possible, log_probs, 0.0)
    return jnp.where(possible, jnp.exp(finite) * (action_values - temperature * finite), 0.0).sum(-1)


def temperature_loss(
    log_temperature: Float[Array, ""], entropies: Float[Array, "*batch"], target_entropy: ScalarLike
) -> Float[Array, ""]:
    """log(alpha) * mean(H - H_target): raises the temperature while the policy's entropy is below the target.

    Source: Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications" (arXiv 1812.05905), equation 18, with log
    alpha in place of alpha, as their implementation has it.

    Args:
        log_temperature: log alpha.
        entropies: of the policy, in nats, or samples of -log pi(a|s).
        target_entropy: in nats.
    """
    return log_temperature * (jnp.mean(entropies) - target_entropy)
