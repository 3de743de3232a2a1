"""What is raised for a mistake of the user's, and how its message puts it."""

from typing import Any


class InputError(ValueError):
    """A mistake of the user's: the message names the bad value, what is allowed and the nearest match."""


def counted(number: int, thing: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def name_of(env: Any) -> str:
    """What messages call an environment: many of users' own have no `name`."""
    return getattr(env, "name", type(env).__name__)
