"""Soft actor-critic (Haarnoja et al., 2018, arXiv 1801.01290 and 1812.05905).

The policy is paid for entropy: a critic of r + gamma * (Q - alpha * log pi) learns from remembered steps, with the smaller of
two critics as target; the policy, a squashed Gaussian, climbs Q - alpha * log pi through its own samples; the temperature alpha
moves so that the policy's entropy stays near a target, by default minus the number of the action's components.

Differences from the papers: actions and their densities are those scaled to [-1, 1]; time limits are bootstrapped. The order is
that of rlkit: the temperature first, then policy and critics, both with the critics as they were before the step. Noise that
explores may be correlated in time (`noise_correlation`; Eberhard et al., 2023, "Pink noise is all you need", ICLR, whose noise
is coloured otherwise), for tasks that need a push that lasts.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PyTree

from jaxpg import losses
from jaxpg.algorithm import Algorithm, Metrics, Scalar, hyperparameter, register, static
from jaxpg.gradient_descent import descend, global_norm
from jaxpg.networks import Critics, Experts, TanhGaussian
from jaxpg.off_policy import (
    Actions,
    OffPolicyConfig,
    Parts,
    adam,
    as_algorithm,
    bounded_actions,
    correlated_noise,
    move_towards,
)
from jaxpg.replay import Sample
from jaxpg.spaces import observation_size


@struct.dataclass
class SACConfig(OffPolicyConfig):
    """Hyperparameters."""

    initialization: Literal["lecun_normal", "rlkit"] = static(
        "lecun_normal",
        "initial weights: flax's, or rlkit's: uniform within 1 / sqrt(units), biases 0.1, a critic's last layer within 0.003",
    )
    automatic_temperature: bool = static(True, "whether the temperature moves towards the target entropy")
    target_entropy_scale: Scalar = hyperparameter(
        -1.0, "the target entropy is this times the number of action components", needs={"automatic_temperature": (True,)}
    )
    initial_temperature: Scalar = hyperparameter(1.0, "alpha at first, or always, in units of return per nat", low=1e-8)
    noise_correlation: Scalar = hyperparameter(
        0.0, "correlation, from one step to the next, of the normal noise in actions that explore", low=0, high=1
    )


class Learner(NamedTuple):
    """What learning changes."""

    actor: PyTree
    critics: PyTree
    target_critics: PyTree
    log_temperature: Float[Array, ""]
    actor_optimizer: PyTree
    critic_optimizer: PyTree
    temperature_optimizer: PyTree


Critic = Callable[[Float[Array, "*batch feature"], Float[Array, "*batch action"]], Float[Array, "*batch"]]


class Actor(NamedTuple):
    """A policy that soft actor-critic can train; `key` is for its own samples.

    Attributes:
      init: `key -> params`.
      draw: `(params, key, features) -> TanhGaussian`, from which to act and to compute targets; `key` is for what is drawn
        before it.
      mode: `(params, key, features) -> actions`, the deterministic policy.
      log_prob: `(params, key, features, critic, progress) -> (log-probabilities, rest)`: of fresh actions, which is what the
        temperature needs, and what the loss needs.
      loss: `(rest, temperature) -> (loss, metrics)`, with gradients into what `log_prob` read.

    `critic` is `(features, actions) -> Q`, the smaller of the two.
    """

    init: Callable[[jax.Array], PyTree]
    draw: Callable[..., TanhGaussian]
    mode: Callable[..., Array]
    log_prob: Callable[..., tuple[Array, PyTree]]
    loss: Callable[[PyTree, Float[Array, ""]], tuple[Float[Array, ""], Metrics]]


def init_learner(config: Any, actor_params: PyTree, critic_params: PyTree) -> Learner:
    """Nothing learned yet."""
    log_temperature = jnp.log(config.initial_temperature)
    states = (adam(config).init(x) for x in (actor_params, critic_params, log_temperature))
    return Learner(actor_params, critic_params, critic_params, log_temperature, *states)


def step_temperature(
    config: Any, learner: Learner, entropies: Float[Array, "*batch"], target_entropy: Scalar
) -> tuple[Float[Array, ""], PyTree]:
    """log alpha and its optimiser's state after a step, if it is automatic."""
    if not config.automatic_temperature:
        return learner.log_temperature, learner.temperature_optimizer
    entropies = jax.lax.stop_gradient(entropies)
    gradient = jax.grad(losses.temperature_loss)(learner.log_temperature, entropies, target_entropy)
    return descend(adam(config), gradient, learner.log_temperature, learner.temperature_optimizer)


def step_critics(
    config: Any,
    learner: Learner,
    values_of: Callable[[PyTree], Float[Array, "critic batch"]],
    targets: Float[Array, " batch"],
    weights: Float[Array, " batch"],
) -> tuple[Learner, Float[Array, " batch"], Metrics]:
    """A step of both critics towards the targets, and of the target critics after them; errors of the first one.

    Args:
      values_of: `critic parameters -> values` of the remembered actions.
    """

    def loss(params: PyTree) -> tuple[Float[Array, ""], Float[Array, "critic batch"]]:
        values = values_of(params)
        return 2 * losses.weighted_squared_error(values, jnp.broadcast_to(targets, values.shape), weights), values

    gradient, values = jax.grad(loss, has_aux=True)(learner.critics)
    critics, critic_optimizer = descend(adam(config), gradient, learner.critics, learner.critic_optimizer)
    target_critics = move_towards(learner.target_critics, critics, config.target_ema_rate)
    learner = learner._replace(critics=critics, target_critics=target_critics, critic_optimizer=critic_optimizer)
    metrics = {
        "q_loss": jnp.square(values - targets).mean(),
        "q_value": values.mean(),
        "parameter_norm": global_norm(critics),
    }
    return learner, values[0] - targets, metrics


def make_parts(config: SACConfig, actor: Actor, feature_size: int, action_size: int) -> Parts:
    """Soft actor-critic around any actor."""
    critics = Critics(2, config.hidden_sizes, config.activation, config.layer_norm, config.initialization)
    target_entropy = config.target_entropy_scale * action_size

    def init(key: jax.Array) -> Learner:
        actor_key, critic_key = jax.random.split(key)
        critic_params = critics.init(critic_key, jnp.zeros(feature_size), jnp.zeros(action_size))
        return init_learner(config, actor.init(actor_key), critic_params)

    def noisy(
        params: PyTree, key: jax.Array, features: Float[Array, "*batch feature"], noise: Float[Array, "*batch action"]
    ) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch action"]]:
        noise = correlated_noise(key, noise, config.noise_correlation)
        return actor.draw(params, key, features).at(noise), noise

    def explore(
        key: jax.Array,
        learner: Learner,
        features: Float[Array, "env feature"],
        carry: Float[Array, "env action"],
        progress: Float[Array, ""],
    ) -> tuple[Float[Array, "env action"], Float[Array, "env action"]]:
        del progress
        return noisy(learner.actor, key, features, carry)

    def learn(
        key: jax.Array, learner: Learner, batch: Sample, progress: Float[Array, ""]
    ) -> tuple[Learner, Float[Array, " batch"], Metrics]:
        actor_key, target_key = jax.random.split(key)

        def smaller(features: Float[Array, "*batch feature"], actions: Float[Array, "*batch action"]) -> Array:
            return critics.apply(learner.critics, features, actions).min(0)

        def actor_loss(params: PyTree) -> tuple[Float[Array, ""], tuple[Array, Metrics]]:
            log_probs, rest = actor.log_prob(params, actor_key, batch.observation, smaller, progress)
            log_temperature, _ = step_temperature(config, learner, -log_probs, target_entropy)
            loss, metrics = actor.loss(rest, jnp.exp(log_temperature))
            return loss, (log_probs, {"policy_loss": loss, **metrics})

        gradient, (log_probs, metrics) = jax.grad(actor_loss, has_aux=True)(learner.actor)
        actor_params, actor_optimizer = descend(adam(config), gradient, learner.actor, learner.actor_optimizer)
        log_temperature, temperature_optimizer = step_temperature(config, learner, -log_probs, target_entropy)

        policy = actor.draw(learner.actor, target_key, batch.next_observation)
        next_action, next_log_prob = policy.sample_and_log_prob(seed=target_key)
        next_values = critics.apply(learner.target_critics, batch.next_observation, next_action).min(0)
        targets = batch.reward + batch.bootstrap * (next_values - jnp.exp(log_temperature) * next_log_prob)
        learner, errors, critic_metrics = step_critics(
            config, learner, lambda params: critics.apply(params, batch.observation, batch.action), targets, batch.weight
        )
        learner = learner._replace(
            actor=actor_params,
            actor_optimizer=actor_optimizer,
            log_temperature=log_temperature,
            temperature_optimizer=temperature_optimizer,
        )
        metrics |= critic_metrics | {
            "entropy": -log_probs.mean(),
            "temperature": jnp.exp(log_temperature),
            "gradient_norm": global_norm(gradient),
        }
        return learner, errors, metrics

    def act(
        params: PyTree, key: jax.Array, features: Float[Array, " feature"], carry: Float[Array, " action"], deterministic: bool
    ) -> tuple[Float[Array, " action"], Float[Array, " action"]]:
        return (actor.mode(params, key, features), carry) if deterministic else noisy(params, key, features, carry)

    return Parts(init, explore, learn, act, lambda learner: learner.actor, initial_carry=jnp.zeros(action_size))


def single_gaussian(config: SACConfig, feature_size: int, actions: Actions) -> Actor:
    """SAC's policy."""
    network = Experts(1, actions.size, config.hidden_sizes, config.activation, config.initialization)

    def draw(params: PyTree, key: jax.Array, features: Float[Array, "*batch feature"]) -> TanhGaussian:
        del key
        _, mean, scale = network.apply(params, features)
        return TanhGaussian(mean[..., 0, :], scale[..., 0, :])

    def log_prob(
        params: PyTree, key: jax.Array, features: Float[Array, "batch feature"], critic: Critic, progress: Array
    ) -> tuple[Array, tuple[Array, Array]]:
        del progress
        action, log_probs = draw(params, key, features).sample_and_log_prob(seed=key)
        return log_probs, (log_probs, critic(features, action))

    def loss(rest: tuple[Array, Array], temperature: Float[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        log_probs, values = rest
        return (temperature * log_probs - values).mean(), {}

    return Actor(
        init=lambda key: network.init(key, jnp.zeros(feature_size)),
        draw=draw,
        mode=lambda params, key, features: draw(params, key, features).mode(),
        log_prob=log_prob,
        loss=loss,
    )


@register(
    "sac",
    SACConfig,
    paper="Haarnoja et al. 2018, arXiv 1801.01290, 1812.05905",
    field="online",
    actions="continuous",
    status="complete",
)
def sac(config: SACConfig, env: Any, params: PyTree) -> Algorithm:
    """A squashed Gaussian policy and two critics."""
    actions, size = bounded_actions("sac", env, params), observation_size(env, params)
    parts = make_parts(config, single_gaussian(config, size, actions), size, actions.size)
    return as_algorithm(config, parts, env, params, actions)
