"""`python -m jaxpg`, and the command `jaxpg`."""

import sys
from typing import NoReturn

from jaxpg.experiment.signals import end_at_once


def main() -> NoReturn:
    """Runs the command; a signal that comes while its modules are imported leaves no traceback."""
    end_at_once("; continue with --resume" if sys.argv[1:2] in (["train"], ["sweep"]) else "")
    from jaxpg.experiment.command_line import main

    main()


if __name__ == "__main__":
    main()
