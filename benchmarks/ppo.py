"""PPO with its default hyperparameters: classic control to the scores of the literature, Brax at scale.

Deterministic evaluation over 128 whole episodes per seed, interquartile mean over seeds with a 95 % bootstrap interval. The
expected scores of classic control are our acceptance targets, those of Brax orders of magnitude: its authors publish curves,
not tables.
"""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks._runs import Task, score_claim, train
from jaxpg.experiment.plots import Picture, plot_learning_curves

PAPER = "Schulman et al. 2017, arXiv 1707.06347"
SYSTEMS = {"ppo": ""}
SEEDS = {"smoke": 2, "small": 8, "full": 10}

CLASSIC = [
    Task("CartPole-v1", 500_000, 475),
    Task("Acrobot-v1", 500_000, -100),
    Task("Pendulum-v1", 1_000_000, -200),
]
LARGE = {"num_envs": 2048, "num_steps": 16, "num_minibatches": 32, "num_epochs": 4}
BRAX = [
    Task("brax/ant", 50_000_000, 5000, {"backend": "spring"}, LARGE),
    Task("brax/halfcheetah", 50_000_000, 4000, {"backend": "spring"}, LARGE),
]
TASKS = {"smoke": [task._replace(steps=20_000, target=None) for task in CLASSIC], "small": CLASSIC, "full": CLASSIC + BRAX}


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], list[dict[str, Any]], Picture]:
    """Trains on each task of the size."""
    results, claims = {}, []
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / str(index) for index in range(len(TASKS[size]))]
        for task, folder in zip(TASKS[size], folders, strict=True):
            summary = train(folder, "ppo", task, num_seeds)
            results[task.env] = summary
            claims.append(score_claim("ppo", PAPER, task, summary))
        return results, claims, plot_learning_curves(folders)
