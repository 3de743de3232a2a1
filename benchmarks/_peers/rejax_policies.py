"""`python rejax_policies.py JOB POLICIES.npz`: trains rejax's PPO, all seeds in one program, and writes the actors.

Runs in the environment that `build.py` makes and depends on nothing of jaxpg. JOB is JSON: `env`, `steps`, `seeds` and
`settings`, the fields of rejax's PPO. The arrays, (seed, ...): `mean` and `std` of the observations, `kernel_I` and `bias_I` of
the layers; and, to check a reader, `outputs`: the probabilities of the actions at the `observations`, (sample, ...).
"""

import json
import sys
import time

import jax
import numpy as np
from rejax import get_algo


def main():
    job, path = json.loads(sys.argv[1]), sys.argv[2]
    algorithm = get_algo("ppo").create(
        env=job["env"],
        total_timesteps=job["steps"],
        eval_freq=job["steps"],
        skip_initial_evaluation=True,
        **job["settings"],
    )
    algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: ())  # evaluated elsewhere

    def train(key):
        state = algorithm.train(key)[0]
        return state.actor_ts.params["params"], state.obs_rms_state, state.global_step

    keys = jax.random.split(jax.random.PRNGKey(0), job["seeds"])
    started = time.perf_counter()
    actors, statistics, steps = jax.block_until_ready(jax.jit(jax.vmap(train))(keys))
    seconds = time.perf_counter() - started

    shape = algorithm.obs_space.shape
    if algorithm.normalize_observations:
        mean, std = statistics.mean, np.sqrt(statistics.var + 1e-8)
    else:
        mean, std = np.zeros((job["seeds"], *shape)), np.ones((job["seeds"], *shape))
    observations = np.random.default_rng(0).integers(0, 2, (16, *shape)).astype(np.float32)

    def probabilities(actor, mean, std):
        return algorithm.actor.apply({"params": actor}, (observations - mean) / std, method="_action_dist").probs

    hidden = actors["features"]
    layers = [*(hidden[name] for name in sorted(hidden)), actors["action_logits"]]
    arrays = {f"{name}_{i}": layer[name] for i, layer in enumerate(layers) for name in ("kernel", "bias")}
    outputs = jax.vmap(probabilities)(actors, mean, std)
    np.savez(path, mean=mean, std=std, observations=observations, outputs=outputs, **arrays)
    print(json.dumps({"total_steps": int(steps[0]), "seconds": seconds}))


if __name__ == "__main__":
    main()
