"""GridWorlds: steps by hand, distributions by many samples, the best return against enumeration, edits, pictures."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_same, quick_jit, row
from scipy import stats

import jaxpg_envs
from jaxpg_envs.grid_worlds import GridWorlds
from jaxpg_envs.grid_worlds_levels import (
    DISTRIBUTIONS,
    HANDCRAFTED_LEVELS,
    MOVES,
    RANDOM_LEVELS,
    TRAINING_LEVELS,
    GridWorldsLevel,
)
from jaxpg_envs.levels import HELD_OUT_MAZES, level_set

UP, DOWN, LEFT, RIGHT, STAY = range(5)
KEY = jax.random.key(0)
ENV, DEFAULTS = jaxpg_envs.make("GridWorlds-v0", levels="small")
PLANES, PLANES_DEFAULTS = jaxpg_envs.make("GridWorlds-v0", levels="small", observation="planes")
STEP, RESET = quick_jit(ENV.step), quick_jit(ENV.reset)
PLANES_STEP, PLANES_RESET = quick_jit(PLANES.step), quick_jit(PLANES.reset)
BEST = quick_jit(ENV.optimal_return)
SAMPLES = 2_000


def level_of(*rows, kinds=((1.0, 0.0, 0.0),), kind=None, max_steps=10, size=None):
    """A level from a drawing: # wall, S start, 0 to 9 objects; `kinds` of (reward, termination, respawn), by default an
    object's own number."""
    drawing = np.array([list(row) for row in rows])
    place = lambda letter: np.int32(np.flatnonzero(drawing.ravel() == letter)[0])
    number = sum(str(digit) in drawing for digit in range(10))
    kind = np.arange(number) if kind is None else np.array(kind)
    numbers = np.array(kinds, np.float32).T
    size = len(drawing) if size is None else size
    objects = np.array([place(str(digit)) for digit in range(number)], np.int32)
    limits = np.int32(number), np.int32(size), np.int32(max_steps), np.int32(250)
    return GridWorldsLevel(drawing == "#", place("S"), objects, kind.astype(np.int32), *numbers, *limits)


def play(level, *actions, step=STEP, state=None):
    """What every step said: rewards, ends, limits; and the states after them."""
    params = DEFAULTS.replace(level=level)
    state = RESET(KEY, params)[1] if state is None else state
    rows = []
    for index, action in enumerate(actions):
        _, state, reward, terminated, truncated, _ = step(jax.random.fold_in(KEY, index), state, action, params)
        rows.append((float(reward), bool(terminated), bool(truncated), state))
    return rows


# --- Steps --------------------------------------------------------------------------------------------------------------

LEVEL = level_of("S.0", "#.1", "...", kinds=((1.0, 0.0, 0.0), (-0.5, 0.0, 1.0)))


def test_moves_walls_and_edges():
    nodes = [int(state.node) for *_, state in play(LEVEL, UP, LEFT, DOWN, RIGHT, DOWN, LEFT, DOWN, LEFT)]
    assert nodes == [0, 0, 0, 1, 4, 4, 7, 6]
    nodes = [int(state.node) for *_, state in play(LEVEL, RIGHT, DOWN, DOWN, DOWN, RIGHT, RIGHT, UP, STAY)]
    assert nodes == [1, 4, 7, 7, 8, 8, 5, 5]


def test_a_smaller_level_ends_at_its_own_edge():
    """It is drawn in the corner of arrays of a larger one."""
    level = level_of("S.#", "0.#", "###", size=2)
    nodes = [int(state.node) for *_, state in play(level, RIGHT, RIGHT, DOWN, DOWN, LEFT)]
    assert nodes == [1, 1, 4, 4, 3]


def test_objects_are_collected_where_the_agent_arrives_or_stays():
    """Object 0 never appears again, object 1 always does, one step after it was collected."""
    rows = play(LEVEL, RIGHT, RIGHT, DOWN, STAY, STAY, STAY, UP)
    assert [reward for reward, *_ in rows] == [0, 1, -0.5, 0, -0.5, 0, 0]
    present = [state.exists.tolist() for *_, state in rows]
    assert present == [[1, 1], [0, 1], [0, 0], [0, 1], [0, 0], [0, 1], [0, 1]]
    assert not any(terminated or truncated for _, terminated, truncated, _ in rows)
    np.testing.assert_array_equal(rows[-1][-1].objects, LEVEL.objects)


def test_two_objects_of_one_kind():
    level = level_of("S01", "...", "...", kinds=((0.25, 0.0, 0.0),), kind=[0, 0])
    assert [reward for reward, *_ in play(level, RIGHT, RIGHT, LEFT)] == [0.25, 0.25, 0]


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_an_object_appears_and_ends_the_episode_with_its_probability(probability):
    level = level_of("S1", "0.", kinds=((1.0, 0.0, probability), (1.0, probability, 0.0)))
    params = DEFAULTS.replace(level=level)
    start = RESET(KEY, params)[1].replace(exists=jnp.array([False, True]))
    keys = jax.random.split(KEY, SAMPLES)
    step = quick_jit(jax.vmap(ENV.step_env, (0, None, None, None)))
    _, after, reward, terminated, info = step(keys, start, RIGHT, params)
    for events in (terminated, after.exists[:, 0]):
        assert abs(events.mean() - probability) <= 5 * np.sqrt(probability * (1 - probability) / SAMPLES)
    assert (reward == 1).all()
    assert not after.exists[:, 1].any()
    np.testing.assert_array_equal(info["discount"], 1 - terminated)
    agreement = np.mean(terminated == after.exists[:, 0]) - probability**2 - (1 - probability) ** 2
    assert abs(agreement) < 3 / np.sqrt(SAMPLES)  # they are independent


def test_terminated_and_truncated_are_told_apart():
    level = level_of("S0", "..", kinds=((1.0, 1.0, 0.0),), max_steps=3)
    ends = lambda rows: [row[1:3] for row in rows]
    assert ends(play(level, DOWN, STAY, STAY)) == [(False, False), (False, False), (False, True)]
    rows = play(level, STAY, STAY, RIGHT, STAY)
    assert ends(rows) == [(False, False), (False, False), (True, True), (False, False)]
    assert [int(row[-1].time) for row in rows] == [1, 2, 0, 1]
    assert rows[2][-1].exists.all()
    assert not rows[2][-1].terminated
    assert ends(play(level, RIGHT)) == [(True, False)]
    longer = DEFAULTS.replace(level=level._replace(max_steps=np.int32(9)), max_steps_in_episode=2)
    state = RESET(KEY, longer)[1]
    assert [bool(STEP(KEY, state.replace(time=jnp.int32(time)), STAY, longer)[4]) for time in (0, 1)] == [False, True]


def test_the_tabular_observation():
    params = DEFAULTS.replace(level=LEVEL)
    observation, state = RESET(KEY, params)
    assert ENV.observation_space(params).n == 9 * 4
    assert (observation.shape, observation.dtype, int(observation)) == ((), jnp.int32, 0 + 9 * 3)
    state = state.replace(node=jnp.int32(1), exists=jnp.array([False, True]), time=jnp.int32(4))
    assert int(STEP(KEY, state, DOWN, params)[0]) == 4 + 9 * 2


# --- Objects anywhere ---------------------------------------------------------------------------------------------------


def test_planes():
    """Of agent, walls, and each kind of objects; one that is gone hides none that came to its place."""
    level = level_of("S#0", "1.2", "...", kinds=((1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)), kind=[0, 1, 1])
    params = PLANES_DEFAULTS.replace(level=level)
    observation, state = PLANES_RESET(KEY, params)
    space = PLANES.observation_space(params)
    assert {name: part.shape for name, part in space.spaces.items()} == {"image": (3, 3, 4), "time": (1,)}
    assert jax.tree.map(lambda x: (x.shape, x.dtype), observation) == {
        "image": ((3, 3, 4), jnp.float32),
        "time": ((1,), jnp.float32),
    }
    objects = jnp.array([2, 5, 5], jnp.int32)
    state = state.replace(objects=objects, exists=jnp.array([True, True, False]), time=jnp.int32(7), node=jnp.int32(4))
    observation = PLANES_STEP(KEY, state, DOWN, params)[0]
    expected = [[7], [1], [2], [5]]
    assert [np.flatnonzero(plane).tolist() for plane in np.asarray(observation["image"]).reshape(9, 4).T] == expected
    np.testing.assert_allclose(observation["time"], [0.008])


def test_objects_appear_on_free_cells_alone():
    """Never in walls, outside, on each other or on the agent; on each of the others equally often."""
    level = level_of("S#.#", "...#", "012#", "####", kinds=((0.0, 0.0, 1.0),), kind=[0, 0, 0], size=3, max_steps=10_000)
    params = PLANES_DEFAULTS.replace(level=level, max_steps_in_episode=10_000)
    free = [2, 4, 5, 6, 8, 9, 10]

    def rollout(key):
        reset_key, key = jax.random.split(key)
        first = PLANES.reset(reset_key, params)[1]

        def step(state, key):
            action = jax.random.randint(jax.random.fold_in(key, 1), (), 0, 5)
            _, after, _, _, _, _ = PLANES.step(key, state, action, params)
            return after, after

        return first, jax.lax.scan(step, first, jax.random.split(key, 60))[1]

    first, after = jax.tree.map(np.asarray, quick_jit(jax.vmap(rollout))(jax.random.split(KEY, 400)))
    assert first.exists.all()
    counts = np.array([(first.objects == node).sum() for node in free])
    assert counts.sum() == first.objects.size
    assert stats.chisquare(counts).statistic < 7 + 6 * np.sqrt(14)
    objects, exists, nodes = after.objects.reshape(-1, 3), after.exists.reshape(-1, 3), after.node.reshape(-1, 1)
    assert not exists.all()
    assert np.isin(objects, [0, *free])[exists].all()
    assert (objects != nodes)[exists].all()
    for one, other in itertools.combinations(range(3), 2):
        both = exists[:, one] & exists[:, other]
        assert (objects[both, one] != objects[both, other]).all()
    # What stays, stays where it is; what was gone is back at once, and not always where it was.
    before, later = row(after, slice(None), slice(None, -1)), row(after, slice(None), slice(1, None))
    stayed = before.exists & later.exists
    assert (before.objects == later.objects)[stayed].all()
    assert (before.exists | later.exists).all()
    back = ~before.exists & later.exists
    assert 0 < (before.objects == later.objects)[back].mean() < 0.5


def test_where_there_is_no_room_objects_wait():
    level = level_of("S0", "#1", kinds=((0.0, 0.0, 1.0),), kind=[0, 0])._replace(walls=np.array([[False, False], [True, True]]))
    params = PLANES_DEFAULTS.replace(level=level)
    state = PLANES_RESET(KEY, params)[1]
    assert state.exists.tolist() == [True, False]
    state = PLANES_STEP(KEY, state, RIGHT, params)[1]  # the other one appears, where the agent came from
    assert (state.exists.tolist(), state.objects.tolist()) == ([False, True], [1, 0])


# --- Distributions ------------------------------------------------------------------------------------------------------


def samples(name, number=SAMPLES):
    env = GridWorlds(name, name not in RANDOM_LEVELS)
    return jax.tree.map(np.asarray, quick_jit(jax.vmap(env.sample_level))(jax.random.split(KEY, number)))


def valid(levels):
    """Start and objects are on different free cells, and there is no free cell outside."""
    number, side = len(levels.walls), levels.walls.shape[1]
    rows, columns = np.indices((side, side))
    outside = np.maximum(rows, columns) >= levels.size[:, None, None]
    assert levels.walls[outside].all()
    used = np.arange(levels.objects.shape[1]) < levels.number[:, None]
    free = ~levels.walls.reshape(number, -1)
    index = np.arange(number)
    assert free[index, levels.start].all()
    assert free[index[:, None], levels.objects][used].all()
    places = np.column_stack([levels.start, np.where(used, levels.objects, -1 - np.arange(used.shape[1]))])
    assert all(len(set(nodes)) == len(nodes) for nodes in places.tolist())


def uniform(values, low, high):
    """Whether integers are uniform: their chi-squared statistic is less than its mean plus 6 deviations."""
    assert (values.min(), values.max()) == (low, high)
    counts = np.bincount(values - low)
    return stats.chisquare(counts).statistic < counts.size + 6 * np.sqrt(2 * counts.size)


def log_uniform(values, low, high):
    """Whether all lie between the ends, with the right mean and deviation of their logarithms."""
    assert values.min() >= low * (1 - 1e-6)
    assert values.max() <= high * (1 + 1e-6)
    share = np.log(values / low) / np.log(high / low)
    return abs(share.mean() - 0.5) < 5 / np.sqrt(12 * values.size) and abs(share.std() - 12**-0.5) < 0.02


# Side, sizes, objects, time limits, walls on average in a largest level, lifetimes: of specification and code.
FAMILIES = {
    "all": (10, (4, 10), (1, 5), (20, 750), 15, (1000, 1000)),
    "all_shortlife": (10, (4, 10), (1, 5), (20, 750), 15, (250, 250)),
    "all_randlife": (10, (4, 10), (1, 5), (20, 750), 15, (50, 250)),
    "all_vrandlife": (10, (4, 10), (1, 5), (20, 750), 15, (10, 250)),
    "small": (6, (4, 6), (1, 3), (20, 100), 7, (250, 250)),
    "medium": (8, (6, 8), (2, 4), (100, 250), 10, (1000, 1000)),
    "large": (10, (8, 10), (2, 5), (250, 750), 15, (2500, 2500)),
    "rand_all": (10, (4, 10), (1, 5), (20, 750), 15, (25_000, 25_000)),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_distributions_to_train_with(name):
    side, sizes, numbers, limits, walls, lifetimes = FAMILIES[name]
    levels = samples(name)
    valid(levels)
    assert (levels.walls.dtype, levels.walls.shape[1:]) == (bool, (side, side))
    assert levels.objects.shape[1:] == levels.kind.shape[1:] == levels.reward.shape[1:] == (numbers[1],)
    assert {leaf.dtype for leaf in levels[1:]} == {np.dtype(np.int32), np.dtype(np.float32)}
    assert (levels.kind == np.arange(numbers[1])).all()
    assert uniform(levels.size, *sizes)
    assert uniform(levels.number, *numbers)
    assert log_uniform(levels.max_steps, *limits)
    assert log_uniform(levels.lifetime, *lifetimes) if lifetimes[0] < lifetimes[1] else (levels.lifetime == lifetimes[0]).all()
    assert log_uniform(levels.termination, 0.01, 1)
    assert log_uniform(levels.respawn, 0.001, 0.1)
    for kind, low in ((0, 0), (1, -1)):
        assert stats.kstest(levels.reward[:, kind], stats.uniform(low, 1 - low).cdf).statistic < 2.5 / np.sqrt(SAMPLES)
    largest = levels.walls[levels.size == sizes[1]]
    assert (largest.sum((1, 2)) == walls).all()
    of_smallest = levels.walls[levels.size == sizes[0]][:, : sizes[0], : sizes[0]].mean((1, 2))
    assert abs(of_smallest.mean() - walls / sizes[1] ** 2) < 5 * of_smallest.std() / np.sqrt(of_smallest.size)
    for nodes in (levels.start, levels.objects[:, 0]):
        counts = np.bincount(nodes[levels.size == sizes[1]], minlength=side**2)
        assert stats.chisquare(counts).statistic < side**2 + 6 * np.sqrt(2 * side**2)


# Objects of (reward, termination, respawn), size, time limit, and walls: of the specification.
DESIGNS = {
    "dense": ([(1, 0, 0.05)] * 2 + [(-1, 0.5, 0.1), (-1, 0, 0.5)], 11, 500, set()),
    "sparse": ([(1, 1, 0), (-1, 1, 0)], 13, 50, set()),
    "long": ([(1, 0, 0.01)] * 2 + [(-1, 0.5, 1)] * 2, 11, 1000, set()),
    "longer": ([(1, 0.1, 0.01)] * 2 + [(-1, 0.8, 1)] * 3, 9, 2000, {9 * r + 4 for r in (0, 2, 3, 4, 5, 6, 8)}),
    "long_dense": (
        [(1, 0, 0.005)] * 4,
        11,
        2000,
        {11 * r + 5 for r in range(11) if r not in (0, 7)} | {44 + c for c in range(11) if c not in (2, 8)},
    ),
    "rand_small": ([(1, 0, 0.05)] * 2 + [(-1, 0.5, 0.1)] * 2, 7, 500, {9, 25}),
    "rand_sparse": ([(1, 1, 1)] + [(-1, 1, 1)] * 2, 7, 50, set()),
    "rand_very_dense": ([(1, 0, 1)], 11, 2000, set()),
}
DESIGNS |= {"rand_dense": DESIGNS["dense"], "rand_long": DESIGNS["long"]}


@pytest.mark.parametrize("name", DESIGNS)
def test_handcrafted_levels(name):
    """All but the places of start and objects is fixed."""
    objects, size, limit, walls = DESIGNS[name]
    levels = samples(name, 500)
    valid(levels)
    kinds = np.stack([levels.reward, levels.termination, levels.respawn], -1)
    numbers = np.take_along_axis(kinds, levels.kind[:, :, None], 1)
    np.testing.assert_array_equal(numbers, np.broadcast_to(np.float32(objects), numbers.shape))
    assert levels.reward.shape[1] == len(set(objects))
    assert set(levels.number) == {len(objects)}
    assert set(levels.size) == {size}
    assert set(levels.max_steps) == {limit}
    assert set(levels.lifetime) == {25_000 if name.startswith("rand_") else 2500}
    assert (levels.walls == np.isin(np.arange(size**2), list(walls)).reshape(size, size)).all()
    assert np.unique(levels.start).size > 0.9 * (size**2 - len(walls))


def test_mazes_with_objects():
    size = lambda name: level_set(name, 0, 1).walls.shape[1]
    mazes = [name for name in HANDCRAFTED_LEVELS if name not in DESIGNS]
    assert mazes == [name for name in HELD_OUT_MAZES if size(name) == 13]
    levels = samples("SixteenRooms", 500)
    valid(levels)
    assert (levels.walls == level_set("SixteenRooms", 0, 1).walls).all()
    assert set(levels.number) == {3}
    assert set(levels.lifetime) == {2500}
    assert log_uniform(levels.max_steps, 25, 50)
    assert log_uniform(levels.termination, 0.01, 1)
    assert log_uniform(levels.respawn, 0.001, 0.1)
    assert stats.kstest(levels.reward.ravel(), "uniform").statistic < 2.5 / np.sqrt(levels.reward.size)


def test_sets_of_designs_have_each_as_often():
    """In arrays of one shape, and with no more walls, objects or kinds than the design has."""
    levels = samples("handcrafted")
    valid(levels)
    assert levels.walls.shape[1:] == (13, 13)
    assert levels.objects.shape[1:] == (5,)
    names = [name for name in DESIGNS if not name.startswith("rand_")]
    steps = np.array([DESIGNS[name][2] for name in names])
    chosen = [(levels.max_steps == limit) & (levels.size == DESIGNS[name][1]) for name, limit in zip(names, steps, strict=True)]
    counts = np.sum(chosen, 1)
    assert counts.sum() == SAMPLES
    assert stats.chisquare(counts).statistic < 5 + 6 * np.sqrt(10)
    for name, rows in zip(names, chosen, strict=True):
        objects, size, _, walls = DESIGNS[name]
        few = jax.tree.map(lambda leaf, rows=rows: leaf[rows], levels)
        assert (few.walls[:, :size, :size] == np.isin(np.arange(size**2), list(walls)).reshape(size, size)).all()
        assert set(few.number) == {len(objects)}
        kinds = np.stack([few.reward, few.termination, few.respawn], -1)
        numbers = np.take_along_axis(kinds, few.kind[:, : len(objects), None], 1)
        np.testing.assert_array_equal(numbers, np.broadcast_to(np.float32(objects), numbers.shape))
    mazes = samples("mazes", 400).walls
    assert len({walls.tobytes() for walls in mazes}) == 9


def test_names():
    assert set(TRAINING_LEVELS) == set(FAMILIES)
    assert {*TRAINING_LEVELS, *HANDCRAFTED_LEVELS, *RANDOM_LEVELS, "handcrafted", "mazes"} == set(DISTRIBUTIONS)
    assert set(RANDOM_LEVELS) == {name for name in DISTRIBUTIONS if name.startswith("rand_")}


# --- The best return ----------------------------------------------------------------------------------------------------


def best_by_enumeration(level, time, node, present):
    """Of what can follow an action all outcomes, one by one; in plain Python."""
    if time == level.max_steps:
        return 0.0
    size, objects = len(level.walls), range(int(level.number))
    returns = []
    for down, right in MOVES:
        i, j = node // size + down, node % size + right
        blocked = not (0 <= i < size and 0 <= j < size) or level.walls[i, j]
        arrived = node if blocked else i * size + j
        taken = [o for o in objects if present[o] and level.objects[o] == arrived]
        total = sum(float(level.reward[level.kind[o]]) for o in taken)
        goes_on = 1.0 - sum(float(level.termination[level.kind[o]]) for o in taken)
        absent = [o for o in objects if not present[o]]
        for appear in itertools.product([False, True], repeat=len(absent)):
            chance, after = goes_on, list(present)
            for o, appears in zip(absent, appear, strict=True):
                p = float(level.respawn[level.kind[o]])
                chance *= p if appears else 1.0 - p
                after[o] = appears
            for o in taken:
                after[o] = False
            if chance:
                total += chance * best_by_enumeration(level, time + 1, arrived, after)
        returns.append(total)
    return max(returns)


@pytest.mark.parametrize("seed", range(6))
def test_the_best_return_is_that_of_enumeration(seed):
    """In an open room, and where it is best to wait on an object, as the way back costs."""
    rng = np.random.default_rng(seed)
    rows, low = (["S0", "1."], -1) if seed % 2 else (["S1", "#0"], -0.1)
    kinds = np.column_stack([[rng.uniform(0, 1), rng.uniform(low, -low)], rng.uniform(0, 1, (2, 2))])
    kinds[1, 0] *= 1 if seed % 2 else -np.sign(kinds[1, 0])
    level = level_of(*rows, kinds=kinds, max_steps=4)
    expected = best_by_enumeration(level, 0, int(level.start), [True, True])
    assert expected > 0
    np.testing.assert_allclose(BEST(level), expected, rtol=1e-5)


def test_the_best_return_by_hand():
    """One object, two steps away: with an immediate return it pays every second step; each time the episode may end."""
    make = lambda steps, end, back: level_of("S.0", kinds=((1.0, end, back),), max_steps=steps)._replace(
        walls=np.array([[False] * 3, [True] * 3, [True] * 3])
    )
    best = lambda *numbers: float(BEST(make(*numbers)))
    assert best(1, 0, 1) == 0
    assert best(2, 0, 0) == best(9, 0, 0) == 1
    assert best(7, 0, 1) == 3
    assert best(8, 0, 1) == 4
    assert best(8, 1, 1) == 1
    np.testing.assert_allclose(best(8, 0.5, 1), 1 + 0.5 + 0.25 + 0.125, rtol=1e-6)
    # One step of waiting brings it back with 0.25, so that of the last two steps one pays 0.25.
    np.testing.assert_allclose(best(4, 0, 0.25), 1.25, rtol=1e-6)


def test_unused_objects_are_not_there():
    """And worth nothing. Nor do larger arrays change anything."""
    level = level_of("S0", "1.", kinds=((0.5, 0.1, 0.2), (1.0, 0.0, 1.0)), max_steps=6)
    fewer = level._replace(number=np.int32(1))
    alone = level_of("S0", "..", kinds=((0.5, 0.1, 0.2),), max_steps=6)
    np.testing.assert_allclose(BEST(fewer), BEST(alone), rtol=1e-6)
    assert BEST(level) > BEST(fewer) + 1
    assert [reward for reward, *_ in play(fewer, STAY, DOWN, STAY, STAY)] == [0] * 4
    assert [reward for reward, *_ in play(level, STAY, DOWN, STAY, STAY)] == [0, 1, 0, 1]
    padded = level_of("S0#", "1.#", "###", kinds=((0.5, 0.1, 0.2), (1.0, 0.0, 1.0)), max_steps=6, size=2)
    np.testing.assert_allclose(BEST(padded), BEST(level), rtol=1e-6)


def test_no_policy_earns_more_than_the_best():
    """Not a random one, on any of many levels."""
    levels = quick_jit(jax.vmap(ENV.sample_level))(jax.random.split(KEY, 64))
    best = np.asarray(quick_jit(jax.vmap(ENV.optimal_return))(levels))

    def episode(key, level):
        params = DEFAULTS.replace(level=level)

        def step(carry, key):
            state, goes_on = carry
            action = jax.random.randint(key, (), 0, 5)
            _, state, reward, terminated, truncated, _ = ENV.step(key, state, action, params)
            return (state, goes_on & ~(terminated | truncated)), jnp.where(goes_on, reward, 0.0)

        return jax.lax.scan(step, (ENV.reset(key, params)[1], jnp.bool_(True)), jax.random.split(key, 100))[1].sum()

    keys = jax.random.split(jax.random.key(1), (64, 100))
    returns = np.asarray(quick_jit(jax.vmap(jax.vmap(episode, (0, None))))(keys, levels))
    error = returns.std(1) / np.sqrt(100)
    assert (best >= returns.mean(1) - 4 * error - 1e-6).all()
    assert (best > returns.mean(1) + 4 * error).mean() > 0.5
    assert (best >= 0).all()  # staying pays nothing


# --- Edits and pictures -------------------------------------------------------------------------------------------------


def test_what_edits_do():
    """One edit of a level of 2 x 2 cells in arrays of 3 x 3: two cells are neither start nor object."""
    level = level_of("S0#", ".##", "###", size=2)
    keys = jax.random.split(KEY, 6_000)
    edited = jax.tree.map(np.asarray, quick_jit(jax.vmap(lambda key: ENV.mutate_level(key, level, 1)))(keys))
    valid(edited)
    outcomes = {
        "wall": ~level.walls & edited.walls,
        "ground": level.walls & ~edited.walls,
        "start": edited.start == 3,
        "start into the wall": (edited.start == 4) & ~edited.walls[:, 1, 1],
        "object": edited.objects[:, 0] == 3,
        "object into the wall": (edited.objects[:, 0] == 4) & ~edited.walls[:, 1, 1],
    }
    outcomes["wall"] = outcomes["wall"][:, 1, 0]
    outcomes["ground"] = outcomes["ground"][:, 1, 1] & (edited.start == 0) & (edited.objects[:, 0] == 1)
    counts = [outcome.sum() for outcome in outcomes.values()]
    assert sum(counts) == 6_000
    assert stats.chisquare(counts).statistic < 6 + 6 * np.sqrt(12)


def test_many_edits_keep_levels_valid():
    for env in (ENV, PLANES):
        levels = quick_jit(jax.vmap(env.sample_level))(jax.random.split(KEY, 500))
        mutate = quick_jit(jax.vmap(env.mutate_level, (0, 0, None)), static_argnums=2)
        edited = jax.tree.map(np.asarray, mutate(jax.random.split(KEY, 500), levels, 20))
        same = [field for field in levels._fields if field not in ("walls", "start", "objects")]
        assert_same([getattr(edited, field) for field in same], [getattr(levels, field) for field in same])
        assert (edited.walls != levels.walls).any((1, 2)).mean() > 0.9
        moved = (edited.objects != levels.objects).any()
        assert moved == (env is ENV)
        if moved:
            valid(edited)


def test_a_level_without_room_is_not_edited():
    level = level_of("S0#", "12#", "###", kinds=((1.0, 0.0, 0.0),), kind=[0, 0, 0], size=2)
    assert_same(ENV.mutate_level(KEY, level, 3), level)
    with pytest.raises(jaxpg_envs.EnvironmentInputError, match="num_edits=0; an edited level has at least one edit"):
        ENV.mutate_level(KEY, level, 0)


def test_pictures():
    level = level_of("0.1#", "S#2#", "...#", "####", kinds=((1.0, 0, 0), (-1.0, 0, 0), (0.0, 0, 0)), size=3)
    picture = ENV.draw_level(level)
    assert (picture.shape, picture.dtype) == ((5 * 8, 5 * 8, 3), np.uint8)
    tile = lambda row, column, of=picture: of[8 * (row + 1) + 1, 8 * (column + 1) + 1].tolist()
    assert tile(0, 0) == [60, 220, 60]
    assert tile(0, 1) == [24] * 3
    assert tile(0, 2) == [230, 110, 20]
    assert tile(1, 1) == tile(-1, 0) == tile(3, 3) == [120] * 3
    assert tile(1, 2) not in ([24] * 3, [60, 220, 60])
    assert picture[20, 12].tolist() == [220, 40, 40]
    assert tile(0, 0, PLANES.draw_level(level)) == [24] * 3


# --- The environment as a whole -----------------------------------------------------------------------------------------


def test_levels_of_all_sizes_in_one_batch_start_anew_as_their_own():
    levels = quick_jit(jax.vmap(ENV.sample_level))(jax.random.split(jax.random.key(3), 8))
    assert len(set(np.asarray(levels.size))) > 1
    axes = jax.tree.map(lambda _: None, DEFAULTS).replace(level=jax.tree.map(lambda _: 0, levels))

    def rollout(key, params):
        def step(state, key):
            _, state, reward, terminated, truncated, _ = ENV.step(key, state, jax.random.randint(key, (), 0, 5), params)
            return state, (state, reward, terminated | truncated)

        return jax.lax.scan(step, ENV.reset(key, params)[1], jax.random.split(key, 250))[1]

    keys = jax.random.split(KEY, 8)
    rollouts = quick_jit(jax.vmap(rollout, (0, axes)))(keys, DEFAULTS.replace(level=levels))
    states, rewards, done = jax.tree.map(np.asarray, rollouts)
    assert (done.sum(1) > 1).all()
    for index in range(8):
        assert (states.node[index][done[index]] == levels.start[index]).all()
        assert (states.exists[index][done[index]].sum(1) == levels.number[index]).all()
    assert (rewards != 0).any()


@pytest.mark.parametrize("name", ["handcrafted", "rand_sparse"])
def test_default_levels_are_of_the_distribution(name):
    observation = "planes" if name in RANDOM_LEVELS else "tabular"
    env, params = jaxpg_envs.make("GridWorlds-v0", levels=name, observation=observation)
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert describe(params.level) == describe(jax.eval_shape(env.sample_level, KEY))
    valid(jax.tree.map(lambda x: np.asarray(x)[None], params.level))
    assert int(params.level.max_steps) <= params.max_steps_in_episode


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": "smal"}, "GridWorlds-v0 refuses levels='smal': did you mean \"small\"? there are all, all_shortlife, "),
        ({"levels": 3}, "GridWorlds-v0: levels=3; it must be a text"),
        ({"observation": "pixels"}, "GridWorlds-v0 refuses observation='pixels': choose one of tabular, planes"),
        (
            {"levels": "rand_dense"},
            "GridWorlds-v0 refuses levels='rand_dense': objects are anywhere; choose observation=planes",
        ),
        ({"level": "dense"}, 'GridWorlds-v0: unknown argument level; did you mean "levels"? it takes levels, observation'),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(jaxpg_envs.EnvironmentInputError, match=re.escape(message)):
        jaxpg_envs.make("GridWorlds-v0", **options)


def test_planes_have_no_best_return():
    with pytest.raises(jaxpg_envs.EnvironmentInputError, match="optimal returns are those of tabular observations"):
        PLANES.optimal_return(PLANES_DEFAULTS.level)
