"""`python rejax_values.py JOB`: trains rejax's DQN or PQN, all seeds in one program, and plays greedily; prints JSON.

Runs in the environment that `build.py` makes and depends on nothing of jaxpg. JOB is JSON: `algorithm`, `env`, `steps`,
`seeds`, `episodes` and `settings`, the fields of rejax's algorithm. The line: `returns`, the mean over whole episodes of
each seed, `total_steps` and `seconds`.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp
from rejax import get_algo
from rejax.evaluate import evaluate


def main():
    job = json.loads(sys.argv[1])
    algorithm = get_algo(job["algorithm"]).create(
        env=job["env"],
        total_timesteps=job["steps"],
        eval_freq=job["steps"],
        skip_initial_evaluation=True,
        **job["settings"],
    )
    longest = algorithm.env_params.max_steps_in_episode

    def returns_of(state, key):
        def act(observation, key):
            if algorithm.normalize_observations:
                observation = algorithm.normalize_obs(state.obs_rms_state, observation)
            return jnp.argmax(algorithm.agent.apply(state.q_ts.params, observation[None])[0])

        return evaluate(act, key, algorithm.env, algorithm.env_params, job["episodes"], longest)[1].mean()

    def train(key):
        without_evaluation = algorithm.replace(eval_callback=lambda algorithm, state, key: ())
        state = without_evaluation.train(key)[0]
        return returns_of(state, jax.random.fold_in(key, 1)), state.global_step

    keys = jax.random.split(jax.random.PRNGKey(0), job["seeds"])
    started = time.perf_counter()
    returns, steps = jax.block_until_ready(jax.jit(jax.vmap(train))(keys))
    seconds = time.perf_counter() - started
    print(json.dumps({"returns": returns.tolist(), "total_steps": int(steps[0]), "seconds": seconds}))


if __name__ == "__main__":
    main()
