"""JAX's random bits on a CPU: the same bits, from a program that compiles several times sooner.

JAX lowers Threefry-2x32 to a loop on CPUs, of which XLA makes kernels of their own; written out, its twenty rounds become
part of the kernel that uses the bits (`python -m benchmarks random_bits`). An update of PPO on CartPole has 274 kernels so,
and 333 else. A barrier keeps the rounds of one draw out of the kernels of the next: along a chain of keys split from keys,
XLA of JAX 0.11 would write them out once more for every use, without end.
"""

import jax
import jax.numpy as jnp
from jax.extend.random import threefry2x32_p
from jax.interpreters import mlir

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def threefry_2x32(key0: jax.Array, key1: jax.Array, count0: jax.Array, count1: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Twenty rounds of Threefry-2x32 on arrays of uint32 of one shape.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 4.2.
    """
    keys = (key0, key1, key0 ^ key1 ^ jnp.uint32(PARITY))
    x, y = count0 + keys[0], count1 + keys[1]
    for injection in range(1, 6):
        for rotation in ROTATIONS[(injection - 1) % 2]:
            x = x + y
            y = x ^ (y << jnp.uint32(rotation) | y >> jnp.uint32(32 - rotation))
        x = x + keys[injection % 3]
        y = y + keys[(injection + 1) % 3] + jnp.uint32(injection)
    x, y = jax.lax.optimization_barrier((x, y))
    return x, y


def use_fast_random_bits() -> None:
    """From now on, whatever this process compiles for CPUs draws its random bits by `threefry_2x32`.

    The command line and `jaxpg.experiment.use_cpu_devices` call it. Other libraries' programs profit too: a process that times
    them beside jaxpg should not. The bits, and what is learned from them, stay the same.
    """
    mlir.register_lowering(threefry2x32_p, mlir.lower_fun(threefry_2x32, multiple_results=True), platform="cpu")
