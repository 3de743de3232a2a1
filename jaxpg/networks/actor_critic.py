"""A policy and a value function as pure functions over one tree of parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxpg.networks.mlp import MLP, CategoricalActor, GaussianActor


class ActorCritic(NamedTuple):
    """Separate actor and critic; `params` is `{"actor": ..., "critic": ...}`.

    Attributes:
      init: `key -> params`.
      distribution: `(params, features (*batch, feature)) -> distribution over actions`.
      value: `(params, features (*batch, feature)) -> values (*batch,)`.
    """

    init: Callable[[jax.Array], PyTree]
    distribution: Callable[[PyTree, Float[Array, "*batch feature"]], Any]
    value: Callable[[PyTree, Float[Array, "*batch feature"]], Float[Array, "*batch"]]


def actor_critic(actor: nn.Module, critic: nn.Module, feature_size: int) -> ActorCritic:
    """Joins an actor module (features to a distribution) and a critic module (features to one number)."""

    def init(key: jax.Array) -> PyTree:
        actor_key, critic_key = jax.random.split(key)
        features = jnp.zeros(feature_size)
        return {"actor": actor.init(actor_key, features), "critic": critic.init(critic_key, features)}

    return ActorCritic(
        init=init,
        distribution=lambda params, features: actor.apply(params["actor"], features),
        value=lambda params, features: critic.apply(params["critic"], features)[..., 0],
    )


def categorical_actor_critic(
    feature_size: int, num_actions: int, hidden_sizes: tuple[int, ...], activation: str
) -> ActorCritic:
    """For discrete actions."""
    actor = CategoricalActor(num_actions, hidden_sizes, activation)
    return actor_critic(actor, MLP(hidden_sizes, 1, 1.0, activation), feature_size)


def gaussian_actor_critic(feature_size: int, action_size: int, hidden_sizes: tuple[int, ...], activation: str) -> ActorCritic:
    """For continuous actions."""
    actor = GaussianActor(action_size, hidden_sizes, activation)
    return actor_critic(actor, MLP(hidden_sizes, 1, 1.0, activation), feature_size)
