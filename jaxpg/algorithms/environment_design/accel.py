"""ACCEL (Parker-Holder et al., 2022, arXiv 2203.01302): levels that evolve.

Robust PLR, except that the levels looked at without learning from them are mostly edits of those just replayed: small
changes of a level at the edge of what the student can do are at that edge again.

Difference from the paper, in which a coin decides whether an update replays and then edits, or looks at new levels: every
update replays, and `new_fraction` of the levels it looks at are new ones. On a training set (`levels` = dataset), which is the
paper's ACCEL begun with given levels ("ACCEL-D" to DRED), all are edits, and levels of the set may be evicted once seen.
"""

from typing import Any

import jax
from flax import struct
from jaxtyping import PyTree

from jaxpg.algorithm import Algorithm, Scalar, hyperparameter, register, static
from jaxpg.algorithms.environment_design.curriculum import (
    GENERATOR,
    Choice,
    Outcome,
    as_algorithm,
    sample_levels,
    split_params,
    where_rows,
)
from jaxpg.algorithms.environment_design.level_buffer import LevelBuffer
from jaxpg.algorithms.environment_design.plr import first_replay, replay
from jaxpg.algorithms.environment_design.robust_plr import RobustPLRConfig


@struct.dataclass
class ACCELConfig(RobustPLRConfig):
    """Hyperparameters."""

    num_edits: int = static(5, "random edits that make a new level of an old one")
    new_fraction: Scalar = hyperparameter(0.2, "share of random levels among those looked at", low=0, high=1, needs=GENERATOR)


def edit_levels(env: Any, key: jax.Array, levels: PyTree, num_edits: int) -> PyTree:
    """Every level of a stack, edited at random."""
    keys = jax.random.split(key, jax.tree.leaves(levels)[0].shape[0])
    return jax.vmap(lambda key, level: env.mutate_level(key, level, num_edits))(keys, levels)


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
        edited = edit_levels(env, edit_key, choice.levels, config.num_edits)
        if dataset is not None:
            return edited
        is_new = jax.random.bernoulli(coin_key, config.new_fraction, (config.num_envs,)) | ~choice.learn
        return where_rows(is_new, sample_levels(env, level_key, config.num_envs), edited)

    curriculum = curriculum._replace(propose=propose)
    return as_algorithm(config, env, params, curriculum, *first_replay(config, dataset, 2, "nothing is learned"))
