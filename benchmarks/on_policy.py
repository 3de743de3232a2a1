"""REINFORCE, A2C, IMPALA and TRPO with their default hyperparameters beside PPO: classic control.

Deterministic evaluation over 128 whole episodes per seed, interquartile mean over seeds with a 95 % bootstrap interval. The
expected scores are our acceptance targets; at size smoke, too short for them, it is more than untrained policies have.
"""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks._runs import Task, score_claim, train
from jaxpg.experiment.plots import Picture, plot_learning_curves

PAPERS = {
    "a2c": "Mnih et al. 2016, arXiv 1602.01783",
    "impala": "Espeholt et al. 2018, arXiv 1802.01561",
    "ppo": "Schulman et al. 2017, arXiv 1707.06347",
    "reinforce": "Williams 1992",
    "trpo": "Schulman et al. 2015, arXiv 1502.05477",
}
SYSTEMS = {name: f"{name} on " for name in PAPERS}
SEEDS = {"smoke": 2, "small": 8, "full": 10}
CARTPOLE, ACROBOT, PENDULUM = Task("CartPole-v1", 500_000), Task("Acrobot-v1", 500_000), Task("Pendulum-v1", 500_000)
TASKS = {
    "smoke": [CARTPOLE._replace(steps=20_000)],
    "small": [CARTPOLE],
    "full": [CARTPOLE, ACROBOT, PENDULUM],
}
TARGETS = {"CartPole-v1": 475.0, "Acrobot-v1": -100.0, "Pendulum-v1": -200.0}


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], list[dict[str, Any]], Picture]:
    """Trains every algorithm on each task of the size."""
    results, claims = {}, []
    with tempfile.TemporaryDirectory() as temporary:
        folders: list[Path] = []
        for task in TASKS[size]:
            for algorithm in PAPERS:
                folders.append(Path(temporary) / str(len(folders)))
                summary = train(folders[-1], algorithm, task, num_seeds)
                results[f"{algorithm} {task.env}"] = summary
                target = None if size == "smoke" else TARGETS[task.env]
                claims.append(score_claim(algorithm, PAPERS[algorithm], task._replace(target=target), summary))
        return results, claims, plot_learning_curves(folders)
