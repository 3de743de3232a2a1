"""What no PPO can exceed here: its matrix products at the speed measured for products of their shape, and bare stepping."""

import itertools
import time

import jax
import jax.numpy as jnp

import jaxpg_envs


def measure(row):
    """Steps per second if nothing took time but the products of two networks and random actions in the environments.

    Per step: a forward pass of the actor to act and of the critic for the value, and in each epoch a forward pass of both and a
    backward one of twice its cost; only the first layer's is as dear as its forward pass, since nobody wants the gradient with
    respect to observations.
    """
    env, params = jaxpg_envs.make(row["env"], **({"backend": "spring"} if row["env"].startswith("brax/") else {}))
    sizes = [*row["hidden_sizes"]]
    observation = jax.eval_shape(env.reset, jax.random.key(0), params)[0]
    space = env.action_space(params)
    outputs = getattr(space, "n", None) or 2 * space.shape[0]
    first = 2 * 2 * observation.size * sizes[0]
    others = 2 * (2 * sum(a * b for a, b in itertools.pairwise(sizes)) + sizes[-1] * (outputs + 1))
    operations = first * (1 + 2 * row["num_epochs"]) + others * (1 + 3 * row["num_epochs"])

    rows = min(row["num_envs"] * row["num_steps"] // row["num_minibatches"], 1024)
    a, b = jnp.ones((rows, sizes[0])), jnp.ones((sizes[0], sizes[0]))
    chain = jax.jit(lambda a, b: jax.lax.fori_loop(0, 200, lambda _, x: x @ b * 0.01, a))
    flops = 2 * rows * sizes[0] ** 2 * 200 / shortest(lambda: chain(a, b))

    def play(key):
        def step(state, key):
            keys = jax.random.split(key, (2, row["num_envs"]))
            actions = jax.vmap(space.sample)(keys[0])
            return jax.vmap(env.step, (0, 0, 0, None))(keys[1], state, actions, params)[1], None

        start = jax.vmap(env.reset, (0, None))(jax.random.split(key, row["num_envs"]), params)[1]
        return jax.lax.scan(step, start, jax.random.split(key, row["num_steps"]))[0]

    played = jax.jit(play)
    stepping = row["num_envs"] * row["num_steps"] / shortest(lambda: played(jax.random.key(0)))
    together = 1 / (operations / flops + 1 / stepping)
    return {"operations_per_step": operations, "flops": flops, "bare_steps_per_second": stepping, "speeds": [together]}


def shortest(function):
    """Seconds of the quickest of five calls, compiled before."""
    jax.block_until_ready(function())
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - started)
    return min(seconds)
