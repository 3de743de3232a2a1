"""The files of a run's folder: written whole or not at all, by one process at a time, and never through a link.

Nothing here imports more than Python's own library: the command line needs it before JAX.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxpg.errors import InputError

LARGEST = 2**28  # bytes of a JSON file that we read
LARGEST_CONFIG = 2**24  # of a configuration
LOCK = ".lock"
CANNOT_LOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader, or a crash, finds the old content or the new and nothing between.

    A link that stands there is replaced; what it points to stays as it is.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(beside, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def remove_remains(folder: Path) -> None:
    """Removes what killed calls of `write_atomically` have left in a folder."""
    for remains in folder.glob(f".*.{'[0-9a-f]' * 8}.tmp"):
        remains.unlink(missing_ok=True)


def append(path: Path, content: bytes) -> None:
    """Appends to a file and closes it, so that a full disk is noticed here, not by a buffer that is flushed later.

    Raises:
      OSError: it could not be written, or the file is a link.
    """
    with open(path, "ab", opener=_no_link) as file:
        file.write(content)


def read(path: Path, largest: int | None = None) -> bytes:
    """The content of a file.

    Raises:
      ValueError: it is a link, no regular file, or has more than `largest` bytes.
      OSError: it cannot be read.
    """
    try:
        with open(path, "rb", opener=_no_link) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ValueError("it is no regular file")
            if largest is not None and found.st_size > largest:
                raise ValueError(f"it is larger than {largest:,} bytes")
            return file.read()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError("it is a link") from error
        raise


def read_json(path: Path, largest: int = LARGEST) -> Any:
    """The content of a JSON file.

    Raises:
      ValueError: it is not JSON, nested too deeply, or none that `read` reads.
      OSError: it cannot be read.
    """
    return parse_json(read(path, largest))


def parse_json(text: bytes) -> Any:
    """What a JSON text says; raises ValueError if it is none, or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a finite number that fits into a float."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with a checksum of all in it but the `seconds` it took, which `is_sealed` checks."""
    return {**content, "checksum": _checksum(content)}


def is_sealed(content: dict[str, Any]) -> bool:
    """Whether a JSON object is as it was when it was sealed. What has no checksum is of before 0.3."""
    return content.get("checksum") in (None, _checksum(content))


def _checksum(content: dict[str, Any]) -> str:
    rest = {name: value for name, value in content.items() if name not in ("checksum", "seconds")}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)  # nor waiting for the other end of a pipe


def require_no_links(folder: Path, names: tuple[str, ...]) -> None:
    """Raises `InputError` if one of our files, or a checkpoint, is a link: what we write would go elsewhere."""
    inside = [path for name in ("checkpoints", "best") for path in (folder / name).glob("*")]
    for path in [*(folder / name for name in names), *inside]:
        if path.is_symlink():
            raise InputError(f"{path} is a link, where a file of jaxpg's is expected: put the file itself there, or remove it")


def require_writable(folder: Path) -> None:
    """Raises `InputError` if the folder cannot be made, or not be written to. Nothing on disk is changed."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    fault = None if there.is_dir() else errno.ENOTDIR
    fault = errno.EACCES if fault is None and not os.access(there, os.W_OK | os.X_OK) else fault
    if fault is not None:
        raise InputError(f"cannot write to the output folder {folder}: {there}: {os.strerror(fault)}")


@contextlib.contextmanager
def only_writer(folder: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Holds the folder, which is made if need be, for one writer until the end: a run or a sweep.

    The lock (flock) is the process's and ends with it, however it ends. It covers all processes of one machine, and those of
    several on network file systems that pass locks on (NFS from version 4, or 3 with its lock service; Lustre mounted with
    `flock`); where a file system knows no locks, `warn` is told. It does not cover somebody who deletes the lock's file, nor
    machines that mount the folder with locks of their own (`nolock`, `local_lock`, `localflock`).

    Raises:
      InputError: another process, or another call in this one, holds it, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(f"cannot write to the output folder {folder}: {error}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process is training here, in {folder}: wait until it has ended, or choose another --out"
            ) from error
        except OSError as error:
            if error.errno not in CANNOT_LOCK:
                raise InputError(f"cannot lock the output folder {folder}: {error}") from error
            warn(f"the file system of {folder} has no locks: see to it that no other process trains there")
        yield
    finally:
        os.close(lock)
