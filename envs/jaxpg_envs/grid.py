"""Levels of grid-worlds as data: what is where, shortest paths, random levels and edits, pictures.

A level is a NamedTuple of arrays that has its place in an environment's `params`. Cells are numbered row by row, node =
row * width + column; walls enclose the grid and are not part of it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int8, PRNGKeyArray, UInt8

from jaxpg_envs.registry import EnvironmentInputError

EMPTY, WALL, LAVA, MOSS, GOAL = range(5)
"""What a cell can hold. Levels store the goal apart, as a node."""

FORWARD = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Steps in (row, column) of the directions right, down, left, up, as MiniGrid counts them."""

CELL_COLOURS = np.array([[24, 24, 24], [120, 120, 120], [230, 110, 20], [45, 95, 45], [60, 220, 60]], np.uint8)
"""By what a cell holds."""

_MOST_BLOCKS = (60, 13 * 13)  # in DRED's and ACCEL's random levels, of that many cells
_TILE = 8  # pixels
_AGENT_COLOUR = (220, 40, 40)


class CaveLevel(NamedTuple):
    """A level of CaveEscape, in which the agent's first direction is random.

    Attributes:
        layout: (height, width) int8 of EMPTY, WALL, LAVA and MOSS.
        goal, start: nodes, int32, different.
    """

    layout: Any
    goal: Any
    start: Any


class MazeLevel(NamedTuple):
    """A level of Maze.

    Attributes:
        walls: (height, width) bool.
        goal, start: nodes, int32, different.
        direction: in which the agent first looks, int32: 0 right, 1 down, 2 left, 3 up.
    """

    walls: Any
    goal: Any
    start: Any
    direction: Any


Level = CaveLevel | MazeLevel


def grid_shape(level: Level) -> tuple[int, int]:
    """Height and width in cells."""
    return level[0].shape


def code_at(level: Level, row: Int[Any, "*cells"], column: Int[Any, "*cells"]) -> Int8[Array, "*cells"]:
    """What cells hold, the goal included: WALL outside of the grid; start and goal are never blocked."""
    height, width = grid_shape(level)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    node = jnp.where(inside, row * width + column, 0)
    # In a maze's walls True is WALL and False EMPTY.
    code = jnp.asarray(level[0]).reshape(-1)[node].astype(jnp.int8)
    code = jnp.where(node == level.goal, GOAL, jnp.where(node == level.start, EMPTY, code))
    return jnp.where(inside, code, WALL).astype(jnp.int8)


def cells(level: Level) -> Int8[Array, "height width"]:
    """What every cell holds, the goal included."""
    return code_at(level, *np.indices(grid_shape(level)))


def distances(open_cells: Bool[Any, "height width"], node: Any) -> Int[Array, "height width"]:
    """Steps from every cell to `node` through open cells, by dilation; -1 where there is no way.

    Args:
        open_cells: where one can walk.
        node: int32, counts as open.
    """
    open_cells = jnp.asarray(open_cells)
    source = (jnp.arange(open_cells.size) == node).reshape(open_cells.shape)

    def dilate(carry: tuple) -> tuple:
        steps, front, number = carry
        around = jnp.pad(front, 1)
        near = around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:]
        front = near & open_cells & (steps < 0)
        return jnp.where(front, number + 1, steps), front, number + 1

    first = jnp.where(source, 0, -1), source, jnp.int32(0)
    return jax.lax.while_loop(lambda carry: carry[1].any(), dilate, first)[0]


def goal_distances(level: Level) -> Int[Array, "height width"]:
    """Steps from every cell to the goal, past walls and lava; -1 where there is no way."""
    codes = cells(level)
    return distances((codes != WALL) & (codes != LAVA), level.goal)


def shortest_path(level: Level) -> Int[Array, ""]:
    """Steps forward from start to goal, turns not counted; -1 if the level cannot be solved. Pure, `vmap` it over levels.

    Exact: on lava an episode ends, so that solvable are the levels whose start and goal empty and mossy cells connect.
    """
    return goal_distances(level).reshape(-1)[level.start]


def level_statistics(level: Level) -> dict[str, Float[Array, ""]]:
    """What a level is like, in numbers that distributions of levels can be compared by. Pure.

    Returns:
        `wall_fraction`, `lava_fraction`, `moss_fraction`: of all cells.
        `path_length`: `shortest_path`.
        `moss_distance_correlation`: Spearman's rank correlation between moss and the steps to the goal, over the other cells
        from which it can be reached. Negative if moss is near the goal; 0 if there is no moss, or nothing else.
    """
    codes, steps = cells(level), goal_distances(level)
    reached = steps > 0
    # Ranks with ties: the cells that are nearer, and half of those as near.
    histogram = jnp.zeros(codes.size, jnp.int32).at[jnp.where(reached, steps, codes.size)].add(1, mode="drop")
    rank = (jnp.cumsum(histogram) - 0.5 * histogram)[steps]
    count = reached.sum()
    centred = lambda x: jnp.where(reached, x - jnp.sum(x, where=reached) / count, 0.0)
    moss, rank = centred((codes == MOSS).astype(jnp.float32)), centred(rank)
    spread = jnp.sum(moss**2) * jnp.sum(rank**2)
    fraction = lambda code: (codes == code).mean(dtype=jnp.float32)
    return {
        "wall_fraction": fraction(WALL),
        "lava_fraction": fraction(LAVA),
        "moss_fraction": fraction(MOSS),
        "path_length": steps.reshape(-1)[level.start].astype(jnp.float32),
        "moss_distance_correlation": jnp.where(
            spread > 0, jnp.sum(moss * rank) / jnp.sqrt(jnp.where(spread > 0, spread, 1.0)), 0.0
        ),
    }


def random_level(key: PRNGKeyArray, height: int, width: int, blocks: Sequence[int]) -> CaveLevel:
    """Domain randomisation: goal, start and 0 to 60 (of 169 cells) blocks on different cells, all of it uniform.

    As DRED's and ACCEL's code does it; nothing makes the level solvable.

    Args:
        blocks: the codes to choose from.
    """
    number_key, order_key, block_key = jax.random.split(key, 3)
    size = height * width
    most, of_cells = _MOST_BLOCKS
    number = jax.random.randint(number_key, (), 0, most * size // of_cells + 1)
    order = jax.random.permutation(order_key, size)
    codes = jax.random.choice(block_key, jnp.array(blocks, jnp.int8), (size,))
    layout = jnp.where((order >= 2) & (order < number + 2), codes, jnp.int8(EMPTY))
    goal, start = (jnp.argmax(order == place).astype(jnp.int32) for place in (0, 1))
    return CaveLevel(layout.reshape(height, width), goal, start)


def edited_level(key: PRNGKeyArray, level: CaveLevel, num_edits: int, blocks: Sequence[int]) -> CaveLevel:
    """ACCEL's editor (Parker-Holder et al. 2022, arXiv 2203.01302): random cells are given random contents.

    Each edit chooses a cell and empties it, puts one of the blocks there, or moves goal or start to it. Where that removed
    the goal or the start, they go to a random free cell in the end.

    Args:
        num_edits: static.
        blocks: the codes to choose from, besides EMPTY.

    Raises:
        EnvironmentInputError: `num_edits` is not positive.
    """
    if num_edits < 1:
        raise EnvironmentInputError(f"num_edits={num_edits!r}; an edited level has at least one edit")
    node_key, content_key, goal_key, start_key = jax.random.split(key, 4)
    layout = jnp.asarray(level.layout).reshape(-1)
    contents = jnp.array([EMPTY, *blocks, EMPTY, EMPTY], jnp.int8)
    to_goal, to_start = len(contents) - 2, len(contents) - 1

    def edit(carry: tuple, change: tuple) -> tuple[tuple, None]:
        layout, goal, start = carry
        node, content = change
        goal = jnp.where(content == to_goal, node, jnp.where(goal == node, -1, goal))
        start = jnp.where(content == to_start, node, jnp.where(start == node, -1, start))
        return (layout.at[node].set(contents[content]), goal, start), None

    def placed(key: PRNGKeyArray, node: Array, other: Array, layout: Array) -> Array:
        """The node, or a free one if it was removed, or any if none is free."""
        free = (layout == EMPTY) | (layout == MOSS)
        luck = jax.random.uniform(key, layout.shape) + free
        return jnp.where(node < 0, jnp.argmax(jnp.where(jnp.arange(layout.size) == other, -1.0, luck)), node).astype(jnp.int32)

    nodes = jax.random.randint(node_key, (num_edits,), 0, layout.size)
    changes = nodes, jax.random.randint(content_key, (num_edits,), 0, len(contents))
    first = layout, jnp.asarray(level.goal, jnp.int32), jnp.asarray(level.start, jnp.int32)
    (layout, goal, start), _ = jax.lax.scan(edit, first, changes)
    goal = placed(goal_key, goal, start, layout)
    start = placed(start_key, start, goal, layout)
    layout = layout.at[jnp.stack([goal, start])].set(EMPTY)
    return CaveLevel(layout.reshape(level.layout.shape), goal, start)


def draw_level(level: Level) -> UInt8[np.ndarray, "height width 3"]:
    """A picture: walls grey, lava orange, moss dark green, the goal light green; the start is a red disc, or points where to.

    8 pixels for each cell, the enclosing walls included; on the host.
    """
    codes = np.pad(np.asarray(cells(level)), 1, constant_values=WALL)
    row, column = divmod(int(level.start), codes.shape[1] - 2)
    return draw_cells(CELL_COLOURS[codes], row, column, int(level.direction) if isinstance(level, MazeLevel) else None)


def draw_cells(
    colours: UInt8[np.ndarray, "rows columns 3"], row: int, column: int, direction: int | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture of cells, the enclosing walls included, and of the agent: a disc, or an arrow where it looks in a direction.

    Args:
        colours: of the cells.
        row, column: the agent's, enclosing walls not counted.
        direction: of `FORWARD`.
    """
    picture = colours.repeat(_TILE, 0).repeat(_TILE, 1)
    picture[::_TILE] //= 2
    picture[:, ::_TILE] //= 2
    away, along = np.indices((_TILE, _TILE)) - (_TILE - 1) / 2
    if direction is None:
        shape = away**2 + along**2 < 8
    else:
        shape = np.rot90((np.abs(away) <= (3 - along) / 2) & (along > -3), -direction)
    top, left = _TILE * (row + 1), _TILE * (column + 1)
    picture[top : top + _TILE, left : left + _TILE][shape] = _AGENT_COLOUR
    return picture
