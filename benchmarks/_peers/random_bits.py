"""Random numbers timed in a process of its own: `python random_bits.py jax|jaxpg`; prints one line of JSON."""

import json
import os
import statistics
import sys
import time

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

REPEATS = 500
PROGRAMS = {
    "split": lambda key: jax.random.split(key, (128, 5)),
    "uniform": lambda key: jax.random.uniform(key, (64,)),
    "normal": lambda key: jax.random.normal(key, (64, 64)),
    "categorical": lambda key: jax.random.categorical(key, jnp.zeros((4, 2))),
}


def measure(function, argument):
    """Seconds to compile, and the median microseconds of one call."""
    lowered = jax.jit(function).lower(argument)
    started = time.perf_counter()
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - started
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        jax.block_until_ready(compiled(argument))
        seconds.append(time.perf_counter() - started)
    return {"compile_seconds": compile_seconds, "run_microseconds": 1e6 * statistics.median(seconds)}


if sys.argv[1] == "jaxpg":
    from jaxpg.randomness import use_fast_random_bits

    use_fast_random_bits()

key = jax.random.key(0)
keys = jax.random.split(key, 4)
measure(lambda key: jax.random.key_data(key) + 1, key)  # what only the first compilation costs
results = {}
for name, function in PROGRAMS.items():
    results[name] = measure(function, key)
    results[f"{name}, 4 seeds"] = measure(jax.vmap(function), keys)
print(json.dumps(results))
