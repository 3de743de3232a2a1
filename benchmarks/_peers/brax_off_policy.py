"""brax's own SAC (`brax.training`), by its own clock, which leaves its evaluations out."""

import functools
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
from brax import envs
from brax.training.agents.sac import networks, train

# brax 0.14.2 calls what JAX 0.10 no longer has.
jax.device_put_replicated = lambda tree, devices: jax.tree.map(lambda x: jnp.stack([x] * len(devices)), tree)


def measure(row):
    """The speed of each piece of `num_updates` updates once all programs are there, and roughly the seconds to compile them."""
    steps = row["num_envs"] * row["num_updates"]
    pieces = row["repeats"] + 2
    started, speeds = time.perf_counter(), []

    def progress(step, metrics):
        if step:
            speeds.append(float(metrics["training/sps"]))

    train.train(
        environment=envs.get_environment(row["env"].removeprefix("brax/"), backend="spring"),
        num_timesteps=steps * pieces,
        num_evals=pieces + 1,
        progress_fn=progress,
        max_devices_per_host=1,
        episode_length=1000,
        num_envs=row["num_envs"],
        num_eval_envs=1,
        learning_rate=row["learning_rate"],
        discounting=0.99,
        batch_size=row["batch_size"],
        grad_updates_per_step=row["gradient_steps"],
        min_replay_size=row["learning_starts"],
        max_replay_size=row["buffer_size"],
        normalize_observations=True,
        network_factory=functools.partial(
            networks.make_sac_networks, hidden_layer_sizes=tuple(row["hidden_sizes"]), activation=nn.relu
        ),
    )
    steady = speeds[-row["repeats"] :]
    compiling = time.perf_counter() - started - pieces * steps / max(steady)
    return {"compile_seconds": compiling, "speeds": steady}
