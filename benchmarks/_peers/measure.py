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
    devices = row["devices"]
    os.sched_setaffinity(0, row["cores"])
    if devices > 1:
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    module = importlib.import_module(f"{peer}_ppo")
    sizes = {name: row[name] for name in ("num_envs", "num_steps", "num_epochs", "num_minibatches", "num_updates")}
    keys = jax.random.split(jax.random.key(0) if peer == "jaxpg" else jax.random.PRNGKey(0), row["seeds"])
    started = time.perf_counter()
    train = module.make_train(row["env"], **sizes)
    train = jax.vmap(train) if row["seeds"] > 1 else (lambda train: lambda keys: train(keys[0]))(train)
    if devices > 1:
        mesh, seeds = Mesh(np.array(jax.devices()), ("seed",)), PartitionSpec("seed")
        keys = jax.device_put(keys, NamedSharding(mesh, seeds))
        train = jax.shard_map(train, mesh=mesh, in_specs=seeds, out_specs=seeds, check_vma=False)
    compiled = jax.jit(train).lower(keys).compile()
    compile_seconds = time.perf_counter() - started
    jax.block_until_ready(compiled(keys))
    steps = row["seeds"] * row["num_envs"] * row["num_steps"] * row["num_updates"]
    speeds = []
    for _ in range(row["repeats"]):
        started = time.perf_counter()
        jax.block_until_ready(compiled(keys))
        speeds.append(steps / (time.perf_counter() - started))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    versions = {"jax": jax.__version__}
    print(json.dumps({"compile_seconds": compile_seconds, "speeds": speeds, "peak_megabytes": peak, "versions": versions}))


if __name__ == "__main__":
    main()
