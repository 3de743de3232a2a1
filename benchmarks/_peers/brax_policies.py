"""`python brax_policies.py JOB POLICIES.npz`: trains brax's PPO, seed after seed, and writes the policies.

JOB is JSON: `env`, `backend`, `steps`, `seeds`, `settings` of `ppo.train`, and `networks`, the arguments of
`make_ppo_networks`. The arrays, (seed, ...): `mean` and `std` of the observations, `kernel_I` and `bias_I` of the layers; and,
to check a reader, `outputs`: the deterministic actions at the `observations`, (sample, ...).
"""

import functools
import json
import sys
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from brax import envs
from brax.training.agents.ppo import networks, train

# brax 0.14.2 calls what JAX 0.10 no longer has.
jax.device_put_replicated = lambda tree, devices: jax.tree.map(lambda x: jnp.stack([x] * len(devices)), tree)


def main():
    job, path = json.loads(sys.argv[1]), sys.argv[2]
    env = envs.get_environment(job["env"], backend=job["backend"])
    options = job["networks"] | ({"activation": getattr(nn, job["networks"]["activation"])} if job["networks"] else {})
    observations = np.random.default_rng(0).normal(size=(16, env.observation_size)).astype(np.float32)
    rows, steps = [], []
    started = time.perf_counter()
    for seed in range(job["seeds"]):
        make_policy, params, _ = train.train(
            environment=env,
            num_timesteps=job["steps"],
            episode_length=1000,
            normalize_observations=True,
            seed=seed,
            run_evals=False,
            max_devices_per_host=1,
            network_factory=functools.partial(networks.make_ppo_networks, **options),
            policy_params_fn=lambda step, *_: steps.append(step),
            **job["settings"],
        )
        statistics, actor = params[0], params[1]["params"]
        layers = [actor[f"hidden_{i}"] for i in range(len(actor))]
        row = {f"{name}_{i}": layer[name] for i, layer in enumerate(layers) for name in ("kernel", "bias")}
        row["outputs"] = make_policy(params, deterministic=True)(observations, jax.random.PRNGKey(0))[0]
        rows.append(row | {"mean": statistics.mean, "std": statistics.std})
        print(f"seed {seed}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - started
    arrays: dict[str, Any] = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    np.savez(path, observations=observations, **arrays)
    print(json.dumps({"total_steps": int(max(steps)), "seconds": seconds}))


if __name__ == "__main__":
    main()
