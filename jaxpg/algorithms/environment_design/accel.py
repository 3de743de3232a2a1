"""ACCEL (Parker-Holder et al., 2022, arXiv 2203.01302): levels that evolve.

Robust PLR, except that the levels looked at without learning from them are mostly edits of some just replayed: small changes
of a level at the edge of what the student can do are at that edge again. As in the code of DRED's authors, edited are the
levels that four environments began with, those of the smallest mean return less value loss, there called the easiest.

Difference from the paper, in which a coin decides whether an update replays and then edits, or looks at new levels: every
update replays, and `new_fraction` of the levels it looks at are new ones. On a training set (`levels` = dataset), which is
ACCEL begun with given levels, all are edits. DRED's "ACCEL-D" is that with `score` = grounded_value_l1, `temperature` = 0.1.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import PyTree

from jaxpg.algorithm import Algorithm, Scalar, hyperparameter, register, static
from jaxpg.algorithms.environment_design.curriculum import (
    GENERATOR,
    Choice,
    Outcome,
    as_algorithm,
    levels_at,
    sample_levels,
    split_params,
    where_rows,
)
from jaxpg.algorithms.environment_design.level_buffer import LevelBuffer
from jaxpg.algorithms.environment_design.plr import first_replay, replay
from jaxpg.algorithms.environment_design.robust_plr import RobustPLRConfig
from jaxpg.algorithms.online.ppo import LAMBDA_HELP

NUM_PARENTS = 4  # levels that are edited


@struct.dataclass
class ACCELConfig(RobustPLRConfig):
    """Hyperparameters."""

    num_edits: int = static(5, "random edits that make a new level of an old one")
    gae_lambda: Scalar = hyperparameter(0.95, LAMBDA_HELP, low=0, high=1)
    new_fraction: Scalar = hyperparameter(0.2, "share of random levels among those looked at", low=0, high=1, needs=GENERATOR)


def edit_easiest(env: Any, key: jax.Array, choice: Choice, outcome: Outcome, num_edits: int) -> PyTree:
    """For each environment one of the easiest levels, edited at random.

    The authors of DRED take the environments of the smallest mean return less value loss, the latter at most 1, for those with
    the easiest levels, and so do we.
    """
    e, number = outcome.episodes, outcome.value_l1.size
    ease = e.return_sum / jnp.maximum(e.completed, 1.0) - jnp.minimum(outcome.value_l1, 1.0)
    easiest = jax.lax.top_k(-ease, min(NUM_PARENTS, number))[1]
    parents = levels_at(choice.first, jnp.resize(easiest, number))
    return jax.vmap(lambda key, level: env.mutate_level(key, level, num_edits))(jax.random.split(key, number), parents)


@register(
    "accel",
    ACCELConfig,
    paper="Parker-Holder et al. 2022, arXiv 2203.01302",
    field="environment_design",
    actions="discrete, continuous",
    status="complete",
)
def accel(config: ACCELConfig, env: Any, params: PyTree) -> Algorithm:
    """Robust PLR that edits what it replays."""
    params, dataset = split_params("accel", config, env, params)
    curriculum = replay(config, env, dataset, config.buffer_size, 0.0, learn_from_new=False)

    def propose(key: jax.Array, buffer: LevelBuffer, choice: Choice, outcome: Outcome) -> PyTree:
        edit_key, level_key, coin_key = jax.random.split(key, 3)
        edited = edit_easiest(env, edit_key, choice, outcome, config.num_edits)
        if dataset is not None:
            return edited
        is_new = jax.random.bernoulli(coin_key, config.new_fraction, (config.num_envs,)) | ~choice.learn
        return where_rows(is_new, sample_levels(env, level_key, config.num_envs), edited)

    curriculum = curriculum._replace(propose=propose)
    return as_algorithm(config, env, params, curriculum, *first_replay(config, dataset, 2, "nothing is learned"))
