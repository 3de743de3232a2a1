"""Environment steps per second of PPO against its compiled peers: identical work and hyperparameters, alternating processes.

Each measurement is a process of its own that compiles once and times the same run several times; the peers take turns, round
after round, and the medians over all of them are compared. CartPole-v1 at purejaxrl's published setting. Peers: a faithful
re-expression of purejaxrl's loop on gymnax 1.0 (`_peers/purejaxrl_ppo.py`), and rejax in the environment that
`python -m benchmarks._peers.build` makes for it (it cannot speak gymnax 1.0's interface); without that environment its rows are
missing, and the results say so.

Rows on one core are pinned to it, with one XLA thread. On both cores jaxpg puts half of the seeds on each of two CPU devices;
the peers are run with XLA's own threads and with a single one, and the better counts.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.ticker

from benchmarks._peers.build import interpreter
from jaxpg.experiment.plots import COLOURS, Picture

PAPER = "throughput; peers' public code"
SEEDS = {"smoke": 1, "small": 1, "full": 1}  # the seeds of a row are part of what is measured
ROUNDS = {"smoke": 1, "small": 3, "full": 5}
REPEATS = {"smoke": 2, "small": 5, "full": 5}
PEERS = ("jaxpg", "purejaxrl", "rejax")
LONGEST = 240  # seconds that one process may take
FOLDER = Path(__file__).parent / "_peers"


class Row(NamedTuple):
    """What is run: `cores` is 1 (pinned) or 2; `expected` is the ratio to the best peer that we want."""

    name: str
    cores: int
    num_envs: int
    num_updates: int
    seeds: int
    expected: float


ROWS = [
    Row("one agent, 4 environments", 1, 4, 256, 1, 1.2),
    Row("one agent, 2048 environments", 1, 2048, 2, 1, 1.7),
    Row("8 seeds, two cores", 2, 4, 64, 8, 1.8),
    Row("4 seeds, one core", 1, 4, 64, 4, 1.0),
    Row("16 seeds, one core", 1, 4, 32, 16, 1.0),
    Row("64 seeds, one core", 1, 4, 8, 64, 1.0),
]
SIZES = {"smoke": ROWS[:1], "small": ROWS[:3], "full": ROWS}


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], list[dict[str, Any]], Picture]:
    """Every row by every peer that runs here."""
    del num_seeds
    interpreters = {"jaxpg": sys.executable, "purejaxrl": sys.executable, "rejax": interpreter("rejax")}
    peers = [peer for peer in PEERS if interpreters[peer] is not None]
    results: dict[str, Any] = {"missing peers": [peer for peer in PEERS if peer not in peers], "rows": {}}
    claims = []
    for row in SIZES[size]:
        measured: dict[str, list[dict[str, Any]]] = {}
        hung: list[str] = []
        for turn in range(ROUNDS[size]):
            for peer in peers:
                for threads in _modes(peer, row):
                    label = peer if threads is None or row.cores == 1 else f"{peer}, {threads or 'all'} threads"
                    if label in hung:
                        continue
                    result = _measure(peer, str(interpreters[peer]), row, threads, REPEATS[size])
                    if result is None:
                        hung.append(label)
                        continue
                    measured.setdefault(label, []).append(result)
                    print(f"{row.name}, round {turn + 1}, {label}: {max(result['speeds']):,.0f} steps/s", flush=True)
        summary = {label: _summary(runs) for label, runs in measured.items()}
        results["rows"][row.name] = {**row._asdict(), "measured": summary, "hung": hung, "bound": _bound(row)}
        claims += _claims(row, summary)
    return results, claims, _picture(results["rows"])


def _modes(peer: str, row: Row) -> list[str | None]:
    """Values of NPROC, the threads of XLA's pool, to try; empty for its own choice."""
    return ["1"] if row.cores == 1 else [None] if peer == "jaxpg" else ["", "1"]


def _measure(peer: str, python: str, row: Row, threads: str | None, repeats: int) -> dict[str, Any] | None:
    """What the process printed; None if it did not end.

    With XLA's own threads, initialisers vmapped over seeds can wait for each other for ever (batched QR, see
    `jaxpg.networks.mlp.orthogonal`): a peer that vmaps them may hang there.
    """
    devices = 2 if peer == "jaxpg" and row.cores == 2 else 1
    settings = {"env": "CartPole-v1", "num_steps": 128, "num_epochs": 4, "num_minibatches": 4, "repeats": repeats}
    settings |= {"num_envs": row.num_envs, "num_updates": row.num_updates, "seeds": row.seeds, "devices": devices}
    environment = {name: value for name, value in os.environ.items() if name not in ("NPROC", "XLA_FLAGS")}
    threads = str(devices + 1) if threads is None else threads
    if threads:
        environment["NPROC"] = threads
    cores = sorted(os.sched_getaffinity(0))[-row.cores :]
    started = time.perf_counter()
    command = [python, str(FOLDER / "measure.py"), peer, json.dumps(settings | {"cores": cores})]
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return None
    if result.returncode:
        raise RuntimeError(f"{peer} failed on {row.name}: {result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1]) | {"process_seconds": time.perf_counter() - started}


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    speeds = list(itertools.chain.from_iterable(run["speeds"] for run in runs))
    return {
        "steps_per_second": statistics.median(speeds),
        "best": max(speeds),
        "speeds": speeds,
        "compile_seconds": statistics.median(run["compile_seconds"] for run in runs),
        "process_seconds": statistics.median(run["process_seconds"] for run in runs),
        "peak_megabytes": statistics.median(run["peak_megabytes"] for run in runs),
        "jax": runs[0]["versions"]["jax"],
    }


def _claims(row: Row, summary: dict[str, Any]) -> list[dict[str, Any]]:
    others = {label: value for label, value in summary.items() if label != "jaxpg"}
    if not others or "jaxpg" not in summary:  # hung or missing, as the results say
        return []
    best = max(others, key=lambda label: others[label]["steps_per_second"])
    ratio = summary["jaxpg"]["steps_per_second"] / others[best]["steps_per_second"]
    quickest = min(others, key=lambda label: others[label]["compile_seconds"])
    compile_ratio = summary["jaxpg"]["compile_seconds"] / others[quickest]["compile_seconds"]
    return [
        {
            "claim": f"{row.name}: steps per second, ratio to the best peer ({best})",
            "paper": PAPER,
            "measured": ratio,
            "expected": f">= {row.expected}",
            "holds": ratio >= row.expected,
        },
        {
            "claim": f"{row.name}: seconds to trace and compile, ratio to the best peer ({quickest})",
            "paper": PAPER,
            "measured": compile_ratio,
            "expected": "<= 1",
            "holds": compile_ratio <= 1,
        },
    ]


def _bound(row: Row) -> dict[str, float]:
    """Steps per second if the networks' matrix products ran at the speed measured for products of this shape, and nothing else.

    Two networks of (4, 64, 64, 2 or 1): a forward pass for acting and one for the values, and in each of the 4 epochs a forward
    and a backward pass of twice its cost.
    """
    products = 2 * (4 * 64 + 64 * 64) * 2 + 2 * 64 * 3
    operations = products * (1 + 0.5 + 4 * 3)
    rows = min(row.num_envs * 128 // 4, 1024)
    a, b = jnp.ones((rows, 64)), jnp.ones((64, 64))
    many = 200
    chain = jax.jit(lambda a, b: jax.lax.fori_loop(0, many, lambda _, x: x @ b * 0.01, a))
    jax.block_until_ready(chain(a, b))
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        jax.block_until_ready(chain(a, b))
        seconds.append(time.perf_counter() - started)
    flops = 2 * rows * 64 * 64 * many / min(seconds)
    return {"operations_per_step": operations, "flops": flops, "steps_per_second": row.cores * flops / operations}


def _picture(rows: dict[str, Any]) -> Picture:
    figure = Picture(figsize=(7, 1.2 + 1.1 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for ax, (name, row) in zip(axes, rows.items(), strict=True):
        labels = list(row["measured"])
        speeds = [row["measured"][label]["steps_per_second"] for label in labels]
        ax.barh(labels, speeds, color=[COLOURS[0] if label == "jaxpg" else COLOURS[-1] for label in labels])
        ax.invert_yaxis()
        ax.set_title(name, loc="left", fontsize=10)
        ax.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter())
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("environment steps per second (median)")
    return figure
