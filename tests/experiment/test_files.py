"""Files are written whole or not at all, never through a link, and read within bounds."""

import errno
import json
import os
import subprocess
import sys

import pytest

from jaxpg.algorithm import InputError
from jaxpg.experiment import run
from jaxpg.experiment.files import append, only_writer, read, read_json, remove_remains, require_no_links, write_atomically


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def outside(tmp_path):
    """A file of somebody else's."""
    path = tmp_path / "outside" / "file"
    path.parent.mkdir()
    path.write_text("theirs")
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_a_file_is_replaced_whole_or_not_at_all(folder, monkeypatch):
    path = folder / "file.json"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(folder.iterdir()) == [path]


def test_a_link_is_never_written_through(folder, outside):
    for name in ("summary.json", "summary.json.tmp", ".summary.json.tmp"):
        (folder / name).symlink_to(outside)
    write_atomically(folder / "summary.json", "ours")
    assert (folder / "summary.json").read_text() == "ours"
    assert not (folder / "summary.json").is_symlink()
    (folder / "metrics.jsonl").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic links"):
        append(folder / "metrics.jsonl", b"ours")
    with pytest.raises(ValueError, match="it is a link"):
        read(folder / "metrics.jsonl")
    assert outside.read_text() == "theirs"


def test_files_have_the_mode_that_the_user_wants(folder):
    before = os.umask(0o027)
    try:
        write_atomically(folder / "file", "x")
    finally:
        os.umask(before)
    assert (folder / "file").stat().st_mode & 0o777 == 0o640


def test_the_remains_of_a_killed_write_are_removed_and_nothing_else(folder, monkeypatch):
    program = "import os, pathlib; from jaxpg.experiment import files; os.replace = lambda *_: os._exit(1); "
    program += f"files.write_atomically(pathlib.Path({str(folder)!r}) / 'summary.json', 'new')"
    subprocess.run([sys.executable, "-c", program], check=False)
    (folder / ".notes.tmp").write_text("the user's")
    assert len(list(folder.iterdir())) == 2
    remove_remains(folder)
    assert [path.name for path in folder.iterdir()] == [".notes.tmp"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 10**6, "nested too deeply"),
        (b'{"a":' * 10**5, "nested too deeply"),
        (b" " * 1001 + b"1", "larger than 1,000 bytes"),
        (b"\xff\xfe\x00", "decode"),
        (b"9" * 900, None),
        (b"{", "Expecting"),
    ],
)
def test_json_is_read_within_bounds(folder, content, message):
    (folder / "file.json").write_bytes(content)
    if message is None:
        assert read_json(folder / "file.json", largest=1000) == int(content)
        return
    with pytest.raises(ValueError, match=message):
        read_json(folder / "file.json", largest=1000 if b" " in content else 10**7)


def test_what_is_no_file_is_not_waited_for(folder):
    os.mkfifo(folder / "config.json")
    with pytest.raises(ValueError, match="no regular file"):
        read_json(folder / "config.json")


LINKS = ["config.json", "metrics.jsonl", "summary.json", "latest_checkpoint.json", "curve.png", "checkpoints", "best"]


@pytest.mark.parametrize("name", LINKS)
def test_a_run_refuses_links_in_place_of_its_files(copy_of_run, outside, name):
    path = copy_of_run / name
    target = path.rename(outside.parent / name) if path.exists() else outside
    path.symlink_to(target)
    before = {each: each.stat().st_mtime_ns for each in outside.parent.rglob("*")}
    with pytest.raises(InputError, match=f"{name}.* is a link|config.json was not written by jaxpg: it is a link"):
        run("ppo", "CartPole-v1", copy_of_run, resume=True)
    assert {each: each.stat().st_mtime_ns for each in outside.parent.rglob("*")} == before


def test_a_checkpoint_that_is_a_link_is_refused(folder, outside):
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "24").symlink_to(outside.parent)
    with pytest.raises(InputError, match="24 is a link"):
        require_no_links(folder, ())


def test_a_folder_has_one_writer(folder):
    warnings = []
    refused = pytest.raises(InputError, match="another process is training here")
    with only_writer(folder, warnings.append), refused, only_writer(folder, warnings.append):
        pass
    program = "import pathlib, time; from jaxpg.experiment.files import only_writer\n"
    program += f"with only_writer(pathlib.Path({str(folder)!r}), print): print('held', flush=True); time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process"), only_writer(folder, warnings.append):
            pass
        other.kill()  # the lock goes with the process
    with only_writer(folder, warnings.append):
        pass
    assert warnings == []


def test_a_file_system_without_locks_is_told(folder, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    warnings = []
    with only_writer(folder, warnings.append):
        assert "has no locks: see to it that no other process trains there" in warnings[0]


@pytest.mark.parametrize(
    "change",
    [{"seed": -1}, {"seed": 2**32}, {"seed": True}, {"num_seeds": 0}, {"num_devices": 0}, {"evaluation": {"every_steps": "x"}}],
)
def test_a_config_of_impossible_values_is_named(copy_of_run, change):
    config = json.loads((copy_of_run / "config.json").read_text())
    (copy_of_run / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=f"config.json was not written by jaxpg: it has no valid {next(iter(change))}"):
        run("ppo", "CartPole-v1", copy_of_run, resume=True)
