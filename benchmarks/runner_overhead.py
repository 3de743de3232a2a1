"""What `jaxpg train` costs beside training: progress, metrics, TensorBoard events and checkpoints against the bare program.

The runner and one call of the same compiled program for all updates take turns, from the same initial states; the overhead is
the median over turns of the ratio of their times, compilation and evaluation left out.
"""

import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import jaxpg
import jaxpg_envs
from benchmarks._claims import below, claim, estimate
from benchmarks._runs import Task
from jaxpg.experiment import run as run_experiment
from jaxpg.experiment.devices import seed_mesh
from jaxpg.experiment.program import compile_step

SYSTEMS: dict[str, str] = {}
SEEDS = {"smoke": 1, "small": 1, "full": 8}
STEPS = {"smoke": 40_000, "small": 500_000, "full": 2_000_000}
TURNS = {"smoke": 2, "small": 5, "full": 7}
ENVIRONMENTS = ("CartPole-v1", "Pendulum-v1")
ALLOWED = 0.03


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], None]:
    """Measures PPO with default hyperparameters on a discrete and a continuous task."""
    return {env: _measure(Task(env, STEPS[size]), num_seeds, TURNS[size]) for env in ENVIRONMENTS}, None


def claims(size: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the overhead on each task."""
    found = []
    for env, result in results.items():
        overhead, interval = estimate(np.median, result["overhead_of_each_turn"])
        text = f"the runner's overhead over {STEPS[size]:,} steps of PPO on {env}, {result['seeds']} seeds"
        found.append(claim(text, "none: a property of jaxpg", overhead, below(ALLOWED), null=None, interval=interval))
    return found


def _measure(task: Task, num_seeds: int, turns: int) -> dict[str, Any]:
    agent = jaxpg.make("ppo", *jaxpg_envs.make(task.env), total_steps=task.steps)
    init = jax.jit(jax.vmap(agent.init))
    keys = jax.random.split(jax.random.key(0), num_seeds)
    step = compile_step(agent, jax.eval_shape(init, keys), seed_mesh(num_seeds, 1))

    def bare() -> float:
        states = jax.block_until_ready(init(keys))
        started = time.perf_counter()
        jax.block_until_ready(step(states, jnp.int32(agent.num_updates)))
        return time.perf_counter() - started

    def with_runner() -> float:
        with tempfile.TemporaryDirectory() as folder:
            silent = Console(file=io.StringIO())
            return run_experiment(
                "ppo", task.env, Path(folder) / "run", num_seeds=num_seeds, console=silent, total_steps=task.steps
            )["train_seconds"]

    seconds: dict[str, list[float]] = {"bare": [], "runner": []}
    for turn in range(turns):
        for name, measure in sorted({"bare": bare, "runner": with_runner}.items(), reverse=bool(turn % 2)):
            seconds[name].append(measure())
    ratios = [with_it / without for with_it, without in zip(seconds["runner"], seconds["bare"], strict=True)]
    return {
        "overhead": round(statistics.median(ratios) - 1, 4),
        "overhead_of_each_turn": [round(ratio - 1, 4) for ratio in ratios],
        **{f"{name}_seconds": statistics.median(values) for name, values in seconds.items()},
        "updates": agent.num_updates,
        "seeds": num_seeds,
    }
