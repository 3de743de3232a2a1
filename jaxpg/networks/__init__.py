"""Flax modules, policy distributions, and the actor-critic they make together."""

from jaxpg.networks.actor_critic import ActorCritic, categorical_actor_critic, gaussian_actor_critic
from jaxpg.networks.mixture import GaussianMixture, GaussianMixtureActor
from jaxpg.networks.mlp import MLP, CategoricalActor, GaussianActor

__all__ = [
    "MLP",
    "ActorCritic",
    "CategoricalActor",
    "GaussianActor",
    "GaussianMixture",
    "GaussianMixtureActor",
    "categorical_actor_critic",
    "gaussian_actor_critic",
]
