"""DQN, QR-DQN, PQN, discrete SAC, DDPG, TD3 and SAC with their default hyperparameters: classic control.

Deterministic evaluation over 128 whole episodes per seed, interquartile mean over seeds with a 95 % bootstrap interval. The
expected scores are our acceptance targets.
"""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks._runs import Task, score_claim, train
from jaxpg.experiment.plots import Picture, plot_learning_curves

PAPERS = {
    "dqn": "Mnih et al. 2015, Nature 518",
    "qr_dqn": "Dabney et al. 2018, arXiv 1710.10044",
    "pqn": "Gallici et al. 2025, arXiv 2407.04811",
    "sac_discrete": "Christodoulou 2019, arXiv 1910.07207",
    "ddpg": "Lillicrap et al. 2016, arXiv 1509.02971",
    "td3": "Fujimoto et al. 2018, arXiv 1802.09477",
    "sac": "Haarnoja et al. 2018, arXiv 1801.01290, 1812.05905",
}
SEEDS = {"smoke": 2, "small": 5, "full": 10}
CARTPOLE, PENDULUM = "CartPole-v1", "Pendulum-v1"
SMALL = [
    ("dqn", Task(CARTPOLE, 100_000, 450.0)),
    ("qr_dqn", Task(CARTPOLE, 100_000, 450.0)),
    ("pqn", Task(CARTPOLE, 500_000, 450.0)),
    ("sac_discrete", Task(CARTPOLE, 100_000, 450.0)),
    ("ddpg", Task(PENDULUM, 50_000, -200.0)),
    ("td3", Task(PENDULUM, 50_000, -170.0)),
    ("sac", Task(PENDULUM, 50_000, -170.0)),
]
TASKS = {
    "smoke": [(name, Task(task.env, 4_000 if name != "pqn" else 20_000)) for name, task in SMALL],
    "small": SMALL,
    "full": SMALL,
}


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], list[dict[str, Any]], Picture]:
    """Trains every algorithm on its task of the size."""
    results, claims = {}, []
    with tempfile.TemporaryDirectory() as temporary:
        folders: list[Path] = []
        for algorithm, task in TASKS[size]:
            folders.append(Path(temporary) / str(len(folders)))
            summary = train(folders[-1], algorithm, task, num_seeds)
            results[f"{algorithm} {task.env}"] = summary
            claims.append(score_claim(algorithm, PAPERS[algorithm], task, summary))
        return results, claims, plot_learning_curves(folders)
