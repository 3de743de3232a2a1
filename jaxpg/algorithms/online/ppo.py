"""Proximal policy optimisation (Schulman et al., 2017, arXiv 1707.06347).

Collect a batch with the current policy, then take several epochs of minibatch steps on a surrogate that stops paying once
the new policy has moved away from the old one. Advantages are generalised advantage estimates (Schulman et al., 2016).

Differences from the paper: separate actor and critic, value clipping, advantages normalised per minibatch, global-norm
clipping of the gradient, normalised observations and scaled rewards, after "The 37 implementation details of PPO" (Huang et
al., 2022). Unlike most implementations, an episode cut by a time limit is bootstrapped with the value of its final
observation (`time_limit`).

With a memory, minibatches are whole sequences of some of the environments: the memory runs along them anew at every gradient
step, from the carry with which the rollout began, and is set back where an episode starts.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, PyTree

from jaxpg import losses
from jaxpg.algorithm import Algorithm, Metrics, Scalar, hyperparameter, register, static
from jaxpg.counting import divisors
from jaxpg.gradient_descent import descend, global_norm
from jaxpg.networks import ActorCritic
from jaxpg.on_policy import (
    Experience,
    JointConfig,
    Learner,
    Parts,
    as_algorithm,
    clipped_adam,
    contexts_of,
    make_actor,
    make_network,
    mean_over_chunks,
    require_divisible,
    require_several,
)
from jaxpg.rollout import Transition
from jaxpg.shuffling import shuffled_indices

CHUNK_HELP = "samples whose gradient is computed at once, to the same effect; 0: 1,024 on a CPU, for its caches, all elsewhere"
SURROGATE_HELP = "clipped ratio (eq. 7) or penalised KL (eq. 8)"
LAMBDA_HELP = "lambda of the advantage estimates"
CLIP_HELP = "how far the ratio, and with clip_values the value, may move within an update"
CLIP_VALUES_HELP = "stop also values that have moved by more than clip_epsilon within an update"
KL_HELP = "weight of the KL penalty"


@struct.dataclass
class PPOConfig(JointConfig):
    """Hyperparameters; one default for discrete and continuous actions."""

    num_envs: int = static(8, "environments stepped side by side")
    num_epochs: int = static(10, "passes over the batch per update")
    num_minibatches: int = static(8, "gradient steps per pass")
    chunk_size: int = static(0, CHUNK_HELP, low=0, needs={"memory": ("none",)})
    surrogate: Literal["clip", "kl"] = static("clip", SURROGATE_HELP)
    clip_values: bool = static(True, CLIP_VALUES_HELP)
    gae_lambda: Scalar = hyperparameter(0.95, LAMBDA_HELP, low=0, high=1)
    clip_epsilon: Scalar = hyperparameter(0.2, CLIP_HELP, low=0, needs=({"surrogate": ("clip",)}, {"clip_values": (True,)}))
    kl_coefficient: Scalar = hyperparameter(1.0, KL_HELP, low=0, needs={"surrogate": ("kl",)})


class Batch(NamedTuple):
    """What the loss reads. The leading axis is that of samples or, with a memory, of time, then environment."""

    features: Float[Array, "*batch feature"]
    starts: Bool[Array, "*batch"]
    carry: PyTree
    action: Array
    log_prob: Float[Array, "*batch"]
    value: Float[Array, "*batch"]
    advantage: Float[Array, "*batch"]
    target: Float[Array, "*batch"]


AuxiliaryLoss = Callable[[PyTree, Float[Array, "*batch context"], Batch, jax.Array], tuple[Float[Array, ""], Metrics]]


def no_auxiliary_loss(
    params: PyTree, contexts: Float[Array, "*batch context"], batch: Batch, key: jax.Array
) -> tuple[Float[Array, ""], Metrics]:
    """Plain PPO."""
    return jnp.float32(0), {}


def make_parts(
    config: PPOConfig,
    env: Any,
    env_params: PyTree,
    network: ActorCritic,
    auxiliary_loss: AuxiliaryLoss = no_auxiliary_loss,
    best_action: Callable[[Any, jax.Array], Array] = lambda distribution, key: distribution.mode(),
) -> Parts:
    """PPO around any actor-critic.

    Args:
      auxiliary_loss: `(params, contexts, batch, key) -> (loss, metrics)`, added to the loss of every minibatch.
      best_action: `(distribution, key) -> action` of the deterministic policy.

    Raises:
      InputError: the batch (with a memory: the environments) does not divide into `num_minibatches` of several steps.
    """
    batch_size = config.num_envs * config.num_steps
    has_memory = config.memory != "none"
    if has_memory:
        require_divisible(f"num_envs = {config.num_envs} sequences for the memory", config.num_envs, config.num_minibatches)
    else:
        product = f"num_envs * num_steps = {config.num_envs} * {config.num_steps} = {batch_size}"
        require_divisible(f"a batch of {product} steps", batch_size, config.num_minibatches)
    require_several("a minibatch", batch_size // config.num_minibatches)
    num_chunks = 1 if has_memory else chunks_of(batch_size // config.num_minibatches, config.chunk_size)
    actor = make_actor(config, env, env_params, network, best_action)
    optimizer = clipped_adam(config, config.num_epochs * config.num_minibatches)

    def loss(params: PyTree, batch: Batch, key: jax.Array) -> tuple[Float[Array, ""], Metrics]:
        contexts = contexts_of(network, params, batch)
        distribution = network.distribution(params, contexts)
        log_prob = distribution.log_prob(batch.action)
        if config.surrogate == "clip":
            policy_loss = losses.clipped_surrogate(log_prob, batch.log_prob, batch.advantage, config.clip_epsilon)
        else:
            policy_loss = losses.kl_penalized_surrogate(log_prob, batch.log_prob, batch.advantage, config.kl_coefficient)
        values = network.value(params, contexts)
        if config.clip_values:
            value_loss = losses.clipped_value_loss(values, batch.value, batch.target, config.clip_epsilon)
        else:
            value_loss = losses.value_loss(values, batch.target)
        entropy = distribution.entropy().mean()
        extra_loss, extra_metrics = auxiliary_loss(params, contexts, batch, key)
        total = policy_loss + config.value_coefficient * value_loss - config.entropy_coefficient * entropy + extra_loss
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approximate_kl": losses.approximate_kl(log_prob, batch.log_prob),
            "clip_fraction": losses.clip_fraction(log_prob, batch.log_prob, config.clip_epsilon),
            **extra_metrics,
        }
        return total, metrics

    def make_batch(experience: Experience) -> Batch:
        e = experience
        advantages, targets = losses.generalized_advantage_estimation(
            e.reward, e.value, e.next_value, e.terminated, e.truncated, config.discount, config.gae_lambda
        )
        batch = Batch(e.features, e.starts, e.carry, e.action, e.log_prob, e.value, advantages, targets)
        if has_memory:
            return batch
        return jax.tree.map(lambda x: x.reshape(batch_size, *x.shape[2:]), batch)

    def minibatch_of(batch: Batch, indices: Array) -> Batch:
        """Some samples or, with a memory, the sequences of some environments."""
        if not has_memory:
            return jax.tree.map(lambda x: x[indices], batch)
        carry = jax.tree.map(lambda x: x[indices], batch.carry)
        return jax.tree.map(lambda x: x[:, indices], batch._replace(carry=()))._replace(carry=carry)

    def learn(key: jax.Array, learner: Learner, transitions: Transition) -> tuple[Learner, Metrics]:
        learner, experience = actor.appraise(learner, transitions)
        batch = make_batch(experience)

        def minibatch_step(carry: tuple[PyTree, PyTree], step: tuple[Array, jax.Array]) -> tuple[tuple, Metrics]:
            params, optimizer_state = carry
            indices, key = step
            advantages = minibatch_of(batch, indices).advantage
            mean, deviation = advantages.mean(), jnp.sqrt(advantages.var() + 1e-8)

            def gradient_of(chunk: tuple[Array, jax.Array]) -> tuple[PyTree, Metrics]:
                samples = minibatch_of(batch, chunk[0])
                samples = samples._replace(advantage=(samples.advantage - mean) / deviation)
                return jax.grad(loss, has_aux=True)(params, samples, chunk[1])

            chunks = (indices.reshape(num_chunks, -1), jax.random.split(key, num_chunks))
            gradient, metrics = mean_over_chunks(gradient_of, chunks, num_chunks)
            metrics["gradient_norm"] = global_norm(gradient)
            return descend(optimizer, gradient, params, optimizer_state), metrics

        size = config.num_envs if has_memory else batch_size
        num_gradient_steps = config.num_epochs * config.num_minibatches
        keys = jax.random.split(key, config.num_epochs + num_gradient_steps)
        epochs = jax.vmap(lambda key: shuffled_indices(key, size))(keys[: config.num_epochs])
        steps = (epochs.reshape(num_gradient_steps, -1), keys[config.num_epochs :])
        (params, optimizer_state), metrics = jax.lax.scan(minibatch_step, (learner.params, learner.optimizer_state), steps)
        metrics = jax.tree.map(jnp.mean, metrics)
        metrics["explained_variance"] = losses.explained_variance(batch.value, batch.target)
        metrics["parameter_norm"] = global_norm(params)
        learner = learner._replace(params=params, optimizer_state=optimizer_state)
        return actor.observe(learner, transitions), metrics

    return Parts(
        lambda key: actor.init(key, optimizer.init), actor.collect, learn, actor.policy, actor.appraise, network.initial_carry
    )


def chunks_of(samples: int, chunk_size: int) -> int:
    """Into how many equal chunks, of at most `chunk_size` samples, a minibatch is cut."""
    if chunk_size == 0:
        chunk_size = 1024 if jax.default_backend() == "cpu" else samples
    return next(number for number in divisors(samples) if samples // number <= chunk_size)


@register(
    "ppo",
    PPOConfig,
    paper="Schulman et al. 2017, arXiv 1707.06347",
    field="online",
    actions="discrete, continuous",
    status="complete",
)
def ppo(config: PPOConfig, env: Any, params: PyTree) -> Algorithm:
    """PPO with a softmax policy for discrete actions and a Gaussian one for continuous actions."""
    network = make_network("ppo", config, env, params)
    return as_algorithm(config, make_parts(config, env, params, network), env, params)
