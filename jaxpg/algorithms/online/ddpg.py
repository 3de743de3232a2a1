"""Deep deterministic policy gradient (Lillicrap et al., 2016, arXiv 1509.02971).

A deterministic actor climbs the gradient of a critic that learns by temporal differences from remembered steps: TD3, of which
this file calls the parts, with one critic, a target action without noise, and an actor that moves with every step.

Differences from the paper: by default noise without memory in place of an Ornstein-Uhlenbeck process (the paper's is
`exploration_noise=0.38, noise_correlation=0.85`), no weight decay, one step size.
"""

from typing import Any

from flax import struct
from jaxtyping import PyTree

from jaxpg.algorithm import Algorithm, register, static
from jaxpg.algorithms.online.td3 import DeterministicConfig, deterministic_policy_gradient


@struct.dataclass
class DDPGConfig(DeterministicConfig):
    """Hyperparameters."""

    policy_delay: int = static(1, "gradient steps of the critic from one step of actor and target networks to the next")


@register(
    "ddpg",
    DDPGConfig,
    paper="Lillicrap et al. 2016, arXiv 1509.02971",
    field="online",
    actions="continuous",
    status="complete",
)
def ddpg(config: DDPGConfig, env: Any, params: PyTree) -> Algorithm:
    """One critic, one actor."""
    return deterministic_policy_gradient(config, env, params, "ddpg", 1, 0.0, 0.0)
