"""Level sets: DRED's recipe rule by rule, sets that share no layout, the mazes that are held out."""

import jax
import numpy as np
import pytest
from checks import assert_same, quick_jit, row
from scipy import ndimage

import jaxpg_envs
from jaxpg_envs.cave_levels import CAVE_SETS, UNSEEN_STRUCTURES, by_rank
from jaxpg_envs.levels import (
    EMPTY,
    HELD_OUT_MAZES,
    LAVA,
    MOSS,
    WALL,
    goal_distances,
    level_set,
    level_statistics,
    shortest_path,
)

NUMBER, SIZE = 24, 9
SETS = {
    name: level_set(name, 0, NUMBER, SIZE) for name in ("train", "test", "unseen", "unseen_little_moss", "unseen_much_lava")
}
DISTANCES = quick_jit(jax.vmap(goal_distances))


def grounds(levels):
    return (levels.layout == EMPTY) | (levels.layout == MOSS)


@pytest.mark.parametrize("name", SETS)
def test_every_rule_of_the_recipe(name):
    levels, rules = SETS[name], CAVE_SETS[name]
    assert (levels.layout.shape, levels.goal.shape, levels.start.shape) == ((NUMBER, SIZE, SIZE), (NUMBER,), (NUMBER,))
    assert (levels.layout.dtype, levels.goal.dtype, levels.start.dtype) == (np.int8, np.int32, np.int32)
    distances = np.asarray(DISTANCES(levels))
    assert len({ground.tobytes() for ground in grounds(levels)}) == NUMBER
    for index, ground in enumerate(grounds(levels)):
        layout, steps = levels.layout[index].ravel(), distances[index]
        goal, start = levels.goal[index], levels.start[index]
        assert ndimage.label(ground)[1] == 1
        assert layout[goal] == layout[start] == EMPTY
        assert steps.ravel()[start] == int(np.median(steps[ground & (steps > 0)]))
        moss, lava = (layout == MOSS).sum(), (layout == LAVA).sum()
        # Walls at most three steps from the ground, by steps that may lead through walls.
        near = ndimage.binary_dilation(ground, iterations=3) & ~ground
        assert (near.ravel() | (layout != LAVA)).all()
        for number, total, (low, high) in ((moss, ground.sum(), rules.moss), (lava, near.sum(), rules.lava)):
            assert int(low * total) <= number <= int(high * total)
        assert set(np.unique(layout)) <= {EMPTY, WALL, LAVA, MOSS}


def test_draws_are_weighted_by_rank():
    rng = np.random.default_rng(0)
    distance = np.array([9.0, 3.0, 5.0, 1.0, 0.0])  # of node 4, which is not drawn from
    first = np.bincount([by_rank(rng, np.arange(4), distance, 1)[0] for _ in range(6_000)], minlength=5)
    expected = np.array([1 / 4, 1 / 2, 1 / 3, 1, 0]) / (1 + 1 / 2 + 1 / 3 + 1 / 4) * 6_000
    assert (abs(first - expected) <= 5 * np.sqrt(expected)).all()
    ties = np.bincount([by_rank(rng, np.arange(4), np.zeros(5), 1)[0] for _ in range(4_000)], minlength=4)
    assert (abs(ties - 1_000) < 5 * np.sqrt(1_000)).all()
    assert sorted(by_rank(rng, np.arange(4), distance, 9)) == [0, 1, 2, 3]


def test_moss_is_near_the_goal_and_lava_far():
    levels = SETS["train"]
    statistics = quick_jit(jax.vmap(level_statistics))(levels)
    assert (np.asarray(statistics["path_length"]) > 0).all()
    assert np.mean(statistics["moss_distance_correlation"]) < -0.2
    nearness = []
    for layout, goal in zip(levels.layout, levels.goal, strict=True):
        row, column = np.indices((SIZE, SIZE))
        away = abs(row - goal // SIZE) + abs(column - goal % SIZE)
        nearness.append(away[layout == LAVA].mean() - away[layout == WALL].mean())
    assert np.nanmean(nearness) > 0.5


def test_training_and_test_sets_share_no_layout():
    """At a size so small that drawing freely would repeat layouts."""
    layouts = lambda name, seed: {ground.tobytes() for ground in grounds(level_set(name, seed, 40, 5))}
    train, test = ([layouts(name, seed) for seed in (0, 1)] for name in ("train", "test"))
    assert train[0] & train[1]
    assert train[0] != train[1]
    assert not (train[0] | train[1]) & (test[0] | test[1])


def test_sets_are_reproducible_prefixes():
    few = level_set("train", 0, 5, SIZE)
    assert_same(few, row(SETS["train"], slice(0, 5)))


@pytest.mark.parametrize("name", UNSEEN_STRUCTURES)
def test_one_structure(name):
    levels = level_set(name, 3, 2, 13)
    assert levels.layout.shape == (2, 13, 13)
    assert (quick_jit(jax.vmap(shortest_path))(levels) > 0).all()


# Walls, and steps from start to goal by a plain search, of drawings that were compared with those of two other libraries.
MAZES = {
    "SixteenRooms": (46, 20),
    "SixteenRooms2": (53, 22),
    "Labyrinth": (72, 96),
    "LabyrinthFlipped": (72, 96),
    "Labyrinth2": (72, 96),
    "StandardMaze": (73, 40),
    "StandardMaze2": (72, 56),
    "StandardMaze3": (71, 39),
}


@pytest.mark.parametrize("name", HELD_OUT_MAZES)
def test_held_out_mazes(name):
    levels = level_set(name, 0, 3)
    size = 19 if name == "LargeCorridor" else 13
    assert (levels.walls.shape, levels.walls.dtype) == ((3, size, size), bool)
    paths = np.asarray(quick_jit(jax.vmap(shortest_path))(levels))
    assert (paths > 0).all()
    if name in MAZES:
        assert {(int(walls), int(path)) for walls, path in zip(levels.walls.sum((1, 2)), paths, strict=True)} == {MAZES[name]}
    assert (levels.goal.dtype, levels.start.dtype, levels.direction.dtype) == (np.int32,) * 3


def test_corridors():
    levels = level_set("SmallCorridor", 0, 100)
    assert set(levels.goal) == {row * 13 + column for row in (5, 7) for column in (2, 4, 6, 8, 10)}
    assert set(levels.start) == {6 * 13}
    assert levels.walls[0].sum() == 6 * 11 + 5
    assert len(set(level_set("LargeCorridor", 0, 300).goal)) == 16
    assert_same(levels, level_set("SmallCorridor", 0, 100))


def test_a_mirrored_labyrinth():
    one, other = level_set("Labyrinth", 0, 1), level_set("LabyrinthFlipped", 0, 1)
    np.testing.assert_array_equal(one.walls, other.walls[:, :, ::-1])
    assert (one.direction, other.direction) == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trian", 0, 4), 'unknown level set "trian"; did you mean "train"\\? there are train, test'),
        (("train", -1, 4), "seed=-1; it must not be negative"),
        (("train", 0, 0), "number=0; a set has at least one level"),
        (("train", 0, 4, 4), "size=4; a cave has at least 5 cells on each side"),
        (("Labyrinth", 0, 4, 15), "size=15; Labyrinth has 13 cells on each side"),
        (("rooms", 0, 10_000, 5), '"rooms" has .* levels of size=5 with seed=0, not 10000; ask for fewer or for larger ones'),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(jaxpg_envs.EnvironmentInputError, match=message):
        level_set(*arguments)
