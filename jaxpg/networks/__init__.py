"""Flax modules, policy distributions, and the actor-critic they make together."""

from jaxpg.networks.action_value import Critics, DiscreteActionValues, Trunk
from jaxpg.networks.actor_critic import ActorCritic, actor_critic, recall, restart
from jaxpg.networks.encoders import DenseEncoder, ImageEncoder
from jaxpg.networks.mixture import GaussianMixture, GaussianMixtureActor
from jaxpg.networks.mlp import MLP, CategoricalActor, GaussianActor, MultiCategoricalActor
from jaxpg.networks.recurrent import Memory
from jaxpg.networks.squashed import Experts, TanhActor, TanhGaussian

__all__ = [
    "MLP",
    "ActorCritic",
    "CategoricalActor",
    "Critics",
    "DenseEncoder",
    "DiscreteActionValues",
    "Experts",
    "GaussianActor",
    "GaussianMixture",
    "GaussianMixtureActor",
    "ImageEncoder",
    "Memory",
    "MultiCategoricalActor",
    "TanhActor",
    "TanhGaussian",
    "Trunk",
    "actor_critic",
    "recall",
    "restart",
]
