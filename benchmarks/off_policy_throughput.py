"""Steps per second of SAC and TD3 against their peers: identical work and hyperparameters, alternating processes.

How it is measured: `_peers/throughput.py`; a step is a step of the environment, and the setting says how many gradient
steps go with it. Peers: rejax, in the environment that `python -m benchmarks._peers.build` makes (without it its rows are
missing, and the results say so), on its setting, one environment and one gradient step per step; brax's own SAC on a Brax
task. Brax's seconds to compile are what its run took beyond its steps, evaluations included.
"""

from typing import Any

from benchmarks._peers.throughput import Row, claims_of, compare_all, picture
from jaxpg.experiment.plots import Picture

SYSTEMS = {"sac": "SAC", "td3": "TD3"}
SEEDS = {"smoke": 1, "small": 1, "full": 1}  # the seeds of a row are part of what is measured
ROUNDS = {"smoke": 1, "small": 2, "full": 5}
REPEATS = {"smoke": 1, "small": 5, "full": 5}

PENDULUM = {"env": "Pendulum-v1", "num_steps": 1, "gradient_steps": 1, "batch_size": 256, "buffer_size": 100_000}
PENDULUM |= {"learning_starts": 1_000, "learning_rate": 1e-3, "hidden_sizes": (64, 64)}
POLE = PENDULUM | {"env": "brax/inverted_pendulum"}  # spring backend
UPDATES = 10_000

ROWS = [
    Row("SAC, Pendulum, 1 environment", 1, 1, UPDATES, 1, 1.2, PENDULUM | {"algorithm": "sac"}, ("rejax",), "off_policy"),
    Row("TD3, Pendulum, 1 environment", 1, 1, UPDATES, 1, 1.2, PENDULUM | {"algorithm": "td3"}, ("rejax",), "off_policy"),
    Row(
        "SAC, Brax inverted pendulum, 16 environments",
        1,
        16,
        2_000,
        1,
        1.0,
        POLE | {"algorithm": "sac"},
        ("brax",),
        "off_policy",
    ),
]
SIZES = {"smoke": [row._replace(num_updates=2_000) for row in ROWS[:1]], "small": ROWS, "full": ROWS}


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], Picture]:
    """Every row by every peer that runs here."""
    del num_seeds
    results = compare_all(SIZES[size], ROUNDS[size], REPEATS[size])
    return results, picture(results["rows"])


def claims(size: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of every row against its peers."""
    return claims_of(SIZES[size], results)
