"""The flags by which people look for mistakes change nothing that they should not: each in a process of its own.

Of each, a few algorithms; `make test-flags` runs every algorithm under all three.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Lifetimes

import jaxpg
from jaxpg.algorithm import in_32_bits
from jaxpg.transforms import mean_of, nothing

SCRIPT = Path(__file__).with_name("flags.py")


def passes(flag, *names):
    environment = os.environ | {flag: "1", "JAX_COMPILATION_CACHE_DIR": str(SCRIPT.parents[1] / ".cache" / "jax")}
    result = subprocess.run([sys.executable, SCRIPT, *names], env=environment, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines() == [f"{name}: passed" for name in names]


def test_64_bits_are_asked_for():
    passes("JAX_ENABLE_X64", "dqn", "run")


def test_nans_are_looked_for():
    passes("JAX_DEBUG_NANS", "dqn")


def test_jit_is_switched_off():
    passes("JAX_DISABLE_JIT", "reinforce")


def test_numbers_are_the_same_whatever_64_bits_are_asked_for():
    def draw(x):
        return jnp.zeros(3) + x * jax.random.normal(jax.random.key(0), (3,)), jnp.argmax(x)

    expected = jax.jit(draw)(jnp.arange(3.0))
    with jax.enable_x64(True):
        found = jax.jit(in_32_bits(draw))(jnp.arange(3.0))
    assert [x.dtype for x in found] == [jnp.float32, jnp.int32]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_there_is_none_of_is_no_nan_while_they_are_looked_for():
    sums, counts = jnp.array([0.0, 6.0]), jnp.array([0.0, 2.0])
    np.testing.assert_array_equal(mean_of(sums, counts), [jnp.nan, 3.0])
    assert np.isnan(nothing())
    env = Lifetimes()
    policy = jaxpg.Policy((), lambda params, key, observation, carry: (jnp.int32(1), carry))
    with jax.debug_nans(True):
        np.testing.assert_array_equal(mean_of(sums, counts), [-jnp.inf, 3.0])
        returns = jaxpg.evaluate(policy, env, env.params(2, 9), jax.random.key(0), num_episodes=8, max_steps=4)
    assert set(np.asarray(returns)) == {2.0, -np.inf}


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_the_types_of_states_do_not_depend_on_64_bits(name):
    env = Lifetimes()
    state = lambda: jax.eval_shape(jaxpg.make(name, env, env.params(2, 9)).init, jax.random.key(0))
    types = lambda: jax.tree.map(lambda x: (x.shape, str(x.dtype)), state())
    expected = types()
    with jax.enable_x64(True):
        assert types() == expected
