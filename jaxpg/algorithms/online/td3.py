"""Twin delayed deep deterministic policy gradient (Fujimoto et al., 2018, arXiv 1802.09477).

A deterministic actor climbs the gradient of a critic, which learns by temporal differences from remembered steps. Three cures
for the critic's overestimation: the smaller of two critics is the target, the target action is blurred by clipped noise, and
actor and target networks move only after every second step of the critics.

Differences from the paper: `gradient_steps` per update may be more than one; bootstrapping at time limits. Actions are
scaled to [-1, 1], and so is the noise, which may be correlated in time (`noise_correlation`), for tasks that need a push that
lasts.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

from jaxpg import losses
from jaxpg.algorithm import Algorithm, Metrics, Scalar, hyperparameter, register, static
from jaxpg.counting import increment
from jaxpg.gradient_descent import descend, global_norm
from jaxpg.networks import Critics, TanhActor
from jaxpg.off_policy import OffPolicyConfig, Parts, adam, as_algorithm, bounded_actions, correlated_noise, move_towards
from jaxpg.replay import Sample
from jaxpg.spaces import observation_size
from jaxpg.transforms import any_in_batch


@struct.dataclass
class DeterministicConfig(OffPolicyConfig):
    """Hyperparameters of TD3 and DDPG."""

    policy_delay: int = static(2, "gradient steps of the critics from one step of actor and target networks to the next")
    exploration_noise: Scalar = hyperparameter(0.1, "standard deviation of the noise that is added to actions", low=0)
    noise_correlation: Scalar = hyperparameter(0.0, "correlation of that noise from one step to the next", low=0, high=1)


@struct.dataclass
class TD3Config(DeterministicConfig):
    """Hyperparameters."""

    target_noise: Scalar = hyperparameter(0.2, "standard deviation of the noise that blurs the target action", low=0)
    target_noise_clip: Scalar = hyperparameter(0.5, "bound of that noise", low=0)


CriticTargets: TypeAlias = Literal["with_actor", "every_step"]


class Learner(NamedTuple):
    """What learning changes."""

    actor: PyTree
    critics: PyTree
    target_actor: PyTree
    target_critics: PyTree
    actor_optimizer: PyTree
    critic_optimizer: PyTree
    gradient_steps: Int[Array, ""]


def deterministic_actor_critic(
    actor: Any,
    critics: Critics,
    optimizer: optax.GradientTransformation,
    policy_delay: int,
    target_ema_rate: Scalar,
    target_noise: Scalar,
    target_noise_clip: Scalar,
    critic_targets: CriticTargets = "with_actor",
) -> tuple[Callable[..., Learner], Callable[..., tuple[Learner, Float[Array, " batch"], Metrics]]]:
    """Initialises and improves a deterministic actor and its critics: equations and symbols of TD3's algorithm 1.

    Args:
      actor: a network from features to actions within [-1, 1], with `init` and `apply`.
      optimizer: of the actor and of the critics, each with a state of its own.
      critic_targets: when the target critics move: with the actor and its target, or at every gradient step.

    Returns:
      `init(key, features (feature,), action (action,)) -> Learner`, shaped after examples, and
      `learn(key, learner, sample) -> (learner, errors (batch,), metrics)`, one gradient step.
    """
    num_critics = critics.num_critics
    first_critic = critics.clone(num_critics=1)

    def move_target_critics(learner: Learner) -> Learner:
        return learner._replace(target_critics=move_towards(learner.target_critics, learner.critics, target_ema_rate))

    def init(key: jax.Array, features: Float[Array, " feature"], action: Float[Array, " action"]) -> Learner:
        actor_key, critic_key = jax.random.split(key)
        actor_params = actor.init(actor_key, features)
        critic_params = critics.init(critic_key, features, action)
        states = optimizer.init(actor_params), optimizer.init(critic_params)
        return Learner(actor_params, critic_params, actor_params, critic_params, *states, jnp.int32(0))

    def learn(key: jax.Array, learner: Learner, batch: Sample) -> tuple[Learner, Float[Array, " batch"], Metrics]:
        blur = target_noise * jax.random.normal(key, batch.action.shape)
        blur = jnp.clip(blur, -target_noise_clip, target_noise_clip)
        next_action = jnp.clip(actor.apply(learner.target_actor, batch.next_observation) + blur, -1.0, 1.0)
        next_values = critics.apply(learner.target_critics, batch.next_observation, next_action).min(0)
        targets = batch.reward + batch.bootstrap * next_values

        def critic_loss(params: PyTree) -> tuple[Float[Array, ""], Float[Array, "critic batch"]]:
            values = critics.apply(params, batch.observation, batch.action)
            repeated = jnp.broadcast_to(targets, values.shape)
            return num_critics * losses.weighted_squared_error(values, repeated, batch.weight), values

        gradient, values = jax.grad(critic_loss, has_aux=True)(learner.critics)
        new_critics, critic_optimizer = descend(optimizer, gradient, learner.critics, learner.critic_optimizer)
        gradient_steps = increment(learner.gradient_steps, policy_delay)
        learner = learner._replace(critics=new_critics, critic_optimizer=critic_optimizer, gradient_steps=gradient_steps)
        if critic_targets == "every_step":
            learner = move_target_critics(learner)

        def actor_loss(params: PyTree) -> Float[Array, ""]:
            action = actor.apply(params, batch.observation)
            return -first_critic.apply(first(new_critics), batch.observation, action).mean()

        def improve_actor() -> tuple[Learner, Float[Array, ""]]:
            policy_loss, actor_gradient = jax.value_and_grad(actor_loss)(learner.actor)
            new_actor, actor_optimizer = descend(optimizer, actor_gradient, learner.actor, learner.actor_optimizer)
            target_actor = move_towards(learner.target_actor, new_actor, target_ema_rate)
            new = move_target_critics(learner) if critic_targets == "with_actor" else learner
            return new._replace(actor=new_actor, actor_optimizer=actor_optimizer, target_actor=target_actor), policy_loss

        due = any_in_batch(gradient_steps % policy_delay == 0)
        learner, policy_loss = jax.lax.cond(due, improve_actor, lambda: (learner, jnp.float32(0)))
        metrics = {
            "q_loss": jnp.square(values - targets).mean(),
            "q_value": values.mean(),
            "policy_loss": policy_delay * policy_loss,  # every so many steps: the mean over steps is the loss's
            "gradient_norm": global_norm(gradient),
            "parameter_norm": global_norm(new_critics),
        }
        return learner, values[0] - targets, metrics

    return init, learn


def first(critics: PyTree) -> PyTree:
    """The parameters of the first of several critics, as of one."""
    return jax.tree.map(lambda x: x[:1], critics)


def deterministic_policy_gradient(
    config: DeterministicConfig, env: Any, env_params: PyTree, name: str, num_critics: int, target_noise: Any, noise_clip: Any
) -> Algorithm:
    """TD3, or with one critic and no target noise DDPG."""
    actions = bounded_actions(name, env, env_params)
    actor = TanhActor(actions.size, config.hidden_sizes, config.activation)
    critics = Critics(num_critics, config.hidden_sizes, config.activation, config.layer_norm)
    init, improve = deterministic_actor_critic(
        actor, critics, adam(config), config.policy_delay, config.target_ema_rate, target_noise, noise_clip
    )

    def noisy(
        key: jax.Array, action: Float[Array, "*batch action"], noise: Float[Array, "*batch action"]
    ) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch action"]]:
        """The action with noise, and the noise in units of its standard deviation."""
        noise = correlated_noise(key, noise, config.noise_correlation)
        return jnp.clip(action + config.exploration_noise * noise, -1.0, 1.0), noise

    def explore(
        key: jax.Array,
        learner: Learner,
        features: Float[Array, "env feature"],
        carry: Float[Array, "env action"],
        progress: Float[Array, ""],
    ) -> tuple[Float[Array, "env action"], Float[Array, "env action"]]:
        del progress
        return noisy(key, actor.apply(learner.actor, features), carry)

    def learn(
        key: jax.Array, learner: Learner, batch: Sample, progress: Float[Array, ""]
    ) -> tuple[Learner, Float[Array, " batch"], Metrics]:
        del progress
        return improve(key, learner, batch)

    def act(
        params: PyTree, key: jax.Array, features: Float[Array, " feature"], carry: Float[Array, " action"], deterministic: bool
    ) -> tuple[Float[Array, " action"], Float[Array, " action"]]:
        action = actor.apply(params, features)
        return (action, carry) if deterministic else noisy(key, action, carry)

    start = lambda key: init(key, jnp.zeros(observation_size(env, env_params)), jnp.zeros(actions.size))
    parts = Parts(start, explore, learn, act, lambda learner: learner.actor, initial_carry=jnp.zeros(actions.size))
    return as_algorithm(config, parts, env, env_params, actions)


@register(
    "td3",
    TD3Config,
    paper="Fujimoto et al. 2018, arXiv 1802.09477",
    field="online",
    actions="continuous",
    status="complete",
)
def td3(config: TD3Config, env: Any, params: PyTree) -> Algorithm:
    """Two critics, blurred target actions, a delayed actor."""
    return deterministic_policy_gradient(config, env, params, "td3", 2, config.target_noise, config.target_noise_clip)
