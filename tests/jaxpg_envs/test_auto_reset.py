"""`reset_where_done` against its definition, `where(done, reset(key, params), stepped)`, row by row."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpg_envs import auto_reset
from jaxpg_envs.auto_reset import reset_where_done


def reset(key, params):
    """A start with what states hold: floats, a clock, a flag, a key; exact, and cheap to compile."""
    noise = (jax.random.key_data(key) % 100).astype(jnp.float32)
    return {
        "position": params["mean"] + params["scale"] * noise,
        "time": jnp.int32(0),
        "flag": noise[0] > 50,
        "key": key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key),
    }


def stepped_states(shape):
    positions = 100.0 + jnp.arange(np.prod(shape) * 2, dtype=jnp.float32).reshape(*shape, 2)
    return {
        "position": positions,
        "time": jnp.full(shape, 7, jnp.int32),
        "flag": jnp.ones(shape, bool),
        "key": jax.random.split(jax.random.key(9), shape),
    }


def naive(reset, done, key, params, stepped):
    return jax.tree.map(lambda new, old: jnp.where(done, new, old), reset(key, params), stepped)


def plain(tree):
    """Keys as their numbers, so that numpy can compare."""
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf), tree)


def assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, plain(actual), plain(expected))


PARAMS = {"mean": jnp.float32(2.0), "scale": jnp.float32(0.5)}


@pytest.mark.parametrize("done", [False, True])
def test_one_environment(done):
    arguments = jnp.array(done), jax.random.key(3), PARAMS, stepped_states(())
    actual = jax.jit(lambda *a: reset_where_done(reset, *a))(*arguments)
    assert_same(actual, naive(reset, *arguments))


def over_environments(select):
    return jax.jit(jax.vmap(lambda *a: select(reset, *a), in_axes=(0, 0, None, 0)))


@pytest.mark.parametrize("raw_keys", [False, True])
@pytest.mark.parametrize("size", [1, 5, 100])
def test_batch(size, raw_keys):
    keys = jax.random.split(jax.random.key(2), size)
    keys = jax.random.key_data(keys) if raw_keys else keys
    actual, expected = over_environments(reset_where_done), over_environments(naive)
    for probability in (0.0, 0.03, 0.5, 1.0):
        done = jax.random.bernoulli(jax.random.key(1), probability, (size,))
        arguments = done, keys, PARAMS, stepped_states((size,))
        assert_same(actual(*arguments), expected(*arguments))


SEEDS, ENVS, TASKS = 3, 20, 2


@pytest.mark.parametrize(
    ("mean_axes", "scale_axes"),
    [("", "e"), ("s", ""), ("ts", "te"), ("t", "tse")],
)
def test_nested_vmap(mean_axes, scale_axes):
    """Tasks over seeds over environments, each parameter batched over the levels that its letters name."""
    sizes = {"t": TASKS, "s": SEEDS, "e": ENVS}
    draw = lambda key, axes: jax.random.randint(jax.random.key(key), tuple(sizes[a] for a in axes), -8, 8).astype(jnp.float32)
    params = {"mean": draw(5, mean_axes), "scale": draw(6, scale_axes)}
    shape = (TASKS, SEEDS, ENVS)
    done = jax.random.bernoulli(jax.random.key(1), 0.3, shape)
    keys = jax.random.split(jax.random.key(2), shape)

    def batched(select):
        function = lambda *a: select(reset, *a)
        for level in "est":
            params_axes = {name: 0 if level in axes else None for name, axes in (("mean", mean_axes), ("scale", scale_axes))}
            function = jax.vmap(function, in_axes=(0, 0, params_axes, 0))
        return jax.jit(function)

    arguments = done, keys, params, stepped_states(shape)
    assert_same(batched(reset_where_done)(*arguments), batched(naive)(*arguments))


def test_only_done_is_batched():
    done = jnp.array([True, False, True])
    one = jax.random.key(0), PARAMS, stepped_states(())
    actual = jax.vmap(lambda d: reset_where_done(reset, d, *one))(done)
    assert_same(actual, jax.vmap(lambda d: naive(reset, d, *one))(done))


def test_resets_only_what_is_done():
    """What it is for: the number of chunks that are reset follows the number of rows that are done."""
    chunks = []

    def counted(key, params):
        jax.debug.callback(lambda: chunks.append(1))  # nothing in it is batched: once per chunk
        return reset(key, params)

    size = 4 * auto_reset.CHUNKS
    step = jax.jit(jax.vmap(lambda *a: reset_where_done(counted, *a), in_axes=(0, 0, None, 0)))
    keys = jax.random.split(jax.random.key(2), size)
    for ended, expected in [(0, 0), (1, 1), (4, 1), (5, 2), (size, auto_reset.CHUNKS)]:
        chunks.clear()
        jax.block_until_ready(step(jnp.arange(size) < ended, keys, PARAMS, stepped_states((size,))))
        jax.effects_barrier()
        assert len(chunks) == expected


def walk(select, params, key, weight):
    """20 steps of 8 walkers whose drift a policy chooses; the loss is that of a score-function gradient."""

    def step(carry, key):
        state = carry
        noise = jax.vmap(lambda k: jax.random.normal(k, (2,)))(jax.random.split(key, 8))
        action = state["position"] @ weight + noise  # depends on the weight: the environment must cut it
        log_prob = -0.5 * ((jax.lax.stop_gradient(action) - state["position"] @ weight) ** 2).sum(-1)
        position = jax.lax.stop_gradient(state["position"] + 0.3 * action)
        time = state["time"] + 1
        stepped = {**state, "position": position, "time": time}
        done = (jnp.abs(position).max(-1) > 3.0) | (time >= 6)
        after = over_environments(select)(done, jax.random.split(key, 8), params, stepped)
        return after, (log_prob * -jnp.abs(position).sum(-1), done)

    start = jax.vmap(reset, in_axes=(0, None))(jax.random.split(key, 8), params)
    _, (losses, done) = jax.lax.scan(step, start, jax.random.split(key, 20))
    return losses.mean(), done


def test_gradient_through_a_rollout():
    params = {"mean": jnp.float32(0.0), "scale": jnp.float32(0.01)}
    weight = 0.1 * jnp.eye(2)
    gradient = lambda select: jax.jit(jax.value_and_grad(lambda w: walk(select, params, jax.random.key(4), w), has_aux=True))(
        weight
    )
    (value, done), slope = gradient(reset_where_done)
    (expected_value, _), expected_slope = gradient(naive)
    assert 8 < done.sum() < 160
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-4, atol=1e-5)
    assert jnp.abs(slope).max() > 0


def test_gradient_flows_through_the_step_and_stops_at_a_fresh_start():
    def total(x, scale):
        done = jnp.array([False, True])
        stepped = {**stepped_states((2,)), "position": x}
        after = jax.vmap(lambda d, k, s: reset_where_done(reset, d, k, {"mean": 0.0, "scale": scale}, s))(
            done, jax.random.split(jax.random.key(0), 2), stepped
        )
        return (after["position"] ** 2).sum()

    x = jnp.arange(4.0).reshape(2, 2)
    by_x, by_scale = jax.grad(total, argnums=(0, 1))(x, 0.5)
    np.testing.assert_allclose(by_x, [[0, 2], [0, 0]])
    assert by_scale == 0


def test_on_two_devices():
    """Seeds on two devices by `shard_map`; a process of its own, as the device count is fixed at start."""
    program = """
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import PartitionSpec as P
        from jaxpg_envs import auto_reset
        from test_auto_reset import PARAMS, assert_same, naive, reset, reset_where_done, stepped_states

        def step(select, done, key, params, stepped):
            one = lambda *a: select(reset, *a)
            return jax.vmap(jax.vmap(one, in_axes=(0, 0, None, 0)), in_axes=(0, 0, None, 0))(
                done, key, params, stepped)

        shape = (4, 20)
        done = jax.random.bernoulli(jax.random.key(1), 0.2, shape).at[:2].set(False)
        arguments = done, jax.random.split(jax.random.key(2), shape), PARAMS, stepped_states(shape)
        mesh = jax.make_mesh((2,), ("seed",), axis_types=(jax.sharding.AxisType.Auto,))
        assert mesh.size == 2
        expected = step(naive, *arguments)
        for check_vma in (True, False):
            sharded = jax.jit(jax.shard_map(lambda *a: step(reset_where_done, *a), mesh=mesh,
                in_specs=(P("seed"), P("seed"), P(), P("seed")), out_specs=P("seed"), check_vma=check_vma))
            assert_same(sharded(*arguments), expected)

        def rollout(select, key):
            # The clock starts as a constant: equal on all devices, unlike the keys.
            def tick(carry, key):
                time, total = carry
                done = jax.random.bernoulli(key, 0.3, (20,))
                fresh = lambda key, params: (jnp.int32(0), jax.random.uniform(key))
                after = jax.vmap(lambda *a: select(fresh, *a), in_axes=(0, 0, None, 0))(
                    done, jax.random.split(key, 20), None, (time + 1, total + 1.0))
                return after, after[0]
            start = auto_reset.vary_alike((jnp.zeros(20, jnp.int32), jnp.zeros(20), key))[:2]
            return jax.lax.scan(tick, start, jax.random.split(key, 10))

        keys = jax.random.split(jax.random.key(3), 4)
        sharded = jax.jit(jax.shard_map(jax.vmap(lambda k: rollout(reset_where_done, k)), mesh=mesh,
            in_specs=P("seed"), out_specs=P("seed")))
        assert_same(sharded(keys), jax.jit(jax.vmap(lambda k: rollout(naive, k)))(keys))
        print("equal")
    """
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)]),
    }
    finished = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=environment, capture_output=True, text=True)
    assert "equal" in finished.stdout, finished.stderr
