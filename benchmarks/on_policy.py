"""REINFORCE, A2C, IMPALA and TRPO with their default hyperparameters beside PPO: classic control and a robot of Brax.

Deterministic evaluation over 128 whole episodes per seed, interquartile mean over seeds with a 95 % bootstrap interval. The
expected scores are our acceptance targets, on Brax's inverted pendulum that of Gym's; at size smoke, too short for them, it is
more than untrained policies have. Scores of RL Zoo are those of settings tuned for the task, one seed.

Measured at size small: all reach 500 on CartPole with every seed. On Pendulum PPO does (-153), TRPO nearly for sure (-189), and
REINFORCE is on its way (-914); A2C and IMPALA, whose windows are of five steps, stay where untrained policies are. On the
inverted pendulum, with 200,000 steps, nobody reaches 950: TRPO 819, REINFORCE 764, PPO 706, A2C 668, IMPALA 490.
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
CARTPOLE, ACROBOT = Task("CartPole-v1", 500_000, 475.0), Task("Acrobot-v1", 500_000, -100.0)
PENDULUM = Task("Pendulum-v1", 500_000, -200.0)
ROBOT = Task("brax/inverted_pendulum", 200_000, 950.0, {"backend": "spring"})
TASKS = {
    "smoke": [CARTPOLE._replace(steps=20_000, target=None)],
    "small": [CARTPOLE, PENDULUM, ROBOT],
    "full": [CARTPOLE, ACROBOT, PENDULUM, ROBOT],
}
RL_ZOO: dict[str, dict[str, float]] = {  # by environment: of A2C, PPO and TRPO
    "CartPole-v1": {"a2c": 500, "ppo": 500, "trpo": 500},
    "Acrobot-v1": {"a2c": -83.4, "ppo": -73.5, "trpo": -83.1},
    "Pendulum-v1": {"a2c": -163, "ppo": -172, "trpo": -175},
}


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], Picture]:
    """Trains every algorithm on each task of the size."""
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        folders: list[Path] = []
        for task in TASKS[size]:
            for algorithm in PAPERS:
                folders.append(Path(temporary) / str(len(folders)))
                results[f"{algorithm} {task.env}"] = train(folders[-1], algorithm, task, num_seeds)
        return results, plot_learning_curves(folders)


def claims(size: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of every algorithm's return on each task."""
    found = []
    for task in TASKS[size]:
        for algorithm, paper in PAPERS.items():
            score = RL_ZOO.get(task.env, {}).get(algorithm)
            referred = task._replace(reference="" if score is None else f"RL Zoo: {score}")
            found.append(score_claim(algorithm, paper, referred, results[f"{algorithm} {task.env}"]))
    return found
