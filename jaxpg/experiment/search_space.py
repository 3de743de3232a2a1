"""What a sweep searches: grids and ranges of hyperparameters, checked, and the configurations they make."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxpg.algorithm import Field, InputError, check_value, plain_value, require_read, shortest, unknown, written
from jaxpg.experiment.sweep_picture import value_text

Configuration = dict[str, Any]  # the swept fields and their values
MOST_CONFIGURATIONS = 1_000_000


def in_order(algorithm: str, known: dict[str, Field], swept: Mapping[str, Any]) -> dict[str, Any]:
    """The fields in the order of the algorithm's configuration, so that the order in which they were named does not matter."""
    for name in swept:
        if name not in known:
            raise InputError(f"{algorithm} has no hyperparameter {unknown(name, known)}")
    return {name: swept[name] for name in known if name in swept}


def check_space(
    algorithm: str,
    known: dict[str, Field],
    grid: dict[str, Any],
    ranges: dict[str, Any],
    random: int | None,
    hyperparameters: dict[str, Any],
) -> None:
    """Checks what a sweep is asked to search.

    Raises:
      InputError: nothing to search or too much, a field given twice, an empty grid, a range of what is not real-valued, or
        ranges without a number of draws.
    """
    if ranges and random is None:
        raise InputError("ranges need a number of draws: --random N")
    if random is not None and not ranges:
        raise InputError("--random draws from ranges, and there are none: --range.FIELD low,high or low,high,log")
    if not grid and not ranges:
        raise InputError("a sweep needs a grid or ranges: --grid.FIELD a,b,c, or --random N with --range.FIELD low,high")
    for one, other, words in (
        (grid, ranges, "both a grid and a range"),
        (grid, hyperparameters, "both a grid and a fixed value"),
        (ranges, hyperparameters, "both a range and a fixed value"),
    ):
        for name in one:
            if name in other:
                raise InputError(f"{algorithm}: {name} has {words}: give one of them")
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray | jax.Array):
            raise InputError(f"{algorithm}: the grid of {name} must be a sequence of values, got {written(values)}")
        if len(values) == 0:
            raise InputError(f"{algorithm}: the grid of {name} is empty")
    number = (random or 1) * math.prod(map(len, grid.values()))
    if number > MOST_CONFIGURATIONS:
        raise InputError(
            f"a sweep has at most {MOST_CONFIGURATIONS} configurations, this one has {number}: take fewer values or draws"
        )
    for name in ranges:
        if not known[name].is_leaf:
            raise InputError(
                f"{algorithm}: {name} is not real-valued, and each of its values is a program of its own: "
                f"give a grid of it, --grid.{name.replace('_', '-')} a,b,c"
            )


def checked_values(algorithm: str, field: Field, values: Any) -> list[Any]:
    """A grid's values, each of the field's type and within its range, and no two alike."""
    plain = np.asarray(values) if isinstance(values, jax.Array) else values
    checked = [plain_value(field, check_value(algorithm, field, value)) for value in plain]
    for index, value in enumerate(checked):
        if value in checked[:index]:
            raise InputError(f"{algorithm}: the grid of {field.name} has {value_text(value)} twice")
    return checked


def checked_range(algorithm: str, field: Field, interval: Any) -> list[Any]:
    """`[low, high]` or `[low, high, "log"]`."""
    where = f"{algorithm}: the range of {field.name}"
    if not isinstance(interval, list | tuple) or len(interval) < 2 or list(interval[2:]) not in ([], ["log"]):
        raise InputError(f"{where} must be low,high or low,high,log, got {_as_written(interval)}")
    low, high = (float(check_value(algorithm, field, end)) for end in interval[:2])
    if not low < high:
        raise InputError(f"{where} must have low < high, got {_as_written(interval)}")
    if interval[2:] and low <= 0:
        raise InputError(f"{where} is logarithmic and must lie above 0, got {_as_written(interval)}")
    return [plain_value(field, low), plain_value(field, high), *interval[2:]]


def _as_written(interval: Any) -> str:
    if not isinstance(interval, list | tuple):
        return written(interval)
    return ",".join(end if isinstance(end, str) else written(end) for end in interval)


def require_all_read(
    algorithm: str, known: dict[str, Field], configurations: list[Configuration], hyperparameters: dict[str, Any]
) -> None:
    """Raises `InputError` if one of the configurations does not read a swept field, of whatever value."""
    fixed = {name: field.default for name, field in known.items()}
    fixed |= {name: check_value(algorithm, known[name], hyperparameters[name]) for name in known if name in hyperparameters}
    for configuration in configurations:
        for name in configuration:
            require_read(algorithm, known[name], fixed | configuration)


def draw(ranges: dict[str, list[Any]], number: int, seed: int) -> list[Configuration]:
    """Draws from the ranges; without ranges, one draw of nothing."""
    if not ranges:
        return [{}]
    uniform = np.random.default_rng(seed).random((number, len(ranges)))
    columns = {}
    for (name, (low, high, *log)), u in zip(ranges.items(), uniform.T, strict=True):
        values = low * (high / low) ** u if log else low + (high - low) * u
        columns[name] = [shortest(value) for value in np.clip(values, low, high).astype(np.float32)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def combine(grid: dict[str, list[Any]], draws: list[Configuration]) -> list[Configuration]:
    """Every combination of the grid's values with every draw."""
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return [combination | drawn for combination in combinations for drawn in draws]
