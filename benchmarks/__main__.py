"""`python -m benchmarks NAME --size smoke|small|full [--seeds N] [--out FILE.json] [--judge]`.

A benchmark is a module of this package with `SEEDS`, the seeds of each size, `SYSTEMS`, and two functions. `run(size,
num_seeds) -> (results, figure)` measures; the figure may be None. `claims(size, results)` says by `_claims.claim` what these
figures mean, and needs nothing else, so that `--judge` can judge results in a file again, after a change to the claims. A claim
that does not hold is a result like any other: the exit code is 0 if the benchmark ran. `SYSTEMS` says which claims are about
which registered algorithm: `{algorithm: regular expression that the claim's text begins with}`.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import pkgutil
import platform
import sys
import time
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

import benchmarks
from jaxpg.algorithm import InputError, unknown
from jaxpg.experiment import RunError, cache_compiled_programs, use_cpu_devices

PACKAGES = ("jaxpg", "jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "brax", "mujoco-mjx", "numpy")
NAMES = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.name.startswith("_"))
RESULTS = Path(__file__).parent / "results"


def describe(name: str) -> str:
    """The first line of a benchmark's docstring."""
    return (importlib.import_module(f"benchmarks.{name}").__doc__ or "").partition("\n")[0]


def run(name: str, size: str, seeds: int | None, out: Path | None) -> None:
    """Runs one benchmark and writes its JSON, and its picture if it draws one."""
    module = importlib.import_module(f"benchmarks.{name}")
    num_seeds = seeds if seeds is not None else module.SEEDS[size]
    started = time.perf_counter()
    results, figure = module.run(size, num_seeds)
    device = jax.devices()[0]
    report = {
        "name": name,
        "size": size,
        "seconds": round(time.perf_counter() - started, 1),
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES},
        "machine": {
            "cpu_cores": os.cpu_count(),
            "accelerator": None if device.platform == "cpu" else device.device_kind,
        },
        "seeds": num_seeds,
        "results": results,
        "claims": [],
    }
    path = out or RESULTS / f"{name}-{size}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(report, path)  # what took long is safe, whatever becomes of the rest
    if figure is not None:
        figure.save(path.with_suffix(".png"))
    judge(name, size, path)


def judge(name: str, size: str, out: Path | None) -> None:
    """Judges the figures in a benchmark's JSON, and prints the claims."""
    path = out or RESULTS / f"{name}-{size}.json"
    try:
        report = json.loads(path.read_text())
        results = report["results"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"there are no results to judge in {path}: {error!r}: run the benchmark without --judge") from None
    report["claims"] = importlib.import_module(f"benchmarks.{name}").claims(size, results)
    _write(report, path)
    title = f"{report['name']}, {report['size']}, {report['seeds']} seeds, {report['seconds']} s"
    table = Table(title=title, title_justify="left", box=None)
    columns = ("claim", "paper", "measured", "interval", "expected", "null", "verdict")
    for column in columns:
        table.add_column(column)
    for claim in report["claims"]:
        table.add_row(*(_in_short(claim[column]) for column in columns))
    console = Console()
    console.print(table)
    console.print(f"written to {path}", highlight=False)


def _write(report: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")


def _in_short(value: Any) -> str:
    """A cell of the table: numbers with four digits."""
    if isinstance(value, list):
        return " to ".join(map(_in_short, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Reproduces the claims of the systems.")
    parser.add_argument("name", nargs="?", help="a benchmark; --list shows them")
    parser.add_argument("--list", action="store_true", help="show the benchmarks")
    parser.add_argument("--all", action="store_true", help="run every benchmark")
    parser.add_argument("--size", choices=("smoke", "small", "full"), default="smoke")
    parser.add_argument("--seeds", type=int, help="default: the protocol's")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/NAME-SIZE.json")
    parser.add_argument("--judge", action="store_true", help="judge the results in the file again, without a run")
    options = parser.parse_args()
    if options.list:
        for name in NAMES:
            print(f"{name:20} {describe(name)}")
        return
    if not options.all and options.name not in NAMES:
        parser.error(
            "give a name, --all or --list" if options.name is None else f"unknown benchmark {unknown(options.name, NAMES)}"
        )
    if options.all and options.out is not None:
        parser.error("--out is for one benchmark")
    if options.judge and options.seeds is not None:
        parser.error("--judge reads results: --seeds is for a run")
    if options.seeds is not None and options.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {options.seeds}")
    names = NAMES if options.all else [options.name]
    if options.judge:
        for name in names:
            judge(name, options.size, options.out)
        return
    use_cpu_devices(min(os.cpu_count() or 1, 2))
    cache_compiled_programs()
    for name in names:
        run(name, options.size, options.seeds, options.out)


if __name__ == "__main__":
    try:
        main()
    except (InputError, RunError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
