"""Wave function collapse: pictures whose every small window occurs in an example (Gumin 2016, the overlapping model)."""

import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int

_ATTEMPTS = 200
_CACHED = 2**16  # sets of windows


def patterns(
    template: Bool[np.ndarray, "row column"], width: int
) -> tuple[Bool[np.ndarray, "pattern width width"], Int[np.ndarray, " pattern"]]:
    """The different windows of a template that repeats for ever, rotated and mirrored, and how often each occurs."""
    repeated = np.pad(template, (0, width - 1), mode="wrap")
    windows = np.lib.stride_tricks.sliding_window_view(repeated, (width, width)).reshape(-1, width, width)
    symmetric = [np.rot90(side, turns, (1, 2)) for side in (windows, windows[..., ::-1]) for turns in range(4)]
    return np.unique(np.concatenate(symmetric), axis=0, return_counts=True)


def overlapping_model(
    template: Bool[np.ndarray, "row column"], width: int
) -> Callable[[np.random.Generator, int], Bool[np.ndarray, "size size"]]:
    """A function that draws squares of any size all of whose windows occur in the template.

    Every cell of the square stands for a window of which it is the upper left corner. Of the windows a cell can still be, a
    set that is a bit mask, one is chosen where the least is open (the lowest entropy), as often as in the template, and
    what no longer fits leaves the sets of the cells around. Where a set runs empty, all begins anew. Unlike in DRED's
    data, the square does not close to a torus.

    Args:
        template: an example, repeated for ever in both directions.
        width: of the windows, 2 or 3.

    Returns:
        `draw(rng, size)`, which raises RuntimeError if 200 attempts failed: the template is too intricate for that size.
    """
    windows, counts = patterns(template, width)
    shown = windows[:, 0, 0]
    weights = counts.tolist()
    everything = (1 << len(weights)) - 1

    def fitting(row: int, column: int) -> list[int]:
        """For each pattern the set of those that may lie that many cells below and to the right of it."""
        part = lambda row, column: windows[:, max(row, 0) : width + min(row, 0), max(column, 0) : width + min(column, 0)]
        here, there = (x.reshape(len(weights), 1, -1) for x in (part(row, column), part(-row, -column)))
        agree = (here == there.transpose(1, 0, 2)).all(axis=2)
        return [sum(1 << int(other) for other in np.flatnonzero(fits)) for fits in agree]

    sides = (0, 1), (1, 0), (0, -1), (-1, 0)
    fits = [fitting(*side) for side in sides]

    @functools.lru_cache(_CACHED)
    def members(mask: int) -> list[int]:
        return [pattern for pattern in range(len(weights)) if mask >> pattern & 1]

    @functools.lru_cache(_CACHED)
    def beside(side: int, mask: int) -> int:
        """What may lie at that side of a cell that is one of `mask`."""
        union = 0
        for pattern in members(mask):
            union |= fits[side][pattern]
        return union

    @functools.lru_cache(_CACHED)
    def entropy(mask: int) -> float:
        chosen = [weights[pattern] for pattern in members(mask)]
        return math.log(sum(chosen)) - sum(weight * math.log(weight) for weight in chosen) / sum(chosen)

    def attempt(rng: np.random.Generator, size: int) -> Bool[np.ndarray, "size size"] | None:
        masks = [everything] * (size * size)
        noise = (1e-6 * rng.random(size * size)).tolist()  # breaks ties
        undecided = set(range(size * size))
        while undecided:
            cell = min(undecided, key=lambda cell: entropy(masks[cell]) + noise[cell])
            choice = members(masks[cell])
            place = rng.random() * sum(weights[pattern] for pattern in choice)
            for pattern in choice:
                place -= weights[pattern]
                if place < 0:
                    break
            masks[cell] = 1 << pattern
            undecided.remove(cell)
            changed = [cell]
            while changed:
                cell = changed.pop()
                for side, (down, right) in enumerate(sides):
                    row, column = cell // size + down, cell % size + right
                    if 0 <= row < size and 0 <= column < size:
                        other = row * size + column
                        left = masks[other] & beside(side, masks[cell])
                        if not left:
                            return None
                        if left != masks[other]:
                            masks[other] = left
                            changed.append(other)
        return shown[[mask.bit_length() - 1 for mask in masks]].reshape(size, size)

    def draw(rng: np.random.Generator, size: int) -> Bool[np.ndarray, "size size"]:
        for _ in range(_ATTEMPTS):
            square = attempt(rng, size)
            if square is not None:
                return square
        raise RuntimeError(f"no square of {size} cells after {_ATTEMPTS} attempts: the template is too intricate")

    return draw
