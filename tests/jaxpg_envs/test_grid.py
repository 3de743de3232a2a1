"""Levels as data: shortest paths against scipy's graphs and a plain search, statistics, random levels, edits, pictures."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import quick_jit
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse, stats

import jaxpg_envs
from jaxpg_envs.grid import (
    EMPTY,
    LAVA,
    MOSS,
    WALL,
    CaveLevel,
    MazeLevel,
    cells,
    draw_level,
    goal_distances,
    level_statistics,
    shortest_path,
)

SIZE = 13
CAVES, _ = jaxpg_envs.make("CaveEscape-v0")
MAZES, _ = jaxpg_envs.make("Maze-v0")
SAMPLES = 2_000
SAMPLE = quick_jit(jax.vmap(CAVES.sample_level))
MEASURE = quick_jit(jax.vmap(level_statistics))
PATHS = quick_jit(jax.vmap(shortest_path))
GOAL_DISTANCES = quick_jit(goal_distances)


def level_of(*rows):
    """A cave level from a drawing: # wall, L lava, M moss, S start, G goal."""
    drawing = np.array([list(row) for row in rows])
    codes = np.select([drawing == "#", drawing == "L", drawing == "M"], [WALL, LAVA, MOSS], EMPTY).astype(np.int8)
    return CaveLevel(codes, *(np.int32(np.flatnonzero(drawing.ravel() == letter)[0]) for letter in "GS"))


def batch(*levels):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *levels)


def random_caves(rng, number, height, width):
    """Every density of obstacles; start and goal anywhere, on obstacles too, but not on one cell."""
    obstacle = rng.random((number, height, width)) < rng.uniform(0, 0.7, (number, 1, 1))
    layout = np.where(obstacle, rng.choice([WALL, LAVA], obstacle.shape), rng.choice([EMPTY, MOSS], obstacle.shape))
    nodes = rng.permuted(np.tile(np.arange(height * width), (number, 1)), axis=1)[:, :2]
    return CaveLevel(layout.astype(np.int8), *nodes.T.astype(np.int32))


def open_cells(levels):
    walkable = (levels.layout == EMPTY) | (levels.layout == MOSS)
    flat = walkable.reshape(len(walkable), -1)
    for node in (levels.goal, levels.start):
        flat[np.arange(len(flat)), node] = True
    return walkable


def test_shortest_paths_are_those_of_a_graph_library():
    """10,000 levels, one graph: a source with an edge to every start, so that one search finds all paths."""
    levels = random_caves(np.random.default_rng(0), 10_000, 9, 11)
    walkable = open_cells(levels)
    node = np.arange(walkable.size).reshape(walkable.shape)
    edges = []
    for one, other in ((np.s_[:, :, :-1], np.s_[:, :, 1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        both = walkable[one] & walkable[other]
        edges += [(node[one][both], node[other][both]), (node[other][both], node[one][both])]
    first = node[:, 0, 0]
    edges.append((np.full(len(first), node.size), first + levels.start))
    tails, heads = (np.concatenate(ends) for ends in zip(*edges, strict=True))
    graph = sparse.csr_array((np.ones(len(tails)), (tails, heads)), (node.size + 1, node.size + 1))
    steps = sparse.csgraph.dijkstra(graph, indices=node.size, unweighted=True)[first + levels.goal] - 1
    expected = np.where(np.isinf(steps), -1, steps)
    np.testing.assert_array_equal(PATHS(levels), expected)
    assert 0.3 < (expected > 0).mean() < 0.8  # both kinds were seen, and long ways
    assert expected.max() > 25


SMALL_PATH = quick_jit(shortest_path)


@settings(deadline=None, max_examples=100)
@given(arrays.arrays(np.int8, (4, 6), elements=st.integers(EMPTY, MOSS)), st.permutations(range(24)))
def test_shortest_paths_are_those_of_a_plain_search(layout, order):
    goal, start = order[:2]
    distance, queue = {start: 0}, deque([start])
    while queue:
        node = queue.popleft()
        for row, column in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            row, column = node // 6 + row, node % 6 + column
            other = row * 6 + column
            if not (0 <= row < 4 and 0 <= column < 6) or other in distance:
                continue
            if other == goal or layout[row, column] in (EMPTY, MOSS):
                distance[other] = distance[node] + 1
                queue.append(other)
    assert SMALL_PATH(CaveLevel(layout, np.int32(goal), np.int32(start))) == distance.get(goal, -1)


def test_statistics_by_hand():
    level = level_of(
        "GM.#",
        "M#.L",
        "...S",
    )
    found = quick_jit(level_statistics)(level)
    # Steps to the goal: row 0 has 1, 2; row 1 has 1, 3; row 2 has 2, 3, 4, 5.
    steps, moss = [1, 2, 1, 3, 2, 3, 4, 5], [1, 0, 1, 0, 0, 0, 0, 0]
    expected = {"wall_fraction": 2 / 12, "lava_fraction": 1 / 12, "moss_fraction": 2 / 12, "path_length": 5.0}
    expected["moss_distance_correlation"] = stats.spearmanr(steps, moss).statistic
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    maze = MazeLevel(level.layout == WALL, level.goal, level.start, np.int32(0))
    found = quick_jit(level_statistics)(maze)
    assert (float(found["path_length"]), float(found["lava_fraction"])) == (5.0, 0.0)


def test_correlation_is_that_of_scipy():
    levels = random_caves(np.random.default_rng(1), 50, SIZE, SIZE)
    found = MEASURE(levels)["moss_distance_correlation"]
    for index in range(50):
        level = jax.tree.map(lambda leaf, index=index: leaf[index], levels)
        codes = np.asarray(cells(level)).ravel()
        steps = np.asarray(GOAL_DISTANCES(level)).ravel()
        moss = (codes == MOSS)[steps > 0]
        expected = (
            stats.spearmanr(steps[steps > 0], moss).statistic
            if 0 < moss.sum() < moss.size and np.ptp(steps[steps > 0])
            else 0.0
        )
        np.testing.assert_allclose(found[index], expected, atol=1e-4)


def test_nothing_to_correlate():
    sealed = level_of("G#.", "##.", "S..")
    bare = level_of("G..", "...", "S..")
    statistics = quick_jit(jax.vmap(level_statistics))(batch(sealed, bare))
    np.testing.assert_array_equal(statistics["moss_distance_correlation"], 0)
    np.testing.assert_array_equal(statistics["path_length"], [-1, 2])


def valid(levels, codes):
    """Whether start and goal are different empty cells, and nothing but `codes` is in the layout."""
    layout = np.asarray(levels.layout)
    flat, rows = layout.reshape(len(layout), -1), np.arange(len(layout))
    goal, start = np.asarray(levels.goal), np.asarray(levels.start)
    assert (goal != start).all()
    assert ((goal >= 0) & (goal < flat.shape[1]) & (start >= 0) & (start < flat.shape[1])).all()
    assert (flat[rows, goal] == EMPTY).all()
    assert (flat[rows, start] == EMPTY).all()
    assert set(np.unique(layout)) <= {EMPTY, *codes}
    assert (layout.dtype, goal.dtype, start.dtype) == (np.int8, np.int32, np.int32)


def test_random_levels_are_uniform():
    levels = SAMPLE(jax.random.split(jax.random.key(0), SAMPLES))
    valid(levels, (WALL, LAVA, MOSS))
    layout = np.asarray(levels.layout)
    blocks = (layout != EMPTY).sum((1, 2))
    # Chi-squared statistics of draws that are uniform stay far below these bounds, each about the mean plus 6 deviations.
    counts = lambda values, bins: np.bincount(np.asarray(values), minlength=bins)
    uniform = lambda counts: stats.chisquare(counts).statistic < len(counts) + 6 * np.sqrt(2 * len(counts))
    assert (blocks.min(), blocks.max()) == (0, 60)
    assert uniform(counts(blocks, 61))
    assert uniform(counts(levels.goal, SIZE**2))
    assert uniform(counts(levels.start, SIZE**2))
    assert uniform([(layout == code).sum() / 4 for code in (WALL, LAVA, MOSS)])
    assert uniform((layout == WALL).sum(0).ravel())


def test_random_mazes():
    levels = quick_jit(jax.vmap(MAZES.sample_level))(jax.random.split(jax.random.key(0), 100))
    walls = np.asarray(levels.walls)
    assert (walls.dtype, walls.shape) == (bool, (100, SIZE, SIZE))
    valid(CaveLevel(walls.astype(np.int8), levels.goal, levels.start), (WALL,))
    assert set(np.asarray(levels.direction)) == {0, 1, 2, 3}
    assert len(np.unique(walls.sum((1, 2)))) > 30


EDIT = quick_jit(jax.vmap(CAVES.mutate_level, (0, 0, None)), static_argnums=2)


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 2**31 - 1))
def test_edited_levels_are_valid(seed):
    key, edit_key = jax.random.split(jax.random.key(seed))
    levels = SAMPLE(jax.random.split(key, SAMPLES))
    edited = EDIT(jax.random.split(edit_key, SAMPLES), levels, 5)
    valid(edited, (WALL, LAVA, MOSS))
    changed = (np.asarray(edited.layout) != np.asarray(levels.layout)).sum((1, 2))
    assert changed.max() <= 5 + 2  # a removed goal or start may go to moss


def test_what_edits_do():
    """One edit of the empty level with 9 cells and 6 contents, of equal chances."""
    level = level_of("G..", "...", "..S")
    keys = jax.random.split(jax.random.key(1), 5_400)
    edited = quick_jit(jax.vmap(lambda key: CAVES.mutate_level(key, level, 1)))(keys)
    layout, goal, start = (np.asarray(field) for field in edited)
    flat = layout.reshape(len(layout), -1)
    near = lambda count, chance: abs(count / len(keys) - chance) < 5 * np.sqrt(chance / len(keys))
    for code in (WALL, LAVA, MOSS):
        assert near((flat == code).any(1).sum(), 1 / 6)
        assert near((flat[:, 0] == code).sum(), 1 / 54)
    removed = goal != 0  # moved (1/6, but for one cell in 9), or covered: 5 of 6 contents on its cell
    assert near(removed.sum(), 1 / 6 * 8 / 9 + 5 / 6 / 9)
    assert near((start != 8).sum(), 1 / 6 * 8 / 9 + 5 / 6 / 9)


def test_a_removed_goal_goes_to_a_free_cell():
    level = level_of("G##", "#.#", "#MS")
    keys = jax.random.split(jax.random.key(2), 1_000)
    layout, goal, _ = quick_jit(jax.vmap(lambda key: CAVES.mutate_level(key, level, 1)))(keys)
    covered = np.isin(layout[:, 0, 0], (WALL, LAVA))
    assert covered.sum() > 10
    assert set(np.asarray(goal)[covered]) == {4, 7}


def test_edits_of_a_level_that_is_full():
    level = CaveLevel(np.full((2, 2), WALL, np.int8), np.int32(0), np.int32(3))
    levels = quick_jit(jax.vmap(lambda key: CAVES.mutate_level(key, level, 3)))(jax.random.split(jax.random.key(0), 200))
    valid(levels, (WALL, LAVA, MOSS))


def test_edited_mazes_turn_where_the_start_moves():
    level = MAZES.default_params.level._replace(direction=jnp.int32(2))
    levels = quick_jit(jax.vmap(lambda key: MAZES.mutate_level(key, level, 5)))(jax.random.split(jax.random.key(0), 300))
    valid(CaveLevel(np.asarray(levels.walls).astype(np.int8), levels.goal, levels.start), (WALL,))
    moved = np.asarray(levels.start) != 0
    direction = np.asarray(levels.direction)
    assert (direction[~moved] == 2).all()
    assert set(direction[moved]) == {0, 1, 2, 3}


@pytest.mark.parametrize("env", [CAVES, MAZES])
def test_no_edit_is_refused(env):
    with pytest.raises(jaxpg_envs.EnvironmentInputError, match="num_edits=0; an edited level has at least one edit"):
        env.mutate_level(jax.random.key(0), env.default_params.level, 0)


def test_pictures():
    level = level_of("G.L", "#MS")
    picture = CAVES.draw_level(level)
    assert (picture.shape, picture.dtype) == ((4 * 8, 5 * 8, 3), np.uint8)
    tile = lambda row, column: picture[8 * (row + 1) + 1, 8 * (column + 1) + 1].tolist()
    expected = {(0, 0): [60, 220, 60], (0, 2): [230, 110, 20], (1, 0): [120] * 3, (1, 1): [45, 95, 45], (-1, 2): [120] * 3}
    for cell, colour in expected.items():
        assert tile(*cell) == colour
    assert picture[20, 28].tolist() == [220, 40, 40]
    # An arrow has more red in the half behind its tip.
    red = {}
    for direction in range(4):
        maze = MazeLevel(level.layout == WALL, level.goal, level.start, np.int32(direction))
        start = (draw_level(maze)[16:24, 24:32] == [220, 40, 40]).all(-1)
        halves = {0: start[:, :4], 1: start[:4], 2: start[:, 4:], 3: start[4:]}
        red[direction] = {side: int(half.sum()) for side, half in halves.items()}
    for direction, halves in red.items():
        assert max(halves, key=halves.get) == direction
