"""A sweep's picture: a line for one swept field, a map for two, parallel coordinates for more."""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from jaxpg.experiment.plots import COLOURS, INK, PALE, Picture, plain_axes

COLOUR_MAP, GREY = "viridis", "#9A9A9A"
MANY = 8  # values of a field that are too many to name each
Scores: TypeAlias = Float[np.ndarray, " configuration"]  # NaN: no score


def value_text(value: Any, digits: int = 4) -> str:
    """A hyperparameter's value in a few letters, as `--grid` takes it: 0.0003, relu, 64x64."""
    if isinstance(value, list | tuple):
        return "x".join(map(str, value))
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


class Coordinate(NamedTuple):
    """A swept field as an axis.

    Attributes:
      name: the field, in words.
      values: its distinct values, numbers in order.
      which: the one that each configuration has.
      is_number: whether the values have places on a line; if not, they stand one beside the other.
      is_log: whether the line is logarithmic: the values span a decade or more.
    """

    name: str
    values: list[Any]
    which: Int[np.ndarray, " configuration"]
    is_number: bool
    is_log: bool

    @property
    def texts(self) -> list[str]:
        """The distinct values."""
        return [value_text(value) for value in self.values]

    @property
    def places(self) -> Float[np.ndarray, " value"]:
        """Where the distinct values stand."""
        return np.array(self.values if self.is_number else range(len(self.values)), float)

    def ticks(self) -> dict[float, str]:
        """The values, or round numbers among them if they are many or crowded."""
        apart = np.diff(self.height(self.places)).min(initial=1.0)
        if not self.is_number or (len(self.values) <= MANY and apart > 0.04):
            return dict(zip(self.places, self.texts, strict=True))
        low, high = self.places[[0, -1]]
        locator = LogLocator(subs=(1, 3)) if self.is_log else MaxNLocator(6)
        return {tick: value_text(float(tick)) for tick in locator.tick_values(low, high) if low <= tick <= high}

    def height(self, places: Any) -> Float[np.ndarray, " place"]:
        """Places as heights on an axis from 0 to 1."""
        scale = np.log if self.is_log else np.asarray
        low, high = scale(self.places[[0, -1]])
        return (scale(np.asarray(places, float)) - low) / (high - low if high > low else 1.0)


def coordinate(name: str, values: list[Any]) -> Coordinate:
    """The axis of a field that has one value per configuration."""
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    distinct = sorted(set(values)) if is_number else [v for i, v in enumerate(values) if v not in values[:i]]
    is_log = is_number and distinct[0] > 0 and distinct[-1] >= 10 * distinct[0]
    which = np.array([distinct.index(value) for value in values])
    return Coordinate(name.replace("_", " "), distinct, which, is_number, is_log)


def plot_sweep(summary: dict[str, Any], path: str | os.PathLike | None = None) -> Picture:
    """Draws the score of every configuration: interquartile mean of the returns over seeds.

    One swept field: a line with its bootstrap interval. Two: a heat map, or points where the configurations are no complete
    grid. Three and more: parallel coordinates, coloured by the score. Fields that span a decade have a logarithmic axis;
    configurations without a score are grey crosses or lines.

    Args:
      summary: the content of `results.json`.
      path: where to write the picture, in the format of its ending; None writes nothing.

    Raises:
      InputError: the path cannot be written to.
    """
    results = summary["results"]
    scores, low, high = (_numbers(column) for column in zip(*[[r["iqm"], *r["iqm_ci"]] for r in results], strict=True))
    names = results[0]["hyperparameters"]
    coordinates = [coordinate(name, [result["hyperparameters"][name] for result in results]) for name in names]
    coordinates = [c for c in coordinates if len(c.values) > 1] or coordinates[:1]
    seeds, missing = summary["num_seeds"], int(np.isnan(scores).sum())
    caption = f"return: interquartile mean over {seeds} seeds" if seeds > 1 else "return of one seed"
    caption += f" (--seed {summary['seed']})"
    width = 7.2 if len(coordinates) < 3 else 3.2 + 1.6 * len(coordinates)
    figure = Picture(figsize=(width, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"{summary['algorithm']} on {summary['env']}", loc="left", fontsize=12, color=INK, weight="bold", pad=12)
    if len(coordinates) == 1:
        _draw_line(axes, coordinates[0], scores, low, high)
        caption += f"    {'band' if coordinates[0].is_number else 'bar'}: 95 % bootstrap interval" if seeds > 1 else ""
    else:
        present = scores[np.isfinite(scores)] if missing < len(scores) else np.zeros(1)
        norm = Normalize(float(np.min(present)), float(np.max(present)))
        if len(coordinates) > 2:
            _draw_parallel(axes, coordinates, scores, norm)
        elif len(scores) == len(coordinates[0].values) * len(coordinates[1].values):
            _draw_map(axes, coordinates, scores, norm)
        else:
            _draw_points(axes, coordinates, scores, norm)
        if len(coordinates) == 2:
            bar = figure.colorbar(ScalarMappable(norm, COLOUR_MAP), ax=axes)
            bar.set_label("return", color=INK)
            bar.ax.spines[:].set_visible(False)
            bar.ax.tick_params(colors=INK, labelsize=9, length=3, color="#999999")
    if missing:
        caption += f"    grey: no score ({missing} of {len(scores)} configurations)"
    figure.supxlabel(caption, fontsize=8, color="#777777")
    figure.save(path)
    return figure


def _numbers(values: Sequence[float | None]) -> Float[np.ndarray, " configuration"]:
    return np.array([math.nan if value is None else value for value in values], float)


def _label(axis: Axis, coordinate: Coordinate) -> None:
    """Name, scale and ticks of a matplotlib axis."""
    axis.set_label_text(coordinate.name)
    if coordinate.is_log:
        axis.axes.set_xscale("log") if axis is axis.axes.xaxis else axis.axes.set_yscale("log")
    ticks = coordinate.ticks()
    axis.set_ticks(list(ticks), list(ticks.values()))
    axis.set_minor_locator(NullLocator())


def _draw_line(axes: Axes, c: Coordinate, scores: Scores, low: Scores, high: Scores) -> None:
    plain_axes(axes)
    order = np.argsort(c.which)
    place, scores, low, high = c.places[c.which][order], scores[order], low[order], high[order]
    present = np.isfinite(scores)
    x, score, low, high = place[present], scores[present], low[present], high[present]
    if c.is_number:
        axes.fill_between(x, low, high, color=COLOURS[0], alpha=0.22, linewidth=0)
        axes.plot(x, score, "-o", color=COLOURS[0], linewidth=2, markersize=5)
    else:
        axes.errorbar(x, score, [score - low, high - score], fmt="o", color=COLOURS[0], linewidth=2, markersize=7)
        axes.set_xlim(-0.5, len(c.values) - 0.5)
    axes.plot(place[~present], np.full((~present).sum(), 0.03), "x", color=GREY, transform=axes.get_xaxis_transform())
    _label(axes.xaxis, c)
    axes.set_ylabel("return")


def _draw_map(axes: Axes, coordinates: list[Coordinate], scores: Scores, norm: Normalize) -> None:
    x, y = coordinates
    plain_axes(axes, grid=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    table = np.full((len(y.values), len(x.values)), math.nan)
    table[y.which, x.which] = scores
    axes.set_facecolor(PALE)
    axes.pcolormesh(table, cmap=COLOUR_MAP, norm=norm, edgecolors="white", linewidth=1)
    for axis, c in ((axes.xaxis, x), (axes.yaxis, y)):
        axis.set_label_text(c.name)
        axis.set_ticks(np.arange(len(c.values)) + 0.5, c.texts)
    axes.tick_params(axis="x", rotation=45 if len(x.values) > MANY else 0)
    if table.size <= 100:
        for (row, column), score in np.ndenumerate(table):
            text = "none" if math.isnan(score) else f"{score:,.4g}"
            ink = GREY if math.isnan(score) else "white" if float(norm(score)) < 0.6 else INK
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=ink, fontsize=8)


def _draw_points(axes: Axes, coordinates: list[Coordinate], scores: Scores, norm: Normalize) -> None:
    x, y = coordinates
    plain_axes(axes)
    across, up, missing = x.places[x.which], y.places[y.which], np.isnan(scores)
    axes.plot(across[missing], up[missing], "x", color=GREY)
    order = np.argsort(np.where(missing, -math.inf, scores))[missing.sum() :]  # the best on top
    axes.scatter(across[order], up[order], 60, scores[order], cmap=COLOUR_MAP, norm=norm, edgecolors="white", linewidths=0.5)
    _label(axes.xaxis, x)
    _label(axes.yaxis, y)


def _draw_parallel(axes: Axes, coordinates: list[Coordinate], scores: Scores, norm: Normalize) -> None:
    colours = ScalarMappable(norm, COLOUR_MAP)
    axes.set_axis_off()
    axes.set(xlim=(-0.3, len(coordinates) + 0.3), ylim=(-0.05, 1.12))
    missing = np.isnan(scores)
    heights = np.stack([c.height(c.places[c.which]) for c in coordinates], axis=1)
    # Where many lines meet in one value, the better are a little higher.
    spread = 0.03 * (np.where(missing, 0.0, norm(scores)) - 0.5)[:, None]
    heights += np.where([len(c.values) <= MANY for c in coordinates], spread, 0.0)
    alpha = float(np.clip(40 / len(scores), 0.25, 0.9))
    for path in heights[missing]:
        axes.plot(path, "--", color=GREY, linewidth=0.8, alpha=alpha)
    if not missing.all():
        score = Coordinate("return", list(np.linspace(*colours.get_clim(), MANY + 2)), np.zeros(0, int), True, False)
        coordinates = [*coordinates, score]
    order = np.argsort(np.where(missing, -math.inf, scores))[missing.sum() :]
    for rank, row in enumerate(order, start=1):  # the best last, on top
        best = rank == len(order)
        path = [*heights[row], *score.height([scores[row]])]
        axes.plot(path, color=colours.to_rgba(scores[row]), linewidth=3 if best else 1.2, alpha=1 if best else alpha)
    for column, c in enumerate(coordinates):
        axes.plot([column, column], [0, 1], color="#999999", linewidth=1)
        axes.text(column, 1.07, c.name, ha="center", color=INK, fontsize=10)
        side, align = (1, "left") if column == len(coordinates) - 1 else (-1, "right")
        for place, text in c.ticks().items():
            height = float(c.height([place])[0])
            axes.plot([column, column + 0.02 * side], [height, height], color="#999999", linewidth=1)
            label = axes.text(column + 0.04 * side, height, text, ha=align, va="center", color=INK, fontsize=8)
            label.set_path_effects([withStroke(linewidth=2, foreground="white")])
