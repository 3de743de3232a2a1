"""Running statistics as pure functions over a state: normalised observations, scaled rewards."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, ScalarLike

CLIP = 10.0  # in standard deviations
MOST_BATCHES = 2**20 - 1  # what is older weighs no more than so many of the newest batch


class RunningStatistics(NamedTuple):
    """Mean and variance of everything seen so far; `count` is a weight, in float32.

    After `MOST_BATCHES` the weight of the past stays as it is: it would outgrow float32, whose sums then stand still, and the
    two weights of a merge would no longer sum to 1. From then on statistics are exponential moving averages.
    """

    mean: Float[Array, "*feature"]
    variance: Float[Array, "*feature"]
    count: Float[Array, ""]


def init_statistics(shape: tuple[int, ...] = ()) -> RunningStatistics:
    """Mean 0, variance 1, with next to no weight."""
    return RunningStatistics(jnp.zeros(shape), jnp.ones(shape), jnp.float32(1e-4))


def update_statistics(statistics: RunningStatistics, batch: Float[Array, "..."]) -> RunningStatistics:
    """Merges a batch, all leading axes of which are samples.

    Source: Chan, Golub and LeVeque (1979), the parallel variance update.
    """
    axes = tuple(range(batch.ndim - statistics.mean.ndim))
    batch_count = jnp.float32(batch.size / statistics.mean.size)
    past_count = jnp.minimum(statistics.count, MOST_BATCHES * batch_count)
    count = past_count + batch_count
    delta = batch.mean(axes) - statistics.mean
    mean = statistics.mean + delta * batch_count / count
    # Weighted variances, not sums of squares: those would outgrow float32 in a long run.
    old, new = past_count / count, batch_count / count
    variance = old * statistics.variance + new * batch.var(axes) + old * new * jnp.square(delta)
    return RunningStatistics(mean, variance, count)


def normalize(statistics: RunningStatistics, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """(x - mean) / standard deviation, clipped to ±10."""
    return jnp.clip((x - statistics.mean) / jnp.sqrt(statistics.variance + 1e-8), -CLIP, CLIP)


class RewardScaling(NamedTuple):
    """Statistics of the discounted return, and each environment's return up to now (zero after an episode's end)."""

    statistics: RunningStatistics
    discounted_return: Float[Array, " env"]


def init_reward_scaling(num_envs: int) -> RewardScaling:
    """No reward seen yet."""
    return RewardScaling(init_statistics(), jnp.zeros(num_envs))


def scale_rewards(
    scaling: RewardScaling,
    rewards: Float[Array, "time env"],
    done: Bool[Array, "time env"],
    discount: ScalarLike,
) -> tuple[RewardScaling, Float[Array, "time env"]]:
    """Updates the statistics with these rewards, then divides the rewards by the returns' standard deviation.

    The mean is not subtracted, so the sign of a reward is kept. Scaled rewards are clipped to ±10.
    Source: Engstrom et al. (2020), Implementation Matters in Deep Policy Gradients, section 3.
    """

    def step(running: Array, transition: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, ended = transition
        running = discount * running + reward
        return jnp.where(ended, 0.0, running), running

    last, returns = jax.lax.scan(step, scaling.discounted_return, (rewards, done))
    statistics = update_statistics(scaling.statistics, returns)
    scaled = jnp.clip(rewards / jnp.sqrt(statistics.variance + 1e-8), -CLIP, CLIP)
    return RewardScaling(statistics, last), scaled
