"""Steps per second of ours and of peers: processes that take turns, each measuring one row; what is expected and what came out.

Each measurement is a process of its own (`measure.py`) that compiles once and times the same run several times; the peers
take turns, round after round, and the medians over all of them are compared. Rows on one core are pinned to it, with one
XLA thread; with `cpu_time` in the setting, the processor's seconds are counted. On both cores jaxpg puts half of the seeds on
each of two CPU devices; it runs with what `use_cpu_devices` sets, as its command line does, XLA's preset for fast compilation
among it, which the peers do not use. The peers are run with XLA's own threads and with a single one, and the better counts.
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

import matplotlib.ticker
import numpy as np

from benchmarks._claims import Expected, above, at_least, below, claim, estimate, ratio_of
from benchmarks._peers.build import interpreter
from jaxpg.experiment.plots import COLOURS, Picture

PAPER = "throughput; peers' public code"
LONGEST = 300  # seconds that one process may take, where its row says nothing else
FOLDER = Path(__file__).parent
PYTHON_LOOPS = ("sb3", "sbx")


class Row(NamedTuple):
    """What is run: `cores` is 1 (pinned) or 2; `expected` is the ratio to the best compiled peer that we want.

    `module` names the scripts: `PEER_MODULE.py` is run with the setting. `longest`: seconds that a process may take.
    """

    name: str
    cores: int
    num_envs: int
    num_updates: int
    seeds: int
    expected: float
    setting: dict[str, Any]
    peers: tuple[str, ...]
    module: str = "ppo"
    longest: int = LONGEST


def compare(row: Row, rounds: int, repeats: int) -> tuple[dict[str, Any], list[str], list[str]]:
    """Everyone who runs here: what was measured by label, the labels that hung, and the peers that are missing."""
    measured: dict[str, list[dict[str, Any]]] = {}
    hung: list[str] = []
    interpreters = {peer: _interpreter(peer) for peer in ("jaxpg", *row.peers)}
    peers = [peer for peer, python in interpreters.items() if python is not None]
    for turn in range(rounds):
        for peer in peers:
            for threads in _modes(peer, row):
                label = peer if threads is None or row.cores == 1 else f"{peer}, {threads or 'all'} threads"
                if label in hung:
                    continue
                result = measure(peer, str(interpreters[peer]), row, threads, repeats)
                if result is None:
                    hung.append(label)
                    continue
                measured.setdefault(label, []).append(result)
                print(f"{row.name}, round {turn + 1}, {label}: {max(result['speeds']):,.3g} steps/s", flush=True)
    summary = {label: _summary(runs) for label, runs in measured.items()}
    return summary, hung, [f"{row.name}: {peer}" for peer in row.peers if peer not in peers]


def compare_all(rows: list[Row], rounds: int, repeats: int) -> dict[str, Any]:
    """Every row by everyone who runs here."""
    results: dict[str, Any] = {"missing peers": [], "rows": {}}
    for row in rows:
        summary, hung, missing = compare(row, rounds, repeats)
        results["missing peers"] += missing
        results["rows"][row.name] = {**row._asdict(), "measured": summary, "hung": hung}
    return results


def claims_of(rows: list[Row], results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of every row what `compare_all` measured."""
    return list(itertools.chain(*(_claims(row, results["rows"][row.name]["measured"]) for row in rows)))


def _interpreter(peer: str) -> str | None:
    if peer in ("jaxpg", "purejaxrl", "brax"):
        return sys.executable
    return interpreter("sb3" if peer in PYTHON_LOOPS else peer)


def _modes(peer: str, row: Row) -> list[str | None]:
    """Values of NPROC, the threads of XLA's pool, to try; empty for its own choice."""
    return ["1"] if row.cores == 1 else [None] if peer == "jaxpg" else ["", "1"]


def measure(peer: str, python: str, row: Row, threads: str | None, repeats: int) -> dict[str, Any] | None:
    """What the process printed; None if it did not end.

    With XLA's own threads, initialisers vmapped over seeds can wait for each other for ever (batched QR, see
    `jaxpg.networks.mlp.orthogonal`): a peer that vmaps them may hang there.
    """
    devices = 2 if peer == "jaxpg" and row.cores == 2 else 1
    settings = row.setting | {
        "module": row.module,
        "num_envs": row.num_envs,
        "num_updates": row.num_updates,
        "seeds": row.seeds,
    }
    settings |= {"devices": devices, "repeats": repeats}
    changed = ("NPROC", "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")  # every process compiles for itself
    environment = {name: value for name, value in os.environ.items() if name not in changed}
    threads = str(devices + 1) if threads is None else threads
    if threads:
        environment["NPROC"] = threads
    cores = sorted(os.sched_getaffinity(0))[-row.cores :]
    started = time.perf_counter()
    command = [python, str(FOLDER / "measure.py"), peer, json.dumps(settings | {"cores": cores})]
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=row.longest)
    except subprocess.TimeoutExpired:
        return None
    if result.returncode:
        raise RuntimeError(f"{peer} failed on {row.name}: {result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1]) | {"process_seconds": time.perf_counter() - started}


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    speeds = list(itertools.chain.from_iterable(run["speeds"] for run in runs))
    shares = [run["rollout_share"] for run in runs if "rollout_share" in run]
    return ({"rollout_share": statistics.median(shares)} if shares else {}) | {
        "steps_per_second": statistics.median(speeds),
        "best": max(speeds),
        "speeds": speeds,
        "compile_seconds": statistics.median(run["compile_seconds"] for run in runs),
        "seconds of each compilation": [run["compile_seconds"] for run in runs],
        "process_seconds": statistics.median(run["process_seconds"] for run in runs),
        "peak_megabytes": statistics.median(run["peak_megabytes"] for run in runs),
        "megabytes of each process": [run["peak_megabytes"] for run in runs],
        "jax": runs[0]["versions"]["jax"],
    }


def _claims(row: Row, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Speed and compile time against the best compiled peer, and speed against the best loop in Python."""
    if "jaxpg" not in summary:  # hung, as the results say
        return []
    compiled = {label: value for label, value in summary.items() if label != "jaxpg" and label not in PYTHON_LOOPS}
    loops = {label: value for label, value in summary.items() if label in PYTHON_LOOPS}
    speed, compiling = "steps_per_second", "compile_seconds"
    found = []

    def compare(text: str, key: str, best: str, expected: Expected) -> dict[str, Any]:
        ratio, interval = estimate(ratio_of(np.median), summary["jaxpg"][key], summary[best][key])
        return claim(f"{row.name}: {text} ({best})", PAPER, ratio, expected, null=1, interval=interval)

    for others, expected in ((compiled, row.expected), (loops, 25.0)):
        if others:
            best = max(others, key=lambda label: others[label][speed])
            text = f"steps per second, ratio to the best of {', '.join(others)}"
            found.append(compare(text, "speeds", best, at_least(expected) if expected > 1 else above(1)))
    if compiled:
        quickest = min(compiled, key=lambda label: compiled[label][compiling])
        text = "seconds to trace and compile, ratio to the best peer"
        found.append(compare(text, "seconds of each compilation", quickest, below(1)))
    return found


def picture(rows: dict[str, Any], step: str = "environment step") -> Picture:
    """Median speeds of everyone; `step` says what is counted."""
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
    axes[-1].set_xlabel(f"{step}s per second (median)")
    return figure
