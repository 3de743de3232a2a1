"""What the benchmarks share: training runs in a folder of their own."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console

from jaxpg.experiment import run


class Task(NamedTuple):
    """An environment, how long to train, the return to reach if one is expected, and settings."""

    env: str
    steps: int
    target: float | None = None
    env_options: dict[str, Any] | None = None
    hyperparameters: dict[str, Any] | None = None


def train(folder: Path, algorithm: str, task: Task, num_seeds: int) -> dict[str, Any]:
    """One run into `folder`, its seeds divided among as many devices as they can be; returns the summary."""
    num_devices = max(n for n in range(1, len(jax.devices()) + 1) if num_seeds % n == 0)
    return run(
        algorithm,
        task.env,
        folder,
        num_seeds=num_seeds,
        num_devices=num_devices,
        env_options=task.env_options,
        console=Console(stderr=True),
        total_steps=task.steps,
        **(task.hyperparameters or {}),
    )


def score_claim(algorithm: str, paper: str, task: Task, summary: dict[str, Any]) -> dict[str, Any]:
    """That a run reached the task's target or, where it has none, beat the untrained policy."""
    score, untrained = summary["iqm"], summary["initial_iqm"]
    if task.target is None:
        expected, holds = f"> {untrained} (untrained)", None not in (score, untrained) and score > untrained
    else:
        expected, holds = f">= {task.target}", score is not None and score >= task.target
    return {
        "claim": f"{algorithm} on {task.env} after {summary['total_steps']:,} steps: interquartile mean of the return",
        "paper": paper,
        "measured": score,
        "expected": expected,
        "holds": holds,
    }
