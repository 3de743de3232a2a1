"""Automatic reset whose cost follows the number of episodes that ended, not the number of environments.

gymnax and brax compute a full reset for every environment at every step and select afterwards. For
rigid-body physics a reset is dear, and under `vmap` a `lax.cond` runs both branches. Here the reset has a
batching rule of its own: only the rows that are done are gathered, reset and scattered back.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Num, PRNGKeyArray, PyTree

CHUNKS = 16
"""A batch of N environments is reset ceil(N / CHUNKS) rows at a time, until no done row is left."""


def step_and_reset(
    env: Any, key: PRNGKeyArray, state: PyTree, action: Array, params: PyTree | None = None, next_params: PyTree | None = None
) -> tuple[PyTree, PyTree, Num[Array, ""], Bool[Array, ""], Bool[Array, ""], dict]:
    """gymnax's `step` for an environment with `step_env`, `reset_env` and `is_truncated`, to the same values.

    Args:
        params: `env.default_params` if None.
        next_params: of the next episode, should this one end; `params` if None.

    Returns:
        observation, state, reward, terminated, truncated and info. Where the episode ended, observation and
        state are the start of the next one; `info["final_observation"]` is the true successor at every step.
    """
    if params is None:
        params = env.default_params
    key_step, key_reset = jax.random.split(key)
    final_observation, successor, reward, terminated, info = env.step_env(key_step, state, action, params)
    truncated = env.is_truncated(successor, params)
    observation, state = reset_where_done(
        env.reset_env,
        terminated | truncated,
        key_reset,
        params if next_params is None else next_params,
        (final_observation, successor),
    )
    info |= {"terminated": terminated, "truncated": truncated, "final_observation": final_observation}
    return observation, state, reward, terminated, truncated, info


def reset_where_done(
    reset: Callable[[Any, Any], Any],
    done: Bool[Array, ""],
    key: PRNGKeyArray,
    params: PyTree,
    stepped: PyTree,
) -> PyTree:
    """`where(done, reset(key, params), stepped)`, with the reset computed only where `done`.

    Written for one environment; `vmap` it for many, nested as deep as you like (seeds over environments),
    with `params` batched or shared at every level. All levels are merged into one batch of N rows, and a
    `while_loop` resets ceil(N / CHUNKS) done rows at a time. Every row uses its own key, so the values are
    those of the naive expression. Under `shard_map` each device runs its own loop; with arrays sharded in any
    other way the gather crosses devices.

    Gradients flow through `stepped` alone: a fresh start is a constant.

    Args:
        reset: pure function `(key, params) -> value`, with the structure, shapes and dtypes of `stepped`. It
            must not close over batched arrays: hand them over in `params`.
        done: whether the episode ended.
        key: the key of this environment's reset, typed or raw.
        params: environment parameters, handed to `reset`.
        stepped: the value to keep where the episode goes on.
    """
    leaves, structure = jax.tree.flatten(params)

    def reset_from_leaves(key: Any, leaves: list) -> Any:
        return reset(key, jax.tree.unflatten(structure, leaves))

    arguments = jax.tree.map(jax.lax.stop_gradient, (done, key, leaves, stepped))
    fresh = _reset_one(reset_from_leaves)(*vary_alike(arguments))
    return jax.tree.map(lambda new, old: jnp.where(done, new, old), fresh, stepped)


def vary_alike(tree: PyTree) -> PyTree:
    """The same values, every leaf varying over the mesh axes that any leaf varies over.

    Inside `shard_map`, loops and branches want equal types of all their inputs and outputs, and a constant (a
    clock that starts at 0) has not the type of a value that differs between devices. Outside it does nothing.
    """
    varying = [jax.typeof(leaf).manual_axis_type.varying for leaf in jax.tree.leaves(tree)]
    axes = frozenset().union(*varying)

    def vary(leaf: Any) -> Any:
        missing = tuple(axes - jax.typeof(leaf).manual_axis_type.varying)
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(vary, tree)


def strongly_typed(tree: PyTree) -> PyTree:
    """The same values as arrays whose dtypes do not depend on what they meet: a scan wants one type for ever."""

    def typed(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        return leaf.astype(leaf.dtype)

    return jax.tree.map(typed, tree)


def typed_like(old: PyTree, new: PyTree) -> PyTree:
    """`new` with the dtypes of `old`, where they differ: with `jax_enable_x64` a reset is often wider than a step."""

    def typed(old: Array, new: Any) -> Any:
        return new if getattr(new, "dtype", old.dtype) == old.dtype else new.astype(old.dtype)

    return jax.tree.map(typed, old, new)


def _reset_one(reset: Callable) -> Callable:
    """The unbatched case, a `cond`; its batching rule hands over to `_reset_rows`."""

    @custom_vmap
    def reset_one(done: Any, key: Any, leaves: list, stepped: Any) -> Any:
        return jax.lax.cond(done, lambda: typed_like(stepped, vary_alike((reset(key, leaves), key))[0]), lambda: stepped)

    @reset_one.def_vmap
    def batching_rule(size: int, is_batched: list, done: Any, key: Any, leaves: list, stepped: Any) -> Any:
        def rows(batched: bool, x: Any) -> Any:
            return x if batched else jnp.broadcast_to(x, (size, *x.shape))

        done, key, stepped = jax.tree.map(rows, (is_batched[0], is_batched[1], is_batched[3]), (done, key, stepped))
        result = _reset_rows(reset, is_batched[2])(done, key, leaves, stepped)
        return result, jax.tree.map(lambda _: True, result)

    return reset_one


def _reset_rows(reset: Callable, is_row: list[bool]) -> Callable:
    """N rows at once; leaf i of the parameters has a leading axis N if `is_row[i]`, else all rows share it.

    Its own batching rule merges the new axis with N, so that nested `vmap`s end in a single loop.
    """

    @custom_vmap
    def reset_rows(done: Any, key: Any, leaves: list, stepped: Any) -> Any:
        size = done.shape[0]
        chunk = -(-size // CHUNKS)
        reset_chunk = jax.vmap(reset, in_axes=(0, [0 if row else None for row in is_row]))

        def reset_some(carry: tuple) -> tuple:
            pending, result = carry
            (index,) = jnp.nonzero(pending, size=chunk, fill_value=size)  # idle slots: `size`, dropped below
            some_key, some_leaves = jax.tree.map(
                lambda row, x: x.at[index].get(mode="clip") if row else x, (True, is_row), (key, leaves)
            )
            fresh, _ = vary_alike((reset_chunk(some_key, some_leaves), key))
            fresh = typed_like(result, fresh)
            result = jax.tree.map(lambda old, new: old.at[index].set(new, mode="drop"), result, fresh)
            return pending.at[index].set(False, mode="drop"), result

        return jax.lax.while_loop(lambda carry: carry[0].any(), reset_some, (done, stepped))[1]

    @reset_rows.def_vmap
    def batching_rule(size: int, is_batched: list, done: Any, key: Any, leaves: list, stepped: Any) -> Any:
        rows = done.shape[-1]

        def merged(batched: bool, x: Any) -> Any:
            x = x if batched else jnp.broadcast_to(x, (size, *x.shape))
            return x.reshape(size * rows, *x.shape[2:])

        def merged_parameter(batched: bool, row: bool, leaf: Any) -> Any:
            if row:
                return merged(batched, leaf)
            return jnp.repeat(leaf, rows, axis=0) if batched else leaf

        batched_leaves = is_batched[2]
        leaves = jax.tree.map(merged_parameter, batched_leaves, is_row, leaves)
        done, key, stepped = jax.tree.map(merged, (is_batched[0], is_batched[1], is_batched[3]), (done, key, stepped))
        still_row = [row or batched for row, batched in zip(is_row, batched_leaves, strict=True)]
        result = _reset_rows(reset, still_row)(done, key, leaves, stepped)
        result = jax.tree.map(lambda x: x.reshape(size, rows, *x.shape[1:]), result)
        return result, jax.tree.map(lambda _: True, result)

    return reset_rows
