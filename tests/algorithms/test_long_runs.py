"""Every family with its counters at their limits: it goes over them as it would from small counters of the same remainders."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checks import numbers, quick_jit
from environments import Cycle, Walk

import jaxpg
from jaxpg.counting import LARGE
from jaxpg.normalization import init_statistics, update_statistics
from jaxpg.on_policy import scale_by_learning_rate
from jaxpg.training import advance
from jaxpg_envs.cave_escape import cave_escape
from jaxpg_envs.point_omni import PointOmni

KEY = jax.random.key(0)
LIMIT = 2**31 - 4  # three more fit
WALK, CYCLE, POINT = Walk(), Cycle(3), PointOmni()
CYCLE_PARAMS, POINT_PARAMS = CYCLE.params([1.0, 0.0, -1.0], 4), POINT.default_params.replace(max_steps_in_episode=6)
CAVE, ONE = cave_escape(5, 12)
LEVELS = ONE.replace(level=jax.vmap(CAVE.sample_level)(jax.random.split(KEY, 6)))
REPLAY = {"num_envs": 2, "batch_size": 8, "hidden_sizes": (4,), "total_steps": 24, "learning_starts": 6, "buffer_size": 20}
ROLLOUT = {"num_envs": 4, "num_steps": 4, "hidden_sizes": (4,), "total_steps": 64, "num_minibatches": 2}
SEARCH = {"num_cells": 16, "num_offspring": 8, "hidden_sizes": (4,), "total_steps": 8 * 6 * 4}
CRITICS = {"critic_hidden_sizes": (4,), "critic_steps": 3, "policy_gradient_steps": 2, "batch_size": 8, "policy_delay": 2}
LEVEL = {"num_envs": 4, "num_steps": 4, "num_epochs": 1, "hidden_sizes": (4,), "memory": "none", "total_steps": 64}
FAMILIES = {
    "dqn": (CYCLE, CYCLE_PARAMS, REPLAY | {"target_period": 3, "target_ema_rate": 0.5, "epsilon_end": 0.0}),
    "dqn, prioritized": (CYCLE, CYCLE_PARAMS, REPLAY | {"prioritized": True, "n_step": 3}),
    "sac": (WALK, WALK.params(), REPLAY),
    "pmoe_sac": (WALK, WALK.params(), REPLAY | {"estimator": "gumbel"}),
    "td3": (WALK, WALK.params(), REPLAY | {"policy_delay": 3}),
    "pqn": (CYCLE, CYCLE_PARAMS, ROLLOUT | {"anneal_learning_rate": False}),
    "ppo": (WALK, WALK.params(), ROLLOUT | {"anneal_learning_rate": False}),
    "ppo, annealed": (WALK, WALK.params(), ROLLOUT),
    "map_elites": (POINT, POINT_PARAMS, SEARCH),
    "me_es": (POINT, POINT_PARAMS, SEARCH | {"num_offspring": 9, "generations_per_elite": 3}),
    "pga_map_elites": (POINT, POINT_PARAMS, SEARCH | CRITICS),
    "plr": (CAVE, LEVELS, LEVEL | {"staleness_coefficient": 1.0}),
    "sfl": (CAVE, LEVELS, LEVEL | {"total_steps": 128, "buffer_size": 4, "period": 3, "copies": 2, "levels": "dataset"}),
}
COUNTERS = ("updates", "gradient_steps", "steps", "count")


def last_name(path):
    return [part.name for part in path if hasattr(part, "name")][-1]


def is_counter(path, leaf):
    return last_name(path) in COUNTERS and leaf.dtype == jnp.int32 and leaf.ndim == 0


def at(count, state):
    """The state with all its counters at `count`, and levels played as long ago as they were."""
    shift = count - int(state.updates) if hasattr(state, "updates") else 0

    def move(path, leaf):
        if last_name(path) == "last_sampled":
            return leaf + jnp.int32(shift)
        return jnp.int32(count) if is_counter(path, leaf) else leaf

    return jax.tree_util.tree_map_with_path(move, state)


def without_counters(tree):
    def clear(path, leaf):
        return np.zeros(()) if is_counter(path, leaf) or last_name(path) == "last_sampled" else leaf

    return jax.tree_util.tree_map_with_path(clear, numbers(tree))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_run_goes_over_the_limit_of_its_counters(name):
    env, params, fields = FAMILIES[name]
    algorithm = jaxpg.make(name.split(",")[0], env, params, **fields)
    run = quick_jit(lambda state: jax.lax.scan(lambda state, _: algorithm.update(state), state, None, 7))
    state, _ = run(quick_jit(algorithm.init)(KEY))
    memory = getattr(state, "buffer", getattr(getattr(state, "emitter", ()), "memory", None))
    rows = 1 if memory is None else len(jax.tree.leaves(memory)[0])
    # Of all that counts are divided by: rows of the ring, periods, means that novelty remembers.
    period = math.lcm(rows, 1000, 6)
    small = 100 * period + LIMIT % period
    before, expected = run(at(small, state))
    after, metrics = run(at(LIMIT, state))
    jax.tree.map(np.testing.assert_array_equal, without_counters(after), without_counters(before))
    jax.tree.map(np.testing.assert_array_equal, metrics, expected)
    if name.startswith("dqn"):
        assert metrics["q_loss"].min() > 0, "it learns"
    if hasattr(state, "updates"):
        assert 0 < after.updates < LIMIT, "it went over the limit"


# --- Runs of 10^12 steps ------------------------------------------------------------------------------------------------


def at_update(count):
    return jnp.array(divmod(count, LARGE), jnp.int32)


def test_exploration_falls_over_the_whole_of_a_very_long_run():
    algorithm = jaxpg.make("pqn", CYCLE, CYCLE_PARAMS, **ROLLOUT | {"total_steps": 10**12, "exploration_fraction": 1.0})
    state, update = quick_jit(algorithm.init)(KEY), quick_jit(algorithm.update)
    for share in (0.0, 0.25, 0.5, 1.0):
        count = round(share * algorithm.num_updates)
        new, metrics = update(state._replace(updates=at_update(count)))
        np.testing.assert_allclose(metrics["epsilon"], 1.0 - 0.8 * share, rtol=1e-5)
        assert int(new.updates[0]) * LARGE + int(new.updates[1]) == count + 1


def test_q_learning_goes_on_late_in_a_very_long_run():
    """With its default of ten environments: far past 2^31 steps and updates it acts greedily, and learns."""
    algorithm = jaxpg.make(
        "dqn", CYCLE, CYCLE_PARAMS, total_steps=10**12, buffer_size=200, hidden_sizes=(4,), epsilon_end=0.0, learning_starts=20
    )
    state, metrics = quick_jit(lambda key: advance(algorithm.update, algorithm.init(key), 4))(KEY)
    assert metrics["q_loss"] > 0
    late = state._replace(updates=at_update(9 * 10**10))
    after, metrics = quick_jit(algorithm.update)(late)
    assert metrics["q_loss"] > 0
    actions = after.buffer.steps.action[4]
    best = quick_jit(lambda s, o: jax.vmap(lambda o: algorithm.policy(s).act(algorithm.policy(s).params, KEY, o, ())[0])(o))
    np.testing.assert_array_equal(actions, best(state, state.rollout.observation))


def annealed(annealing_fraction=1.0, learning_rate_end=0.0, **fields):
    """A configuration of 20 steps per update."""
    schedule = {"annealing_fraction": annealing_fraction, "learning_rate_end": learning_rate_end}
    return SimpleNamespace(anneal_learning_rate=True, num_envs=4, num_steps=5, **schedule, **fields)


def test_the_learning_rate_falls_over_the_whole_of_a_very_long_run():
    config = annealed(learning_rate=2.0, total_steps=10**12)
    part = scale_by_learning_rate(config, 8)
    gradient_steps = 10**12 // 20 * 8
    for share in (0.0, 0.25, 0.999, 1.0, 1.5):
        state = optax.ScaleByScheduleState(at_update(round(share * gradient_steps)))
        change, state = part.update(jnp.ones(2), state)
        np.testing.assert_allclose(change, -2.0 * max(1.0 - share, 0.0), rtol=1e-4)
        assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, part.init(jnp.ones(2)))


def test_the_learning_rate_of_an_ordinary_run_changes_with_each_update():
    config = annealed(learning_rate=0.5, total_steps=80)
    part, rates = scale_by_learning_rate(config, 2), []
    state = part.init(jnp.ones(1))
    for _ in range(10):
        change, state = part.update(jnp.ones(1), state)
        rates.append(-float(change[0]))
    np.testing.assert_allclose(rates, 0.5 * np.array([1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0, 0]))
    for count in (2**31 - 2, 2**31 - 1, LARGE):
        change, state = part.update(jnp.ones(1), optax.ScaleByScheduleState(jnp.int32(count)))
        assert change == 0
        assert state.count > 0


def test_the_learning_rate_falls_to_its_end_over_a_part_of_the_run():
    """From 0.5 to 0.2 in two of four updates."""
    part = scale_by_learning_rate(annealed(0.5, 0.2, learning_rate=0.5, total_steps=80), 2)
    at = lambda count: -float(part.update(jnp.ones(1), optax.ScaleByScheduleState(jnp.int32(count)))[0][0])
    np.testing.assert_allclose([at(count) for count in range(10)], [0.5, 0.5, 0.35, 0.35, *[0.2] * 6], rtol=1e-6)
    at_once = scale_by_learning_rate(annealed(0.0, 0.2, learning_rate=0.5, total_steps=80), 2)
    rates = [-float(at_once.update(jnp.ones(1), optax.ScaleByScheduleState(jnp.int32(x)))[0][0]) for x in (0, 2, 7)]
    np.testing.assert_allclose(rates, [0.5, 0.2, 0.2], rtol=1e-6)


# --- Sums in float32 ----------------------------------------------------------------------------------------------------


def test_statistics_of_a_very_long_run_neither_freeze_nor_grow():
    """Ones of both signs, one in each batch: mean 0, variance 1. The sum 2^24 + 1 is none in float32."""
    start = init_statistics()._replace(count=jnp.float32(2**24))

    def see(statistics, i):
        return update_statistics(statistics, jnp.where(i % 2 == 0, 1.0, -1.0)[None]), None

    run = jax.jit(lambda statistics: jax.lax.scan(see, statistics, jnp.arange(3 * 2**20))[0])
    statistics = run(start)
    np.testing.assert_allclose(statistics.mean, 0.0, atol=1e-3)
    np.testing.assert_allclose(statistics.variance, 1.0, rtol=0.02)
    moved = run(start._replace(mean=jnp.float32(3.0), variance=jnp.float32(9.0)))
    assert abs(moved.mean) < 0.5, "what lies three times as far back as it remembers counts for little"


@pytest.mark.parametrize("count", [1e3, 2.0**31, 1e12])
def test_the_weights_of_a_merge_sum_to_1(count):
    statistics = init_statistics((2,))._replace(count=jnp.float32(count), variance=jnp.full(2, 2.0))
    batch = jnp.sqrt(2.0) * jnp.where(jnp.arange(128) % 2 == 0, 1.0, -1.0)[:, None] * jnp.ones(2)  # of variance 2
    statistics, _ = jax.jit(lambda s: jax.lax.scan(lambda s, _: (update_statistics(s, batch), None), s, None, 200_000))(
        statistics
    )
    np.testing.assert_allclose(statistics.variance, 2.0, rtol=0.02)
    assert np.isfinite(statistics.count)


def test_episodes_and_means_of_more_updates_than_float32_counts():
    """At 2^24 a sum of ones stands still."""
    number = 2**24 + 5_000

    def update(state):
        return state + 1, {"episodes": jnp.float32(1), "episode_return": jnp.float32(2), "loss": jnp.float32(0.5)}

    state, metrics = jax.jit(lambda n: advance(update, jnp.int32(0), n))(number)
    assert state == number
    assert metrics["episodes"] == number
    np.testing.assert_allclose(metrics["episode_return"], 2.0)
    np.testing.assert_allclose(metrics["loss"], 0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_mean_says_what_went_wrong(value):
    update = lambda state: (state + 1, {"episodes": jnp.float32(0), "loss": jnp.where(state == 1, value, 1.0)})
    _, metrics = quick_jit(lambda: advance(update, jnp.int32(0), 4))()
    np.testing.assert_equal(float(metrics["loss"]), value)
