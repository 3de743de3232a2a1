"""A buffer of levels as a state: pure functions over arrays with one row per slot.

Empty slots are those that hold no level of the dataset and were never seen. Priorities, probabilities and scores are float32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, ScalarLike

from jaxpg.algorithms.environment_design.scores import Scores
from jaxpg.counting import elapsed, last_digit


class LevelBuffer(NamedTuple):
    """Levels and what is known of them.

    Attributes:
      level: the levels, stacked.
      score: the last score; meaningless until the level was seen.
      max_return: the best return of an episode ever, -inf until the level was seen.
      last_sampled: the update in which the level was last played.
      seen: whether it was ever scored.
      is_dataset: whether it is one of the levels the buffer began with.
    """

    level: PyTree
    score: Float[Array, " slot"]
    max_return: Float[Array, " slot"]
    last_sampled: Int[Array, " slot"]
    seen: Bool[Array, " slot"]
    is_dataset: Bool[Array, " slot"]


def init_buffer(capacity: int, example: PyTree, dataset: PyTree = None) -> LevelBuffer:
    """A buffer that is empty but for the levels of a dataset, which have yet to be seen.

    Args:
      example: one level, or its shapes.
      dataset: at most `capacity` levels, stacked; they fill the first slots.
    """
    zeros = jnp.zeros(capacity)
    level = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), example)
    number = 0
    if dataset is not None:
        number = jax.tree.leaves(dataset)[0].shape[0]
        level = jax.tree.map(lambda all, some: all.at[:number].set(some), level, dataset)
    return LevelBuffer(
        level=level,
        score=zeros,
        max_return=jnp.full(capacity, -jnp.inf),
        last_sampled=jnp.zeros(capacity, jnp.int32),
        seen=jnp.zeros(capacity, bool),
        is_dataset=jnp.arange(capacity) < number,
    )


# --- Prioritisation -----------------------------------------------------------------------------------------------------


def rank_weights(
    scores: Float[Array, " slot"], support: Bool[Array, " slot"], temperature: ScalarLike
) -> Float[Array, " slot"]:
    """Probabilities in proportion to (1 / rank)^(1 / temperature), rank 1 being the highest score; 0 outside the support.

    They sum to 1 unless the support is empty, and then to 0. Of equal scores the one in the earlier slot ranks first.

    Source: Jiang et al. 2021, "Prioritized Level Replay" (arXiv 2010.03934), section 3.
    """
    order = jnp.argsort(jnp.where(support, -scores, jnp.inf))
    rank = jnp.zeros(scores.size).at[order].set(jnp.arange(1.0, scores.size + 1))
    return _normalized(-jnp.log(rank) / temperature, support)


def proportional_weights(
    scores: Float[Array, " slot"], support: Bool[Array, " slot"], temperature: ScalarLike
) -> Float[Array, " slot"]:
    """Probabilities in proportion to score^(1 / temperature); uniform where no score of the support is positive.

    Source: Jiang et al. 2021 (arXiv 2010.03934), section 3, proportional prioritisation.
    """
    return _normalized(jnp.log(jnp.maximum(scores, 0.0)) / temperature, support)


def staleness_weights(
    buffer: LevelBuffer, support: Bool[Array, " slot"], now: Int[Array, "*digit"] | int
) -> Float[Array, " slot"]:
    """Probabilities in proportion to the updates since a level was last played (the authors count draws, of levels).

    Source: Jiang et al. 2021 (arXiv 2010.03934), section 3.
    """
    return proportional_weights(elapsed(now, buffer.last_sampled).astype(jnp.float32), support, 1.0)


def _normalized(log_weights: Float[Array, " slot"], support: Bool[Array, " slot"]) -> Float[Array, " slot"]:
    log_weights = jnp.where(support, log_weights, -jnp.inf)
    highest = log_weights.max()
    some = jnp.isfinite(highest)
    weights = jnp.where(some, jnp.exp(log_weights - jnp.where(some, highest, 0.0)), support)
    return weights / jnp.maximum(weights.sum(), 1.0)  # the largest weight is 1, if there is any


# --- Reading and writing ------------------------------------------------------------------------------------------------


def sample(key: jax.Array, probabilities: Float[Array, " slot"], shape: tuple[int, ...]) -> Int[Array, "*shape"]:
    """Slots drawn with replacement; never one of probability 0 if any is positive."""
    return jax.random.choice(key, probabilities.size, shape, p=probabilities).astype(jnp.int32)


def to_visit(buffer: LevelBuffer) -> Bool[Array, " slot"]:
    """Which levels of the dataset were never played."""
    return buffer.is_dataset & ~buffer.seen


def first_to_visit(buffer: LevelBuffer, number: int) -> Int[Array, " {number}"]:
    """Slots of levels of the dataset that were never played, in order; if they are fewer, then other ones follow."""
    return jax.lax.top_k(to_visit(buffer).astype(jnp.float32), number)[1]


def update_scores(
    buffer: LevelBuffer, played: Scores, scores: Float[Array, " slot"], now: Int[Array, "*digit"] | int
) -> LevelBuffer:
    """Notes what came of playing the levels of the buffer, `scores` being what is made of `played`.

    Args:
      now: the number of the update.
    """
    return buffer._replace(
        score=jnp.where(played.scored, scores, buffer.score),
        max_return=jnp.maximum(buffer.max_return, played.max_return),
        last_sampled=jnp.where(played.played, last_digit(now), buffer.last_sampled),
        seen=buffer.seen | played.scored,
    )


def insert(
    buffer: LevelBuffer,
    levels: PyTree,
    scores: Float[Array, " n"],
    max_returns: Float[Array, " n"],
    priorities: Float[Array, " n"],
    slot_priorities: Float[Array, " slot"],
    weights: Float[Array, " slot"],
    now: Int[Array, "*digit"] | int,
) -> tuple[LevelBuffer, Bool[Array, " n"]]:
    """Puts new levels into empty slots, then in place of the levels of lowest weight, unless theirs is of higher priority.

    The best new level meets the level of lowest weight, the second best that of the second lowest, and so on. Levels of the
    dataset that were never played remain in any case. Difference from the authors of DRED, who insert one by one and compute
    the weights anew for each.

    Args:
      levels: n of them, stacked, no more than there are slots.
      priorities: of the new levels; -inf never enters.
      slot_priorities: of those in the buffer, on the same scale.
      weights: of those in the buffer, such as probabilities of a replay: the lowest are evicted first, and inf never.

    Returns:
      The buffer, and which of the new levels entered.
    """
    number = scores.shape[0]
    is_empty = ~buffer.seen & ~buffer.is_dataset
    weights = jnp.where(is_empty, -jnp.inf, jnp.where(buffer.seen, weights, jnp.inf))
    lowest, slots = jax.lax.top_k(-weights, number)
    order = jnp.argsort(-priorities)  # the best new one meets the worst old one
    new, old = priorities[order], jnp.where(is_empty, -jnp.inf, slot_priorities)[slots]
    enters = (new > -jnp.inf) & (new >= old) & (lowest > -jnp.inf)
    slots = jnp.where(enters, slots, buffer.score.size)
    write = lambda old, new: old.at[slots].set(new[order].astype(old.dtype), mode="drop")
    constant = lambda value: jnp.full(number, value)
    inserted = LevelBuffer(
        level=jax.tree.map(write, buffer.level, levels),
        score=write(buffer.score, scores),
        max_return=write(buffer.max_return, max_returns),
        last_sampled=write(buffer.last_sampled, constant(last_digit(now))),
        seen=write(buffer.seen, constant(True)),
        is_dataset=write(buffer.is_dataset, constant(False)),
    )
    return inserted, jnp.zeros(number, bool).at[order].set(enters)
