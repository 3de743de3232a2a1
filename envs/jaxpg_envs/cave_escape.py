"""CaveEscape, the task of DRED (Garcin et al. 2024, arXiv 2402.03479): moss grows near the way out, lava flows far from it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from jaxpg_envs.grid import EMPTY, FORWARD, GOAL, LAVA, MOSS, WALL, CaveLevel, edited_level, random_level
from jaxpg_envs.grid_world import GridWorld, GridWorldParams, check_sizes

BLOCKS = (WALL, LAVA, MOSS)


def cave_escape(size: int = 13, max_steps_in_episode: int = 250) -> tuple[GridWorld, GridWorldParams]:
    """The environment, whose default level is an open room, and its parameters. See `GridWorld`.

    Moss is ground to walk on, lava ends the episode without a reward, and the agent first looks in a random direction.
    `jaxpg_envs.levels.level_set` has the levels to train and test with.

    Args:
        size: of the default and the random levels, in cells on each side, enclosing walls not counted.
        max_steps_in_episode: time limit.

    Raises:
        EnvironmentInputError: a size or a limit that leaves nothing to do.
    """
    check_sizes("CaveEscape-v0", size, max_steps_in_episode)

    def first_direction(key: PRNGKeyArray, level: CaveLevel) -> Int[Array, ""]:
        return jax.random.randint(key, (), 0, len(FORWARD))

    def sample_level(key: PRNGKeyArray) -> CaveLevel:
        return random_level(key, size, size, BLOCKS)

    def mutate_level(key: PRNGKeyArray, level: CaveLevel, num_edits: int) -> CaveLevel:
        return edited_level(key, level, num_edits, BLOCKS)

    room = CaveLevel(jnp.full((size, size), EMPTY, jnp.int8), jnp.int32(size * size - 1), jnp.int32(0))
    params = GridWorldParams(max_steps_in_episode=max_steps_in_episode, level=room)
    kinds = (EMPTY, *BLOCKS, GOAL)
    return GridWorld("CaveEscape-v0", kinds, params, first_direction, sample_level, mutate_level), params
