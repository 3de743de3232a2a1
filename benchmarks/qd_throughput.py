"""Evaluations per second of MAP-Elites, PGA-MAP-Elites and DCRL-MAP-Elites against QDax: same sizes, alternating processes.

How it is measured: `_peers/throughput.py`; here a "step" is the evaluation of one offspring, an episode and its share of what
is learned. QDax runs in the environment that `python -m benchmarks._peers.build` makes; without it its rows are missing, and
the results say so. Initial populations count for both: ours is the first generation, QDax's comes before it, so that it
evaluates one batch more, which is not in its count. Seconds to compile include the centroids: ours are clustered from 50,000
samples, as in the papers (about two seconds), QDax's from the 10,000 of its examples.
"""

from typing import Any

from benchmarks._peers.throughput import Row, claims_of, compare_all, picture
from jaxpg.experiment.plots import Picture

SYSTEMS = {"map_elites": "MAP-Elites", "pga_map_elites": "PGA", "dcrl_map_elites": "DCRL"}
SEEDS = {"smoke": 1, "small": 1, "full": 1}  # the seeds of a row are part of what is measured
ROUNDS = {"smoke": 1, "small": 2, "full": 5}
REPEATS = {"smoke": 1, "small": 5, "full": 5}

ARM = {"algorithm": "map_elites", "env": "arm", "num_joints": 100, "num_cells": 1024, "num_steps": 1}
HOPPER = {"env": "hopper_uni", "episode_length": 100, "num_cells": 1024, "num_steps": 1, "hidden_sizes": (64, 64)}
HOPPER |= {"critic_steps": 300, "policy_gradient_steps": 100, "batch_size": 256, "buffer_size": 100_000}

PEERS, MODULE = ("qdax",), "quality_diversity"
ROWS = [
    Row("MAP-Elites, arm of 100 joints, 128 offspring", 1, 128, 1_000, 1, 1.2, ARM, PEERS, MODULE),
    Row("MAP-Elites, arm of 100 joints, 4096 offspring", 1, 4096, 50, 1, 1.2, ARM, PEERS, MODULE),
    Row("PGA, hopper_uni, 64 offspring", 1, 64, 5, 1, 1.2, HOPPER | {"algorithm": "pga_map_elites"}, PEERS, MODULE),
    Row("DCRL, hopper_uni, 64 offspring", 1, 64, 5, 1, 1.2, HOPPER | {"algorithm": "dcrl_map_elites"}, PEERS, MODULE),
]
SIZES = {"smoke": [ROWS[0]._replace(num_updates=200)], "small": ROWS, "full": ROWS}


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], Picture]:
    """Every row by everyone who runs here."""
    del num_seeds
    results = compare_all(SIZES[size], ROUNDS[size], REPEATS[size])
    return results, picture(results["rows"], "evaluation")


def claims(size: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of every row against its peers."""
    return claims_of(SIZES[size], results)
