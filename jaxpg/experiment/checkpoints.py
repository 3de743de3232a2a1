"""Checkpoints: a run's whole state, saved atomically, verified when read."""

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from jaxpg.experiment.errors import RunError, advice
from jaxpg.experiment.files import read_json, write_atomically

KEEP = 2
RETRIES = 5  # of reading, while another process saves


def to_host(state: PyTree) -> dict[str, np.ndarray]:
    """A copy of a state's leaves in host memory, by path; typed keys become their data."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        leaves[jax.tree_util.keystr(path, simple=True, separator=".")] = np.array(leaf)
    return leaves


def from_host(leaves: dict[str, np.ndarray], like: PyTree) -> PyTree:
    """The inverse of `to_host`; `like` gives the structure, shapes and dtypes (arrays or `ShapeDtypeStruct`).

    Leaves without elements may be missing: checkpoints do not hold them.

    Raises:
      ValueError: a leaf is missing or has another shape or dtype.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    restored = []
    for path, expected in paths:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        is_key = jax.dtypes.issubdtype(expected.dtype, jax.dtypes.prng_key)
        if name in leaves:
            leaf = leaves[name]
        elif math.prod(expected.shape) == 0:
            data = jax.eval_shape(jax.random.key_data, expected) if is_key else expected
            leaf = np.zeros(data.shape, data.dtype)
        else:
            raise ValueError(f"no leaf {name!r}")
        if is_key:
            leaf = jax.random.wrap_key_data(leaf)
        if leaf.shape != expected.shape or leaf.dtype != expected.dtype:
            raise ValueError(f"leaf {name!r} is {leaf.dtype}{leaf.shape}, expected {expected.dtype}{expected.shape}")
        restored.append(leaf)
    return structure.unflatten(restored)


def has_nan(leaf: np.ndarray | np.generic) -> bool:
    """Whether one of the numbers is NaN."""
    return jax.dtypes.issubdtype(leaf.dtype, np.floating) and bool(np.isnan(leaf).any())


def digest(leaves: dict[str, np.ndarray]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all leaves: equal digests mean equal to the bit."""
    total = hashlib.sha256()
    for name in sorted(leaves):
        leaf = np.ascontiguousarray(leaves[name])
        total.update(f"{name} {leaf.dtype.str} {leaf.shape}\n".encode())
        total.update(leaf.tobytes())
    return total.hexdigest()


def _digest_of_all(leaves: dict[str, np.ndarray], record: dict[str, Any]) -> str:
    """What tells that a checkpoint is whole: over its leaves and its record."""
    content = json.dumps({name: value for name, value in record.items() if name != "digest"}, sort_keys=True)
    return hashlib.sha256(f"{digest(leaves)}\n{content}".encode()).hexdigest()


def _require_record(record: Any, update: int) -> None:
    """Raises ValueError if a record cannot be that of the checkpoint after `update` updates."""
    if not isinstance(record, dict):
        raise ValueError("its record is no JSON object")
    kinds = {
        "seconds": int | float,
        "total_steps": int,
        "update": int,
        "digest": str,
        "updates": list,
        "returns": list,
        "best": list,
    }
    for name in record.keys() & kinds.keys():
        if isinstance(record[name], bool) or not isinstance(record[name], kinds[name]):
            raise ValueError(f"its record has {name} = {record[name]!r}")
    if not 0 <= record.get("seconds", 0) < math.inf:
        raise ValueError(f"its record has seconds = {record['seconds']!r}")
    if record.get("update") != update:
        raise ValueError(f"its record is of update {record.get('update')!r}")


def _is_no_echo(record: logging.LogRecord) -> bool:
    """Whether what asyncio logs is no failed read of a checkpoint: of those of all arrays, the first one reaches the caller."""
    error = record.exc_info[1] if record.exc_info else None
    return not (record.getMessage().startswith("Task exception was never retrieved") and "tensorstore_spec" in str(error))


logging.getLogger("asyncio").addFilter(_is_no_echo)  # for good: it logs whenever the rest is thrown away


@contextlib.contextmanager
def _without_echoes() -> Iterator[None]:
    """Drops what orbax's threads print of an error that reaches the caller anyway.

    They log its traceback; and reads and writes that were given up for it report, a little late, to a closed event loop.
    """
    logger, original = logging.getLogger("absl"), sys.unraisablehook
    elsewhere = lambda record: "_SignalingThread" not in record.getMessage()
    sys.unraisablehook = lambda late: None if str(late.exc_value) == "Event loop is closed" else original(late)
    logger.addFilter(elsewhere)
    try:
        yield
    except Exception:
        time.sleep(0.1)  # for the late ones
        raise
    finally:
        logger.removeFilter(elsewhere)
        sys.unraisablehook = original


class Checkpoints:
    """The checkpoints of one run: `folder/checkpoints/UPDATE`, the last two kept."""

    def __init__(self, folder: Path):
        self._latest = folder / "latest_checkpoint.json"
        self._folder = (folder / "checkpoints").absolute()

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        """Made when the first checkpoint is saved: it makes the folder and removes what an interrupted save has left."""
        options = ocp.CheckpointManagerOptions(max_to_keep=KEEP, enable_async_checkpointing=False, cleanup_tmp_directories=True)
        return ocp.CheckpointManager(self._folder, options=options)

    def save(self, update: int, leaves: dict[str, np.ndarray], record: dict[str, Any]) -> None:
        """Saves the state after `update` updates, with a record (JSON) of where the run stands.

        Raises:
          RunError: it could not be written, for instance because the disk is full, or there is one after this update
            already; what was there before is untouched.
        """
        path = self._folder / str(update)
        if path.exists():
            raise RunError(f"the checkpoint after update {update} could not be saved: {path} is there already. {self.kept()}")
        # orbax refuses arrays without elements, of which the states of MJX and of some games have many.
        leaves = {name: leaf for name, leaf in leaves.items() if leaf.size}
        record = {**record, "update": update}
        record["digest"] = _digest_of_all(leaves, record)
        try:
            items = ocp.args.Composite(state=ocp.args.StandardSave(leaves), record=ocp.args.JsonSave(record))
            with _without_echoes():
                self._manager.save(update, args=items, force=True)
            write_atomically(self._latest, json.dumps({"update": update}))
        except Exception as error:  # tensorstore reports a full disk as a ValueError, others as an OSError
            for remains in (path, *self._folder.glob(f"{update}.orbax-checkpoint-tmp*")):
                shutil.rmtree(remains, ignore_errors=True)
            raise RunError(
                f"the checkpoint after update {update} could not be saved: {_reason(error)}. {self.kept()}. {advice(error)}"
            ) from error

    def updates(self) -> list[int]:
        """The saved updates on disk, oldest first."""
        return sorted(int(path.name) for path in self._folder.glob("*") if path.name.isdecimal())

    def kept(self) -> str:
        """Words for what a stopped run can continue from."""
        updates = self.updates()
        return f"The checkpoint after update {updates[-1]} is kept" if updates else "No checkpoint had been saved yet"

    def restore(
        self, like: PyTree | Callable[[dict[str, Any]], PyTree], warn: Callable[[str], None]
    ) -> tuple[PyTree, dict[str, Any]] | None:
        """The newest checkpoint that is whole, and its record; None if nothing was ever saved.

        If the newest is damaged or gone, `warn` is told and the previous one is used. Nothing on disk is changed.

        Args:
          like: the structure, shapes and dtypes of the state, or the function from the record to them.

        Raises:
          RunError: there were checkpoints, but none can be read, or they are of another program.
        """
        for _ in range(RETRIES):
            warnings: list[str] = []
            updates = self.updates()
            restored = self._restore(updates, warnings.append)
            if not warnings or self.updates() == updates:
                break  # else another process has saved meanwhile, and removed what we were about to read
        for text in warnings:
            warn(text)
        if restored is None:
            if updates or self._newest() is not None:
                raise RunError(f"no checkpoint in {self._folder} can be read: start the run again in another folder")
            return None
        leaves, record = restored
        try:
            return from_host(leaves, like(record) if callable(like) else like), record
        except ValueError as error:
            raise RunError(
                f"the checkpoint after update {record['update']} does not fit this version of the algorithm: {error}, "
                f"in {self._folder}"
            ) from error

    def _restore(self, updates: list[int], warn: Callable[[str], None]) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Leaves and record of the newest of these checkpoints that is whole."""
        newest = self._newest()
        if newest is not None and newest not in updates:
            warn(f"the newest checkpoint (update {newest}) is gone: falling back to the previous one")
        for update in reversed(updates):
            try:
                items = ocp.args.Composite(state=ocp.args.StandardRestore(), record=ocp.args.JsonRestore())
                with _without_echoes():
                    saved = ocp.Checkpointer(ocp.CompositeCheckpointHandler()).restore(self._folder / str(update), args=items)
                _require_record(saved.record, update)
                # Before 0.3 it was that of the leaves alone.
                if saved.record["digest"] not in (_digest_of_all(saved.state, saved.record), digest(saved.state)):
                    raise ValueError("its content does not match its digest")
                return saved.state, saved.record
            except Exception as error:  # whatever a damaged file makes the reader raise
                warn(f"the checkpoint after update {update} is damaged ({_reason(error)}): falling back to the previous one")
        return None

    def _newest(self) -> int | None:
        """The update of the last checkpoint that was saved, whether or not it is still there."""
        try:
            return int(read_json(self._latest)["update"])
        except (OSError, ValueError, TypeError, KeyError):  # none was saved, or the file is damaged
            return None

    def set_aside(self, after: int) -> None:
        """Renames the damaged checkpoints later than update `after`, so that they can be written again."""
        for update in [update for update in self.updates() if update > after]:
            names = (f"{update}.damaged{number or ''}" for number in itertools.count())
            os.replace(self._folder / str(update), next(self._folder / x for x in names if not (self._folder / x).exists()))


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:1000] if lines else type(error).__name__
