"""A replay buffer's turn in a compiled loop (write a step of every environment, sample a batch): jaxpg's and flashbax's.

Processes take turns, round after round, each pinned to one core; medians. The buffers are full. Rows: uniform at two
capacities, whose times must be alike if nothing is copied; 8 seeds under `vmap`; with priorities. A hundred times the capacity
is not in the cache any more, and the 256 sampled rows come from further away: the ratio of 3 that is expected allows for that,
and can be missed (flashbax's is smaller because its turn costs more to begin with). flashbax has an environment of its own
(`python -m benchmarks._peers.build`; without it its rows are missing, and the results say so). Its items are independent:
neither it nor its other buffers put n-step returns together across a time limit's final observation, which is why jaxpg has
its own.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._claims import at_most, below, claim, estimate, ratio_of
from benchmarks._peers.build import interpreter

SYSTEMS: dict[str, str] = {}
SEEDS = {"smoke": 1, "small": 1, "full": 1}  # the seeds of a row are part of what is measured
ROUNDS = {"smoke": 1, "small": 3, "full": 5}
SCRIPT = Path(__file__).parent / "_peers" / "replay_loop.py"
JOB = {"capacity": 10_000, "num_envs": 1, "batch": 256, "size": 17, "seeds": 1, "prioritized": False, "turns": 1_000}
ROWS = {
    "uniform, 10 thousand": JOB,
    "uniform, 1 million": JOB | {"capacity": 1_000_000, "turns": 20_000},
    "uniform, 16 environments": JOB | {"num_envs": 16},
    "uniform, 8 seeds": JOB | {"seeds": 8},
    "prioritised, 10 thousand": JOB | {"prioritized": True},
    "prioritised, 1 million": JOB | {"prioritized": True, "capacity": 1_000_000, "turns": 20_000},
}
SIZES = {"smoke": list(ROWS)[:1], "small": list(ROWS), "full": list(ROWS)}
PAPER = "throughput; flashbax's public code"
TIME, EACH = "microseconds", "microseconds of each round"


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], None]:
    """Every row by both."""
    del num_seeds
    pythons = {"jaxpg": sys.executable, "flashbax": interpreter("flashbax")}
    missing = [name for name, python in pythons.items() if python is None]
    rows: dict[str, dict[str, Any]] = {}
    for label in SIZES[size]:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name, python in pythons.items() if python}
        for _ in range(ROUNDS[size]):
            for name, lines in found.items():
                lines.append(_measure(str(pythons[name]), name, ROWS[label]))
        rows[label] = {name: {key: statistics.median(line[key] for line in lines) for key in lines[0] if key != "jax"}
                       | {EACH: [line[TIME] for line in lines]} for name, lines in found.items()}  # fmt: skip
        print(f"{label}: { ({name: round(row[TIME], 1) for name, row in rows[label].items()}) } microseconds", flush=True)
    return {"missing": missing, "rows": rows}, None


def _measure(python: str, name: str, job: dict[str, Any]) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")}
    command = [python, str(SCRIPT), name, json.dumps(job)]
    result = subprocess.run(command, env=environment | {"NPROC": "1"}, capture_output=True, text=True, check=False, timeout=600)
    if result.returncode:
        raise RuntimeError(f"{name} failed: {result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def claims(size: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the times' ratio to flashbax, and that a buffer's size costs neither time nor memory."""
    del size
    found, rows = [], results["rows"]
    for label, row in rows.items():
        if "flashbax" in row:
            ratio, interval = estimate(ratio_of(np.median), row["jaxpg"][EACH], row["flashbax"][EACH])
            text = f"{label}: microseconds per turn, ratio to flashbax"
            found.append(claim(text, PAPER, ratio, below(1), null=1, interval=interval))
    if "uniform, 1 million" in rows:
        small, large = (rows[label]["jaxpg"] for label in ("uniform, 10 thousand", "uniform, 1 million"))
        # Not 1: what is sampled from 100 times the memory is not in the caches.
        ratio, interval = estimate(ratio_of(np.median), large[EACH], small[EACH])
        text = "microseconds per turn with 100 times the capacity, ratio"
        found.append(claim(text, PAPER, ratio, at_most(3), null=100, interval=interval))  # 100: a loop that copies the buffer
        share = large["temporary_megabytes"] / large["buffer_megabytes"]
        text = "temporary memory of the loop, part of the buffer's"
        found.append(claim(text, PAPER, share, at_most(0.1), null=1, exact=True))
    return found
