"""Trust region policy optimisation (Schulman et al., 2015, arXiv 1502.05477).

Collect a batch, raise the surrogate by one natural gradient step within a bound on the mean KL divergence, checked by a line
search; then fit the value function to the returns for several epochs.

Differences from the paper: advantages are generalised advantage estimates (Schulman et al., 2016) with a learned value
function, normalised over the batch; the Fisher matrix uses the whole batch; observations are normalised and episodes cut by
a time limit bootstrapped. Defaults are those of SB3-Contrib, whose line search measures the divergence the other way round,
but for normalisation and the value function's rate, which falls.

With a memory, it belongs to the policy: the natural gradient step moves it, the value function reads it.
The line search is a loop of unknown length, so that training cannot be differentiated in reverse.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PyTree

from jaxpg import losses
from jaxpg.algorithm import Algorithm, Metrics, Scalar, hyperparameter, register, static
from jaxpg.gradient_descent import descend, global_norm
from jaxpg.natural_gradient import natural_gradient_step
from jaxpg.networks import ActorCritic
from jaxpg.on_policy import (
    Experience,
    Learner,
    OnPolicyConfig,
    Parts,
    as_algorithm,
    clipped_adam,
    contexts_of,
    make_actor,
    make_network,
    require_divisible,
    require_several,
)
from jaxpg.rollout import Transition
from jaxpg.shuffling import shuffled_indices


@struct.dataclass
class TRPOConfig(OnPolicyConfig):
    """Hyperparameters of TRPO."""

    num_value_epochs: int = static(10, "passes over the batch of the value function")
    num_minibatches: int = static(16, "gradient steps of the value function per pass")
    num_cg_iterations: int = static(15, "Fisher-vector products per update")
    num_backtracks: int = static(10, "how often the line search may shorten the step")
    learning_rate: Scalar = hyperparameter(1e-3, "step size of the value function's Adam", low=0)
    gae_lambda: Scalar = hyperparameter(0.95, "lambda of the advantage estimates", low=0, high=1)
    max_divergence: Scalar = hyperparameter(0.01, "bound of the mean KL divergence of an update, in nats", low=0)
    damping: Scalar = hyperparameter(0.1, "added to the diagonal of the Fisher matrix", low=0)


def make_parts(config: TRPOConfig, env: Any, env_params: PyTree, network: ActorCritic) -> Parts:
    """TRPO around any actor-critic whose distributions know their KL divergence.

    Raises:
      InputError: the batch does not divide into `num_minibatches`, or is one step.
    """
    batch_size = config.num_envs * config.num_steps
    require_divisible(
        f"a batch of num_envs * num_steps = {config.num_envs} * {config.num_steps} = {batch_size} steps",
        batch_size,
        config.num_minibatches,
    )
    require_several("the batch", batch_size)
    actor = make_actor(config, env, env_params, network)
    optimizer = clipped_adam(config, config.num_value_epochs * config.num_minibatches)

    def value_loss(critic: PyTree, contexts: Array, targets: Array) -> Float[Array, ""]:
        return losses.value_loss(network.value({"critic": critic}, contexts), targets)

    def improve_policy(policy: PyTree, experience: Experience, advantages: Array) -> tuple[PyTree, Metrics]:
        def distribution(policy: PyTree) -> Any:
            return network.distribution(policy, contexts_of(network, policy, experience))

        old = distribution(policy)

        def objective(policy: PyTree) -> Float[Array, ""]:
            new = distribution(policy)
            ratio = jnp.exp(new.log_prob(experience.action) - experience.log_prob)
            return jnp.mean(ratio * advantages) + config.entropy_coefficient * new.entropy().mean()

        def divergence(policy: PyTree) -> Float[Array, ""]:
            return old.kl_divergence(distribution(policy)).mean()

        step = natural_gradient_step(
            objective,
            divergence,
            policy,
            max_divergence=config.max_divergence,
            damping=config.damping,
            num_cg_iterations=config.num_cg_iterations,
            num_backtracks=config.num_backtracks,
        )
        metrics = {
            "policy_improvement": step.improvement,
            "kl_divergence": step.divergence,
            "step_fraction": step.fraction,
            "entropy": old.entropy().mean(),
        }
        return step.params, metrics

    def fit_value(key: jax.Array, critic: PyTree, optimizer_state: PyTree, contexts: Array, targets: Array) -> tuple:
        contexts, targets = contexts.reshape(batch_size, -1), targets.reshape(batch_size)

        def minibatch_step(carry: tuple[PyTree, PyTree], indices: Array) -> tuple[tuple, Metrics]:
            critic, optimizer_state = carry
            loss, gradient = jax.value_and_grad(value_loss)(critic, contexts[indices], targets[indices])
            metrics = {"value_loss": loss, "gradient_norm": global_norm(gradient)}
            return descend(optimizer, gradient, critic, optimizer_state), metrics

        def epoch(carry: tuple[PyTree, PyTree], key: jax.Array) -> tuple[tuple, Metrics]:
            indices = shuffled_indices(key, batch_size).reshape(config.num_minibatches, -1)
            return jax.lax.scan(minibatch_step, carry, indices)

        return jax.lax.scan(epoch, (critic, optimizer_state), jax.random.split(key, config.num_value_epochs))

    def learn(key: jax.Array, learner: Learner, transitions: Transition) -> tuple[Learner, Metrics]:
        learner, e = actor.appraise(learner, transitions)
        advantages, targets = losses.generalized_advantage_estimation(
            e.reward, e.value, e.next_value, e.terminated, e.truncated, config.discount, config.gae_lambda
        )
        normalized = (advantages - advantages.mean()) / jnp.sqrt(advantages.var() + 1e-8)
        policy = {name: params for name, params in learner.params.items() if name != "critic"}
        policy, metrics = improve_policy(policy, e, normalized)
        contexts = contexts_of(network, policy, e)
        (critic, optimizer_state), value_metrics = fit_value(
            key, learner.params["critic"], learner.optimizer_state, contexts, targets
        )
        metrics |= jax.tree.map(jnp.mean, value_metrics)
        metrics["explained_variance"] = losses.explained_variance(e.value, targets)
        params = {**policy, "critic": critic}
        metrics["parameter_norm"] = global_norm(params)
        return actor.observe(learner._replace(params=params, optimizer_state=optimizer_state), transitions), metrics

    def init(key: jax.Array) -> Learner:
        return actor.init(key, lambda params: optimizer.init(params["critic"]))

    return Parts(init, actor.collect, learn, actor.policy, actor.appraise, network.initial_carry)


@register(
    "trpo",
    TRPOConfig,
    paper="Schulman et al. 2015, arXiv 1502.05477",
    field="online",
    actions="discrete, continuous",
    status="complete",
)
def trpo(config: TRPOConfig, env: Any, params: PyTree) -> Algorithm:
    """TRPO with a softmax policy for discrete actions and a Gaussian one for continuous actions."""
    network = make_network("trpo", config, env, params)
    return as_algorithm(config, make_parts(config, env, params, network), env, params)
