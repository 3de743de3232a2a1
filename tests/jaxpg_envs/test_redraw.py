"""Parameters that are drawn for every episode, against a Python loop over environments and steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_close, assert_same, quick_jit, row
from environments import Walk

import jaxpg
from jaxpg.rollout import init_rollout, rollout
from jaxpg_envs.grid_world import GridWorld
from jaxpg_envs.maze import maze
from jaxpg_envs.redraw import Redrawn

KEY = jax.random.key(0)
NUM_ENVS, NUM_STEPS = 3, 40


class Windy(Walk):
    """Begins where the wind has carried it."""

    def start(self, key, params):
        return {**super().start(key, params), "position": params["wind"] + 0.1 * jax.random.normal(key, (2,))}


WALK = Windy()
MAZE, ONE = maze(4, 6)


class Drawn(NamedTuple):
    """The number of the episode and the index of what was drawn for it."""

    number: jax.Array
    index: jax.Array


def draw(key, source, params, last):
    """A row of the source; the first one is the environment's `first`."""
    index = source["first"] if last is None else jax.random.randint(key, (), 0, 4)
    params = jax.tree.map(lambda x: x[index], source["rows"])
    return params, Drawn(jnp.int32(0) if last is None else last.number + 1, index)


ROWS = jax.vmap(lambda limit, time: WALK.params(9.0, time, 0.1 * limit))(jnp.arange(4.0), jnp.array([2, 3, 4, 5]))
MAZES = jax.vmap(lambda key, time: ONE.replace(level=MAZE.sample_level(key), max_steps_in_episode=time))(
    jax.random.split(KEY, 4), 3 + jnp.arange(4)
)
CASES = {
    "step alone": (WALK, ROWS, lambda key: 0.2 * jax.random.normal(key, (NUM_ENVS, 2))),
    "step_env": (MAZE, MAZES, lambda key: jax.random.randint(key, (NUM_ENVS,), 0, 3)),
}
AXES = {"first": 0, "rows": None}


def source_of(rows):
    return {"first": jnp.array([3, 0, 1], jnp.int32), "rows": rows}


def play(env, source, act, key, num_steps=NUM_STEPS):
    reset_key, key = jax.random.split(key)
    start = init_rollout(reset_key, env, source, NUM_ENVS, AXES)
    return rollout(key, lambda key, observation, carry: (act(key), (), ()), env, source, start, num_steps, AXES)


@pytest.mark.parametrize("case", CASES)
def test_a_rollout_is_the_loop_in_which_each_episode_has_its_own_parameters(case):
    """The loop resets and steps the bare environment with the parameters that the context names."""
    bare, rows, act = CASES[case]
    env, source = Redrawn(bare, draw), source_of(rows)
    reset_key, key = jax.random.split(KEY)
    start, (end, t) = quick_jit(lambda: (init_rollout(reset_key, env, source, NUM_ENVS, AXES), play(env, source, act, KEY)))()
    start, t, all_keys = jax.device_get((start, t, jax.random.key_data(jax.random.split(key, (NUM_STEPS, 1 + NUM_ENVS)))))
    method = "step_env" if case == "step_env" else "step"
    step, reset = quick_jit(getattr(bare, method)), quick_jit(bare.reset)
    for i in range(NUM_ENVS):
        observation, state = row(start.observation, i), row(start.env_state.env_state, i)
        index, number = int(source["first"][i]), 0
        for time in range(NUM_STEPS):
            now = row(t, time, i)
            assert (int(now.context.number), int(now.context.index)) == (number, index)
            assert_close(now.observation, observation)
            draw_key, rest = jax.random.split(jax.random.wrap_key_data(all_keys[time, 1 + i]))
            step_key, reset_key = jax.random.split(rest)
            result = step(step_key, state, now.action, row(rows, index))
            final = result[5]["final_observation"] if method == "step" else result[0]
            assert_close(now.next_observation, final)  # of the old episode, also where it ended
            assert_close(now.reward, result[2])
            observation, state = result[0], result[1]
            if now.terminated or now.truncated:
                index, number = int(jax.random.randint(draw_key, (), 0, 4)), number + 1
                observation, state = reset(reset_key, row(rows, index))
        assert number >= 5
        assert_close(row(end.observation, i), observation)
        assert_close(row(end.env_state.env_state, i), state)
        assert_same(row(end.env_state.params, i), row(rows, index))


def test_what_is_drawn_has_its_probability_and_is_drawn_at_ends_alone():
    env = Redrawn(WALK, draw)
    _, t = quick_jit(lambda: play(env, source_of(ROWS), CASES["step alone"][2], KEY, 2000))()
    number, index, done = (np.asarray(x) for x in (t.context.number, t.context.index, t.done))
    np.testing.assert_array_equal(np.diff(number, axis=0), done[:-1])
    assert (np.diff(index, axis=0)[~done[:-1]] == 0).all()
    drawn = index[1:][done[:-1]]
    np.testing.assert_allclose(np.bincount(drawn) / drawn.size, [0.25] * 4, atol=0.05)


def test_two_rollouts_are_one_and_seeds_side_by_side_are_the_seeds_alone():
    env, source = Redrawn(MAZE, draw), source_of(MAZES)
    act = lambda key, observation, carry: (jax.random.randint(key, (NUM_ENVS,), 0, 3), (), ())
    advance = lambda state, key: rollout(key, act, env, source, state, 8, AXES)
    begin = lambda key: init_rollout(key, env, source, NUM_ENVS, AXES)
    keys = jax.random.split(KEY, 2)
    both = quick_jit(jax.vmap(lambda key: advance(advance(begin(key), key)[0], jax.random.fold_in(key, 1))))(keys)
    middle = quick_jit(lambda key: advance(begin(key), key)[0])
    alone = quick_jit(advance)
    for index, key in enumerate(keys):
        assert_same(row(both, index), alone(jax.device_get(middle(key)), jax.random.fold_in(key, 1)))


def test_no_reset_is_computed_twice_and_sources_are_not_copied():
    """Where the environment has its parts; what is copied for every row are the parameters of one episode."""
    source = {
        "first": jnp.zeros(NUM_ENVS, jnp.int32),
        "rows": jax.tree.map(lambda x: jnp.repeat(x, 999, 0), MAZES),
    }
    resets = []

    class Counting(GridWorld):
        def reset_env(self, key, params):
            resets.append(params)
            return super().reset_env(key, params)

    counting = Counting.__new__(Counting)
    counting.__dict__.update(MAZE.__dict__)
    env = Redrawn(counting, draw)
    step = jax.vmap(env.step, in_axes=(0, 0, 0, AXES))
    states = jax.eval_shape(lambda: init_rollout(KEY, env, source, NUM_ENVS, AXES).env_state)
    resets.clear()
    arguments = jax.eval_shape(lambda: jax.random.split(KEY, NUM_ENVS)), states, jax.ShapeDtypeStruct((NUM_ENVS,), jnp.int32)
    program = jax.make_jaxpr(step)(*arguments, source)
    assert {x.level.walls.shape for x in resets} == {(4, 4)}
    largest = max(v.aval.size for equation in all_equations(program.jaxpr) for v in equation.outvars)
    assert largest < source["rows"].level.walls.size


def all_equations(jaxpr):
    for equation in jaxpr.eqns:
        inner = [getattr(x, "jaxpr", x) for x in jax.tree.leaves(list(equation.params.values())) if hasattr(x, "jaxpr")]
        if not inner:
            yield equation
        for sub in inner:
            yield from all_equations(sub)


def test_physics_drawn_around_given_ones_train_an_algorithm():
    """The source is what one calls parameters; Python numbers that a draw returns become arrays."""
    windy = Redrawn(WALK, lambda key, params, *_: ({**params, "wind": jax.random.normal(key), "time_limit": 3}, ()))
    algorithm = jaxpg.make("a2c", windy, WALK.params(), num_envs=4, num_steps=8, hidden_sizes=(4,), total_steps=320)
    start = quick_jit(algorithm.init)(KEY)
    state, metrics = quick_jit(algorithm.update)(start)
    assert windy.name == "Windy"
    before, after = start.rollout.env_state.params, state.rollout.env_state.params
    assert len(set(np.asarray(before["wind"]).tolist())) == 4
    assert not set(np.asarray(before["wind"]).tolist()) & set(np.asarray(after["wind"]).tolist())
    assert metrics["episode_length"] <= 3
