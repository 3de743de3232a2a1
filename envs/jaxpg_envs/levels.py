"""Levels to train and to test with, by name, and what can be measured of a level."""

import difflib

from jaxpg_envs.cave_levels import CAVE_SETS, TRAINING_STRUCTURES, UNSEEN_STRUCTURES, cave_levels
from jaxpg_envs.grid import (
    EMPTY,
    FORWARD,
    GOAL,
    LAVA,
    MOSS,
    WALL,
    CaveLevel,
    Level,
    MazeLevel,
    cells,
    distances,
    draw_level,
    goal_distances,
    level_statistics,
    shortest_path,
)
from jaxpg_envs.maze_levels import HELD_OUT_MAZES, maze_levels
from jaxpg_envs.registry import EnvironmentInputError

__all__ = [
    "EMPTY",
    "FORWARD",
    "GOAL",
    "HELD_OUT_MAZES",
    "LAVA",
    "LEVEL_SETS",
    "MOSS",
    "TRAINING_STRUCTURES",
    "UNSEEN_STRUCTURES",
    "WALL",
    "CaveLevel",
    "Level",
    "MazeLevel",
    "cells",
    "distances",
    "draw_level",
    "goal_distances",
    "level_set",
    "level_statistics",
    "shortest_path",
]

LEVEL_SETS = (*CAVE_SETS, *HELD_OUT_MAZES)

_SMALLEST = 5


def level_set(name: str, seed: int, number: int, size: int | None = None) -> Level:
    """A set of levels as numpy arrays with a leading axis, to be put in `params` row by row.

    For CaveEscape, by DRED's recipe (`cave_levels`):
      - "train" and "test": four structures in turn; no layout is in both, whatever the seeds;
      - "obstacles", "maze", "paths", "rooms": those structures one by one, disjoint from "test";
      - "unseen": eight further structures in turn, and those by their names; "unseen_little_moss": with moss on 5 % of the
        ground; "unseen_much_lava": so too, and lava for 50 % of the walls.
    A set is a prefix of the larger sets with its seed.

    For Maze, by their names, the mazes held out since PLR (`maze_levels`), repeated `number` times. They do not depend on
    `seed`, but for SmallCorridor and LargeCorridor, whose goal is one of several.

    Args:
        name: one of `LEVEL_SETS`.
        seed: not negative.
        number: of levels.
        size: cells on each side, for caves 13 by default. Mazes have the size that they have.

    Returns:
        `CaveLevel` or `MazeLevel` with shapes (number, ...).

    Raises:
        EnvironmentInputError: the name is unknown; a number is too small; a maze has another size; there are not as many
            different caves.
    """
    if name not in LEVEL_SETS:
        nearest = difflib.get_close_matches(name, LEVEL_SETS, n=1, cutoff=0.5)
        suggestion = f'did you mean "{nearest[0]}"? ' if nearest else ""
        raise EnvironmentInputError(f'unknown level set "{name}"; {suggestion}there are {", ".join(LEVEL_SETS)}')
    if seed < 0:
        raise EnvironmentInputError(f"seed={seed!r}; it must not be negative")
    if number < 1:
        raise EnvironmentInputError(f"number={number!r}; a set has at least one level")
    if name in CAVE_SETS:
        size = 13 if size is None else size
        if size < _SMALLEST:
            raise EnvironmentInputError(f"size={size!r}; a cave has at least {_SMALLEST} cells on each side")
        return cave_levels(name, seed, number, size)
    levels = maze_levels(name, seed, number)
    own_size = levels.walls.shape[1]
    if size not in (None, own_size):
        raise EnvironmentInputError(f"size={size!r}; {name} has {own_size} cells on each side")
    return levels
