"""Paths that users give."""

import errno
import os
from pathlib import Path
from typing import Any

from jaxpg.algorithm import InputError, written


def as_path(what: str, given: Any) -> Path:
    """The path that the user means by `what`.

    Raises:
      InputError: it is no path, empty, or one that no file can have.
    """
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise InputError(f"{what} must be a path, got {written(given)}")
    try:
        os.stat(given)
    except ValueError as error:  # a NUL, or letters that no file's name can have
        raise InputError(f"{what} must be a path, got {written(given)}: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise InputError(f"{what} must be a path, got {written(given)}: {error.strerror}") from error
    return Path(given)
