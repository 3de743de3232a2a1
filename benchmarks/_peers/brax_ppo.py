"""brax's own PPO (`brax.training`), which compiles its step twice, each time within the run."""

import functools
import itertools
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
from brax import envs
from brax.training.agents.ppo import networks, train

# brax 0.14.2 calls what JAX 0.10 no longer has.
jax.device_put_replicated = lambda tree, devices: jax.tree.map(lambda x: jnp.stack([x] * len(devices)), tree)


def measure(row):
    """Seconds to compile, and the speed of each piece of `num_updates` updates once both programs are there."""
    steps = row["num_envs"] * row["num_steps"] * row["num_updates"]
    pieces = row["repeats"] + 2
    marks = [time.perf_counter()]
    train.train(
        environment=envs.get_environment(row["env"].removeprefix("brax/"), backend="spring"),
        num_timesteps=steps * pieces,
        num_evals=pieces + 1,
        run_evals=False,
        policy_params_fn=lambda *_: marks.append(time.perf_counter()),
        max_devices_per_host=1,
        episode_length=1000,
        num_envs=row["num_envs"],
        unroll_length=row["num_steps"],
        num_updates_per_batch=row["num_epochs"],
        num_minibatches=row["num_minibatches"],
        batch_size=row["num_envs"] // row["num_minibatches"],
        learning_rate=2.5e-4,
        discounting=0.99,
        gae_lambda=0.95,
        clipping_epsilon=0.2,
        entropy_cost=0.01,
        max_grad_norm=0.5,
        normalize_observations=True,
        network_factory=functools.partial(
            networks.make_ppo_networks,
            policy_hidden_layer_sizes=tuple(row["hidden_sizes"]),
            value_hidden_layer_sizes=tuple(row["hidden_sizes"]),
            activation=getattr(nn, row["activation"]),
        ),
    )
    seconds = [after - before for before, after in itertools.pairwise(marks)]
    first, steady = seconds[: -row["repeats"]], seconds[-row["repeats"] :]
    compiling = sum(first) - len(first) * min(steady)
    return {"compile_seconds": compiling, "speeds": [steps / s for s in steady]}
