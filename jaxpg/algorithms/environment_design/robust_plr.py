"""Robust prioritised level replay (Jiang et al., 2021, arXiv 2110.02439).

Prioritised level replay that learns from replayed levels only: new ones are played to be scored. Difference from the paper,
which tosses a coin at every update whether to replay: every update looks at one batch of new levels after the batch it
replays, which is a replay probability of 1/2. Levels of a training set (`levels` = dataset) stay in the buffer.
"""

from typing import Any, Literal

import jax
from flax import struct
from jaxtyping import PyTree

from jaxpg.algorithm import Algorithm, Scalar, hyperparameter, register, static
from jaxpg.algorithms.environment_design.curriculum import (
    LEVELS_HELP,
    Choice,
    Outcome,
    as_algorithm,
    sample_levels,
    split_params,
)
from jaxpg.algorithms.environment_design.level_buffer import LevelBuffer
from jaxpg.algorithms.environment_design.plr import ReplayConfig, first_replay, replay


@struct.dataclass
class RobustPLRConfig(ReplayConfig):
    """Hyperparameters."""

    levels: Literal["dataset", "generator"] = static("generator", LEVELS_HELP)
    score: Literal["value_l1", "grounded_value_l1", "positive_value_loss", "max_mc"] = static(
        "positive_value_loss", "what makes a level worth a replay"
    )
    temperature: Scalar = hyperparameter(0.3, "of prioritisation; the lower, the more the best levels count", low=1e-3)


@register(
    "robust_plr",
    RobustPLRConfig,
    paper="Jiang et al. 2021, arXiv 2110.02439",
    field="environment_design",
    actions="discrete, continuous",
    status="complete",
)
def robust_plr(config: RobustPLRConfig, env: Any, params: PyTree) -> Algorithm:
    """Replay of random levels, new ones being played without learning from them."""
    params, dataset = split_params("robust_plr", config, env, params)
    curriculum = replay(config, env, dataset, config.buffer_size, 0.0, learn_from_new=False)

    def propose(key: jax.Array, buffer: LevelBuffer, choice: Choice, outcome: Outcome) -> PyTree:
        return sample_levels(env, key, config.num_envs)

    curriculum = curriculum._replace(propose=propose)
    return as_algorithm(config, env, params, curriculum, *first_replay(config, dataset, 2, "nothing is learned"))
