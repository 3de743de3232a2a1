"""What is raised for a mistake of the user's, and what its message calls an environment."""

from typing import Any


class InputError(ValueError):
    """A mistake of the user's: the message names the bad value, what is allowed and the nearest match."""


def name_of(env: Any) -> str:
    """What messages call an environment: many of users' own have no `name`."""
    return getattr(env, "name", type(env).__name__)
