"""The best policy so far of each seed, by the evaluations that a run makes while it trains."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from jaxpg.algorithm import Algorithm
from jaxpg.experiment.checkpoints import Checkpoints, has_nan, to_host


class Best:
    """What the policies of each seed's best evaluation so far read, kept in `folder/best` like a checkpoint."""

    def __init__(self, folder: Path, agent: Algorithm, like: PyTree, warn: Callable[[str], None]):
        """Continues with what is in the folder.

        Args:
          like: shapes and dtypes of the states, stacked along a leading axis (seed,).
        """
        self._checkpoints = Checkpoints(folder / "best")
        self._like = read_by_policy(agent, like)
        restored = self._checkpoints.restore(self._like, warn)
        num_seeds = jax.tree.leaves(like)[0].shape[0]
        self._leaves = None if restored is None else to_host(restored[0])
        nothing: dict[str, Any] = {"updates": [0] * num_seeds, "returns": [None] * num_seeds}
        self.record = nothing if restored is None else restored[1]

    def offer(self, update: int, returns: np.ndarray, states: PyTree) -> None:
        """Keeps the policies of the seeds whose return is above all before.

        Args:
          returns: mean evaluation return of each seed after this update; NaN, where an episode did not end, is never best.
        """
        best = np.array([-np.inf if x is None else x for x in self.record["returns"]])
        is_better = returns > best
        if not is_better.any():
            return
        new = to_host({name: leaf for name, leaf in by_name(states).items() if name in self._like})
        # A policy of NaNs may act, and even well: it always takes the first action.
        is_better &= ~np.any([[has_nan(row) for row in leaf] for leaf in new.values()], axis=0)
        old = new if self._leaves is None else self._leaves
        where = lambda leaf: is_better.reshape(-1, *(1,) * (leaf.ndim - 1))
        self._leaves = {name: np.asarray(np.where(where(leaf), leaf, old[name])) for name, leaf in new.items()}
        choose = lambda ours, theirs: [a if better else b for a, b, better in zip(ours, theirs, is_better, strict=True)]
        self.record = {
            "updates": choose([update] * len(best), self.record["updates"]),
            "returns": choose([float(x) for x in returns], self.record["returns"]),
        }
        # Numbered on: a run that goes on from before its best comes to the same updates again.
        self._checkpoints.save(max(self._checkpoints.updates(), default=0) + 1, self._leaves, self.record)


def restore_best(folder: Path, agent: Algorithm, like: PyTree, warn: Callable[[str], None]) -> PyTree | None:
    """States that hold each seed's best policy, zero in all that no policy reads; None if there is none."""
    restored = Checkpoints(folder / "best").restore(read_by_policy(agent, like), warn)
    if restored is None:
        return None

    def leaf(path: Any, expected: Any) -> Any:
        if (name := jax.tree_util.keystr(path, simple=True, separator=".")) in restored[0]:
            return restored[0][name]
        if jax.dtypes.issubdtype(expected.dtype, jax.dtypes.prng_key):
            data = jax.eval_shape(jax.random.key_data, expected)
            return jax.random.wrap_key_data(np.zeros(data.shape, data.dtype))
        return np.zeros(expected.shape, expected.dtype)

    return jax.tree_util.tree_map_with_path(leaf, like)


def read_by_policy(agent: Algorithm, like: PyTree) -> dict[str, Any]:
    """Of states, or their shapes, the leaves that policies read, by name: a small part where there is a replay buffer."""
    jaxpr = jax.make_jaxpr(jax.vmap(lambda state: agent.policy(state).params))(like).jaxpr
    used = {id(x) for equation in jaxpr.eqns for x in equation.invars} | {id(x) for x in jaxpr.outvars}
    return {name: leaf for (name, leaf), x in zip(by_name(like).items(), jaxpr.invars, strict=True) if id(x) in used}


def by_name(tree: PyTree) -> dict[str, Any]:
    """The leaves of a pytree by their paths, as checkpoints name them."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in paths}
