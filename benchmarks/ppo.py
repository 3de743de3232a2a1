"""PPO with its default hyperparameters: classic control to the scores of the literature, Brax at scale.

Deterministic evaluation over 128 whole episodes per seed, interquartile mean over seeds with a 95 % bootstrap interval. The
expected scores of classic control are our acceptance targets, those of Brax orders of magnitude: its authors publish curves,
not tables. Scores of RL Zoo are those of settings tuned for the task, one seed.

MountainCar, on which nobody arrives by chance, has the settings published with gymnax (gymnax-blines): 64 epochs, and a rate
that falls to a tenth within the first tenth of the run, here update by update, there step by step.

How sure the defaults are: of 32 seeds on CartPole after 100,000 steps, the share that reaches 475. It is why there are 8
environments and not 16: they make twice as many updates of the same steps. Whether values are clipped makes no difference that
these seeds show. Of the 32 in the results of size small, other ones, one ends at 470.5: 95 of 96 in all. Mean return, its
standard error, and how many seeds reached the target (4 of the last two tasks):

    steps, task                              16, clipped            8, clipped             8, not clipped
    100,000 CartPole-v1                      482.7 +- 8.6, 27/32    500.0 +- 0.0, 64/64    499.9 +- 0.1, 64/64
    100,000 Acrobot-v1                       -83.2 +- 0.8, 31/32    -82.9 +- 0.6, 32/32    -83.8 +- 0.9, 32/32
    200,000 Pendulum-v1                      -165.7 +- 3.8, 31/32   -164.2 +- 4.7, 29/32   -164.3 +- 4.4, 29/32
    200,000 Breakout-MinAtar                 10.4 +- 1.2            10.7 +- 2.3            10.5 +- 2.6
    100,000 brax/inverted_double_pendulum    1210 +- 88             2022 +- 322            1440 +- 180
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from benchmarks._claims import above, claim
from benchmarks._runs import Task, score_claim, train
from jaxpg.experiment.plots import Picture, plot_learning_curves

PAPER = "Schulman et al. 2017, arXiv 1707.06347"
SYSTEMS = {"ppo": ""}
SEEDS = {"smoke": 2, "small": 8, "full": 10}

MOUNTAIN_CAR = {
    "num_envs": 16,
    "num_steps": 32,
    "num_epochs": 64,
    "num_minibatches": 4,
    "learning_rate": 5e-3,
    "learning_rate_end": 5e-4,
    "annealing_fraction": 0.1,
    "entropy_coefficient": 0.003,
    "max_gradient_norm": 1.0,
    "clip_values": True,
}
CLASSIC = [
    Task("CartPole-v1", 500_000, 475, reference="RL Zoo: 500"),
    Task("Acrobot-v1", 500_000, -100, reference="RL Zoo: -73.5"),
    Task("Pendulum-v1", 1_000_000, -200, reference="RL Zoo: -172"),
    Task("MountainCar-v0", 250_000, -130, None, MOUNTAIN_CAR, "gymnax's policy: -118, RL Zoo: -110.4"),
]
LARGE = {"num_envs": 2048, "num_steps": 16, "num_minibatches": 32, "num_epochs": 4}
BRAX = [
    Task("brax/ant", 50_000_000, 5000, {"backend": "spring"}, LARGE),
    Task("brax/halfcheetah", 50_000_000, 4000, {"backend": "spring"}, LARGE),
]
TASKS = {"smoke": [task._replace(steps=20_000, target=None) for task in CLASSIC[:3]], "small": CLASSIC, "full": CLASSIC + BRAX}
SHORT, MANY, BEFORE = Task("CartPole-v1", 100_000, 475), 32, 28
OF_MANY = f"{SHORT.env}, {MANY} seeds"


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], Picture]:
    """Trains on each task of the size."""
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / str(index) for index in range(len(TASKS[size]))]
        for task, folder in zip(TASKS[size], folders, strict=True):
            results[task.env] = train(folder, "ppo", task, num_seeds)
        if size != "smoke":
            results[OF_MANY] = train(Path(temporary) / "short", "ppo", SHORT, MANY)
        return results, plot_learning_curves(folders)


def claims(size: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the return on each task, and of the share of many seeds that succeed."""
    found = [score_claim("ppo", PAPER, task, results[task.env]) for task in TASKS[size]]
    return found if size == "smoke" else [*found, _share(results[OF_MANY])]


def _share(summary: dict[str, Any]) -> dict[str, Any]:
    """The share of the seeds that reach the target, with the interval of Clopper and Pearson."""
    returns, untrained = np.array(summary["returns"]), np.array(summary["initial_returns"])
    interval = scipy.stats.binomtest(int((returns >= SHORT.target).sum()), MANY).proportion_ci()
    share, null = (float((x >= SHORT.target).mean()) for x in (returns, untrained))
    text = f"ppo on {SHORT.env} after {summary['total_steps']:,} steps: share of {MANY} seeds that reach {SHORT.target}"
    expected = above(BEFORE / MANY, f" ({BEFORE} of {MANY}: 16 environments)")
    return claim(text, PAPER, share, expected, null=null, interval=(interval.low, interval.high))
