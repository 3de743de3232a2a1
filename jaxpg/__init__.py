"""Policy-gradient reinforcement learning and its neighbours as pure, compiled JAX functions."""

from jaxpg import algorithms, losses, networks, randomness  # noqa: F401  (randomness: by its import)
from jaxpg.algorithm import REGISTRY, Algorithm, InputError, Policy, make
from jaxpg.evaluation import evaluate
from jaxpg.training import train

__all__ = [
    "REGISTRY",
    "Algorithm",
    "InputError",
    "Policy",
    "algorithms",
    "evaluate",
    "losses",
    "make",
    "networks",
    "train",
]
