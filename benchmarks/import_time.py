"""What imports cost: processor seconds of `import jaxpg, jaxpg_envs`, of `jaxpg --help` and of one algorithm's help.

Each is a process of its own; user and system time together, medians over rounds in which they take turns with `import jax`.

Before algorithms, distributions and pictures were imported by their first use, they took 1.9, 3.3 and 3.4 seconds where
`import jax` takes 0.7 (Python 3.11, JAX 0.10). Expected is at most half of that for the first two. Seconds depend on the
machine, so the claims are ratios to `import jax`: 2.7 and 4.7 then.
"""

import os
import resource
import statistics
import subprocess
import sys
from typing import Any

import numpy as np

from benchmarks._claims import at_most, claim, estimate, ratio_of

SYSTEMS: dict[str, str] = {}
SEEDS = {"smoke": 1, "small": 1, "full": 1}  # nothing here depends on one
ROUNDS = {"smoke": 1, "small": 5, "full": 15}
MAIN = "from jaxpg.__main__ import main; main({})"
PROGRAMS = {
    "import jax": "import jax",
    "import jaxpg, jaxpg_envs": "import jaxpg, jaxpg_envs",
    "jaxpg --help": MAIN.format(["--help"]),
    "jaxpg list --help": MAIN.format(["list", "--help"]),
    "jaxpg train ppo --help": MAIN.format(["train", "ppo", "--help"]),
}
ONCE = {"import jaxpg, jaxpg_envs": 2.7, "jaxpg --help": 4.7}
"""Times of `import jax` that these took before."""


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], None]:
    """Every program in turn."""
    del num_seeds
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(ROUNDS[size]):
        for name, program in PROGRAMS.items():
            seconds[name].append(_cpu_seconds(program))
    medians = {name: round(statistics.median(found), 3) for name, found in seconds.items()}
    return {"cpu_seconds": medians, "cpu_seconds_of_each_round": seconds}, None


def claims(size: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each ratio to `import jax`."""
    del size
    found, seconds = [], results["cpu_seconds_of_each_round"]
    for name, once in ONCE.items():
        ratio, interval = estimate(ratio_of(np.median), seconds[name], seconds["import jax"])
        text = f"processor time of `{name}`, ratio to `import jax`"
        expected = at_most(once / 2, ", half of what it was")
        found.append(claim(text, "none: a property of jaxpg", ratio, expected, null=once, interval=interval))
    return found


def _cpu_seconds(program: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-c", program], env=environment, stdout=subprocess.DEVNULL, check=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
