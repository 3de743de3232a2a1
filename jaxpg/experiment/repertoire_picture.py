"""Pictures of repertoires: the cells of a plane of descriptors, coloured by what they hold."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.collections import PolyCollection
from matplotlib.figure import FigureBase
from scipy.spatial import Voronoi

from jaxpg.algorithm import InputError
from jaxpg.experiment.plots import INK, PALE, Picture

COLUMNS = 4  # of panels


def plot_repertoires(
    repertoires: Mapping[str, Any],
    low: Float[np.ndarray | jax.Array, " descriptor"],
    high: Float[np.ndarray | jax.Array, " descriptor"],
    path: str | os.PathLike | None = None,
    names: Sequence[str] | None = None,
    caption: str = "",
) -> Picture:
    """Draws repertoires side by side, a cell's colour being its fitness and an empty cell pale.

    Args:
      repertoires: title -> `Repertoire`, of one algorithm over time or of several algorithms; all share one scale.
      low, high: the descriptor's bounds, of two dimensions.
      path: where to write the picture; None writes nothing.
      names: of the two descriptors, with their units, as our environments' `descriptor_names` says them.
      caption: what stands above.

    Raises:
      InputError: descriptors have another number of dimensions than two, there is nothing to draw, or the path cannot be
        written to.
    """
    if not repertoires:
        raise InputError("no repertoires to draw: give at least one")
    columns = min(len(repertoires), COLUMNS)
    side = 6.0 if len(repertoires) == 1 else 3.6
    figure = Picture(figsize=(1.2 + side * columns, 0.6 + side * -(-len(repertoires) // columns)), layout="constrained")
    draw_repertoires(figure, repertoires, low, high, names)
    figure.caption(caption)
    figure.save(path)
    return figure


def draw_repertoires(
    figure: FigureBase,
    repertoires: Mapping[str, Any],
    low: Float[np.ndarray | jax.Array, " descriptor"],
    high: Float[np.ndarray | jax.Array, " descriptor"],
    names: Sequence[str] | None = None,
) -> None:
    """The same within a figure, or a part of one."""
    low, high = np.asarray(low), np.asarray(high)
    if low.shape != (2,):
        raise InputError(f"a repertoire is drawn over two descriptors, this one has {low.size}")
    fitnesses = {title: np.asarray(repertoire.fitnesses) for title, repertoire in repertoires.items()}
    present = np.concatenate([values[np.isfinite(values)] for values in fitnesses.values()])
    limits = (present.min(), present.max()) if present.size else (0.0, 1.0)
    columns = min(len(repertoires), COLUMNS)
    rows = -(-len(repertoires) // columns)
    grid = figure.subplots(rows, columns, squeeze=False)
    colours = matplotlib.colormaps["viridis"].with_extremes(bad=PALE)
    for axes, (title, repertoire) in zip(grid.flat, repertoires.items(), strict=False):
        values = np.ma.masked_invalid(fitnesses[title])
        corners = _cells(np.asarray(repertoire.centroids), low, high)
        cells = PolyCollection(corners, cmap=colours, edgecolor="white", linewidth=0.2)
        cells.set_array(values)
        cells.set_clim(*limits)
        axes.add_collection(cells)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect=(high - low)[0] / (high - low)[1])
        filled = f"{values.count() / values.size:.0%} filled"
        axes.set_title(f"{title}\n{filled}", fontsize=10, color=INK, loc="left")
        axes.tick_params(labelsize=7, colors=INK)
        for axis, name in zip((axes.xaxis, axes.yaxis), names or ("descriptor 1", "descriptor 2"), strict=True):
            axis.set_label_text(name, fontsize=9, color=INK)
    for axes in grid.flat[len(repertoires) :]:
        axes.remove()
    figure.colorbar(cells, ax=grid.ravel().tolist()[: len(repertoires)], label="fitness", shrink=0.8)


def _cells(
    centroids: Float[np.ndarray, "cell 2"], low: Float[np.ndarray, " 2"], high: Float[np.ndarray, " 2"]
) -> list[Float[np.ndarray, "corner 2"]]:
    """The corners of each centroid's Voronoi cell within the bounds."""
    # Mirrored at each side: the cells of the centroids themselves then end at the bounds.
    mirrored = [centroids]
    for axis in range(2):
        for bound in (low, high):
            copy = centroids.copy()
            copy[:, axis] = 2 * bound[axis] - copy[:, axis]
            mirrored.append(copy)
    diagram = Voronoi(np.concatenate(mirrored))
    return [diagram.vertices[diagram.regions[region]] for region in diagram.point_region[: len(centroids)]]
