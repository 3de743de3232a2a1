"""PMOE-SAC: probabilistic mixture-of-experts policies trained by soft actor-critic (Ren et al., 2021, arXiv 2104.09122).

Every expert draws an action; only the one whose action the critic likes best is trained on it, as SAC trains its policy,
and the routing weights w(s) are regressed onto the indicator of that winner: in expectation w_k(s) becomes the frequency
with which expert k is best at s. To act, an expert is drawn by weight. Entropies are those of the chosen expert, not of the
mixture. Everything else is SAC, of which this file calls the parts; with one expert it is SAC.

`estimator` is the switch of the paper's comparison, with the same network and critics:
- `frequency`: the paper's; `frequency_all` trains every expert, not the winner alone;
- `score_ratio`: an expert is drawn, and the weights follow the likelihood-ratio gradient with baseline sum_k w_k Q_k;
- `gumbel`: straight-through Gumbel-softmax, its temperature falling from 1 to 0.1 with the run (unverified: the paper's is
  not known), and the mixture's own density;
- `expectation` (not in the paper): the sum over experts, w_k times expert k's loss, exactly;
- `gating`: one Gaussian, means and standard deviations averaged by weight;
- `multiplicative`: one Gaussian, the product of the experts' with w_k as exponents (Peng et al. 2019, arXiv 1905.09808, but
  with weights that sum to 1).

Differences from the authors' code (JieRen98/rlkit-pmoe): target networks start as copies; weights are those of each row, not of
the batch's first; the policy's gradient uses the critics as they were before the step; time limits are bootstrapped. Their
first actions and initial weights are `initial_actions="policy"` and `initialization="rlkit"`.
"""

from typing import Any, Literal, NamedTuple

import distrax
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

from jaxpg import losses
from jaxpg.algorithm import Algorithm, Metrics, register, static
from jaxpg.algorithms.online.sac import Actor, Critic, SACConfig, make_parts
from jaxpg.networks import Experts, TanhGaussian
from jaxpg.off_policy import as_algorithm, bounded_actions
from jaxpg.spaces import observation_size

Estimator = Literal["frequency", "frequency_all", "score_ratio", "gumbel", "expectation", "gating", "multiplicative"]


@struct.dataclass
class PMOESACConfig(SACConfig):
    """SAC's hyperparameters and those of the mixture."""

    num_experts: int = static(4, "experts K of the mixture")
    estimator: Estimator = static("frequency", "how experts and routing weights are trained")
    evaluation: Literal["sampled_expert_mean", "argmax_expert_mean"] = static(
        "sampled_expert_mean",
        "the deterministic policy: the mean of an expert drawn by weight, or of the likeliest one",
        needs={"estimator": ("frequency", "frequency_all", "score_ratio", "gumbel", "expectation")},
    )


class Proposals(NamedTuple):
    """An action of every expert, and what there is to know of it."""

    log_weights: Float[Array, "batch expert"]
    log_probs: Float[Array, "batch expert"]
    values: Float[Array, "batch expert"]
    drawn: Int[Array, " batch"]


def of_expert(x: Float[Array, "*batch expert action"], index: Int[Array, "*batch"]) -> Float[Array, "*batch action"]:
    """The slice of one expert for each row."""
    return jnp.take_along_axis(x, index[..., None, None], axis=-2)[..., 0, :]


def experts_actor(config: PMOESACConfig, feature_size: int, action_size: int) -> Actor:
    """The mixture as an actor of soft actor-critic."""
    network = Experts(config.num_experts, action_size, config.hidden_sizes, config.activation, config.initialization)
    is_single = config.estimator in ("gating", "multiplicative")

    def single(params: PyTree, features: Float[Array, "*batch feature"]) -> TanhGaussian:
        """The one Gaussian that gating or multiplication makes of the experts."""
        logits, mean, scale = network.apply(params, features)
        weights = jax.nn.softmax(logits)[..., None]
        if config.estimator == "gating":
            return TanhGaussian((weights * mean).sum(-2), (weights * scale).sum(-2))
        precision = (weights / jnp.square(scale)).sum(-2)
        return TanhGaussian((weights / jnp.square(scale) * mean).sum(-2) / precision, 1.0 / jnp.sqrt(precision))

    def draw(params: PyTree, key: jax.Array, features: Float[Array, "*batch feature"]) -> TanhGaussian:
        if is_single:
            return single(params, features)
        logits, mean, scale = network.apply(params, features)
        expert = jax.random.categorical(jax.random.fold_in(key, 1), logits)
        return TanhGaussian(of_expert(mean, expert), of_expert(scale, expert))

    def mode(params: PyTree, key: jax.Array, features: Float[Array, "*batch feature"]) -> Array:
        if is_single:
            return single(params, features).mode()
        logits, mean, _ = network.apply(params, features)
        drawn = config.evaluation == "sampled_expert_mean"
        return jnp.tanh(of_expert(mean, jax.random.categorical(key, logits) if drawn else jnp.argmax(logits, axis=-1)))

    def every_expert(
        params: PyTree, key: jax.Array, features: Float[Array, "batch feature"], critic: Critic, progress: Array
    ) -> tuple[Array, Proposals]:
        del progress
        logits, mean, scale = network.apply(params, features)
        actions, log_probs = TanhGaussian(mean, scale).sample_and_log_prob(seed=key)
        repeated = jnp.broadcast_to(features[:, None], (*actions.shape[:-1], features.shape[-1]))
        values = critic(repeated, actions)
        drawn = jax.random.categorical(jax.random.fold_in(key, 1), logits)
        proposals = Proposals(jax.nn.log_softmax(logits), log_probs, values, drawn)
        if config.estimator in ("frequency", "frequency_all"):
            return losses.select_best(values, log_probs)[0], proposals
        if config.estimator == "score_ratio":
            return losses.value_of_action(log_probs, drawn), proposals
        return (jnp.exp(proposals.log_weights) * log_probs).sum(-1), proposals

    def loss_of_proposals(x: Proposals, temperature: Float[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        weights = jnp.exp(x.log_weights)
        costs = temperature * x.log_probs - x.values
        routing_loss = jnp.float32(0)
        if config.estimator == "frequency":
            expert_loss = losses.select_best(x.values, costs)[0].mean()
            routing_loss = losses.frequency_routing_loss(weights, x.values)
        elif config.estimator == "frequency_all":
            expert_loss = costs.sum(-1).mean()
            routing_loss = losses.frequency_routing_loss(weights, x.values)
        elif config.estimator == "score_ratio":
            of_drawn = lambda y: losses.value_of_action(y, x.drawn)
            expert_loss = of_drawn(costs).mean()
            advantage = -of_drawn(costs) - (weights * x.values).sum(-1)
            routing_loss = losses.policy_gradient_loss(of_drawn(x.log_weights), jax.lax.stop_gradient(advantage))
        else:
            expert_loss = (weights * costs).sum(-1).mean()
        winners = jax.nn.one_hot(jnp.argmax(x.values, axis=-1), config.num_experts).mean(0)
        metrics = {
            "routing_loss": routing_loss,
            "routing_entropy": -(weights * x.log_weights).sum(-1).mean(),
            "largest_share_of_wins": winners.max(),
            "smallest_share_of_wins": winners.min(),
        }
        return expert_loss + routing_loss, metrics

    def one_action(
        params: PyTree, key: jax.Array, features: Float[Array, "batch feature"], critic: Critic, progress: Array
    ) -> tuple[Array, tuple[Array, Array]]:
        if is_single:
            action, log_probs = single(params, features).sample_and_log_prob(seed=key)
            return log_probs, (log_probs, critic(features, action))
        logits, mean, scale = network.apply(params, features)
        experts = distrax.MultivariateNormalDiag(mean, scale)
        log_weights = jax.nn.log_softmax(logits)
        noise = jax.random.gumbel(jax.random.fold_in(key, 1), logits.shape)
        soft = jax.nn.softmax((log_weights + noise) / (1.0 - 0.9 * progress))
        hard = jax.nn.one_hot(jnp.argmax(soft, axis=-1), config.num_experts)
        choice = soft + jax.lax.stop_gradient(hard - soft)  # straight through: hard forwards, soft backwards
        u = (choice[..., None] * experts.sample(seed=key)).sum(-2)
        tangent = distrax.Block(distrax.Tanh(), 1)
        log_probs = losses.mixture_log_prob(log_weights, experts.log_prob(u[:, None])) - tangent.forward_log_det_jacobian(u)
        return log_probs, (log_probs, critic(features, jnp.tanh(u)))

    def loss_of_one(rest: tuple[Array, Array], temperature: Float[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        log_probs, values = rest
        return (temperature * log_probs - values).mean(), {}

    draws_one = is_single or config.estimator == "gumbel"
    return Actor(
        init=lambda key: network.init(key, jnp.zeros(feature_size)),
        draw=draw,
        mode=mode,
        log_prob=one_action if draws_one else every_expert,
        loss=loss_of_one if draws_one else loss_of_proposals,
    )


@register(
    "pmoe_sac",
    PMOESACConfig,
    paper="Ren et al. 2021, arXiv 2104.09122",
    field="online",
    actions="continuous",
    status="results; its experts reach a target, but not by different ways",
)
def pmoe_sac(config: PMOESACConfig, env: Any, params: PyTree) -> Algorithm:
    """SAC with a mixture of experts."""
    actions, size = bounded_actions("pmoe_sac", env, params), observation_size(env, params)
    parts = make_parts(config, experts_actor(config, size, actions.size), size, actions.size)
    return as_algorithm(config, parts, env, params, actions)
