import errno
import json
import logging
import os
import shutil
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxpg.experiment import RunError
from jaxpg.experiment.checkpoints import Checkpoints, digest, from_host, to_host
from jaxpg.experiment.files import write_atomically


def a_state(value):
    return {
        "key": jax.random.split(jax.random.key(value), 3),
        "weights": (jnp.full((3, 2), value, jnp.float32), jnp.full(3, value, jnp.bfloat16)),
        "done": jnp.array([True, False, True]),
        "steps": jnp.arange(3, dtype=jnp.int32) + value,
    }


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(folder)
    for update in (3, 6, 9):
        checkpoints.save(update, to_host(a_state(update)), {"seconds": update / 2})
    return folder


@pytest.fixture
def saved(saved_once, tmp_path):
    """A folder with the checkpoints after updates 6 and 9."""
    shutil.copytree(saved_once, tmp_path / "run")
    return tmp_path / "run"


def restore(folder):
    """The update that was restored, or None, and the warnings; the state's bits are checked."""
    warnings = []
    restored = Checkpoints(folder).restore(a_state(0), warnings.append)
    if restored is None:
        return None, warnings
    state, record = restored
    assert digest(to_host(state)) == digest(to_host(a_state(record["update"])))
    return record["update"], warnings


def content(folder):
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


def test_what_is_restored_is_what_was_saved_and_two_are_kept(saved):
    assert Checkpoints(saved).updates() == [6, 9]
    state, record = Checkpoints(saved).restore(a_state(0), pytest.fail)
    assert (record["update"], record["seconds"]) == (9, 4.5)
    jax.tree.map(np.testing.assert_array_equal, to_host(state), to_host(a_state(9)))
    assert jax.random.key_impl(state["key"]) == jax.random.key_impl(jax.random.key(0))
    assert jax.tree.structure(state) == jax.tree.structure(a_state(0))


def test_nothing_saved_yet(tmp_path):
    assert restore(tmp_path) == (None, [])
    assert list(tmp_path.iterdir()) == []


def test_the_digest_sees_every_bit():
    leaves = {"a": np.array([0.0, np.nan], np.float32), "b": np.array([1, 2], np.int32)}
    original = digest(leaves)
    assert original == digest({name: leaves[name].copy() for name in ("b", "a")})
    others = [
        {**leaves, "a": np.array([-0.0, np.nan], np.float32)},
        {**leaves, "a": np.array([0.0, np.nan], np.float64)},
        {**leaves, "b": np.array([[1, 2]], np.int32)},
        {**leaves, "b": np.array([1, 3], np.int32)},
        {"a": leaves["a"], "c": leaves["b"]},
        {"a": leaves["a"]},
    ]
    assert original not in [digest(other) for other in others]


def test_arrays_without_elements_are_made_again(tmp_path):
    """As in the states of MJX, which orbax refuses."""
    state = {**a_state(3), "contacts": jnp.zeros((3, 0, 4)), "keys": jax.random.split(jax.random.key(0), (3, 0))}
    Checkpoints(tmp_path).save(3, to_host(state), {})
    restored, _ = Checkpoints(tmp_path).restore(state, pytest.fail)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), restored) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert digest(to_host(restored)) == digest(to_host(state))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda leaves: leaves.pop("steps"), "no leaf 'steps'"),
        (lambda leaves: leaves.update(steps=np.zeros(4, np.int32)), r"'steps' is int32\(4,\), expected int32\(3,\)"),
        (lambda leaves: leaves.update(steps=np.zeros(3, np.float32)), r"'steps' is float32\(3,\), expected int32\(3,\)"),
    ],
)
def test_leaves_that_do_not_fit_are_named(tmp_path, change, message):
    leaves = to_host(a_state(0))
    change(leaves)
    with pytest.raises(ValueError, match=message):
        from_host(leaves, a_state(0))
    Checkpoints(tmp_path).save(1, leaves, {})
    with pytest.raises(RunError, match=f"update 1 does not fit this version of the algorithm: .*{message}"):
        restore(tmp_path)


# --- Damage ---------------------------------------------------------------------------------------------------------------


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "removed": os.remove,
    "flipped": flip,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_any_damaged_file_of_the_newest_is_noticed_or_harmless(saved_once, tmp_path, damage):
    names = [path.relative_to(saved_once) for path in (saved_once / "checkpoints" / "9").rglob("*") if path.is_file()]
    assert len(names) > 5
    fell_back = 0
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        shutil.copytree(saved_once, folder)
        if (folder / name).stat().st_size == 0 and damage != "removed":
            continue
        DAMAGE[damage](folder / name)
        before = content(folder)
        update, warnings = restore(folder)  # checks the bits
        assert content(folder) == before
        assert update in (6, 9)
        if update == 6:
            fell_back += 1
            (warning,) = warnings
            assert "checkpoint after update 9 is damaged" in warning
            assert "falling back to the previous one" in warning
    assert fell_back >= 2


RECORDS = [
    {"update": 6},
    {"update": "9"},
    {"update": True},
    {"update": None},
    {"seconds": 5.5},
    {"seconds": "4.5"},
    {"seconds": -1},
    {"seconds": 1e999},
    {"total_steps": 7},
    {"total_steps": [7]},
    {"digest": 0},
    {"another": 1},
]


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("change", RECORDS)
def test_another_record_is_noticed(saved, change, is_old):
    """In a checkpoint of today's, any; in one of version 0.2, whose digest is that of the leaves, all that cannot be."""
    path = saved / "checkpoints" / "9" / "record" / "metadata"
    record = json.loads(path.read_text())
    if is_old:
        record["digest"] = digest(to_host(a_state(9)))
    path.write_text(json.dumps(record))
    assert restore(saved) == (9, [])
    path.write_text(json.dumps(record | change))
    update, warnings = restore(saved)
    if is_old and change in ({"seconds": 5.5}, {"total_steps": 7}, {"another": 1}):
        assert (update, warnings) == (9, [])
    else:
        assert (update, "checkpoint after update 9 is damaged" in warnings[0]) == (6, True)


@pytest.mark.parametrize("record", ["[]", "null", "[" * 10**5, '{"update": 9}'])
def test_a_record_that_is_none_is_noticed(saved, record):
    (saved / "checkpoints" / "9" / "record" / "metadata").write_text(record)
    assert restore(saved)[0] == 6


def test_reading_while_another_process_saves(saved, monkeypatch):
    """The checkpoints that were listed are gone when they are read."""
    open_checkpoint, left = ocp.Checkpointer.restore, [2]

    def restore_late(*args, **kwargs):
        if left:
            for _ in range(left.pop()):
                update = Checkpoints(saved).updates()[-1] + 3
                Checkpoints(saved).save(update, to_host(a_state(update)), {})
        return open_checkpoint(*args, **kwargs)

    monkeypatch.setattr(ocp.Checkpointer, "restore", restore_late)
    assert restore(saved) == (15, [])


def test_the_newest_all_emptied_or_its_folder_gone(saved):
    for path in (saved / "checkpoints" / "9").rglob("*"):
        if path.is_file():
            os.truncate(path, 0)
    assert restore(saved)[0] == 6
    shutil.rmtree(saved / "checkpoints" / "9")
    update, (warning,) = restore(saved)
    assert update == 6
    assert "newest checkpoint (update 9) is gone: falling back" in warning


def test_all_damaged_is_an_error(saved):
    for path in (saved / "checkpoints").rglob("manifest.ocdbt"):
        os.truncate(path, 3)
    for told in (True, False):  # with and without the note of which was the newest
        if not told:
            (saved / "latest_checkpoint.json").unlink()
        with pytest.raises(RunError, match=r"no checkpoint in .*checkpoints can be read: start the run again"):
            restore(saved)
    shutil.rmtree(saved / "checkpoints")
    assert restore(saved) == (None, [])
    write_atomically(saved / "latest_checkpoint.json", json.dumps({"update": 9}))
    with pytest.raises(RunError, match="no checkpoint"):
        restore(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"update": null}', "\0\0\0"])
def test_a_damaged_note_of_the_newest_is_harmless(saved, text):
    (saved / "latest_checkpoint.json").write_text(text)
    assert restore(saved) == (9, [])


def test_damaged_checkpoints_are_set_aside_and_written_again(saved):
    os.truncate(saved / "checkpoints" / "9" / "record" / "metadata", 0)
    checkpoints = Checkpoints(saved)
    _, record = checkpoints.restore(a_state(0), lambda warning: None)
    checkpoints.set_aside(after=record["update"])
    assert checkpoints.updates() == [6]
    checkpoints.save(9, to_host(a_state(9)), {})
    assert restore(saved) == (9, [])
    checkpoints.set_aside(after=6)
    assert sorted(path.name for path in (saved / "checkpoints").glob("9*")) == ["9.damaged", "9.damaged1"]


# --- Saving fails ---------------------------------------------------------------------------------------------------------


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "place",
    [
        "orbax.checkpoint.CheckpointManager.save",
        "orbax.checkpoint._src.serialization.type_handlers.NumpyHandler._open_and_write",  # in a thread, which logs it
        "orbax.checkpoint._src.path.atomicity.AtomicRenameTemporaryPath.finalize",
        "jaxpg.experiment.checkpoints.write_atomically",
    ],
)
def test_a_full_disk_leaves_the_earlier_checkpoint(saved, monkeypatch, caplog, place):
    with monkeypatch.context() as patch:
        patch.setattr(place, no_space)
        with pytest.raises(RunError, match=r"after update 12 could not be saved: .*No space left.*update 9 is kept.*--resume"):
            Checkpoints(saved).save(12, to_host(a_state(12)), {})
    assert not any(record.exc_info for record in caplog.records)
    assert restore(saved) == (9, [])
    assert [path.name for path in (saved / "checkpoints").glob("12*")] == []
    Checkpoints(saved).save(12, to_host(a_state(12)), {})
    assert restore(saved) == (12, [])


def test_only_a_full_disk_needs_space(saved, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("Cannot save this") from PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", refuse)
    with pytest.raises(RunError, match=r"Cannot save this.*Mend the cause, then continue with --resume"):
        Checkpoints(saved).save(12, to_host(a_state(12)), {})
    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", no_space)
    with pytest.raises(RunError, match="Free some space, then continue with --resume"):
        Checkpoints(saved).save(12, to_host(a_state(12)), {})


class Late:
    """Reports an error that nobody can catch when it is dropped."""

    def __init__(self, text):
        self.text = text

    def __del__(self):
        raise RuntimeError(self.text)


def test_only_the_late_errors_of_a_failed_save_are_dropped(saved, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda late: told.append(str(late.exc_value)))
    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", no_space)
    # They come while the failed save waits for them.
    monkeypatch.setattr(time, "sleep", lambda _: [Late("Event loop is closed"), Late("another")].clear())
    with pytest.raises(RunError, match="No space left"):
        Checkpoints(saved).save(12, to_host(a_state(12)), {})
    assert told == ["another"]


def test_a_failed_save_keeps_a_checkpoint_of_the_same_number(saved, monkeypatch):
    before = content(saved)
    with pytest.raises(RunError, match=r"update 9 could not be saved: .*9 is there already\. .* 9 is kept"):
        Checkpoints(saved).save(9, to_host(a_state(1)), {})
    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", no_space)
    with pytest.raises(RunError):
        Checkpoints(saved).save(9, to_host(a_state(1)), {})
    assert content(saved) == before
    assert restore(saved) == (9, [])


def test_a_failed_save_removes_nothing_else(saved, monkeypatch):
    Checkpoints(saved).save(90, to_host(a_state(90)), {})
    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", no_space)
    with pytest.raises(RunError):
        Checkpoints(saved).save(900, to_host(a_state(900)), {})
    with pytest.raises(RunError):
        Checkpoints(saved).save(1, to_host(a_state(1)), {})
    assert Checkpoints(saved).updates() == [9, 90]


def test_the_remains_of_a_killed_save_are_removed_by_the_next_one_only(saved):
    remains = saved / "checkpoints" / "12.orbax-checkpoint-tmp"
    shutil.copytree(saved / "checkpoints" / "9", remains)
    assert restore(saved) == (9, [])
    assert remains.exists()
    Checkpoints(saved).save(12, to_host(a_state(12)), {})
    assert not remains.exists()
    assert restore(saved) == (12, [])


def test_what_asyncio_says_of_reads_that_have_failed_is_left_out(caplog):
    """Only of those: others' tasks are none of ours."""
    logger = logging.getLogger("asyncio")
    for error in (ValueError("DATA_LOSS: ... [tensorstore_spec='{}']"), ValueError("another")):
        logger.error("Task exception was never retrieved", exc_info=error)
    assert [str(record.exc_info[1]) for record in caplog.records] == ["another"]
