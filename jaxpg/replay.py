"""Replay buffers as states: pure functions over arrays that a compiled loop writes in place.

A buffer is a ring of rows, and a row is one step of every environment: what followed a step stands below it in the same
column, so that returns over n steps are put together when they are sampled. Write, then sample from the new buffer:
a loop that still reads the old one after the write copies all of it.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, ScalarLike

from jaxpg.algorithm import InputError
from jaxpg.counting import wrap


class Step(NamedTuple):
    """What is remembered of a step; in a buffer with axes (row, env, ...).

    `next_observation` is the true successor, at an episode's end the final observation.
    """

    observation: PyTree[Array, "Observation"]
    action: PyTree[Array]
    reward: Float[Array, "*row env"]
    terminated: Bool[Array, "*row env"]
    truncated: Bool[Array, "*row env"]
    next_observation: PyTree[Array, "Observation"]


class Priorities(NamedTuple):
    """How often each step is sampled: the leaves of a binary tree of sums, which is an array whose node i has the children 2 i
    and 2 i + 1; node 1 is the total. And the largest priority that was ever set."""

    tree: Float[Array, " node"]
    largest: Float[Array, ""]


class Buffer(NamedTuple):
    """The rows, how many were written (see `counting.wrap`), and `Priorities`, `()` for uniform sampling."""

    steps: Step
    count: Int[Array, ""]
    priorities: Any = ()


class Sample(NamedTuple):
    """A batch for learning.

    The target of a value is `reward + bootstrap * V(next_observation)`: `reward` is the discounted sum over up to n steps,
    `bootstrap` what the value behind them is discounted by, 0 where the episode terminated. There `next_observation` may be
    anything, NaN included (see `rollout.existing_successors`). `weight` corrects for priorities.
    """

    observation: PyTree[Array, "Observation"]
    action: PyTree[Array]
    reward: Float[Array, " batch"]
    bootstrap: Float[Array, " batch"]
    next_observation: PyTree[Array, "Observation"]
    weight: Float[Array, " batch"]
    row: Int[Array, " batch"]
    env: Int[Array, " batch"]


def init_buffer(example: Step, capacity: int, num_steps: int, prioritized: bool = False) -> Buffer:
    """An empty buffer.

    Args:
      example: one step of all environments, leaves (env, ...), or its shapes.
      capacity: how many steps are kept, rounded up to whole rows and whole writes.
      num_steps: rows that are written at once.
    """
    num_envs = jnp.shape(example.reward)[0]
    rows = num_steps * math.ceil(capacity / (num_steps * num_envs))
    steps = jax.tree.map(lambda x: jnp.zeros((rows, *x.shape), x.dtype), example)
    if not prioritized:
        return Buffer(steps, jnp.int32(0))
    return Buffer(steps, jnp.int32(0), Priorities(jnp.zeros(2 * _num_leaves(rows * num_envs)), jnp.float32(1)))


def _num_leaves(steps: int) -> int:
    """Of the tree of priorities."""
    return 2 ** math.ceil(math.log2(steps))


def add(buffer: Buffer, steps: Step, n_step: int = 1) -> Buffer:
    """Writes rows over the oldest ones.

    Args:
      steps: leaves (time, env, ...), always with the same time, that of `init_buffer`.
      n_step: as in `sample`: with priorities, a step takes part only once the n - 1 rows after it are there.

    Raises:
      InputError: the rows of the buffer are not a multiple of the rows written.
    """
    rows, num_envs = buffer.steps.reward.shape
    time = steps.reward.shape[0]
    if rows % time:
        raise InputError(f"{time} rows at once do not fit into a ring of {rows}: make the buffer for writes of {time} rows")
    start = buffer.count % rows
    write = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), start, axis=0)
    count = wrap(buffer.count, rows) + time
    new = Buffer(jax.tree.map(write, buffer.steps, steps), count, buffer.priorities)
    if not isinstance(buffer.priorities, Priorities):
        return new
    age = jnp.arange(time + n_step - 1)  # of rows, the newest first
    row = (count - 1 - age) % rows
    known = (age >= n_step - 1) & (age < count)
    value = jnp.where(known, buffer.priorities.largest, 0.0)
    index = (row[:, None] * num_envs + jnp.arange(num_envs)).ravel()
    return new._replace(priorities=_set(buffer.priorities, index, jnp.repeat(value, num_envs)))


def grow_buffer(buffer: Buffer, rows: int) -> Buffer:
    """The same steps in a larger ring: that of a longer run, before anything was overwritten."""
    old_rows, num_envs = buffer.steps.reward.shape
    widen = lambda x: jnp.pad(x, [(0, rows - old_rows), *[(0, 0)] * (x.ndim - 1)])
    grown = buffer._replace(steps=jax.tree.map(widen, buffer.steps))
    if not isinstance(buffer.priorities, Priorities):
        return grown
    old_leaves, number = buffer.priorities.tree.size // 2, old_rows * num_envs
    empty = buffer.priorities._replace(tree=jnp.zeros(2 * _num_leaves(rows * num_envs)))
    return grown._replace(priorities=_set(empty, jnp.arange(number), buffer.priorities.tree[old_leaves : old_leaves + number]))


def sample(
    key: jax.Array, buffer: Buffer, batch_size: int, discount: ScalarLike, n_step: int = 1, beta: ScalarLike = 1.0
) -> Sample:
    """Draws steps with replacement: uniformly or, with priorities, in proportion to them.

    Args:
      buffer: holds at least `n_step` rows.
      discount: discount per step, in [0, 1]; may be traced.
      n_step: rewards per sample, fewer where the episode ends; the newest n - 1 rows are not sampled yet.
      beta: how far the weights correct for unequal priorities, 1 being fully; may be traced.

    Source of prioritised sampling: Schaul et al. 2016 (arXiv 1511.05952), section 3.3 and appendix B.2.1 (stratified).
    """
    rows, num_envs = buffer.steps.reward.shape
    size = jnp.minimum(buffer.count, rows)
    if isinstance(buffer.priorities, Priorities):
        index, share = _draw(key, buffer.priorities, batch_size)
        row, env = index // num_envs, index % num_envs
        weight = (share * (size - n_step + 1) * num_envs) ** -jnp.asarray(beta, jnp.float32)
        weight = weight / weight.max()
    else:
        # The remainder favours some, by less than one part in 2^32 / rows.
        row_bits, env_bits = jax.random.bits(key, (2, batch_size))
        starts = (size - n_step + 1).astype(jnp.uint32)
        oldest = jnp.where(buffer.count > rows, buffer.count % rows, 0)
        row = (oldest + (row_bits % starts).astype(jnp.int32)) % rows
        env = (env_bits % jnp.uint32(num_envs)).astype(jnp.int32)
        weight = jnp.ones(batch_size)
    take = lambda tree, row: jax.tree.map(lambda x: x[row, env], tree)
    window = (row + jnp.arange(n_step)[:, None]) % rows
    steps = buffer.steps
    rewards, terminated, truncated = (steps.reward[window, env], steps.terminated[window, env], steps.truncated[window, env])
    goes_on = jnp.concatenate([jnp.ones((1, batch_size)), jnp.cumprod(1.0 - (terminated | truncated)[:-1], axis=0)])
    powers = jnp.asarray(discount, jnp.float32) ** jnp.arange(n_step)[:, None]
    last = goes_on.sum(0).astype(jnp.int32) - 1  # the window's last step within the episode
    at_last = lambda x: jnp.take_along_axis(x, last[None], axis=0)[0]
    return Sample(
        observation=take(buffer.steps.observation, row),
        action=take(buffer.steps.action, row),
        reward=(powers * jnp.where(goes_on > 0, rewards, 0.0)).sum(0),  # of the next episode not even a NaN
        bootstrap=discount * at_last(jnp.broadcast_to(powers, rewards.shape)) * (1.0 - at_last(terminated)),
        next_observation=take(steps.next_observation, at_last(window)),
        weight=weight,
        row=row,
        env=env,
    )


def reprioritize(buffer: Buffer, drawn: Sample, priorities: Float[Array, " batch"]) -> Buffer:
    """Gives the steps of a sample new priorities, positive numbers such as (|error| + epsilon)^alpha.

    Where one step was drawn several times, one of its priorities stays.
    """
    num_envs = buffer.steps.reward.shape[1]
    updated = _set(buffer.priorities, drawn.row * num_envs + drawn.env, priorities)
    return buffer._replace(priorities=updated._replace(largest=jnp.maximum(updated.largest, priorities.max())))


def _set(priorities: Priorities, index: Int[Array, " n"], values: Float[Array, " n"]) -> Priorities:
    leaves = priorities.tree.size // 2
    node = leaves + index
    tree = priorities.tree.at[node].set(values)

    def sum_children(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        tree, node = state
        parent = node // 2
        # Sums anew, not differences added: rounding errors would gather, and the sum of zeros not be zero.
        return tree.at[parent].set(tree[2 * parent] + tree[2 * parent + 1]), parent

    tree, _ = jax.lax.fori_loop(0, leaves.bit_length() - 1, sum_children, (tree, node))
    return priorities._replace(tree=tree)


def _draw(key: jax.Array, priorities: Priorities, n: int) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """One index from each n-th of the total, and its share of the total."""
    tree = priorities.tree
    leaves = tree.size // 2

    def descend(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        node, rest = state
        left, right = tree[2 * node], tree[2 * node + 1]
        # Never into a sum of zero, however numbers were rounded.
        to_the_right = (rest >= left) & (right > 0)
        return 2 * node + to_the_right, jnp.where(to_the_right, rest - left, rest)

    start = (jnp.arange(n) + jax.random.uniform(key, (n,))) / n * tree[1]
    node, _ = jax.lax.fori_loop(0, leaves.bit_length() - 1, descend, (jnp.ones(n, jnp.int32), start))
    return node - leaves, tree[node] / tree[1]
