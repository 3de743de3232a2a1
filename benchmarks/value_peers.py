"""DQN's and PQN's return against rejax's at the same number of environment steps, on MinAtar Breakout.

Both play 128 whole episodes per seed greedily: ours in gymnax 1.0, rejax's, in the environment that `python -m
benchmarks._peers.build` makes (without it its rows are missing, and the results say so), by its own evaluation in gymnax
0.0.9, where Breakout is the same game. rejax publishes no settings for MinAtar; both get those of `SETTINGS`, PQN's being
its authors' for MinAtar but for the rate, which rejax cannot let fall. rejax's hidden layers are two of 64 units whatever one
asks for, so ours are too. What still differs: rejax's DQN has swish
units, its PQN Adam in place of RAdam; it cannot bootstrap at time limits. PQN has five times as many seeds as DQN: at
equal settings the two are equal within the error (21.1 and 21.2, standard error 1.4).
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._claims import above, claim, difference_of, estimate
from benchmarks._peers.build import interpreter
from benchmarks._runs import Task, train
from jaxpg.experiment.plots import Picture, plot_learning_curves

PAPER = "learning per environment step; peers' public code"
SYSTEMS = {"dqn": "dqn", "pqn": "pqn"}
SEEDS = {"smoke": 1, "small": 3, "full": 5}
STEPS = {"smoke": 20_000, "small": 1_000_000, "full": 1_000_000}
GAME = "Breakout-MinAtar"
SCRIPT = Path(__file__).parent / "_peers" / "rejax_values.py"

SETTINGS = {  # by algorithm: ours, and the same in rejax's words
    "dqn": (
        {
            "num_envs": 16,
            "gradient_steps": 4,
            "batch_size": 128,
            "buffer_size": 100_000,
            "learning_starts": 5_000,
            "learning_rate": 5e-4,
            "target_ema_rate": 0.01,
            "exploration_fraction": 0.1,
            "activation": "swish",
            "hidden_sizes": (64, 64),
        },
        {
            "num_envs": 16,
            "num_epochs": 4,
            "batch_size": 128,
            "buffer_size": 100_000,
            "fill_buffer": 5_000,
            "learning_rate": 5e-4,
            "gamma": 0.99,
            "polyak": 0.96,  # after every four gradient steps, where ours moves after each
            "eps_end": 0.05,
            "exploration_fraction": 0.1,
            "ddqn": True,
        },
    ),
    "pqn": (
        {
            "num_envs": 128,
            "num_steps": 32,
            "num_minibatches": 32,
            "num_epochs": 2,
            "learning_rate": 5e-4,
            "trace_lambda": 0.65,
            "reward_scale": 1.0,
            "epsilon_end": 0.05,
            "exploration_fraction": 0.1,
            "hidden_sizes": (64, 64),
            "anneal_learning_rate": False,
        },
        {
            "num_envs": 128,
            "num_steps": 32,
            "num_minibatches": 32,
            "num_epochs": 2,
            "learning_rate": 5e-4,
            "gamma": 0.99,
            "td_lambda": 0.65,
            "max_grad_norm": 10.0,
            "eps_end": 0.05,
            "exploration_fraction": 0.1,
        },
    ),
}

SEEDS_PER_SEED = {"dqn": 1, "pqn": 5}


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], Picture]:
    """Both algorithms by everyone who runs here."""
    results: dict[str, Any] = {"missing peers": []}
    with tempfile.TemporaryDirectory() as temporary:
        folders: list[Path] = []
        for algorithm, (ours, theirs) in SETTINGS.items():
            seeds = num_seeds * SEEDS_PER_SEED[algorithm]
            folders.append(Path(temporary) / algorithm)
            results[algorithm] = train(folders[-1], algorithm, Task(GAME, STEPS[size], hyperparameters=ours), seeds)
            if (python := interpreter("rejax")) is None:
                results["missing peers"].append(f"rejax: {algorithm}")
                continue
            results[f"rejax {algorithm}"] = _theirs(python, algorithm, STEPS[size], seeds, theirs)
        return results, plot_learning_curves(folders)


def claims(size: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the difference of the mean returns, where the peer ran."""
    del size
    found = []
    for algorithm in SETTINGS:
        if f"rejax {algorithm}" in results:
            ours, theirs = (np.array(results[name]["returns"]) for name in (algorithm, f"rejax {algorithm}"))
            measured, interval = estimate(difference_of(np.mean), ours, theirs)
            text = f"{algorithm} on {GAME} after {results[algorithm]['total_steps']:,} steps: mean return {ours.mean():.1f}"
            text += f" less rejax's {theirs.mean():.1f} ({len(ours)} seeds)"
            found.append(claim(text, PAPER, measured, above(0), null=0, interval=interval))
    return found


def _theirs(python: str, algorithm: str, steps: int, num_seeds: int, settings: dict[str, Any]) -> dict[str, Any]:
    job = {"algorithm": algorithm, "env": GAME, "steps": steps, "seeds": num_seeds, "episodes": 128, "settings": settings}
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"NPROC": "1"}
    result = subprocess.run(
        [python, str(SCRIPT), json.dumps(job)], env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise RuntimeError(f"rejax failed on {algorithm}: {result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1]) | {"settings": settings}
