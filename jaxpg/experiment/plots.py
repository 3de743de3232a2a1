"""Learning curves of runs: read from their folders, drawn over seeds."""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from jaxpg.algorithm import InputError, unknown
from jaxpg.experiment.files import read_json, write_atomically
from jaxpg.experiment.logs import read_lines
from jaxpg.experiment.statistics import bootstrap_interval, interquartile_mean

# Okabe and Ito's colours, told apart with any colour vision; the yellow is too pale for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
INK, PALE = "#333333", "#E3E3E3"
EVALUATION = "evaluation_return"


class Picture(Figure):
    """A matplotlib figure without pyplot's global state, which a notebook shows as it is."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=150)
        return buffer.getvalue()

    def caption(self, text: str) -> None:
        """Says above all panels what is shown; nothing for ""."""
        if text:
            self.suptitle(text, x=0.01, ha="left", fontsize=10, color=INK)

    def save(self, path: str | os.PathLike | None) -> None:
        """Writes the picture in the format of the name's ending, making its folder; nothing for None.

        Raises:
          InputError: matplotlib does not write files with this ending, or the place cannot be written to.
        """
        if path is None:
            return
        supported = self.canvas.get_supported_filetypes()
        ending = Path(path).suffix.removeprefix(".").lower()
        if ending not in supported:
            raise InputError(f"cannot draw {str(path)!r}: picture format {unknown(ending, supported)}")
        picture = BytesIO()
        self.savefig(picture, dpi=150, format=ending)
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(Path(path), picture.getvalue())
        except OSError as error:
            raise InputError(f"cannot write the picture {str(path)!r}: {error.strerror}") from error


@dataclass(frozen=True)
class Curves:
    """What a run has logged.

    Attributes:
      directory: the run's folder.
      algorithm, env: their names.
      seed: of the run; None if its `config.json` has none.
      env_steps: environment steps of one seed at the end of each chunk.
      seconds: wall-clock seconds at the end of each chunk.
      metrics: name -> (seed, point); NaN where nothing was measured (no episode ended, the metric was not
        logged).
    """

    directory: Path
    algorithm: str
    env: str
    seed: int | None
    env_steps: Float[np.ndarray, " point"]
    seconds: Float[np.ndarray, " point"]
    metrics: dict[str, Float[np.ndarray, "seed point"]]


def read_curves(run_dir: str | os.PathLike) -> Curves:
    """Reads `config.json` and `metrics.jsonl` of a run, finished, running or killed.

    A last line that is torn, because the run is writing it or was killed, is left out. Where a resumed run
    repeats a chunk the later line counts.

    Raises:
      InputError: the folder holds no run, nothing has been logged yet, or a file is damaged.
    """
    directory = Path(run_dir)
    config = _read_config(directory)
    path = directory / "metrics.jsonl"
    lines = read_lines(path)
    for line in lines:
        if line.row is None:
            raise InputError(
                f"{path} is damaged at line {line.number}: it should be an object of numbers with 'update' and 'env_steps'; "
                "remove that line, or train the run again"
            )
    records = list({row["env_steps"]: row for line in lines if (row := line.row) is not None}.values())
    if not records:
        state = "is empty" if path.exists() else "is missing"
        raise InputError(f"{path} {state}: wait until the run has logged its first chunk")
    names = {name: None for record in records for name in record if name not in ("update", "env_steps", "seconds")}
    try:
        return Curves(
            directory=directory,
            algorithm=config["algorithm"],
            env=config["env"],
            seed=config.get("seed"),
            env_steps=np.array([record["env_steps"] for record in records], float),
            seconds=np.array([record.get("seconds", math.nan) for record in records], float),
            metrics={name: _seeds_by_points([record.get(name) for record in records]) for name in names},
        )
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path} is damaged: each metric should be a number, or a list with "
            f"one number per seed, as many in every line ({error})"
        ) from error


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    try:
        config = read_json(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "it has no config.json" if directory.is_dir() else "there is no such folder"
        raise InputError(f"no run in {str(directory)!r}: {what}; give the folder that `jaxpg train --out` wrote") from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    is_sound = isinstance(config, dict) and all(isinstance(config.get(name), str) for name in ("algorithm", "env"))
    if not is_sound or not isinstance(config.get("seed"), int | None):
        raise InputError(f"{path} is damaged: it should be an object with 'algorithm' and 'env', and a number as 'seed'")
    return config


def _seeds_by_points(values: list[Any]) -> Float[np.ndarray, "seed point"]:
    """One metric of all chunks as an array; null and what was not logged become NaN."""
    rows = [value if isinstance(value, list | None) else [value] for value in values]
    num_seeds = next((len(row) for row in rows if row), 1)
    return np.array([row or [math.nan] * num_seeds for row in rows], float).T


def plot_learning_curves(
    run_dirs: str | os.PathLike | Sequence[str | os.PathLike],
    path: str | os.PathLike | None = None,
    metric: str | None = None,
) -> Picture:
    """Draws a metric over seeds against environment steps: interquartile mean and 95 % bootstrap interval.

    By default that is the training return, and beside it, dashed, the return of the evaluations that a run made while it
    trained; of runs that log no return, the first metric they share.

    One panel per environment; the runs in it share their axes. An algorithm has the same colour in every
    panel. Points at which no seed has a value are skipped.

    Args:
      run_dirs: the folder of one run, or those of several.
      path: where to write the picture, in the format of its ending; None writes nothing.
      metric: a name in `metrics.jsonl`, to be drawn alone.

    Raises:
      InputError: no runs given, a folder that `read_curves` refuses, a metric that a run has not logged (the
        nearest match is offered), or a `path` that cannot be written to.
    """
    directories = [run_dirs] if isinstance(run_dirs, str | os.PathLike) else list(run_dirs)
    if not directories:
        raise InputError("no runs to plot: give at least one run's folder")
    runs = [read_curves(directory) for directory in directories]
    beside = EVALUATION if metric is None else None
    metric = metric or _common_metric(runs)
    for run in runs:
        if metric not in run.metrics:
            raise InputError(f"the run in {str(run.directory)!r} has no metric {unknown(metric, run.metrics)}")

    labels = _labels(runs)
    styles = {label: index for index, label in enumerate(dict.fromkeys(labels))}
    envs = list(dict.fromkeys(run.env for run in runs))
    columns = min(len(envs), 3)
    rows = math.ceil(len(envs) / columns)
    figure = Picture(figsize=(1.6 + 4.8 * columns if columns > 1 else 7.2, 3.6 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    panels = dict(zip(envs, grid.flat, strict=False))
    for axes in grid.flat[len(envs) :]:
        axes.remove()
    for env, axes in panels.items():
        plain_axes(axes)
        axes.set_title(env, loc="left", fontsize=12, color=INK, weight="bold")
        axes.set_xlabel("environment steps")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 200k, 1M
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    for axes in grid[:, 0]:
        axes.set_ylabel(metric.replace("_", " "))

    lines, seeds, first = {}, defaultdict(set), defaultdict(set)
    for run, label in zip(runs, labels, strict=True):
        scores = run.metrics[metric]
        lines[label] = _draw_curve(panels[run.env], run.env_steps, scores, styles[label])
        seeds[label].add(len(scores) if np.isfinite(scores).any() else 0)
        if beside in run.metrics:
            judged = f"{label}, evaluated"
            lines[judged] = _draw_curve(panels[run.env], run.env_steps, run.metrics[beside], styles[label], is_beside=True)
            seeds[judged].add(len(scores))
            first[judged].add(run.seed)
        first[label].add(run.seed)
    for axes in panels.values():
        axes.set_xlim(left=0)
    names = [f"{label} ({_words(seeds[label])}{_from(first[label])})" for label in lines]
    for columns in range(min(len(names), 4), 0, -1):  # as many as fit
        legend = figure.legend(lines.values(), names, loc="outside upper center", ncols=columns, frameon=False)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
    spread = "    band: 95 % bootstrap interval    thin lines: the seeds"
    caption = "line: interquartile mean over seeds" + spread if max(map(max, seeds.values())) > 1 else "one seed, no interval"
    figure.supxlabel(caption, fontsize=8, color="#777777")
    figure.save(path)
    return figure


def _common_metric(runs: list[Curves]) -> str:
    """The training return if all have logged it, else the first metric that all have."""
    shared = [name for name in runs[0].metrics if all(name in run.metrics for run in runs)]
    if "episode_return" in shared or not shared:
        return "episode_return"
    return shared[0]


def _words(num_seeds: set[int]) -> str:
    """How many seeds the curves of one label have, 0 standing for a curve without any value."""
    few, many = min(num_seeds), max(num_seeds)
    if many == 0:
        return "no values yet"
    return f"{few} seed{'s' * (many > 1)}" if few == many else f"{few} to {many} seeds"


def _from(first: set[int | None]) -> str:
    """The `--seed` of the runs of one label, where all have the same."""
    (seed,) = first if len(first) == 1 else (None,)
    return "" if seed is None else f", --seed {seed}"


def _labels(runs: list[Curves]) -> list[str]:
    """The algorithm; with the folder's name where a panel has it twice, or its path if need be."""
    labels = [run.algorithm for run in runs]
    for describe in (lambda run: run.directory.resolve().name, lambda run: str(run.directory)):
        seen = Counter((run.env, label) for run, label in zip(runs, labels, strict=True))
        labels = [
            label if seen[run.env, label] == 1 else f"{run.algorithm} · {describe(run)}"
            for run, label in zip(runs, labels, strict=True)
        ]
    return labels


def _draw_curve(
    axes: Axes,
    env_steps: Float[np.ndarray, " point"],
    scores: Float[np.ndarray, "seed point"],
    style: int,
    is_beside: bool = False,
) -> Any:
    colour = COLOURS[style % len(COLOURS)]
    dashes: Any = ("-", "--", ":", "-.")[style // len(COLOURS) % 4]
    if is_beside:
        dashes = (0, (2, 1))
    if len(scores) > 1 and not is_beside:
        alpha = max(0.2, 0.5 - 0.02 * len(scores))
        for seed in scores:
            present = np.isfinite(seed)
            axes.plot(env_steps[present], seed[present], color=colour, linewidth=0.6, alpha=alpha, zorder=2)
    present = np.isfinite(scores).any(axis=0)
    steps, scores = env_steps[present], scores[:, present]
    low, high = bootstrap_interval(scores)
    axes.fill_between(steps, low, high, color=colour, alpha=0.12 if is_beside else 0.22, linewidth=0, zorder=3)
    marker = "o" if is_beside or present.sum() == 1 else ""  # a line through one point is invisible
    look: Any = {"linewidth": 2, "marker": marker, "markersize": 4, "markerfacecolor": "white", "zorder": 4}
    (line,) = axes.plot(steps, interquartile_mean(scores), linestyle=dashes, color=colour, **look)
    return line


def plain_axes(axes: Axes, grid: bool = True) -> None:
    """Our look: two spines, a pale grid behind the data, dark grey letters."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors=INK, labelsize=9, length=3, color="#999999")
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(color=PALE, linewidth=0.8)
