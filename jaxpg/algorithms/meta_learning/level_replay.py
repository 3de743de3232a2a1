"""Which levels new agents live on: some drawn anew, some replayed from a buffer of scored levels, never two agents on one slot.

Slots are those of a `level_buffer`; the slot of a level that is not in it is the buffer's capacity.

Source: Jackson et al. 2023 (arXiv 2310.02782), section 4, and the authors' code, whose buffer has unplayed levels in it too:
the lowest scores make room for them in every update, which comes to the same as new levels that enter when they are scored.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, ScalarLike

from jaxpg.algorithms.environment_design.level_buffer import LevelBuffer, insert


def note_scores(
    buffer: LevelBuffer,
    active: Bool[Array, " slot"],
    levels: PyTree,
    slots: Int[Array, " n"],
    scores: Float[Array, " n"],
    exists: Bool[Array, " n"],
    now: Int[Array, "*digit"] | int,
) -> LevelBuffer:
    """The buffer once lives have ended: a replayed level has its new score, a new one takes the place of the lowest.

    Args:
      active: slots of levels that are still played, which keep their levels.
      levels, slots, scores: of the lives that ended, where there are such.
    """
    capacity = buffer.score.size
    is_new = exists & (slots == capacity)
    places = jnp.where(exists, slots, capacity)
    buffer = buffer._replace(score=buffer.score.at[places].set(scores, mode="drop"))
    weights = jnp.where(active, jnp.inf, buffer.score)
    priorities = jnp.where(is_new, scores, -jnp.inf)
    return insert(buffer, levels, scores, scores, priorities, buffer.score, weights, now)[0]


def choose_slots(
    key: jax.Array,
    buffer: LevelBuffer,
    active: Bool[Array, " slot"],
    number: int,
    num_agents: int,
    replay_probability: ScalarLike,
    temperature: ScalarLike | None,
) -> Int[Array, " {number}"]:
    """Different slots to replay, with that probability each; the capacity for a new level.

    None is replayed before as many levels wait in the buffer as there are agents.

    Args:
      number: of slots, at most `num_agents`.
      temperature: replay in proportion to exp(score / temperature); None: any of the best `num_agents` levels, all alike.
    """
    coin_key, order_key = jax.random.split(key)
    waits = buffer.seen & ~active
    if temperature is None:
        best = jax.lax.top_k(jnp.where(waits, buffer.score, -jnp.inf), min(num_agents, waits.size))[1]
        slots = jax.random.permutation(order_key, best)[:number]
    else:  # the highest sums with Gumbel noise are a sample without replacement
        noise = jax.random.gumbel(order_key, waits.shape)
        slots = jax.lax.top_k(jnp.where(waits, buffer.score / temperature + noise, -jnp.inf), number)[1]
    replays = jax.random.bernoulli(coin_key, replay_probability, (number,)) & (waits.sum() >= num_agents)
    return jnp.where(replays, slots, waits.size).astype(jnp.int32)
