"""A replay buffer in a loop, in a process of its own: `python replay_loop.py jaxpg|flashbax JOB`; prints a line of JSON.

JOB is JSON: `capacity`, `num_envs`, `batch`, `size` of an observation, `seeds`, `prioritized` and `turns` of the loop. A
turn writes one step of every environment, samples a batch and, with priorities, sets new ones. The buffer is full and
donated.
"""

import json
import os
import statistics
import sys
import time

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

REPEATS = 5


def step_of(job):
    """One step of all environments, as both buffers store it."""
    observation = jnp.zeros((job["num_envs"], job["size"]))
    rewards, flags = jnp.zeros(job["num_envs"]), jnp.zeros(job["num_envs"], bool)
    return observation, jnp.zeros((job["num_envs"], 2)), rewards, flags, flags, observation


def jaxpg(job):
    from jaxpg.randomness import use_fast_random_bits
    from jaxpg.replay import Step, add, init_buffer, reprioritize, sample

    use_fast_random_bits()
    step = Step(*step_of(job))

    def init():
        return init_buffer(step, job["capacity"], 1, job["prioritized"])

    def turn(key, buffer):
        buffer = add(buffer, jax.tree.map(lambda x: x[None] + jnp.ones((), x.dtype), step))
        drawn = sample(key, buffer, job["batch"], 0.99)
        if job["prioritized"]:
            buffer = reprioritize(buffer, drawn, jnp.abs(drawn.observation.sum(-1)) + 0.1)
        return buffer, drawn.observation.sum() + drawn.next_observation.sum() + drawn.reward.sum()

    return init, turn


def flashbax(job):
    import flashbax as fbx

    make = fbx.make_prioritised_item_buffer if job["prioritized"] else fbx.make_item_buffer
    buffer = make(job["capacity"], job["batch"], job["batch"], add_batches=True)
    step = step_of(job)

    def init():
        return buffer.init(jax.tree.map(lambda x: x[0], step))

    def turn(key, state):
        state = buffer.add(state, jax.tree.map(lambda x: x + jnp.ones((), x.dtype), step))
        drawn = buffer.sample(state, key)
        observation, _, reward, _, _, next_observation = drawn.experience
        if job["prioritized"]:
            state = buffer.set_priorities(state, drawn.indices, jnp.abs(observation.sum(-1)).ravel() + 0.1)
        return state, observation.sum() + next_observation.sum() + reward.sum()

    return init, turn


def main():
    job = json.loads(sys.argv[2])
    init, turn = {"jaxpg": jaxpg, "flashbax": flashbax}[sys.argv[1]](job)

    def loop(keys, state):
        def body(carry, key):
            state, total = carry
            state, found = turn(key, state)
            return (state, total + found), None

        return jax.lax.scan(body, (state, jnp.float32(0)), keys)[0]

    keys = jax.random.split(jax.random.key(0), (job["seeds"], job["turns"]))
    run = jax.jit(jax.vmap(loop), donate_argnums=1)
    state = jax.jit(jax.vmap(lambda _: init()))(jnp.arange(job["seeds"]))
    compiled = run.lower(keys, state).compile()
    fills = 1 + -(-job["capacity"] // (job["num_envs"] * job["turns"]))
    for _ in range(fills):
        state, _ = compiled(keys, state)
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(keys, state))
        seconds.append(time.perf_counter() - started)
    memory = compiled.memory_analysis()
    print(
        json.dumps(
            {
                "microseconds": 1e6 * statistics.median(seconds) / job["turns"] / job["seeds"],
                "temporary_megabytes": memory.temp_size_in_bytes / 2**20,
                "buffer_megabytes": memory.argument_size_in_bytes / 2**20,
                "jax": jax.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
