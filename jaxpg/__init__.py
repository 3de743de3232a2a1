"""Policy-gradient reinforcement learning and its neighbours as pure, compiled JAX functions."""

from typing import TYPE_CHECKING

from jaxpg._lazy import import_when_used

if TYPE_CHECKING:
    from jaxpg import algorithms, losses, networks
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

import_when_used(
    __name__,
    dict.fromkeys(("REGISTRY", "Algorithm", "InputError", "Policy", "make"), "jaxpg.algorithm")
    | {"evaluate": "jaxpg.evaluation", "train": "jaxpg.training"},
)
