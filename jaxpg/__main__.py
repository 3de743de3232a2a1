"""The command `jaxpg`, also `python -m jaxpg`."""

import os
import signal
import sys
from typing import NoReturn

from jaxpg.experiment.signals import end_at_once


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command and exits: 0 on success, 2 on bad input, 1 if a run had to stop, 128 + the number of a signal.

    The signals are seen to before the rest is imported: one that comes early leaves no traceback either.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    end_at_once("; continue with --resume" if arguments[:1] in (["train"], ["sweep"]) else "")
    from jaxpg.experiment import command_line

    try:
        command_line.main(arguments)
    except KeyboardInterrupt:  # a run has stopped, and has said so
        code = int(128 + signal.SIGINT)
    except SystemExit as end:
        if not isinstance(end.code, int) or end.code <= 128:
            raise
        code = end.code
    sys.stdout.flush()
    os._exit(code)  # without waiting for what the device has begun


if __name__ == "__main__":
    main()
