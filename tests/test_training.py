"""Runs as scans: in pieces or in one, over seeds, hyperparameters and environment params, traced and compiled once."""

import inspect
from functools import partial

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_close, assert_same, quick_jit, row
from environments import Cycle, Walk

import jaxpg
from jaxpg.algorithm import Algorithm, fields, lookup, still_read
from jaxpg.training import advance

TINY = {"num_envs": 2, "num_steps": 4, "num_epochs": 2, "num_minibatches": 2, "hidden_sizes": (4,), "total_steps": 64}
CYCLE, WALK = Cycle(), Walk()
COMPILATIONS = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, duration, **_: COMPILATIONS.append(name) if name.endswith("backend_compile_duration") else None
)


# --- Pieces and their metrics, with an update whose numbers are known --------------------------------------------------

EPISODES = jnp.array([0.0, 1.0, 2.0, 0.0, 1.0])
RETURNS = jnp.array([jnp.nan, 10.0, 20.0, jnp.nan, 40.0])


def counting(state):
    return state + 1, {"loss": 2.0 * state, "episodes": EPISODES[state], "episode_return": RETURNS[state]}


def test_metrics_of_a_piece_are_averaged_over_updates_and_episodes():
    pieces = quick_jit(partial(advance, counting))
    state, metrics = pieces(0, 5)
    assert state == 5
    expected = {"loss": 4.0, "episodes": 4.0, "episode_return": (10 + 2 * 20 + 40) / 4}
    assert_close(metrics, jax.tree.map(np.float32, expected))
    state, metrics = pieces(1, 2)
    assert_close(metrics, jax.tree.map(np.float32, {"loss": 3.0, "episodes": 3.0, "episode_return": 50 / 3}))
    _, metrics = pieces(3, 1)
    assert metrics["loss"] == 6.0
    assert metrics["episodes"] == 0.0
    assert np.isnan(metrics["episode_return"])
    assert pieces._cache_size() == 1  # whatever the number of updates


def algorithm_of(update, num_updates=3):
    return Algorithm(lambda key: jnp.int32(0), update, lambda state: state, None, 1, num_updates)


def test_training_stacks_the_metrics_of_every_update():
    state, metrics = jaxpg.train(algorithm_of(counting), jax.random.key(0))
    assert state == 3
    assert_same(metrics, {"loss": np.array([0.0, 2, 4]), "episodes": EPISODES[:3], "episode_return": RETURNS[:3]})
    assert jaxpg.train(algorithm_of(counting), jax.random.key(0), 5)[1]["loss"].shape == (5,)


def test_data_is_an_argument_and_no_constant():
    traces = []

    def update(state, data):
        traces.append(1)
        return state + data["x"].sum(), {"x": data["x"][0]}

    algorithm = algorithm_of(update)
    for data in ({"x": jnp.array([1, 2])}, {"x": jnp.array([10, 20])}):
        state, metrics = jaxpg.train(algorithm, jax.random.key(0), data=data)
        assert state == 3 * data["x"].sum()
        np.testing.assert_array_equal(metrics["x"], [data["x"][0]] * 3)
    assert len(traces) == 1


@pytest.mark.parametrize("number", [0, -1, 2.5, "many"])
def test_the_number_of_updates_is_positive(number):
    with pytest.raises(jaxpg.InputError, match=r"num_updates must be (at least 1|a whole number), got"):
        inspect.unwrap(jaxpg.train)(algorithm_of(counting), jax.random.key(0), number)


# --- PPO in pieces -----------------------------------------------------------------------------------------------------


def test_a_run_in_pieces_is_the_run_to_the_bit_and_traces_once():
    """Compiled as users compile it: without optimisations, equal bits would prove little."""
    env = Cycle()
    algorithm = jaxpg.make("ppo", env, env.params([1.0, 3.0], 3), **TINY)
    env.traces = 0  # `make` has looked at the interface
    pieces = jax.jit(partial(advance, algorithm.update))
    start = algorithm.init(jax.random.key(7))
    whole, averages = pieces(start, 5)
    middle, _ = pieces(start, 3)
    assert_same(pieces(middle, 2)[0], whole)
    assert env.traces == 1

    state, metrics = jaxpg.train(algorithm, jax.random.key(7), 5)
    assert_same(state, whole)
    assert_close(averages["policy_loss"], metrics["policy_loss"].mean(), atol=1e-6)
    assert averages["episodes"] == metrics["episodes"].sum() == 2 * (4 * 5 // 3)
    jaxpg.train(algorithm, jax.random.key(8), 5)
    algorithm.update.lower(start)
    assert env.traces == 1


# --- Sweeps ------------------------------------------------------------------------------------------------------------


def test_a_sweep_is_a_vmap_with_one_trace_and_one_compilation():
    env, algorithms = Cycle(), []
    params = env.params([1.0, 3.0], 3)
    learning_rates, keys = jnp.logspace(-4, -1, 16), jax.random.split(jax.random.key(0), 4)

    def run(lr, key):
        algorithms.append("made")
        return jaxpg.train(jaxpg.make("ppo", env, params, learning_rate=lr, **TINY), key, num_updates=2)

    sweep = quick_jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))
    others = jax.block_until_ready(learning_rates + 0.1)
    before = len(COMPILATIONS)
    states, metrics = jax.block_until_ready(sweep(learning_rates, keys))
    assert len(COMPILATIONS) - before == 1
    assert (env.traces, len(algorithms), sweep._cache_size()) == (2, 1, 1)  # `make` has looked at the interface
    sweep(others, keys)
    assert (env.traces, len(algorithms), len(COMPILATIONS) - before) == (2, 1, 1)

    assert metrics["policy_loss"].shape == (16, 4, 2)
    single = quick_jit(run)
    for i, j in np.ndindex(16, 4):
        state, of_run = single(learning_rates[i], keys[j])
        assert_close(row(states, i, j), state, rtol=1e-3, atol=1e-4)
        assert_close(row(metrics, i, j), of_run, rtol=1e-2, atol=1e-3)
    for leaf in jax.tree.leaves(states.learner.params):
        apart = np.asarray(leaf).reshape(64, -1)
        assert len(np.unique(apart, axis=0)) > 1  # learning rates and seeds make a difference


@pytest.mark.parametrize(("name", "env"), [("ppo", CYCLE), ("pmoe_ppo", WALK)])
def test_every_hyperparameter_can_be_swept_and_matters(name, env):
    """One row per hyperparameter, in which it alone differs from the baseline."""
    params = env.params([1.0, 3.0], 3) if env is CYCLE else env.params()
    sizes = TINY | {"surrogate": "clip"} if name == "ppo" else TINY | {"surrogate": "kl", "num_experts": 2}
    baseline = {field.name: field.default for field in fields(lookup(name).config_class) if field.is_leaf}
    baseline = still_read(name, sizes | baseline)
    baseline = {field: value for field, value in baseline.items() if field not in sizes}
    baseline |= {"entropy_coefficient": 0.01, "learning_rate": 0.01, "learning_rate_end": 0.005, "clip_epsilon": 0.01}
    table = {field: jnp.full(len(baseline) + 1, value) for field, value in baseline.items()}
    for i, field in enumerate(baseline):
        table[field] = table[field].at[i + 1].multiply(0.7)

    def run(hyperparameters, key):
        algorithm = jaxpg.make(name, env, params, **hyperparameters, **sizes)
        return jaxpg.train(algorithm, key, 2)[0].learner.params

    key = jax.random.key(3)
    swept = quick_jit(jax.vmap(run, (0, None)))(table, key)
    single = quick_jit(run)
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    for i, field in enumerate(["none", *baseline]):
        alone = single(row(table, i), key)
        assert_close(row(swept, i), alone, rtol=1e-3, atol=1e-4)
        changed = np.abs(flat(row(swept, i)) - flat(row(swept, 0))).max()
        assert (changed > 1e-6) == (field != "none"), field


def test_a_population_of_environments_is_a_vmap_over_params():
    rewards = jnp.array([[1.0, 3.0], [-5.0, 2.0]])

    def run(rewards):
        algorithm = jaxpg.make("ppo", CYCLE, CYCLE.params(rewards, 4), **TINY)
        return jaxpg.train(algorithm, jax.random.key(0), 1)[1]["episode_return"]

    np.testing.assert_allclose(quick_jit(jax.vmap(run))(rewards)[:, 0], [8.0, -6.0])
