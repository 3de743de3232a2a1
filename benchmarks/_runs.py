"""What the benchmarks share: training runs in a folder of their own."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console

from benchmarks._claims import above_all, at_least, claim, estimate, null_of
from jaxpg.experiment import run
from jaxpg.experiment.statistics import interquartile_mean


class Task(NamedTuple):
    """An environment, how long to train, the return to reach if one is expected, settings, and what others reached."""

    env: str
    steps: int
    target: float | None = None
    env_options: dict[str, Any] | None = None
    hyperparameters: dict[str, Any] | None = None
    reference: str = ""


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
    """That a run reached the task's target or, where it has none, is above all that the untrained policies' interval holds.

    The latter is for size smoke, and says little: among a few deterministic policies that have not learned, one is lucky.
    """
    score, interval = estimate(interquartile_mean, summary["returns"])
    null = null_of(interquartile_mean, summary["initial_returns"])
    reference = f" ({task.reference})" if task.reference else ""
    expected = above_all(null, " (untrained)") if task.target is None else at_least(task.target, reference)
    text = f"{algorithm} on {task.env} after {summary['total_steps']:,} steps: interquartile mean of the return"
    return claim(text, paper, score, expected, null=null, interval=interval)
