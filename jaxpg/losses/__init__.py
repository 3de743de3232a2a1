"""Losses, returns and advantages: pure functions on arrays, usable without the rest of jaxpg.

Conventions: time leads (`returns`); the other functions take arrays of any one shape and average over all of
it. Losses are scalars to minimise.

Nothing here stops a gradient, so that meta-gradients reach discounts, lambdas and what produced the data. Where a target
or an advantage must be held constant, compute it outside of the function that is differentiated, as the algorithms of
jaxpg do, or pass it through `jax.lax.stop_gradient`.
"""

from jaxpg.losses.action_value import (
    double_q_value,
    quantile_huber_loss,
    soft_value,
    temperature_loss,
    value_of_action,
    weighted_squared_error,
)
from jaxpg.losses.mixture import frequency_routing_loss, mixture_log_prob, select_best
from jaxpg.losses.off_policy import retrace, vtrace
from jaxpg.losses.policy_gradient import (
    approximate_kl,
    clip_fraction,
    clipped_surrogate,
    entropy_loss,
    kl_penalized_surrogate,
    policy_gradient_loss,
)
from jaxpg.losses.returns import (
    generalized_advantage_estimation,
    lambda_returns,
    monte_carlo_returns,
    n_step_returns,
)
from jaxpg.losses.value import clipped_value_loss, explained_variance, value_loss

__all__ = [
    "approximate_kl",
    "clip_fraction",
    "clipped_surrogate",
    "clipped_value_loss",
    "double_q_value",
    "entropy_loss",
    "explained_variance",
    "frequency_routing_loss",
    "generalized_advantage_estimation",
    "kl_penalized_surrogate",
    "lambda_returns",
    "mixture_log_prob",
    "monte_carlo_returns",
    "n_step_returns",
    "policy_gradient_loss",
    "quantile_huber_loss",
    "retrace",
    "select_best",
    "soft_value",
    "temperature_loss",
    "value_loss",
    "value_of_action",
    "vtrace",
    "weighted_squared_error",
]
