"""Options learned by soft actor-critic: a comparator for mixtures of experts (after Bacon et al., 2017, arXiv 1609.05140).

The experts of PMOE-SAC, with the same network and critics, are options here: one acts until its termination, a head of the
network, ends it, and only then another is drawn. The value of arriving in s' with option o is

    U(s', o) = (1 - beta_o(s')) u_o(s') + beta_o(s') sum_k w_k(s') u_k(s'),   u_k = Q(s', a_k) - alpha log pi_k(a_k|s')

An option is trained, as SAC trains its policy, on the states in which it acted; the weights follow the exact gradient of the
expectation over options; a termination becomes likelier where sum_k w_k u_k exceeds u_o less a deliberation cost (Harb et al.,
2018, arXiv 1709.04571).

Differences from the option-critic: entropy, replay, and critics of state and action, which options share. The paper on PMOE
compares with an option framework whose code was not available: this is ours.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

from jaxpg import losses
from jaxpg.algorithm import Algorithm, Metrics, Scalar, hyperparameter, register, static
from jaxpg.algorithms.online.sac import Learner, SACConfig, init_learner, step_critics, step_temperature
from jaxpg.gradient_descent import descend, global_norm
from jaxpg.networks import Critics, Experts, TanhGaussian
from jaxpg.off_policy import Actions, Parts, adam, as_algorithm, bounded_actions, correlated_noise
from jaxpg.replay import Sample
from jaxpg.spaces import observation_size


@struct.dataclass
class OptionCriticConfig(SACConfig):
    """SAC's hyperparameters and those of the options."""

    num_experts: int = static(4, "options")
    deliberation_cost: Scalar = hyperparameter(0.01, "what ending an option must gain, in units of return")


class Options(nn.Module):
    """PMOE-SAC's experts, and the logits of ending each."""

    experts: Experts

    @nn.compact
    def __call__(self, x: Float[Array, "*batch feature"]) -> tuple[Array, Array, Array, Float[Array, "*batch expert"]]:
        ends = nn.Dense(self.experts.num_experts, name="termination")(x)
        return *self.experts(x), ends


@register(
    "soft_option_critic",
    OptionCriticConfig,
    paper="after Bacon et al. 2017, arXiv 1609.05140",
    field="online",
    actions="continuous",
    status="a comparator for pmoe_sac",
)
def soft_option_critic(config: OptionCriticConfig, env: Any, env_params: PyTree) -> Algorithm:
    """Options on the networks of PMOE-SAC. A remembered action is the action, then the number of the option that took it."""
    actions, feature_size = bounded_actions("soft_option_critic", env, env_params), observation_size(env, env_params)
    experts = Experts(config.num_experts, actions.size, config.hidden_sizes, config.activation, config.initialization)
    network = Options(experts)
    critics = Critics(2, config.hidden_sizes, config.activation, config.layer_norm, config.initialization)
    target_entropy = config.target_entropy_scale * actions.size

    def init(key: jax.Array) -> Learner:
        actor_key, critic_key = jax.random.split(key)
        features = jnp.zeros(feature_size)
        critic_params = critics.init(critic_key, features, jnp.zeros(actions.size))
        return init_learner(config, network.init(actor_key, features), critic_params)

    def choose(
        params: PyTree, key: jax.Array, features: Float[Array, "*batch feature"], carry: tuple[Array, Array], greedy: bool
    ) -> tuple[Float[Array, "*batch action"], tuple[Int[Array, "*batch"], Float[Array, "*batch action"]]]:
        """The action, and the option that takes it with its noise; option -1 is none, at an episode's start."""
        option, noise = carry
        logits, mean, scale, ends = network.apply(params, features)
        end_key, option_key, action_key = jax.random.split(key, 3)
        end = jax.nn.sigmoid(losses.value_of_action(ends, jnp.maximum(option, 0)))
        ended = (option < 0) | ((end > 0.5) if greedy else jax.random.bernoulli(end_key, end))
        new = jnp.argmax(logits, axis=-1) if greedy else jax.random.categorical(option_key, logits)
        option = jnp.where(ended, new, option).astype(jnp.int32)
        of_option = lambda x: jnp.take_along_axis(x, option[..., None, None], axis=-2)[..., 0, :]
        policy = TanhGaussian(of_option(mean), of_option(scale))
        if greedy:
            return policy.mode(), (option, noise)
        noise = correlated_noise(action_key, noise, config.noise_correlation)
        return policy.at(noise), (option, noise)

    def explore(
        key: jax.Array, learner: Learner, features: Float[Array, "env feature"], carry: PyTree, progress: Float[Array, ""]
    ) -> tuple[Float[Array, "env action_and_option"], PyTree]:
        del progress
        action, carry = choose(learner.actor, key, features, carry, greedy=False)
        return jnp.concatenate([action, carry[0][:, None].astype(jnp.float32)], axis=1), carry

    def learn(
        key: jax.Array, learner: Learner, batch: Sample, progress: Float[Array, ""]
    ) -> tuple[Learner, Float[Array, " batch"], Metrics]:
        del progress
        actor_key, target_key, arrival_key = jax.random.split(key, 3)
        action, option = batch.action[:, :-1], batch.action[:, -1].astype(jnp.int32)
        temperature = jnp.exp(learner.log_temperature)

        def every_option(
            params: PyTree, critic_params: PyTree, key: jax.Array, features: Float[Array, "batch feature"]
        ) -> tuple[Array, Array, Array, Array]:
            """Log weights, log-probabilities and values of a fresh action of every option, and logits of ending."""
            logits, mean, scale, ends = network.apply(params, features)
            fresh, log_probs = TanhGaussian(mean, scale).sample_and_log_prob(seed=key)
            repeated = jnp.broadcast_to(features[:, None], (*fresh.shape[:-1], features.shape[-1]))
            return jax.nn.log_softmax(logits), log_probs, critics.apply(critic_params, repeated, fresh).min(0), ends

        def arrival(params: PyTree, critic_params: PyTree, key: jax.Array) -> tuple[Array, Array, Array]:
            """Of the successor: the option's u, the expected u of a new choice, and the probability of ending."""
            log_weights, log_probs, values, ends = every_option(params, critic_params, key, batch.next_observation)
            u = values - temperature * log_probs
            end = jax.nn.sigmoid(losses.value_of_action(ends, option))
            return losses.value_of_action(u, option), (jnp.exp(log_weights) * u).sum(-1), end

        def loss(params: PyTree) -> tuple[Float[Array, ""], tuple[Array, Array]]:
            log_weights, log_probs, values, _ = every_option(params, learner.critics, actor_key, batch.observation)
            costs = temperature * log_probs - values
            option_loss = losses.value_of_action(costs, option).mean()
            routing_loss = (jnp.exp(log_weights) * jax.lax.stop_gradient(costs)).sum(-1).mean()
            stay, renew, end = arrival(params, learner.critics, arrival_key)
            gain = jax.lax.stop_gradient(stay - renew + config.deliberation_cost)
            termination_loss = ((batch.bootstrap > 0) * end * gain).mean()
            return option_loss + routing_loss + termination_loss, (losses.value_of_action(log_probs, option), end)

        (policy_loss, (log_probs, end)), gradient = jax.value_and_grad(loss, has_aux=True)(learner.actor)
        actor_params, actor_optimizer = descend(adam(config), gradient, learner.actor, learner.actor_optimizer)
        log_temperature, temperature_optimizer = step_temperature(config, learner, -log_probs, target_entropy)
        stay, renew, end_at_arrival = arrival(learner.actor, learner.target_critics, target_key)
        targets = batch.reward + batch.bootstrap * ((1.0 - end_at_arrival) * stay + end_at_arrival * renew)
        learner, errors, metrics = step_critics(
            config, learner, lambda params: critics.apply(params, batch.observation, action), targets, batch.weight
        )
        learner = learner._replace(
            actor=actor_params,
            actor_optimizer=actor_optimizer,
            log_temperature=log_temperature,
            temperature_optimizer=temperature_optimizer,
        )
        metrics |= {
            "policy_loss": policy_loss,
            "entropy": -log_probs.mean(),
            "termination": end.mean(),
            "temperature": temperature,
            "gradient_norm": global_norm(gradient),
        }
        return learner, errors, metrics

    def act(
        params: PyTree, key: jax.Array, features: Float[Array, " feature"], carry: PyTree, deterministic: bool
    ) -> tuple[Float[Array, " action"], PyTree]:
        return choose(params, key, features, carry, deterministic)

    def random(key: jax.Array, number: int) -> Float[Array, "number action_and_option"]:
        action_key, option_key = jax.random.split(key)
        option = jax.random.randint(option_key, (number, 1), 0, config.num_experts)
        return jnp.concatenate([actions.random(action_key, number), option.astype(jnp.float32)], axis=1)

    def to_env(action: Float[Array, "*batch n"]) -> Array:
        return actions.to_env(action[..., : actions.size])

    start = jnp.int32(-1), jnp.zeros(actions.size)
    parts = Parts(init, explore, learn, act, lambda learner: learner.actor, start)
    return as_algorithm(config, parts, env, env_params, Actions(actions.size, to_env, random))
