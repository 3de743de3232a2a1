"""Quick compilation, and comparisons of whole pytrees."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def _is_known(option):
    try:
        jax.jit(lambda: 0, compiler_options=option)()
    except jax.errors.JaxRuntimeError:  # another backend, or another version of XLA
        return False
    return True


# Compiling is most of what the tests cost, and without XLA's optimisations a fifth of it. Not for tests of bits or of speed.
QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
QUICK_COMPILE |= option if _is_known(option := {"xla_cpu_use_fusion_emitters": False}) else {}
quick_jit = partial(jax.jit, compiler_options=QUICK_COMPILE)


def numbers(tree):
    """A pytree's leaves as numpy arrays, random keys as their data."""
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf), tree)


def assert_same(actual, expected):
    """Equal to the bit."""
    jax.tree.map(np.testing.assert_array_equal, numbers(actual), numbers(expected))


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol, atol), numbers(actual), numbers(expected))


def row(tree, *index):
    """One member of a stack of pytrees."""
    return jax.tree.map(lambda leaf: leaf[index], tree)
