"""Claims: what was measured and how sure of it we are, what is expected, and what is measured without what the claim is about.

`claim` makes every claim of every benchmark, and `judge` alone decides about it.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import scipy.stats

Interval: TypeAlias = tuple[float, float]
Verdict: TypeAlias = Literal["holds", "open", "fails"]
CONFIDENCE = 0.95


class Expected(NamedTuple):
    """The values that meet a claim: those from `low` to `high`, these two among them if it is `closed`."""

    words: str
    low: float
    high: float
    closed: bool

    def meets_any(self, low: float, high: float) -> bool:
        """Whether some value from `low` to `high` meets the claim."""
        return (low <= self.high and high >= self.low) if self.closed else (low < self.high and high > self.low)


def at_least(threshold: float, words: str = "") -> Expected:
    """>= threshold; the words follow it in the results, as for the others."""
    return Expected(f">= {threshold}{words}", threshold, math.inf, True)


def above(threshold: float, words: str = "") -> Expected:
    """> threshold: what the null that it names must not meet."""
    return Expected(f"> {threshold}{words}", threshold, math.inf, False)


def above_all(null: float | Interval | None, words: str) -> Expected:
    """More than the null, whatever of its interval it is."""
    return above(-math.inf if null is None else max(null) if isinstance(null, tuple) else null, words)


def at_most(threshold: float, words: str = "") -> Expected:
    """<= threshold."""
    return Expected(f"<= {threshold}{words}", -math.inf, threshold, True)


def below(threshold: float, words: str = "") -> Expected:
    """< threshold."""
    return Expected(f"< {threshold}{words}", -math.inf, threshold, False)


def near(value: float, tolerance: float, words: str = "") -> Expected:
    """Within a tolerance of a value."""
    return Expected(f"{value} within {tolerance}{words}", value - tolerance, value + tolerance, True)


def judge(measured: float | None, interval: Interval | None, expected: Expected, null: float | Interval | None) -> Verdict:
    """What the measurement says of the claim.

    - "fails": no value of the interval meets the claim.
    - "holds": every value of the interval meets it and none is its threshold, so that a tie does not hold; and no value of the
      null meets it. Then the interval excludes the null too.
    - "open": all the rest: an interval that reaches over the threshold, a claim that the null meets, and a measurement that is
      not a finite number.

    Without an interval, of one seed or one repeat, a claim is open if what was measured meets it, and fails if not.

    Args:
      interval: of what was measured; twice `measured` for a quantity without chance.
      null: what is measured without what the claim is about (an untrained policy, equal speed, the rival's interval), a number
        or an interval; None where there is no such thing.
    """
    if measured is None or not math.isfinite(measured):
        return "open"
    low, high = (measured, measured) if interval is None else (min(interval[0], measured), max(interval[1], measured))
    if not expected.meets_any(low, high):
        return "fails"
    null_low, null_high = null if isinstance(null, tuple) else (null, null)
    is_empty = null_low is not None and null_high is not None and expected.meets_any(null_low, null_high)
    inside = expected.low < low and high < expected.high
    return "holds" if interval is not None and inside and not is_empty else "open"


def claim(
    text: str,
    paper: str,
    measured: float | None,
    expected: Expected,
    *,
    null: float | Interval | None,
    interval: Interval | None = None,
    exact: bool = False,
) -> dict[str, Any]:
    """A claim as the results have it; arguments as of `judge`.

    Args:
      exact: what was measured has no chance in it, or so many samples that its chance is far below the claim's threshold: it is
        its own interval.
    """
    if measured is not None and not math.isfinite(measured):
        measured = None
    if exact and measured is not None:
        interval = (measured, measured)
    verdict = judge(measured, interval, expected, null)
    return {
        "claim": text,
        "paper": paper,
        "measured": measured,
        "interval": None if interval is None else list(interval),
        "expected": expected.words,
        "null": list(null) if isinstance(null, tuple) else null,
        "verdict": verdict,
        "holds": verdict == "holds",
    }


def estimate(statistic: Callable[..., Any], *samples: Any) -> tuple[float | None, Interval | None]:
    """A statistic of independent samples (seeds, repeats), and its 95 % interval; missing values (None, NaN) are left out.

    The interval is the percentile bootstrap's, each end as many times as far from the statistic as Student's interval of the
    smallest sample is wider than the normal one: without that, it is much too narrow for a handful of seeds, and claims would
    hold by luck.

    Args:
      statistic: `(*samples, axis) -> number`.

    Returns:
      None for the statistic if a sample is empty; None for the interval if one has a single value.

    Source: Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 5.3, the factor.
    """
    values = [np.asarray(sample, float) for sample in samples]
    values = [sample[~np.isnan(sample)] for sample in values]
    number = min(len(sample) for sample in values)
    if number == 0:
        return None, None
    measured = float(statistic(*values, axis=0))
    if number == 1:
        return measured, None
    percentiles = scipy.stats.bootstrap(
        values,
        statistic,
        vectorized=True,
        method="percentile",
        confidence_level=CONFIDENCE,
        n_resamples=2000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    tail = 0.5 + 0.5 * CONFIDENCE
    wider = math.sqrt(number / (number - 1)) * scipy.stats.t.ppf(tail, number - 1) / scipy.stats.norm.ppf(tail)
    low, high = (measured + float(wider) * (float(end) - measured) for end in percentiles)
    return measured, ((low, high) if math.isfinite(low) and math.isfinite(high) else None)


def null_of(statistic: Callable[..., Any], *samples: Any) -> float | Interval | None:
    """What others measured, as a null: the interval of its estimate, or the number of a single seed."""
    measured, interval = estimate(statistic, *samples)
    return interval or measured


def ratio_of(statistic: Callable[..., Any]) -> Callable[..., Any]:
    """The ratio of a statistic of one sample to that of another."""
    return lambda above, below, axis: statistic(above, axis=axis) / statistic(below, axis=axis)


def difference_of(statistic: Callable[..., Any]) -> Callable[..., Any]:
    """A statistic of one sample less that of another."""
    return lambda one, other, axis: statistic(one, axis=axis) - statistic(other, axis=axis)
