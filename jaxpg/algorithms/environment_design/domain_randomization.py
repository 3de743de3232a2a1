"""Domain randomisation (Tobin et al., 2017, arXiv 1703.06907): every level is as likely as any other, whatever came before.

Levels are drawn anew from the environment's random generator at every update or, with `levels` = dataset, uniformly from a
training set for every episode, which is the baseline that others call "uniform" (DRED's authors draw some of them by staleness,
which changes how evenly they come, not how often).
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, PyTree

from jaxpg.algorithm import Algorithm, register, static
from jaxpg.algorithms.environment_design.curriculum import (
    LEVELS_HELP,
    Choice,
    Curriculum,
    CurriculumConfig,
    as_algorithm,
    own_slots,
    sample_levels,
    split_params,
)


@struct.dataclass
class DomainRandomizationConfig(CurriculumConfig):
    """The student's hyperparameters."""

    levels: Literal["dataset", "generator"] = static("generator", LEVELS_HELP)


@register(
    "domain_randomization",
    DomainRandomizationConfig,
    paper="Tobin et al. 2017, arXiv 1703.06907",
    field="environment_design",
    actions="discrete, continuous",
    status="complete",
)
def domain_randomization(config: DomainRandomizationConfig, env: Any, params: PyTree) -> Algorithm:
    """Random levels, new ones or those of a training set."""
    params, dataset = split_params("domain_randomization", config, env, params)

    def choose(key: jax.Array, dataset: PyTree, now: Int[Array, "*digit"]) -> Choice:
        if config.levels == "generator":
            return Choice(sample_levels(env, key, config.num_envs), own_slots(config.num_envs), jnp.bool_(True))
        number = jax.tree.leaves(dataset)[0].shape[0]
        slots = jax.random.randint(key, (config.num_envs, config.num_steps), 0, number, jnp.int32)
        return Choice(dataset, slots, jnp.bool_(True))

    return as_algorithm(config, env, params, Curriculum(init=lambda key: jax.tree.map(jnp.asarray, dataset), choose=choose))
