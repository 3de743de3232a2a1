"""One measurement in a process of its own: `python measure.py PEER ROW`, ROW in JSON; prints one line of JSON.

Depends on nothing of jaxpg, so that it runs in the peers' environments too.
"""

import importlib
import json
import os
import resource
import sys
import time


def main():
    peer, row = sys.argv[1], json.loads(sys.argv[2])
    os.sched_setaffinity(0, row["cores"])
    module = importlib.import_module(f"{peer}_{row['module']}")
    if hasattr(module, "prepare"):
        module.prepare(row)
    result = module.measure(row) if hasattr(module, "measure") else measure(module, row, is_ours=peer == "jaxpg")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    import jax

    print(json.dumps(result | {"peak_megabytes": peak, "versions": {"jax": jax.__version__}}))


def clock_of(row):
    """The clock by which a row is timed: with `cpu_time`, whatever else runs on its only core does not count."""
    return time.process_time if row.get("cpu_time") else time.perf_counter


def measure(module, row, is_ours):
    """Seconds to trace and compile `make_train`'s whole run, its speeds, and of ours the rollouts' share of the time."""
    clock = clock_of(row)
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    keys = jax.random.split(jax.random.key(0) if is_ours else jax.random.PRNGKey(0), row["seeds"])
    if row["devices"] > 1:
        mesh, seeds = Mesh(np.array(jax.devices()), ("seed",)), PartitionSpec("seed")
        keys = jax.device_put(keys, NamedSharding(mesh, seeds))

    def compiled(function):
        function = jax.vmap(function) if row["seeds"] > 1 else (lambda run: lambda keys: run(keys[0]))(function)
        if row["devices"] > 1:
            function = jax.shard_map(function, mesh=mesh, in_specs=seeds, out_specs=seeds, check_vma=False)
        return jax.jit(function).lower(keys).compile()

    def seconds_of(run):
        if row.get("warm_up", True):
            jax.block_until_ready(run(keys))
        for _ in range(row["repeats"]):
            started = clock()
            jax.block_until_ready(run(keys))
            yield clock() - started

    started = clock()
    run = compiled(module.make_train(row))
    compile_seconds = clock() - started
    steps = row["seeds"] * row["num_envs"] * row["num_steps"] * row["num_updates"]
    seconds = list(seconds_of(run))
    result = {"compile_seconds": compile_seconds, "speeds": [steps / s for s in seconds]}
    if hasattr(module, "make_rollouts"):
        result["rollout_share"] = min(seconds_of(compiled(module.make_rollouts(row)))) / min(seconds)
    return result


if __name__ == "__main__":
    main()
