"""CaveEscape and Maze: what is seen in every direction, walls, lava, goal and reward, resets to the same level, batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_same, quick_jit, row
from test_grid import batch, level_of

import jaxpg_envs
from jaxpg_envs.grid import MazeLevel, shortest_path

LEFT, RIGHT, FORWARD = range(3)
KEY = jax.random.key(0)
ENV, DEFAULTS = jaxpg_envs.make("CaveEscape-v0", size=3, max_steps_in_episode=10)
LEVEL = level_of(
    ".L.M",
    "#S.G",
    "...#",
)
PARAMS = DEFAULTS.replace(level=LEVEL)
STEP, STEP_ENV, RESET = quick_jit(ENV.step), quick_jit(ENV.step_env), quick_jit(ENV.reset)


def facing(direction, params=PARAMS, env=ENV, reset=RESET):
    state = reset(KEY, params)[1].replace(direction=jnp.int32(direction))
    return state, env._observe(state, params)


def drawn(observation, letters=".#LMG"):
    """The view as rows of letters, and the direction."""
    view, direction = np.asarray(observation["image"]), np.asarray(observation["direction"])
    assert view.shape == (5, 5, len(letters))
    assert (view.sum(-1) == 1).all()
    assert direction.sum() == 1
    return ["".join(letters[code] for code in line) for line in view.argmax(-1)], int(direction.argmax())


VIEWS = {
    0: ["#####", "#####", "#MG##", "#...#", "#L..#"],
    1: ["#####", "#####", "#####", "#...#", "G..##"],
    2: ["#####", "#####", "#####", "#.#.#", "#..L#"],
    3: ["#####", "#####", "#####", "#.L.M", "##..G"],
}


@pytest.mark.parametrize("direction", VIEWS)
def test_the_view_by_hand(direction):
    _, observation = facing(direction)
    assert drawn(observation) == (VIEWS[direction], direction)


@pytest.mark.parametrize("direction", VIEWS)
def test_turns(direction):
    state, _ = facing(direction)
    for action, turn in ((LEFT, -1), (RIGHT, 1)):
        observation, after, reward, terminated, _, _ = STEP(KEY, state, action, PARAMS)
        expected = (direction + turn) % 4
        assert drawn(observation) == (VIEWS[expected], expected)
        np.testing.assert_array_equal(after.position, [1, 1])
        assert (float(reward), bool(terminated), int(after.time)) == (0.0, False, 1)


@pytest.mark.parametrize(
    ("direction", "position", "reward", "ends"),
    [
        (0, (1, 2), 0.0, False),
        (1, (2, 1), 0.0, False),
        (2, (1, 1), 0.0, False),  # a wall
        (3, (0, 1), 0.0, True),  # lava
    ],
)
def test_steps_forward(direction, position, reward, ends):
    state, _ = facing(direction)
    _, after, measured, terminated, info = STEP_ENV(KEY, state, FORWARD, PARAMS)
    np.testing.assert_array_equal(after.position, position)
    assert (float(measured), bool(terminated), bool(info["success"])) == (reward, ends, False)
    assert float(info["discount"]) == 1.0 - ends


def test_the_edge_is_a_wall():
    state, _ = facing(1)
    for _ in range(3):
        _, state, _, terminated, _, _ = STEP(KEY, state, FORWARD, PARAMS)
    np.testing.assert_array_equal(state.position, [2, 1])
    assert not terminated
    far = state.replace(position=jnp.array([0, 3]), direction=jnp.int32(0))  # the next node is in the row below
    np.testing.assert_array_equal(STEP(KEY, far, FORWARD, PARAMS)[1].position, [0, 3])


def test_the_goal_pays_less_later():
    state, _ = facing(0)
    for action in (LEFT, RIGHT, FORWARD):
        _, state, reward, terminated, truncated, _ = STEP(KEY, state, action, PARAMS)
        assert (float(reward), bool(terminated), bool(truncated)) == (0.0, False, False)
    _, after, reward, terminated, truncated, info = STEP(KEY, state, FORWARD, PARAMS)
    np.testing.assert_allclose(reward, 1 - 0.9 * 4 / 10, rtol=1e-6)
    assert (bool(terminated), bool(truncated), bool(info["success"])) == (True, False, True)
    assert int(after.time) == 0
    np.testing.assert_array_equal(after.position, [1, 1])


def test_moss_is_ground_and_the_own_cell_looks_empty():
    state, _ = facing(3)
    state = state.replace(position=jnp.array([0, 2]), direction=jnp.int32(0))
    observation, after, _, terminated, _, _ = STEP(KEY, state, FORWARD, PARAMS)
    np.testing.assert_array_equal(after.position, [0, 3])
    assert not terminated
    assert drawn(observation)[0][-1] == "##.G#"


def test_time_limits_truncate():
    state, _ = facing(0)
    for number in range(10):
        _, state, reward, terminated, truncated, _ = STEP(KEY, state, LEFT, PARAMS)
        assert (bool(truncated), bool(terminated), float(reward)) == (number == 9, False, 0.0)


def test_first_directions_are_uniform():
    _, states = jax.jit(jax.vmap(ENV.reset, (0, None)))(jax.random.split(KEY, 2_000), PARAMS)
    counts = np.bincount(np.asarray(states.direction), minlength=4)
    assert (abs(counts - 500) < 6 * np.sqrt(500)).all()


def random_rollout(key, params):
    def step(state, key):
        action_key, key = jax.random.split(key)
        action = jax.random.choice(action_key, 3, p=jnp.array([0.1, 0.1, 0.8]))
        observation, state, *rest = ENV.step(key, state, action, params)
        return state, (observation, state, rest[:3])

    start_key, key = jax.random.split(key)
    return jax.lax.scan(step, ENV.reset(start_key, params)[1], jax.random.split(key, 100))[1]


def test_a_batch_of_levels_and_resets_to_the_own_level():
    """Rows are as if alone, and an episode always starts where its own level says."""
    other = level_of("S...", ".LMG", "#..#")
    sealed = level_of("S#..", "##.G", "....")
    levels = batch(LEVEL, other, sealed)
    keys = jax.random.split(KEY, 3)
    only_the_level = jax.tree.map(lambda _: None, PARAMS).replace(level=jax.tree.map(lambda _: 0, LEVEL))
    rollouts = quick_jit(jax.vmap(random_rollout, (0, only_the_level)))(keys, PARAMS.replace(level=levels))
    alone = quick_jit(random_rollout)
    for index in range(3):
        assert_same(row(rollouts, index), alone(keys[index], PARAMS.replace(level=row(levels, index))))
    _, states, (rewards, terminated, truncated) = jax.tree.map(np.asarray, rollouts)
    for index, start in enumerate(((1, 1), (0, 0), (0, 0))):
        done = (terminated | truncated)[index]
        assert done.sum() > 5
        assert (states.position[index][done] == start).all()
        assert len(np.unique(states.direction[index][done])) > 1
    assert terminated[:2].any(1).all()
    assert not terminated[2].any()
    assert (rewards[2] == 0).all()


MAZE, MAZE_DEFAULTS = jaxpg_envs.make("Maze-v0", size=3, max_steps_in_episode=10)


@pytest.mark.parametrize("direction", VIEWS)
def test_the_maze_starts_as_its_level_says(direction):
    level = MazeLevel(LEVEL.layout == 1, LEVEL.goal, LEVEL.start, np.int32(direction))
    observation, state = MAZE.reset(KEY, MAZE_DEFAULTS.replace(level=level))
    seen = ["".join({"L": ".", "M": "."}.get(letter, letter) for letter in line) for line in VIEWS[direction]]
    assert drawn(observation, ".#G") == (seen, direction)
    assert int(state.direction) == direction


def test_default_levels_are_open_rooms():
    for env, params in ((ENV, DEFAULTS), (MAZE, MAZE_DEFAULTS)):
        assert params.level[0].shape == (3, 3)
        assert int(shortest_path(params.level)) == 4
        observation, space = env.reset(KEY, params)[0], env.observation_space(params)
        assert {name: part.shape for name, part in space.spaces.items()} == jax.tree.map(jnp.shape, observation)


@pytest.mark.parametrize("id", ["CaveEscape-v0", "Maze-v0"])
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"size": 1}, "size=1; a level has at least 2 cells on each side"),
        ({"max_steps_in_episode": 0}, r"max_steps_in_episode=0; it must lie in \[1, 2147483647\]"),
        ({"width": 3}, "unknown argument width; it takes size, max_steps_in_episode"),
    ],
)
def test_bad_input(id, kwargs, message):
    with pytest.raises(jaxpg_envs.EnvironmentInputError, match=f"{id}: {message}"):
        jaxpg_envs.make(id, **kwargs)
