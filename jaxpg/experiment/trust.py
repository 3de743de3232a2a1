"""Whether code that a folder names may be called: only if this user has written the folder.

A run on an environment of the user's own names a function, which `load` calls to make the environment again. In a folder that
somebody else has made that may be any function, with any arguments. A key that nobody else knows tells our folders.
"""

import contextlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Any

from jaxpg.experiment.files import read


def has_code(description: dict[str, Any]) -> bool:
    """Whether a run's environment is made by code that its description names."""
    return ":" in description["env"] or bool(description.get("env_source"))


def sign(description: dict[str, Any]) -> str:
    """What tells that this user has written the environment of a description; "" where no key can be kept."""
    path = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "jaxpg" / "key"
    try:
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(secrets.token_bytes(32))
        key = read(path)
    except (OSError, ValueError):
        return ""
    signed = {name: description.get(name) for name in ("env", "env_options", "env_source")}
    return hmac.digest(key, json.dumps(signed, sort_keys=True).encode(), "sha256").hex() if len(key) == 32 else ""


def is_own(description: dict[str, Any]) -> bool:
    """Whether a description bears this user's signature."""
    expected, found = sign(description), description.get("signature")
    return isinstance(found, str) and expected != "" and hmac.compare_digest(expected, found)
