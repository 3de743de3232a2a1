"""A ring of remembered steps of which only some rows of a write count: those that an episode still was running in.

`jaxpg.replay` keeps the environments' columns; here a row is one step, and steps after an episode's end are left out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxpg.algorithm import InputError
from jaxpg.counting import wrap


class Memory(NamedTuple):
    """The rows, one long vector each, so that a minibatch is one gather; and how many were written (see `counting.wrap`)."""

    rows: Float[Array, "capacity width"]
    count: Int[Array, ""]


def require_capacity(capacity: int, num_rows: int) -> None:
    """Raises `InputError` if a memory cannot hold the rows of one generation."""
    if capacity < num_rows:
        raise InputError(
            f"a buffer of {capacity} steps cannot hold the {num_rows} of one generation: raise buffer_size, or lower "
            "num_offspring or the environment's max_steps_in_episode"
        )


def init_memory(capacity: int, width: int) -> Memory:
    """An empty memory."""
    return Memory(jnp.zeros((capacity, width)), jnp.int32(0))


def grow_memory(memory: Memory, capacity: int) -> Memory:
    """The same rows in a larger memory: that of a longer run, before anything was overwritten."""
    return memory._replace(rows=jnp.pad(memory.rows, [(0, capacity - len(memory.rows)), (0, 0)]))


def remember(memory: Memory, rows: Float[Array, "row width"], valid: Bool[Array, " row"]) -> Memory:
    """Writes the valid rows over the oldest ones."""
    capacity = len(memory.rows)
    count = wrap(memory.count, capacity)
    place = (count + jnp.cumsum(valid) - 1) % capacity
    # Out of range: dropped.
    written = memory.rows.at[jnp.where(valid, place, capacity)].set(rows, mode="drop", unique_indices=True)
    return Memory(written, count + valid.sum())


def random_rows(key: jax.Array, memory: Memory, *shape: int) -> Int[Array, "..."]:
    """Indices of rows, uniformly and with replacement."""
    filled = jnp.minimum(memory.count, len(memory.rows)).astype(jnp.uint32)
    # The remainder favours some rows, by less than one part in 2^32 / rows.
    return (jax.random.bits(key, shape) % filled).astype(jnp.int32)
