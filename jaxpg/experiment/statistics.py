"""Results over seeds: interquartile means with bootstrap intervals.

Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice (2021), recommend the
interquartile mean because it is nearly as robust as the median and wastes far fewer seeds, and intervals
instead of point estimates because a handful of seeds says less than it seems to.

NaN means *missing*, in scores (a seed none of whose evaluation episodes finished) and in curves (a point at
which no episode ended). Missing values are left out, point by point; they are never taken for zero. What is
left describes the seeds that have a value, so look at how many are missing before you believe it.
"""

import warnings
from collections.abc import Callable
from typing import TypeAlias

import jax
import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Real

Array: TypeAlias = np.ndarray | jax.Array
Reduced: TypeAlias = Float[np.ndarray, "*point"] | np.floating  # a number where the seeds were the only axis
Statistic: TypeAlias = Callable[..., Reduced]  # statistic(scores, axis=...) -> scores reduced over that axis


def interquartile_mean(scores: Real[Array, "*shape"], axis: int | None = 0) -> Reduced:
    """The mean of the middle half: of n values, floor(n / 4) are cut from each end (n < 4: the plain mean).

    Args:
      scores: scores of the seeds, in any unit.
      axis: the axis of the seeds; None takes all values together.

    Returns:
      The scores reduced over `axis`; NaN where every seed is missing.

    Source: Agarwal et al. (2021), section 4.3.
    """
    with warnings.catch_warnings():  # of points where all seeds are missing: they are NaN
        warnings.simplefilter("ignore", RuntimeWarning)
        return scipy.stats.trim_mean(np.asarray(scores, float), 0.25, axis=axis, nan_policy="omit")


def bootstrap_interval(
    scores: Real[Array, "seed *point"],
    statistic: Statistic = interquartile_mean,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[Reduced, Reduced]:
    """Percentile bootstrap interval of a statistic over seeds.

    Whole seeds are resampled with replacement, each point among the seeds that have a value there. The same
    scores give the same interval: the resampling has its own fixed `seed`. One seed says nothing about its
    spread: the interval shrinks to its value, which must not be read as certainty. Below some five seeds it
    is too narrow.

    Args:
      scores: (seed,) final scores, or (seed, *point) curves.
      statistic: function of `(scores, axis)` that reduces `axis`.
      confidence: the level, between 0 and 1.
      num_resamples: number of bootstrap samples; 2000 settles the ends to about 2 % of the interval's width.
      seed: of the resampling.

    Returns:
      `low, high`, each of shape `point`; NaN where every seed is missing.

    Raises:
      ValueError: `confidence` does not lie strictly between 0 and 1, or there are no seeds.

    Source: Agarwal et al. (2021), section 4.1; Efron (1979).
    """
    values = np.asarray(scores, float)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
    if len(values) == 0:
        raise ValueError("a bootstrap interval needs at least one seed, got none")
    points = values.reshape(len(values), -1)
    low, high = np.full((2, points.shape[1]), np.nan)
    for present, columns in _points_by_present_seeds(points):
        sample = points[present][:, columns]
        if len(sample) == 1:
            low[columns] = high[columns] = sample[0]
        elif len(sample) > 1:
            interval = scipy.stats.bootstrap(
                (sample,),
                statistic,
                axis=0,
                vectorized=True,
                method="percentile",
                confidence_level=confidence,
                n_resamples=num_resamples,
                batch=max(1, 2**22 // sample.size),  # at most 32 MB of resampled values at a time
                rng=np.random.default_rng(seed),
            ).confidence_interval
            low[columns], high[columns] = interval
    return low.reshape(values.shape[1:])[()], high.reshape(values.shape[1:])[()]


def _points_by_present_seeds(
    points: Float[np.ndarray, "seed point"],
) -> list[tuple[Bool[np.ndarray, " seed"], Bool[np.ndarray, " point"]]]:
    """Groups points by the seeds that have a value there, so that each group is one vectorised bootstrap."""
    patterns, group = np.unique(~np.isnan(points), axis=1, return_inverse=True)
    return [(patterns[:, index], group == index) for index in range(patterns.shape[1])]
