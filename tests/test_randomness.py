"""Random bits: the published test vectors, and that it is this program that JAX's random functions run if they are told to."""

import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpg.randomness import threefry_2x32

# Of Threefry-2x32 with 20 rounds, from Random123's known-answer tests: counter, key, output.
KNOWN = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_published_vectors(counter: tuple[int, int], key: tuple[int, int], expected: tuple[int, int]) -> None:
    words = [jnp.uint32(word) for word in (*key, *counter)]
    assert tuple(int(word) for word in threefry_2x32(*words)) == expected


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other backends keep JAX's own lowering")
@pytest.mark.parametrize(
    ("program", "is_ours"),
    [
        ("import jaxpg.experiment.run, jaxpg_envs; jaxpg.make('ppo', *jaxpg_envs.make('CartPole-v1'))", False),
        ("import jaxpg.randomness; jaxpg.randomness.use_fast_random_bits()", True),
        ("import jaxpg.experiment; jaxpg.experiment.use_cpu_devices(1)", True),
    ],
)
def test_jaxs_own_lowering_stays_until_it_is_told(program: str, is_ours: bool) -> None:
    """Others' programs in the same process are not changed by an import."""
    program += "; import jax; print('while' not in jax.jit(jax.random.bits).lower(jax.random.key(0)).as_text())"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.splitlines()[-1] == str(is_ours)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other backends keep JAX's own lowering")
def test_jax_random_runs_it() -> None:
    lowered = jax.jit(jax.random.bits).lower(jax.random.key(0)).as_text()
    assert "while" not in lowered
    assert lowered.count("optimization_barrier") == 1


def test_a_chain_of_keys_compiles_in_time() -> None:
    """Without the barrier, XLA of JAX 0.11 does not end here."""

    def chain(key: jax.Array) -> jax.Array:
        total = jnp.float32(0)
        for _ in range(10):
            key, *keys = jax.random.split(key, 3)
            total += jax.random.normal(keys[0]) * jax.random.uniform(keys[1])
        return total

    started = time.perf_counter()
    jax.jit(chain).lower(jax.random.key(0)).compile()
    assert time.perf_counter() - started < 60


def test_bits_are_jaxs() -> None:
    # Drawn with JAX's own lowering: `jax.random.bits(jax.random.key(7), (3,))` and the first of `split(key, 2)`.
    key = jax.random.key(7)
    np.testing.assert_array_equal(jax.random.bits(key, (3,)), [2895194379, 4185947648, 1300703658])
    np.testing.assert_array_equal(jax.random.key_data(jax.random.split(key, 2)[0]), [3625411723, 1954958720])
    rows = jax.vmap(lambda key: jax.random.bits(key, (3,)))(jax.random.split(key, 4))
    np.testing.assert_array_equal(rows, jnp.stack([jax.random.bits(key, (3,)) for key in jax.random.split(key, 4)]))
