"""Quantile regression DQN (Dabney et al., 2018, arXiv 1710.10044).

Not only the mean of an action's return is learned but its distribution, as N quantiles: each regressed, by a Huber loss
that weighs over- and underestimates by the quantile's level, onto r + gamma * (quantiles of the best action in the
successor). Actions are chosen by the quantiles' mean. All else is DQN, of which this file calls the parts; double
Q-learning is off by default.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PyTree

from jaxpg import losses
from jaxpg.algorithm import Algorithm, Metrics, Scalar, hyperparameter, register, static
from jaxpg.algorithms.online.dqn import DQNConfig, exponents_of, make_parts
from jaxpg.networks import DiscreteActionValues
from jaxpg.off_policy import as_algorithm, discrete_actions
from jaxpg.replay import Sample
from jaxpg.spaces import observation_size


@struct.dataclass
class QRDQNConfig(DQNConfig):
    """DQN's hyperparameters and those of the distribution."""

    num_quantiles: int = static(25, "quantiles N of each action's return")
    double: bool = static(False, "let the network choose the successor's action, the target network judge it")
    kappa: Scalar = hyperparameter(1.0, "width of the quadratic part of Huber's loss", low=1e-6)


@register(
    "qr_dqn",
    QRDQNConfig,
    paper="Dabney et al. 2018, arXiv 1710.10044",
    field="online",
    actions="discrete",
    status="complete",
)
def qr_dqn(config: QRDQNConfig, env: Any, params: PyTree) -> Algorithm:
    """DQN with the distribution of returns in place of their mean."""
    actions = discrete_actions("qr_dqn", env, params)
    network = DiscreteActionValues(
        actions.size, config.hidden_sizes, config.activation, config.layer_norm, config.dueling, config.num_quantiles
    )

    def action_values(params: PyTree, features: Float[Array, "*batch feature"]) -> Float[Array, "*batch action"]:
        return network.apply(params, features).mean(-1)

    def quantiles_of(quantiles: Float[Array, "batch action quantile"], action: Array) -> Float[Array, "batch quantile"]:
        return jnp.take_along_axis(quantiles, action[:, None, None], axis=1)[:, 0]

    def loss(
        params: PyTree, target_params: PyTree, batch: Sample
    ) -> tuple[Float[Array, ""], tuple[Float[Array, " batch"], Metrics]]:
        judged = network.apply(target_params, batch.next_observation)
        chosen_by = action_values(params, batch.next_observation) if config.double else judged.mean(-1)
        successor = quantiles_of(judged, jnp.argmax(chosen_by, axis=-1))
        targets = jax.lax.stop_gradient(batch.reward[:, None] + batch.bootstrap[:, None] * successor)
        quantiles = quantiles_of(network.apply(params, batch.observation), batch.action)
        errors = losses.quantile_huber_loss(quantiles, targets, config.kappa)
        quantile_loss = (batch.weight * errors).mean()
        return quantile_loss, (errors, {"quantile_loss": quantile_loss, "q_value": quantiles.mean()})

    parts = make_parts(config, network, observation_size(env, params), action_values, loss)
    return as_algorithm(config, parts, env, params, actions, exponents_of(config))
