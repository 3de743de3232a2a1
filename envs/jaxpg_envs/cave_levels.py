"""Levels for CaveEscape by DRED's recipe: a layout, then goal, moss, lava and start, which tell of each other.

The layouts come from wave function collapse, as in the paper, but from templates of our own: figures on these levels compare
methods with each other, and not with the paper's figures.
"""

import functools
import zlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int

from jaxpg_envs.grid import EMPTY, LAVA, MOSS, WALL, CaveLevel, distances
from jaxpg_envs.registry import EnvironmentInputError
from jaxpg_envs.wave_function_collapse import overlapping_model

_WINDOW = 3
_LAVA_DEPTH = 3  # in steps from the ground
_TRIES = 100  # for one more layout that is new

# Each goes on for ever in both directions.
_TEMPLATES = {
    "obstacles": "........ .##..... .##..#.. ........ ....###. .#...... .....##. ........",
    "maze": "...#.... .###.#.# .#...... .#.##### .....#.. ##.#.#.# ...#...# .###.###",
    "paths": "####.### #....### #.##.### ..##.... #.###### #.####.# #......# ####.###",
    "rooms": "###.###### #....#.... .......... #....#.... #....#.... ##.####.## #....#.... .......... #....#.... #....#....",
    "spirals": "........ .####### .#.....# .#.###.# .#.#...# .#.##### .#...... .#######",
    "dots": "...... .#.... ....#. ...... ..#... .....#",
    "skew": "##...... .##..... ..##.... ...#.... ........ .....##. ......## #......#",
    "cave": "##....#### #......### ##......## ###..#...# #....##... .....###.. ..#..####. .##...##.. ####...... ####...#..",
    "halls": "####.### #....... #....... #....... ........ #....... #....... #.......",
    "braid": "...... .##.#. .##.#. ...... .#.##. .#.##.",
    "crosses": "...... ..#... .###.. ..#... ...... .....#",
    "dungeon": "##.####### #....#.... .........# #....#...# #....#.### ##.####.## ##.#.....# ........## ##.#.....# ##.#######",
}

TRAINING_STRUCTURES = ("obstacles", "maze", "paths", "rooms")
UNSEEN_STRUCTURES = tuple(name for name in _TEMPLATES if name not in TRAINING_STRUCTURES)


class CaveSet(NamedTuple):
    """Where the levels of a set come from.

    Attributes:
        structures: in turn.
        half: of the layouts, by their checksum, that belong to the set, so that no layout is in a training and a test set.
        lava, moss: bounds of the fraction of the walls near the ground, and of the ground.
    """

    structures: tuple[str, ...]
    half: int | None = None
    lava: tuple[float, float] = (0.1, 0.25)
    moss: tuple[float, float] = (0.1, 0.25)


CAVE_SETS = {
    "train": CaveSet(TRAINING_STRUCTURES, half=0),
    "test": CaveSet(TRAINING_STRUCTURES, half=1),
    "unseen": CaveSet(UNSEEN_STRUCTURES),
    "unseen_little_moss": CaveSet(UNSEEN_STRUCTURES, moss=(0.05, 0.05)),
    "unseen_much_lava": CaveSet(UNSEEN_STRUCTURES, lava=(0.5, 0.5), moss=(0.05, 0.05)),
    **{name: CaveSet((name,), half=0) for name in TRAINING_STRUCTURES},
    **{name: CaveSet((name,)) for name in UNSEEN_STRUCTURES},
}


def cave_levels(name: str, seed: int, number: int, size: int) -> CaveLevel:
    """Levels of the set `name`, all of different ground. Level i does not depend on how many follow it.

    The recipe, of DRED's appendix and code:
      - ground: the largest connected part of the layout; all else is wall;
      - goal: uniform; d are the steps to it;
      - start: uniform among the cells whose d is the median, rounded down (over all ground but the goal);
      - moss: on 10 to 25 % of the ground, drawn one by one with probability proportional to 1 / rank, the nearest to the
        goal ranking first;
      - lava: likewise instead of 10 to 25 % of the walls up to 3 steps from the ground, the farthest from the goal ranking
        first; a wall's d is 1 + that of the nearest ground or wall nearer to the ground.
    Both fractions are uniform. Ties in d are broken at random. There is no moss on start and goal.

    Raises:
        EnvironmentInputError: there are not that many layouts of this size.
    """
    chosen = CAVE_SETS[name]
    # Sets differ in their stream of numbers; those that share structures with the same seed must not share levels.
    generators = [np.random.default_rng([seed, zlib.crc32(name.encode()), index]) for index in range(number)]
    grounds: dict[bytes, np.ndarray] = {}
    for index, rng in enumerate(generators):
        draw = _layouts(chosen.structures[index % len(chosen.structures)])
        for _ in range(_TRIES):
            ground = _largest_part(~draw(rng, size))
            content = ground.tobytes()
            mine = chosen.half is None or zlib.crc32(content) % 2 == chosen.half
            if mine and content not in grounds and ground.sum() > 2:
                grounds[content] = ground
                break
        else:
            raise EnvironmentInputError(
                f'"{name}" has {index} levels of size={size} with seed={seed}, not {number}; ask for fewer or for larger ones'
            )
    ground = np.stack(list(grounds.values()))
    goals = np.array([rng.choice(np.flatnonzero(open_cells)) for rng, open_cells in zip(generators, ground, strict=True)])
    steps = np.asarray(jax.jit(jax.vmap(distances))(ground, goals))
    levels = [_furnished(*row, chosen) for row in zip(generators, ground, goals, steps, strict=True)]
    return CaveLevel(*(np.stack(field) for field in zip(*levels, strict=True)))


@functools.cache
def _layouts(structure: str) -> Callable[[np.random.Generator, int], Bool[np.ndarray, "size size"]]:
    """`draw(rng, size)` of a structure: where there are walls."""
    template = np.array([list(row) for row in _TEMPLATES[structure].split()]) == "#"
    return overlapping_model(template, _WINDOW)


def _largest_part(open_cells: Bool[np.ndarray, "size size"]) -> Bool[np.ndarray, "size size"]:
    from scipy import ndimage  # here, so that not every import of jaxpg pays for it

    labels, number = ndimage.label(open_cells)
    return labels == 1 + np.argmax(np.bincount(labels.ravel(), minlength=number + 1)[1:]) if number else open_cells


def _furnished(
    rng: np.random.Generator,
    ground: Bool[np.ndarray, "size size"],
    goal: np.integer,
    steps: Int[np.ndarray, "size size"],
    chosen: CaveSet,
) -> CaveLevel:
    """Moss, lava and a start for a layout with a goal and the steps to it."""
    away = np.where(ground, steps, np.inf)
    beyond = away
    for _ in range(_LAVA_DEPTH):
        around = np.pad(beyond, 1, constant_values=np.inf)
        nearest = np.min([around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]], axis=0)
        beyond = np.where(np.isinf(beyond), 1 + nearest, beyond)
    away, beyond = away.ravel(), beyond.ravel()
    nodes = np.flatnonzero(ground)
    others = nodes[nodes != goal]
    start = rng.choice(others[away[others] == np.floor(np.median(away[others]))])
    walls = np.flatnonzero(np.isfinite(beyond) & ~ground.ravel())
    layout = np.where(ground, EMPTY, WALL).astype(np.int8).ravel()
    layout[by_rank(rng, others[others != start], away, int(rng.uniform(*chosen.moss) * len(nodes)))] = MOSS
    layout[by_rank(rng, walls, -beyond, int(rng.uniform(*chosen.lava) * len(walls)))] = LAVA
    return CaveLevel(layout.reshape(ground.shape), np.int32(goal), np.int32(start))


def by_rank(
    rng: np.random.Generator, nodes: Int[np.ndarray, " node"], distance: np.ndarray, number: int
) -> Int[np.ndarray, " drawn"]:
    """Draws some nodes one by one with probability proportional to 1 / rank; the least distance has rank 1.

    Args:
        nodes: to draw from.
        distance: of every node of the level.
        number: at most as many as there are.
    """
    ranked = nodes[np.lexsort((rng.random(len(nodes)), distance[nodes]))]
    weights = 1.0 / np.arange(1, len(nodes) + 1)
    if not len(nodes):  # of an open cave's walls, for one
        return nodes
    return rng.choice(ranked, min(number, len(nodes)), replace=False, p=weights / weights.sum())
