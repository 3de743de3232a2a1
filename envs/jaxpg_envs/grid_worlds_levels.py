"""Levels of the grid worlds of LPG and GROOVE as data: distributions by name, edits, the best return, pictures.

Ranges and designs are those of GROOVE's code (Jackson et al. 2023, arXiv 2310.02782), and of LPG (Oh et al. 2020, arXiv
2007.08794); of the five negative objects of LPG's "longer", that code keeps three, as here. Difference from the code: nothing
is ever placed in a wall.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from jaxpg_envs.errors import EnvironmentInputError
from jaxpg_envs.grid import CELL_COLOURS, EMPTY, WALL, draw_cells
from jaxpg_envs.maze_levels import HELD_OUT_MAZES, maze_levels

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0))
"""Steps in (row, column) of the actions up, down, left, right, and none."""

_POSITIVE, _NEGATIVE = np.array([60, 220, 60]), np.array([230, 110, 20])  # colours of rewards of 1 and -1


class GridWorldsLevel(NamedTuple):
    """A level: a square of cells with walls, a start, and objects to collect. Levels of different sizes can have one shape.

    Cells are numbered row by row, node = row * side + column. Objects of one kind are alike.

    Attributes:
        walls: (side, side) bool, true also outside of the level's own `size` x `size` cells.
        start: node, int32.
        objects: (object,) int32, the nodes of the objects, and some others behind those.
        kind: (object,) int32, rows of the next three.
        reward: (kind,) float32, for collecting an object.
        termination: (kind,) float32, the probability that this ends the episode.
        respawn: (kind,) float32, the probability, per step, that an absent object appears.
        number: of objects, int32.
        size: cells on each side, int32.
        max_steps: time limit, int32.
        lifetime: updates that an agent is to learn on the level for, int32.
    """

    walls: Any
    start: Any
    objects: Any
    kind: Any
    reward: Any
    termination: Any
    respawn: Any
    number: Any
    size: Any
    max_steps: Any
    lifetime: Any


class Design(NamedTuple):
    """Distributions of levels, stacked, of which each level has one with equal chances; ranges hold both ends.

    Attributes:
        kinds: (design, kind, 3, 2) ranges of reward, uniform, and of termination and respawn, log-uniform.
        kind: (design, object) of each object.
        number, size: (design, 2) ranges, uniform.
        max_steps, lifetime: (design, 2) ranges, log-uniform.
        walls: (design, side, side) bool, those that are always there.
        num_walls: random ones, anywhere in a level of the largest size: a smaller level has those that are inside of it.
    """

    kinds: Any
    kind: Any
    number: Any
    size: Any
    max_steps: Any
    lifetime: Any
    walls: Any
    num_walls: Any = 0


Range = tuple[int, int]


def _family(number: Range, size: Range, max_steps: Range, num_walls: int, lifetime: Range) -> Design:
    """Objects of kinds that are all different, the first one not to be avoided."""
    first, others = ((0, 1), (0.01, 1), (0.001, 0.1)), ((-1, 1), (0.01, 1), (0.001, 0.1))
    kinds, kind = [first, *[others] * (number[1] - 1)], range(number[1])
    walls = np.zeros((size[1], size[1]), bool)
    arrays = (np.array([values]) for values in (kinds, kind, number, size, max_steps, lifetime, walls))
    return Design(*arrays)._replace(num_walls=num_walls)


def _crafted(size: int, max_steps: int, kinds: dict[tuple, int], walls: Any = None) -> Design:
    """So many objects of each (reward, termination, respawn)."""
    number = sum(kinds.values())
    design = _family((number, number), (size, size), (max_steps, max_steps), 0, (2500, 2500))
    kind = np.repeat(np.arange(len(kinds)), list(kinds.values()))
    ranges = np.repeat(np.array(list(kinds))[..., None], 2, axis=-1)
    return design._replace(kinds=ranges[None], kind=kind[None], walls=design.walls if walls is None else walls[None])


def _maze(name: str) -> Design:
    design = _family((3, 3), (13, 13), (25, 50), 0, (2500, 2500))
    return design._replace(kinds=design.kinds[:, [0, 0, 0]], walls=maze_levels(name, 0, 1).walls)


def _walls(size: int, rows: list[int], columns: list[int], gaps: list[tuple[int, int]]) -> Bool[np.ndarray, "{size} {size}"]:
    """Whole rows and columns, but for gaps."""
    walls = np.zeros((size, size), bool)
    walls[rows] = walls[:, columns] = True
    walls[tuple(np.transpose(gaps))] = False
    return walls


def _living(design: Design, low: int, high: int) -> Design:
    return design._replace(lifetime=np.array([[low, high]]))


def _together(designs: Iterable[Design]) -> Design:
    """Designs without random walls, in arrays of one shape."""

    def stack(*fields: np.ndarray) -> np.ndarray:
        shape = np.max([field.shape[1:] for field in fields], axis=0)
        room = lambda field: [(0, 0), *((0, most - size) for most, size in zip(shape, field.shape[1:], strict=True))]
        return np.concatenate([np.pad(field, room(field)) for field in fields])

    return Design(*(stack(*fields) for fields in zip(*(design[:-1] for design in designs), strict=True)))


_ALL = _family((1, 5), (4, 10), (20, 750), 15, (1000, 1000))
_DENSE = _crafted(11, 500, {(1, 0, 0.05): 2, (-1, 0.5, 0.1): 1, (-1, 0, 0.5): 1})
_LONG = _crafted(11, 1000, {(1, 0, 0.01): 2, (-1, 0.5, 1): 2})
_TRAINING = {
    "all": _ALL,
    "all_shortlife": _living(_ALL, 250, 250),
    "all_randlife": _living(_ALL, 50, 250),
    "all_vrandlife": _living(_ALL, 10, 250),
    "small": _family((1, 3), (4, 6), (20, 100), 7, (250, 250)),
    "medium": _family((2, 4), (6, 8), (100, 250), 10, (1000, 1000)),
    "large": _family((2, 5), (8, 10), (250, 750), 15, (2500, 2500)),
    "rand_all": _living(_ALL, 25_000, 25_000),
}
_HANDCRAFTED = {
    "dense": _DENSE,
    "sparse": _crafted(13, 50, {(1, 1, 0): 1, (-1, 1, 0): 1}),
    "long": _LONG,
    "longer": _crafted(9, 2000, {(1, 0.1, 0.01): 2, (-1, 0.8, 1): 3}, _walls(9, [], [4], [(1, 4), (7, 4)])),
    "long_dense": _crafted(11, 2000, {(1, 0, 0.005): 4}, _walls(11, [4], [5], [(0, 5), (7, 5), (4, 2), (4, 8)])),
}
_MAZES = {name: _maze(name) for name in HELD_OUT_MAZES if name != "LargeCorridor"}  # which is larger
_RANDOM = {
    "rand_dense": _DENSE,
    "rand_long": _LONG,
    "rand_small": _crafted(7, 500, {(1, 0, 0.05): 2, (-1, 0.5, 0.1): 2}, np.isin(np.arange(49), (9, 25)).reshape(7, 7)),
    "rand_sparse": _crafted(7, 50, {(1, 1, 1): 1, (-1, 1, 1): 2}),
    "rand_very_dense": _crafted(11, 2000, {(1, 0, 1): 1}),
}
_RANDOM = {name: _living(design, 25_000, 25_000) for name, design in _RANDOM.items()}

DISTRIBUTIONS: dict[str, Design] = {
    **_TRAINING,
    **_HANDCRAFTED,
    **_MAZES,
    **_RANDOM,
    "handcrafted": _together(_HANDCRAFTED.values()),
    "mazes": _together(_MAZES.values()),
}

TRAINING_LEVELS, HANDCRAFTED_LEVELS, RANDOM_LEVELS = tuple(_TRAINING), (*_HANDCRAFTED, *_MAZES), ("rand_all", *_RANDOM)
"""Names: of distributions to train with; of those to test with; of those whose objects are anywhere in every episode."""


def sample_level(key: PRNGKeyArray, name: str) -> GridWorldsLevel:
    """A level of a distribution; pure, `vmap` it over keys. Start and objects are anywhere, on different cells without walls.

    Nothing makes the objects reachable.

    Args:
        key: typed or raw.
        name: of `DISTRIBUTIONS`.
    """
    designs = DISTRIBUTIONS[name]
    number_key, kind_key, wall_key, place_key = jax.random.split(key, 4)
    which, *shares = jax.random.uniform(number_key, (5,), jnp.float32)
    index = _integer(which, (0, len(designs.walls) - 1))
    design = jax.tree.map(lambda field: jnp.asarray(field)[index], designs._replace(num_walls=None))
    size, number = _integer(shares[0], design.size), _integer(shares[1], design.number)
    max_steps, lifetime = (
        jnp.round(_log_uniform(share, *ends.astype(jnp.float32))).astype(jnp.int32)
        for share, ends in zip(shares[2:], (design.max_steps, design.lifetime), strict=True)
    )
    side = design.walls.shape[0]
    chosen = _distinct(wall_key, jnp.ones(side**2, bool), designs.num_walls)
    walls = ~inside_of(size, side) | design.walls.reshape(-1).at[chosen].set(True).reshape(side, side)
    free = ~walls.reshape(-1)
    nodes = _distinct(place_key, free, design.kind.size + 1)
    low, high = jnp.moveaxis(design.kinds.astype(jnp.float32), -1, 0)
    share = jax.random.uniform(kind_key, low.shape, jnp.float32)
    return GridWorldsLevel(
        walls=walls,
        start=nodes[0],
        objects=nodes[1:],
        kind=design.kind.astype(jnp.int32),
        reward=(low + share * (high - low))[:, 0],
        termination=_log_uniform(share, low, high)[:, 1],
        respawn=_log_uniform(share, low, high)[:, 2],
        number=jnp.minimum(number, free.sum(dtype=jnp.int32) - 1),
        size=size,
        max_steps=max_steps,
        lifetime=lifetime,
    )


def _integer(share: Float[Array, ""], ends: Any) -> Int[Array, ""]:
    """Uniform between both ends, for a share that is uniform in [0, 1)."""
    return (ends[0] + jnp.floor(share * (ends[1] - ends[0] + 1))).astype(jnp.int32)


def _log_uniform(share: Float[Array, "*n"], low: Float[Array, "*n"], high: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Log-uniform between both ends, for a share that is uniform in [0, 1); the number that both are, maybe 0."""
    varies = (low > 0) & (low < high)
    first, last = (jnp.log(jnp.where(varies, end, 1.0)) for end in (low, high))
    return jnp.where(varies, jnp.exp(first + share * (last - first)), low)


def _distinct(key: PRNGKeyArray, free: Bool[Array, " node"], number: int) -> Int[Array, " {number}"]:
    """Different nodes, drawn uniformly; the free ones first."""
    luck = jax.random.uniform(key, free.shape, jnp.float32)
    return jax.lax.top_k(jnp.where(free, luck, luck - 1.0), number)[1].astype(jnp.int32)


def inside_of(size: Any, side: int) -> Bool[Array, "{side} {side}"]:
    """Which cells of an array are those of a level of `size`."""
    rows, columns = np.indices((side, side))
    return jnp.asarray((rows < size) & (columns < size))


def is_used(level: GridWorldsLevel) -> Bool[Array, " object"]:
    """Which of the objects the level has."""
    return jnp.arange(level.objects.shape[0]) < level.number


def free_nodes(
    key: PRNGKeyArray, free: Bool[Array, " node"], wanted: Bool[Array, " object"]
) -> tuple[Int[Array, " object"], Bool[Array, " object"]]:
    """A free node for every object that wants one, all different, and whether there was one; objects with low numbers first."""
    rank = jnp.cumsum(wanted) - 1
    nodes = _distinct(key, free, wanted.size)
    return nodes[rank], wanted & (rank < free.sum())


def moved(walls: Bool[Any, "side side"], node: Int[Any, "*#n"], action: Int[Any, "*#n"]) -> Int[Array, "*n"]:
    """Where an action leads from a node: nowhere if a wall or the edge is in the way."""
    side = walls.shape[0]
    step = jnp.array(MOVES)[action]
    row, column = node // side + step[..., 0], node % side + step[..., 1]
    on_grid = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    ahead = jnp.where(on_grid, row * side + column, node)
    return jnp.where(jnp.asarray(walls).reshape(-1)[ahead], node, ahead).astype(jnp.int32)


def optimal_return(level: GridWorldsLevel) -> Float[Array, ""]:
    """The greatest expected undiscounted return of one episode, of a level whose objects have their own cells. Pure.

    Exact, by dynamic programming over cells and sets of objects that are there, backward from the level's time limit.
    """
    num_nodes, num_objects = level.walls.size, level.objects.shape[0]
    kind, respawn = level.kind, level.respawn[level.kind]
    nodes, sets = np.arange(num_nodes), np.arange(2**num_objects)
    here = (nodes[:, None] == level.objects) & is_used(level)
    collected = here[:, None] & ((sets[:, None] >> np.arange(num_objects)) % 2 == 1)
    earned = lambda value: jnp.where(collected, value[kind], 0.0).sum(-1)
    reward, goes_on = earned(level.reward), 1.0 - jnp.minimum(earned(level.termination), 1.0)
    ahead = moved(level.walls, nodes[:, None], np.arange(len(MOVES)))

    def one_step_earlier(_: Any, value: Float[Array, "node set"]) -> Float[Array, "node set"]:
        value = value.reshape(num_nodes, *[2] * num_objects)
        for index in range(num_objects):  # objects are independent of each other
            axis = num_objects - index
            without, present = jnp.split(value, 2, axis)
            taken = here[:, index].reshape(-1, *[1] * num_objects)
            appears = respawn[index] * present + (1.0 - respawn[index]) * without
            value = jnp.concatenate([appears, jnp.where(taken, without, present)], axis)
        arriving = reward + goes_on * value.reshape(num_nodes, -1)
        return arriving[ahead].max(1)

    value = jax.lax.fori_loop(0, level.max_steps, one_step_earlier, jnp.zeros((num_nodes, sets.size), jnp.float32))
    return value[level.start, 2**level.number - 1]


def edited_level(key: PRNGKeyArray, level: GridWorldsLevel, num_edits: int, with_objects: bool) -> GridWorldsLevel:
    """A level after random edits, for ACCEL: each takes a cell without start or object, all of them equally likely.

    With equal chances, a wall is put there or taken away, the start moves there, or an object does; to a wall's place too.

    Args:
        num_edits: static.
        with_objects: whether objects have their own cells.

    Raises:
        EnvironmentInputError: `num_edits` is not positive.
    """
    if num_edits < 1:
        raise EnvironmentInputError(f"num_edits={num_edits!r}; an edited level has at least one edit")
    side, used = level.walls.shape[0], is_used(level)
    inside = inside_of(level.size, side).reshape(-1)

    def edit(edited: tuple, key: PRNGKeyArray) -> tuple[tuple, None]:
        walls, start, objects = edited
        node_key, what_key, which_key = jax.random.split(key, 3)
        room = inside.at[start].set(False)
        if with_objects:
            room = room.at[jnp.where(used, objects, start)].set(False)
        node = _distinct(node_key, room, 1)[0]
        what = jax.random.randint(what_key, (), 0, 3 if with_objects else 2)
        which = jax.random.randint(which_key, (), 0, level.number)
        changed = (
            walls.at[node].set((what == 0) & ~walls[node]),
            jnp.where(what == 1, node, start),
            jnp.where((what == 2) & (jnp.arange(objects.size) == which), node, objects),
        )
        return jax.tree.map(lambda new, old: jnp.where(room.any(), new, old), changed, edited), None

    first = jnp.asarray(level.walls).reshape(-1), jnp.asarray(level.start), jnp.asarray(level.objects)
    (walls, start, objects), _ = jax.lax.scan(edit, first, jax.random.split(key, num_edits))
    return level._replace(walls=walls.reshape(side, side), start=start, objects=objects)


def draw_level(level: GridWorldsLevel, with_objects: bool) -> UInt8[np.ndarray, "height width 3"]:
    """A picture as `grid.draw_level` makes them: objects are green for a reward of 1, orange for -1, and darker in between."""
    side, size = level.walls.shape[0], int(level.size)
    walls = np.asarray(level.walls)[:size, :size]
    colours = CELL_COLOURS[np.pad(np.where(walls, WALL, EMPTY), 1, constant_values=WALL)]
    for index in range(int(level.number) if with_objects else 0):
        row, column = divmod(int(level.objects[index]), side)
        reward = float(level.reward[level.kind[index]])
        ground, full = CELL_COLOURS[EMPTY], _POSITIVE if reward >= 0 else _NEGATIVE
        share = 0.3 + 0.7 * min(math.fabs(reward), 1.0)  # so that worthless objects are seen too
        colours[row + 1, column + 1] = (1.0 - share) * ground + share * full
    row, column = divmod(int(level.start), side)
    return draw_cells(colours, row, column)
