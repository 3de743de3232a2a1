"""What random numbers cost on a CPU: seconds to compile and microseconds to draw, as JAX lowers them and as jaxpg does.

The two take turns in processes of their own, pinned to one core (`_peers/random_bits.py`); medians over rounds.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._claims import at_most, claim, estimate, ratio_of

SYSTEMS: dict[str, str] = {}
SEEDS = {"smoke": 1, "small": 1, "full": 1}  # nothing here depends on one
ROUNDS = {"smoke": 1, "small": 5, "full": 9}
SCRIPT = Path(__file__).parent / "_peers" / "random_bits.py"
COMPILE, RUN = "compile_seconds", "run_microseconds"
ALL = "compile_seconds of all programs, each round"


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], None]:
    """Every program by both lowerings."""
    del num_seeds
    lines: dict[str, list[dict[str, Any]]] = {"jax": [], "jaxpg": []}
    for _ in range(ROUNDS[size]):
        for lowering, found in lines.items():
            command = [sys.executable, str(SCRIPT), lowering]
            environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
            result = subprocess.run(
                command, env=environment | {"NPROC": "1"}, capture_output=True, text=True, check=True, timeout=300
            )
            found.append(json.loads(result.stdout.splitlines()[-1]))
    results = {
        program: {
            lowering: {what: statistics.median(line[program][what] for line in found) for what in (COMPILE, RUN)}
            for lowering, found in lines.items()
        }
        for program in lines["jax"][0]
    }
    seconds = lambda line: sum(program[COMPILE] for program in line.values())
    totals = {lowering: [seconds(line) for line in found] for lowering, found in lines.items()}
    return {"programs": results, ALL: totals}, None


def claims(size: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the ratio of the times to compile."""
    del size
    ratio, interval = estimate(ratio_of(np.median), results[ALL]["jaxpg"], results[ALL]["jax"])
    text = "seconds to compile all programs, ratio to JAX's lowering"
    return [claim(text, "none: a property of jaxpg", ratio, at_most(0.5), null=1, interval=interval)]
