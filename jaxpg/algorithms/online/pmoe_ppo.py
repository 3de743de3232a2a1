"""PMOE-PPO: probabilistic mixture-of-experts policies trained by PPO (Ren et al., 2021, arXiv 2104.09122).

The policy is a true Gaussian mixture, pi(a|s) = sum_k w_k(s) N(a; mu_k(s), sigma_k). PPO's surrogate uses the density of the
whole mixture. Which expert was drawn is not differentiable, so the routing weights w(s) are also regressed onto the
indicator of the expert whose freshly drawn action has the highest Q: in expectation w_k(s) becomes the frequency with which
expert k is best at s. Everything else is PPO, of which this file calls the parts.

Unverified: the paper's text on PMOE-PPO was not at hand; this follows the only public implementation, by a co-author
(quantumiracle/Popular-RL-Algorithms), with three differences: log-densities by logsumexp, which do not underflow; time limits
bootstrapped as in our PPO; several environments instead of one. There, the routing weights receive the gradient of the
surrogate as well; `route_ppo_gradient=False` is the other reading, in which only the frequencies train them.
"""

import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PyTree

from jaxpg import losses
from jaxpg.algorithm import Algorithm, Metrics, Scalar, hyperparameter, register, static
from jaxpg.algorithms.online.ppo import Batch, PPOConfig, make_parts
from jaxpg.networks import GaussianMixture, GaussianMixtureActor
from jaxpg.on_policy import as_algorithm, join
from jaxpg.spaces import require_box_actions


@struct.dataclass
class PMOEPPOConfig(PPOConfig):
    """PPO's hyperparameters and those of the mixture."""

    num_experts: int = static(5, "experts K of the mixture")
    route_ppo_gradient: bool = static(True, "whether the surrogate's gradient trains the routing weights too")
    evaluation: Literal["sampled_expert_mean", "argmax_expert_mean"] = static(
        "sampled_expert_mean", "the deterministic policy: the mean of an expert drawn by weight, or of the likeliest one"
    )
    routing_coefficient: Scalar = hyperparameter(1.0, "weight of the frequency routing loss", low=0)
    q_coefficient: Scalar = hyperparameter(1.0, "weight of the action-value loss", low=0)


class ActionValue(nn.Module):
    """Q(s, a): three hidden layers of 64 rectified units, last layer within ±3e-3."""

    @nn.compact
    def __call__(
        self, contexts: Float[Array, "*batch context"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch"]:
        x = jnp.concatenate([contexts, action], axis=-1)
        for _ in range(3):
            x = nn.relu(nn.Dense(64)(x))
        small = nn.initializers.uniform(6e-3)  # draws from [0, 6e-3)
        last = nn.Dense(1, kernel_init=lambda *a: small(*a) - 3e-3, bias_init=lambda *a: small(*a) - 3e-3)
        return last(x)[..., 0]


@register(
    "pmoe_ppo",
    PMOEPPOConfig,
    paper="Ren et al. 2021, arXiv 2104.09122",
    field="online",
    actions="continuous",
    status="complete",
)
def pmoe_ppo(config: PMOEPPOConfig, env: Any, params: PyTree) -> Algorithm:
    """PPO with a mixture of Gaussian experts, an action-value critic and the routing loss that it feeds."""
    action_size = math.prod(require_box_actions("pmoe_ppo", env, params).shape)
    actor = GaussianMixtureActor(config.num_experts, action_size, config.hidden_sizes, config.activation)
    q = ActionValue()
    base = join("pmoe_ppo", config, actor, env, params)

    def init(key: jax.Array) -> PyTree:
        # 0 to 3 are the keys of the other parts: `fold_in(key, i)` is `split(key)[i]`.
        q_params = q.init(jax.random.fold_in(key, 4), jnp.zeros(base.context_size), jnp.zeros(action_size))
        return {**base.init(key), "q": q_params}

    def distribution(params: PyTree, contexts: Float[Array, "*batch context"]) -> GaussianMixture:
        experts = base.distribution(params, contexts)
        if config.route_ppo_gradient:
            return experts
        return GaussianMixture(jax.lax.stop_gradient(experts.logits), experts.means, experts.scales)

    def best_action(experts: GaussianMixture, key: jax.Array) -> Array:
        return experts.sample_expert_mean(key) if config.evaluation == "sampled_expert_mean" else experts.mode()

    def routing_and_q_loss(
        params: PyTree, contexts: Float[Array, "*batch context"], batch: Batch, key: jax.Array
    ) -> tuple[Float[Array, ""], Metrics]:
        contexts = jax.lax.stop_gradient(contexts)  # a memory is trained by the policy's and the value's loss
        experts = base.distribution(params, contexts)
        candidates = jax.lax.stop_gradient(experts.components_distribution.sample(seed=key))
        repeated = jnp.broadcast_to(contexts[..., None, :], (*candidates.shape[:-1], base.context_size))
        routing_loss = losses.frequency_routing_loss(experts.weights, q.apply(params["q"], repeated, candidates))
        q_loss = jnp.square(q.apply(params["q"], contexts, batch.action) - batch.target).mean()
        metrics = {
            "routing_loss": routing_loss,
            "q_loss": q_loss,
            "routing_entropy": experts.mixture_distribution.entropy().mean(),
        }
        return config.routing_coefficient * routing_loss + config.q_coefficient * q_loss, metrics

    network = base._replace(init=init, distribution=distribution)
    return as_algorithm(config, make_parts(config, env, params, network, routing_and_q_loss, best_action), env, params)
