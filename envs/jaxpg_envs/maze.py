"""The maze of environment design: PAIRED (Dennis et al. 2020), PLR (Jiang et al. 2021), ACCEL (Parker-Holder et al. 2022)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from jaxpg_envs.grid import EMPTY, FORWARD, GOAL, WALL, CaveLevel, MazeLevel, edited_level, random_level
from jaxpg_envs.grid_world import GridWorld, GridWorldParams, check_sizes


def maze(size: int = 13, max_steps_in_episode: int = 250) -> tuple[GridWorld, GridWorldParams]:
    """The environment, whose default level is an open room, and its parameters. See `GridWorld`.

    The level says in which direction the agent first looks. `jaxpg_envs.levels.level_set` has the mazes that are held out
    for tests, by their names.

    Args:
        size: of the default and the random levels, in cells on each side, enclosing walls not counted.
        max_steps_in_episode: time limit.

    Raises:
        EnvironmentInputError: a size or a limit that leaves nothing to do.
    """
    check_sizes("Maze-v0", size, max_steps_in_episode)

    def first_direction(key: PRNGKeyArray, level: MazeLevel) -> Int[Array, ""]:
        return jnp.asarray(level.direction, jnp.int32)

    def sample_level(key: PRNGKeyArray) -> MazeLevel:
        level_key, direction_key = jax.random.split(key)
        return _maze_level(random_level(level_key, size, size, [WALL]), _random_direction(direction_key))

    def mutate_level(key: PRNGKeyArray, level: MazeLevel, num_edits: int) -> MazeLevel:
        """Where the start moves, the agent looks in a new direction."""
        edit_key, direction_key = jax.random.split(key)
        layout = jnp.asarray(level.walls).astype(jnp.int8)
        edited = edited_level(edit_key, CaveLevel(layout, level.goal, level.start), num_edits, [WALL])
        moved = edited.start != level.start
        return _maze_level(edited, jnp.where(moved, _random_direction(direction_key), level.direction))

    room = MazeLevel(jnp.zeros((size, size), bool), jnp.int32(size * size - 1), jnp.int32(0), jnp.int32(0))
    params = GridWorldParams(max_steps_in_episode=max_steps_in_episode, level=room)
    return GridWorld("Maze-v0", (EMPTY, WALL, GOAL), params, first_direction, sample_level, mutate_level), params


def _random_direction(key: PRNGKeyArray) -> Int[Array, ""]:
    return jax.random.randint(key, (), 0, len(FORWARD))


def _maze_level(level: CaveLevel, direction: Int[Array, ""]) -> MazeLevel:
    return MazeLevel(level.layout == WALL, level.goal, level.start, direction)
