"""Recurrent PPO and A2C against feed-forward ones where observations hide the state.

`MemoryChain-bsuite`: a bit shown at the start decides, several steps later, between +1 and -1; without a memory the expected
return is 0. `StatelessCartPole-v1`: CartPole without the velocities. Deterministic evaluation over 128 whole episodes per seed,
interquartile mean over seeds.
"""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._claims import at_least, claim, estimate, null_of
from benchmarks._runs import Task, train
from jaxpg.experiment.plots import Picture, plot_learning_curves
from jaxpg.experiment.statistics import interquartile_mean

SYSTEMS = {"ppo": "ppo with", "a2c": "a2c with"}
PAPER = "bsuite (Osband et al. 2020) and folklore: memory is needed here"
SEEDS = {"smoke": 2, "small": 8, "full": 10}
PPO = {"num_envs": 16, "num_steps": 64, "num_epochs": 4, "num_minibatches": 4, "learning_rate": 1e-3}
A2C = {"num_envs": 32, "num_steps": 16, "learning_rate": 3e-3, "value_coefficient": 0.5, "entropy_coefficient": 0.01}
MEMORIES: dict[str, dict[str, Any]] = {"gru": {"memory": "gru", "memory_size": 32}, "none": {"memory": "none"}}


class Question(NamedTuple):
    """A task, an algorithm's settings there, and the return that only a memory should reach."""

    algorithm: str
    task: Task
    reach: float


CHAIN = Task("MemoryChain-bsuite", 150_000, hyperparameters=PPO | {"entropy_coefficient": 0.01})
POLE = Task("StatelessCartPole-v1", 500_000, hyperparameters=PPO)
SMALL = [
    Question("ppo", CHAIN, 0.95),
    Question("ppo", POLE, 400.0),
    Question("a2c", CHAIN._replace(hyperparameters=A2C), 0.95),
]
QUESTIONS = {
    "smoke": [q._replace(task=q.task._replace(steps=20_000)) for q in SMALL[:1]],
    "small": SMALL,
    "full": SMALL,
}


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], Picture]:
    """Each question with a memory and without."""
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        folders: list[Path] = []
        for algorithm, task, _ in QUESTIONS[size]:
            for memory, fields in MEMORIES.items():
                folders.append(Path(temporary) / f"memory {memory}, run {len(folders)}")  # named so in the picture
                settings = (task.hyperparameters or {}) | fields
                summary = train(folders[-1], algorithm, task._replace(hyperparameters=settings), num_seeds)
                results[f"{algorithm} {memory} {task.env}"] = summary
        return results, plot_learning_curves(folders)


def claims(size: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each question: the return with a memory; without one is the null."""
    found = []
    for algorithm, task, reach in QUESTIONS[size]:
        with_it, without_it = (results[f"{algorithm} {memory} {task.env}"] for memory in MEMORIES)
        score, interval = estimate(interquartile_mean, with_it["returns"])
        null = null_of(interquartile_mean, without_it["returns"])
        text = f"{algorithm} with memory gru on {task.env} after {with_it['total_steps']:,} steps (null: without)"
        found.append(claim(text, PAPER, score, at_least(reach), null=null, interval=interval))
    return found
