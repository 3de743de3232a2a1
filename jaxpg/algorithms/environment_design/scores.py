"""How much a student can still learn from a level: numbers from rollouts, arrays with axes (time, level) or (level,).

A rollout plays each level in a row of its own, one episode after the other. What is averaged over time is averaged over all
steps of the row, which weighs its episodes by their lengths.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Episodes(NamedTuple):
    """Of each level, over the episodes that ended in a rollout: their number, how many paid more than 0, sum and maximum of
    their returns. The maximum is that of the running episode where none has ended."""

    completed: Float[Array, " level"]
    solved: Float[Array, " level"]
    return_sum: Float[Array, " level"]
    max_return: Float[Array, " level"]


def count_episodes(rewards: Float[Array, "time level"], done: Bool[Array, "time level"]) -> Episodes:
    """Cuts a rollout that began with fresh episodes into its episodes. Returns are not discounted."""

    def step(carry: tuple[Array, Episodes], now: tuple[Array, Array]) -> tuple[tuple[Array, Episodes], None]:
        (running, e), (reward, ended) = carry, now
        running = running + reward
        episodes = Episodes(
            e.completed + ended,
            e.solved + (ended & (running > 0)),
            e.return_sum + jnp.where(ended, running, 0.0),
            jnp.where(ended, jnp.maximum(e.max_return, running), e.max_return),
        )
        return (jnp.where(ended, 0.0, running), episodes), None

    zeros = jnp.zeros_like(rewards[0])
    start = Episodes(zeros, zeros, zeros, jnp.full_like(zeros, -jnp.inf))
    (running, episodes), _ = jax.lax.scan(step, (zeros, start), (rewards, done))
    best = jnp.where(episodes.completed > 0, episodes.max_return, running)
    return episodes._replace(max_return=best)


def value_l1(advantages: Float[Array, "time level"]) -> Float[Array, " level"]:
    """mean_t |A_t|, A being generalised advantage estimates: how far values are from the returns that they predict.

    Source: Jiang et al. 2021, "Prioritized Level Replay" (arXiv 2010.03934), section 3, the L1 value loss.
    """
    return jnp.abs(advantages).mean(axis=0)


def positive_value_loss(advantages: Float[Array, "time level"]) -> Float[Array, " level"]:
    """mean_t max(A_t, 0): only what went better than expected, which bounds the regret from below if values are right.

    Source: Jiang et al. 2021, "Replay-Guided Adversarial Environment Design" (arXiv 2110.02439).
    """
    return jnp.maximum(advantages, 0.0).mean(axis=0)


def max_mc(mean_values: Float[Array, " level"], max_returns: Float[Array, " level"]) -> Float[Array, " level"]:
    """mean_t (R_max - V_t) = R_max - mean_t V_t: regret against the best return that was ever seen on the level.

    Source: Jiang et al. 2021 (arXiv 2110.02439), where it is called MaxMC.
    """
    return max_returns - mean_values


def grounded(scores: Float[Array, "*level"], max_returns: Float[Array, "*level"]) -> Float[Array, "*level"]:
    """The scores, 0 on levels on which no episode has ever paid more than 0: they may be impossible.

    Source: Garcin et al. 2024 (arXiv 2402.03479), the secondary score.
    """
    return jnp.where(max_returns > 0, scores, 0.0)


def learnability(solved: Float[Array, "*level"], completed: Float[Array, "*level"]) -> Float[Array, "*level"]:
    """p (1 - p) with the fraction p of episodes that were solved: 0 for what never and what always succeeds.

    Source: Rutherford et al. 2024, "No Regrets" (arXiv 2408.15099).
    """
    p = solved / jnp.maximum(completed, 1.0)
    return p * (1.0 - p)


def regret(antagonist: Episodes, protagonist: Episodes) -> Float[Array, " level"]:
    """The best return of one student less the mean return of the other; a mean over no episode counts as 0.

    Source: Dennis et al. 2020, PAIRED (arXiv 2012.02096), with the estimate of its authors' code.
    """
    return antagonist.max_return - protagonist.return_sum / jnp.maximum(protagonist.completed, 1.0)
