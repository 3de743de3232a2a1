"""Soft actor-critic for discrete actions (Christodoulou, 2019, arXiv 1910.07207).

As in SAC the policy is paid for entropy, but expectations over actions are sums: in the critics' target, in the policy's
loss and in the temperature's. The target entropy is a part of the largest possible one.

Differences from the paper: time limits are bootstrapped; the target is 0.7 log|A| by default, where the paper has 0.98 and
CleanRL 0.89: of two actions that is nearly a coin, for which the temperature rises without end.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

from jaxpg import losses
from jaxpg.algorithm import Algorithm, Metrics, Scalar, hyperparameter, register, static
from jaxpg.algorithms.online.sac import Learner, init_learner, step_critics, step_temperature
from jaxpg.gradient_descent import descend, global_norm
from jaxpg.networks import DiscreteActionValues
from jaxpg.off_policy import OffPolicyConfig, Parts, adam, as_algorithm, discrete_actions
from jaxpg.replay import Sample
from jaxpg.spaces import observation_size


@struct.dataclass
class DiscreteSACConfig(OffPolicyConfig):
    """Hyperparameters."""

    num_envs: int = static(4, "environments stepped side by side")
    gradient_steps: int = static(2, "gradient steps per update, after its environment steps")
    hidden_sizes: tuple[int, ...] = static((64, 64), "hidden layers of every network")
    automatic_temperature: bool = static(True, "whether the temperature moves towards the target entropy")
    target_entropy_scale: Scalar = hyperparameter(
        0.7, "the target entropy is this times log(number of actions)", needs={"automatic_temperature": (True,)}
    )
    initial_temperature: Scalar = hyperparameter(1.0, "alpha at first, or always, in units of return per nat", low=1e-8)


@register(
    "sac_discrete",
    DiscreteSACConfig,
    paper="Christodoulou 2019, arXiv 1910.07207",
    field="online",
    actions="discrete",
    status="complete",
)
def sac_discrete(config: DiscreteSACConfig, env: Any, env_params: PyTree) -> Algorithm:
    """A softmax policy and two critics of every action."""
    actions = discrete_actions("sac_discrete", env, env_params)
    network = DiscreteActionValues(actions.size, config.hidden_sizes, config.activation)  # of logits, for the policy
    critic = DiscreteActionValues(actions.size, config.hidden_sizes, config.activation, config.layer_norm)
    target_entropy = config.target_entropy_scale * jnp.log(actions.size)

    def log_policy(params: PyTree, features: Float[Array, "*batch feature"]) -> Float[Array, "*batch action"]:
        return jax.nn.log_softmax(network.apply(params, features))

    def smaller(params: PyTree, features: Float[Array, "*batch feature"]) -> Float[Array, "*batch action"]:
        return jax.vmap(critic.apply, (0, None))(params, features).min(0)

    def init(key: jax.Array) -> Learner:
        actor_key, critic_key = jax.random.split(key)
        features = jnp.zeros(observation_size(env, env_params))
        critic_params = jax.vmap(critic.init, (0, None))(jax.random.split(critic_key), features)
        return init_learner(config, network.init(actor_key, features), critic_params)

    def explore(
        key: jax.Array, learner: Learner, features: Float[Array, "env feature"], carry: PyTree, progress: Float[Array, ""]
    ) -> tuple[Int[Array, " env"], PyTree]:
        del progress
        return jax.random.categorical(key, log_policy(learner.actor, features)), carry

    def learn(
        key: jax.Array, learner: Learner, batch: Sample, progress: Float[Array, ""]
    ) -> tuple[Learner, Float[Array, " batch"], Metrics]:
        del key, progress
        temperature = jnp.exp(learner.log_temperature)
        next_values = losses.soft_value(
            smaller(learner.target_critics, batch.next_observation),
            log_policy(learner.actor, batch.next_observation),
            temperature,
        )
        targets = batch.reward + batch.bootstrap * next_values
        action_values = smaller(learner.critics, batch.observation)

        def actor_loss(params: PyTree) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
            log_probs = log_policy(params, batch.observation)
            entropies = -(jnp.exp(log_probs) * log_probs).sum(-1)
            return -losses.soft_value(action_values, log_probs, temperature).mean(), entropies

        def values_of(params: PyTree) -> Float[Array, "critic batch"]:
            values = jax.vmap(critic.apply, (0, None))(params, batch.observation)
            return jax.vmap(losses.value_of_action, (0, None))(values, batch.action)

        (policy_loss, entropies), gradient = jax.value_and_grad(actor_loss, has_aux=True)(learner.actor)
        actor_params, actor_optimizer = descend(adam(config), gradient, learner.actor, learner.actor_optimizer)
        log_temperature, temperature_optimizer = step_temperature(config, learner, entropies, target_entropy)
        learner, errors, metrics = step_critics(config, learner, values_of, targets, batch.weight)
        learner = learner._replace(
            actor=actor_params,
            actor_optimizer=actor_optimizer,
            log_temperature=log_temperature,
            temperature_optimizer=temperature_optimizer,
        )
        metrics |= {
            "policy_loss": policy_loss,
            "entropy": entropies.mean(),
            "temperature": temperature,
            "gradient_norm": global_norm(gradient),
        }
        return learner, errors, metrics

    def act(
        params: PyTree, key: jax.Array, features: Float[Array, " feature"], carry: PyTree, deterministic: bool
    ) -> tuple[Int[Array, ""], PyTree]:
        log_probs = log_policy(params, features)
        return (jnp.argmax(log_probs, -1) if deterministic else jax.random.categorical(key, log_probs)), carry

    parts = Parts(init, explore, learn, act, lambda learner: learner.actor)
    return as_algorithm(config, parts, env, env_params, actions)
