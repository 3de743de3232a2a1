"""How much a student can still learn from a level: numbers from rollouts, arrays with axes (time, env) or (slot,).

A rollout begins with fresh episodes in all environments, and each episode is played on the level of one slot. A level is
scored by its episodes that ended; of several, by the last one, in the order of environments, then of time. The episode that
the end of the rollout cuts is not scored, unless it filled the whole rollout: then it says as much as can be said, and first
visits come to an end also where a rollout is shorter than an episode.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree


class Episodes(NamedTuple):
    """Of each environment, over the episodes that ended in a rollout: their number, how many paid more than 0, sum and maximum
    of their returns. The maximum is that of the running episode where none has ended."""

    completed: Float[Array, " env"]
    solved: Float[Array, " env"]
    return_sum: Float[Array, " env"]
    max_return: Float[Array, " env"]


class Scores(NamedTuple):
    """What came of playing the levels of some slots; numbers mean something only where `scored`.

    Attributes:
      played: whether there was any step on the level.
      scored: whether there was an episode to score it by.
      value_l1: mean_t |A_t| of that episode, A being generalised advantage estimates: how far values are from the returns that
        they predict (Jiang et al. 2021, "Prioritized Level Replay", arXiv 2010.03934, section 3, the L1 value loss).
      positive_value_loss: mean_t max(A_t, 0): only what went better than expected, which bounds the regret from below if
        values are right (Jiang et al. 2021, "Replay-Guided Adversarial Environment Design", arXiv 2110.02439).
      mean_value: mean_t V_t.
      max_return: the best return of all episodes that count, -inf where none does.
    """

    played: Bool[Array, " slot"]
    scored: Bool[Array, " slot"]
    value_l1: Float[Array, " slot"]
    positive_value_loss: Float[Array, " slot"]
    mean_value: Float[Array, " slot"]
    max_return: Float[Array, " slot"]


def running_sums(values: PyTree[Float[Array, "time env"]], done: Bool[Array, "time env"]) -> PyTree[Float[Array, "time env"]]:
    """Sums within each episode, up to and including each step."""

    def step(running: PyTree, now: tuple[PyTree, Array]) -> tuple[PyTree, PyTree]:
        values, ended = now
        totals = jax.tree.map(jnp.add, running, values)
        return jax.tree.map(lambda x: jnp.where(ended, 0.0, x), totals), totals

    return jax.lax.scan(step, jax.tree.map(lambda x: jnp.zeros_like(x[0]), values), (values, done))[1]


def ends_of(done: Bool[Array, "time env"]) -> Bool[Array, "time env"]:
    """Where the episodes end that count: where they do and, in environments in which none does, with the rollout."""
    return done.at[-1].set(done[-1] | ~done.any(axis=0))


def count_episodes(rewards: Float[Array, "time env"], done: Bool[Array, "time env"]) -> Episodes:
    """Cuts a rollout that began with fresh episodes into its episodes. Returns are not discounted."""
    returns = running_sums(rewards, done)
    return Episodes(
        completed=done.sum(axis=0, dtype=jnp.float32),
        solved=(done & (returns > 0)).sum(axis=0, dtype=jnp.float32),
        return_sum=jnp.where(done, returns, 0.0).sum(axis=0),
        max_return=jnp.where(ends_of(done), returns, -jnp.inf).max(axis=0),
    )


def score_slots(
    slots: Int[Array, "time env"],
    rewards: Float[Array, "time env"],
    done: Bool[Array, "time env"],
    advantages: Float[Array, "time env"],
    values: Float[Array, "time env"],
    num_slots: int,
) -> Scores:
    """Scores every slot by the episodes that were played on it in one rollout.

    Args:
      slots: that each step was taken on.
    """
    num_steps, num_envs = done.shape
    ends = ends_of(done)
    each = rewards, jnp.abs(advantages), jnp.maximum(advantages, 0.0), values, jnp.ones_like(rewards)
    returns, *sums = running_sums(each, done)
    # The last step on each slot, those that end an episode coming after all others: one scatter says all.
    order = jnp.arange(num_steps)[:, None] + num_steps * jnp.arange(num_envs)
    last = jnp.full(num_slots, -1).at[slots].max(order + jnp.where(ends, done.size, 0))
    env, time = jnp.divmod(jnp.maximum(last - done.size, 0), num_steps)
    value_l1, positive, value, length = (x[time, env] for x in sums)
    return Scores(
        played=last >= 0,
        scored=last >= done.size,
        value_l1=value_l1 / length,
        positive_value_loss=positive / length,
        mean_value=value / length,
        max_return=jnp.full(num_slots, -jnp.inf).at[slots].max(jnp.where(ends, returns, -jnp.inf)),
    )


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
