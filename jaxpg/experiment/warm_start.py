"""Beginning a run with what another one has learned."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxpg.algorithm import InputError
from jaxpg.errors import counted

LEARNED = ("learner", "params", "observation_statistics", "optimizer_state", "antagonist", "adversary", "rule")
"""The fields of a state that hold what was learned; the others hold where the run stands."""
ANEW = ("discounted_return", "step", "pace", "prediction_coefficient")
"""What in them is of the run, or its own to say: returns of episodes that were running, an agent's age and hyperparameters."""


def transfer(source: PyTree, like: PyTree, num_seeds: int, with_optimizer: bool) -> Callable[[PyTree], PyTree]:
    """The function from fresh states to states that have learned what `source` has.

    Parameters and statistics are taken over, and on request the optimisers' moments; counters that a schedule of the learning
    rate reads begin anew, like whatever is `ANEW`.

    Args:
      source: states of another run of the algorithm, stacked along a leading axis (seed,).
      like: shapes and dtypes of the fresh states, stacked likewise.

    Raises:
      InputError: nothing can be taken over, or it does not fit.
    """
    known = _learned(source, with_optimizer)
    wanted = _learned(like, with_optimizer)
    if not wanted:
        raise InputError(
            "init_from: this algorithm keeps no learner that could go on elsewhere (a repertoire belongs to its task): "
            "train it from the start"
        )
    num_sources = jax.tree.leaves(source)[0].shape[0]
    if num_sources not in (1, num_seeds):
        raise InputError(
            f"init_from: that run has {counted(num_sources, 'seed')}, this one {num_seeds}: give as many, or a run of one"
        )
    for path, expected in wanted.items():
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if path not in known:
            raise InputError(f"init_from: that run has no {name}: memory, sizes and choices must be the same")
        if known[path].shape[1:] != expected.shape[1:] or known[path].dtype != expected.dtype:
            raise InputError(
                f"init_from: {name} is {known[path].dtype}{known[path].shape[1:]} there and "
                f"{expected.dtype}{expected.shape[1:]} here: spaces, sizes and choices must be the same"
            )

    def begin(fresh: PyTree) -> PyTree:
        def taken(path: Any, leaf: Any) -> Any:
            if path not in wanted:
                return leaf
            return jax.device_put(jnp.broadcast_to(jnp.asarray(known[path]), leaf.shape), leaf.sharding)

        return jax.tree_util.tree_map_with_path(taken, fresh)

    return begin


def _learned(states: PyTree, with_optimizer: bool) -> dict[Any, Any]:
    """The leaves that are taken over, by path."""
    is_schedule = lambda node: isinstance(node, optax.ScaleByScheduleState)
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(states, is_leaf=is_schedule)[0]:
        names = [jax.tree_util.keystr((part,), simple=True) for part in path]
        is_optimizer = any("optimizer" in name for name in names)
        is_kept = names[0] in LEARNED and not set(ANEW) & set(names) and not is_schedule(leaf)
        if is_kept and (with_optimizer or not is_optimizer):
            found[path] = leaf
    return found
