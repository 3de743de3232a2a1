"""Environment steps per second of PPO against its peers: identical work and hyperparameters, alternating processes.

Each measurement is a process of its own that compiles once and times the same run several times; the peers take turns, round
after round, and the medians over all of them are compared. Peers: a faithful re-expression of purejaxrl's loop on gymnax 1.0
(`_peers/purejaxrl_ppo.py`), brax's own trainer, and, each in an environment that `python -m benchmarks._peers.build` makes,
rejax (it cannot speak gymnax 1.0's interface), Stable-Baselines3 and SBX; without it their rows are missing, and the results
say so. `bound` is what no PPO can exceed here (`_peers/bound_ppo.py`).

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

import matplotlib.ticker

from benchmarks._peers.build import interpreter
from jaxpg.experiment.plots import COLOURS, Picture

PAPER = "throughput; peers' public code"
SEEDS = {"smoke": 1, "small": 1, "full": 1}  # the seeds of a row are part of what is measured
ROUNDS = {"smoke": 1, "small": 2, "full": 5}
REPEATS = {"smoke": 2, "small": 5, "full": 5}
LONGEST = 300  # seconds that one process may take
FOLDER = Path(__file__).parent / "_peers"

CARTPOLE = {"env": "CartPole-v1", "num_steps": 128, "num_epochs": 4, "num_minibatches": 4}
CARTPOLE |= {"hidden_sizes": (64, 64), "activation": "tanh"}  # purejaxrl's published setting, with 4 environments
BREAKOUT = {"env": "Breakout-MinAtar", "num_steps": 128, "num_epochs": 4, "num_minibatches": 8}
BREAKOUT |= {"hidden_sizes": (256, 256), "activation": "relu"}  # gymnax's
PENDULUM = {"env": "brax/inverted_pendulum", "num_steps": 16, "num_epochs": 4, "num_minibatches": 4}
PENDULUM |= {"hidden_sizes": (64, 64), "activation": "tanh"}  # spring backend


class Row(NamedTuple):
    """What is run: `cores` is 1 (pinned) or 2; `expected` is the ratio to the best compiled peer that we want."""

    name: str
    cores: int
    num_envs: int
    num_updates: int
    seeds: int
    expected: float
    setting: dict[str, Any] = CARTPOLE
    peers: tuple[str, ...] = ("purejaxrl", "rejax")


ROWS = [
    Row("one agent, 4 environments", 1, 4, 256, 1, 1.2, peers=("purejaxrl", "rejax", "sb3", "sbx")),
    Row("one agent, 2048 environments", 1, 2048, 2, 1, 1.7),
    Row("8 seeds, two cores", 2, 4, 64, 8, 1.8),
    Row("4 seeds, one core", 1, 4, 64, 4, 1.0),
    Row("16 seeds, one core", 1, 4, 32, 16, 1.0),
    Row("64 seeds, one core", 1, 4, 8, 64, 1.0),
    Row("MinAtar Breakout, 64 environments", 1, 64, 2, 1, 1.0, BREAKOUT),
    Row("Brax inverted pendulum, 256 environments", 1, 256, 16, 1, 1.0, PENDULUM, ("brax",)),
]
SIZES = {"smoke": ROWS[:1], "small": [*ROWS[:3], *ROWS[6:]], "full": ROWS}
PYTHON_LOOPS = ("sb3", "sbx")


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], list[dict[str, Any]], Picture]:
    """Every row by every peer that runs here."""
    del num_seeds
    results: dict[str, Any] = {"missing peers": [], "rows": {}}
    claims = []
    for row in SIZES[size]:
        measured: dict[str, list[dict[str, Any]]] = {}
        hung: list[str] = []
        interpreters = {peer: _interpreter(peer) for peer in ("jaxpg", *row.peers)}
        peers = [peer for peer, python in interpreters.items() if python is not None]
        results["missing peers"] += [f"{row.name}: {peer}" for peer in row.peers if peer not in peers]
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
        bound = _measure("bound", sys.executable, row, "1", 1)
        results["rows"][row.name] = {**row._asdict(), "measured": summary, "hung": hung, "bound": bound}
        if bound and row.cores == row.seeds == 1 and "jaxpg" in summary:
            fraction = summary["jaxpg"]["steps_per_second"] / bound["speeds"][0]
            results["rows"][row.name]["fraction of the bound"] = fraction
        claims += _claims(row, summary)
    results["memory"], memory_claim = _memory()
    return results, [*claims, memory_claim], _picture(results["rows"])


def _interpreter(peer: str) -> str | None:
    if peer in ("jaxpg", "purejaxrl", "brax"):
        return sys.executable
    return interpreter("sb3" if peer in PYTHON_LOOPS else peer)


def _memory() -> tuple[dict[str, float], dict[str, Any]]:
    """Peak memory of a run and of one with 16 times the steps."""
    peaks = {}
    for times in (1, 16):
        row = ROWS[0]._replace(num_updates=times * ROWS[0].num_updates)
        if (result := _measure("jaxpg", sys.executable, row, "1", 1)) is None:
            raise RuntimeError(f"jaxpg did not end within {LONGEST} s on {row.name}")
        peaks[f"{row.num_envs * row.setting['num_steps'] * row.num_updates:,} steps"] = result["peak_megabytes"]
    short, long = peaks.values()
    text = "peak memory of one agent with 16 times the steps, ratio"
    return peaks, _claim(text, long / short, "<= 1.02", long / short <= 1.02)


def _modes(peer: str, row: Row) -> list[str | None]:
    """Values of NPROC, the threads of XLA's pool, to try; empty for its own choice."""
    return ["1"] if row.cores == 1 else [None] if peer == "jaxpg" else ["", "1"]


def _measure(peer: str, python: str, row: Row, threads: str | None, repeats: int) -> dict[str, Any] | None:
    """What the process printed; None if it did not end.

    With XLA's own threads, initialisers vmapped over seeds can wait for each other for ever (batched QR, see
    `jaxpg.networks.mlp.orthogonal`): a peer that vmaps them may hang there.
    """
    devices = 2 if peer == "jaxpg" and row.cores == 2 else 1
    settings = row.setting | {"num_envs": row.num_envs, "num_updates": row.num_updates, "seeds": row.seeds}
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
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=LONGEST)
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
        "process_seconds": statistics.median(run["process_seconds"] for run in runs),
        "peak_megabytes": statistics.median(run["peak_megabytes"] for run in runs),
        "jax": runs[0]["versions"]["jax"],
    }


def _claims(row: Row, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Speed and compile time against the best compiled peer, and speed against the best loop in Python."""
    if "jaxpg" not in summary:  # hung, as the results say
        return []
    compiled = {label: value for label, value in summary.items() if label != "jaxpg" and label not in PYTHON_LOOPS}
    loops = {label: value for label, value in summary.items() if label in PYTHON_LOOPS}
    speed, compiling = "steps_per_second", "compile_seconds"
    claims = []
    for others, expected in ((compiled, row.expected), (loops, 25.0)):
        if others:
            best = max(others, key=lambda label: others[label][speed])
            ratio = summary["jaxpg"][speed] / others[best][speed]
            text = f"{row.name}: steps per second, ratio to the best of {', '.join(others)} ({best})"
            claims.append(_claim(text, ratio, f">= {expected}", ratio >= expected))
    if compiled:
        quickest = min(compiled, key=lambda label: compiled[label][compiling])
        ratio = summary["jaxpg"][compiling] / compiled[quickest][compiling]
        text = f"{row.name}: seconds to trace and compile, ratio to the best peer ({quickest})"
        claims.append(_claim(text, ratio, "<= 1", ratio <= 1))
    return claims


def _claim(text: str, measured: float, expected: str, holds: bool) -> dict[str, Any]:
    return {"claim": text, "paper": PAPER, "measured": measured, "expected": expected, "holds": holds}


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
