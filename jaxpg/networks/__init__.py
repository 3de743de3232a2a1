"""Flax modules, policy distributions, and the actor-critic they make together."""

from jaxpg.networks.actor_critic import ActorCritic, actor_critic, recall, restart
from jaxpg.networks.mixture import GaussianMixture, GaussianMixtureActor
from jaxpg.networks.mlp import MLP, CategoricalActor, GaussianActor, MultiCategoricalActor
from jaxpg.networks.recurrent import Memory

__all__ = [
    "MLP",
    "ActorCritic",
    "CategoricalActor",
    "GaussianActor",
    "GaussianMixture",
    "GaussianMixtureActor",
    "Memory",
    "MultiCategoricalActor",
    "actor_critic",
    "recall",
    "restart",
]
