"""Progress on the terminal: a bar where there is one, a line now and then where there is not."""

import contextlib
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Any, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

QUIET_SECONDS = 15.0  # between two lines in a log file


class _StandardError:
    """Standard error; what cannot be written (the terminal is gone, the log's disk is full) is lost, and stops nothing."""

    def __init__(self) -> None:
        self._file = sys.stderr

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def standard_error() -> Console:
    """Where a run says what it does."""
    return Console(file=cast(IO[str], _StandardError()), force_jupyter=False)


def say(console: Console, text: str) -> None:
    """Prints a line as it is: a path in it is not broken, nor are its brackets taken for markup."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def stage(console: Console, text: str) -> Iterator[None]:
    """Shows what is being done while it lasts: with a spinner on a terminal, as a line where there is none."""
    if not console.is_terminal:
        say(console, f"{text} …")
    with console.status(f"{text} …"):
        yield


class RunProgress:
    """Shows updates done, return, steps per second and time left; a context manager.

    A sweep counts environment steps in place of updates, and shows the return of the `best` configuration.
    """

    def __init__(self, title: str, num_updates: int, done: int, console: Console, score_name: str = "return"):
        self._console, self._title, self._total, self._score_name = console, title, num_updates, score_name
        self._live = console.is_terminal
        self._last_line = time.monotonic()
        columns: list[ProgressColumn] = [
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("· left"),
            TimeRemainingColumn(),
            TextColumn("· " + score_name + " {task.fields[score]} · {task.fields[speed]} steps/s"),
            TimeElapsedColumn(),
        ]
        # Where a line of all would be cut, the title stands above, and the numbers have it for themselves.
        self._title_above = self._live and console.width < len(title) + 85
        if self._title_above:
            columns = columns[2:-1]
            say(console, title)
        self._bar = Progress(*columns, console=console, disable=not self._live)
        self._task = self._bar.add_task(title, total=num_updates, completed=done, score="-", speed="-")

    def __enter__(self) -> "RunProgress":
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._bar.stop()

    def retitle(self, title: str) -> None:
        """Says what is going on now."""
        if self._title_above and title != self._title:
            say(self._console, title)
        self._title = title
        self._bar.update(self._task, description=title)

    def report(self, done: int, score: float | None, steps_per_second: float, seconds_left: float) -> None:
        """After each chunk: updates done, mean episode return (None: no episode ended), speed and estimated time left."""
        score_text = "-" if score is None else f"{score:,.1f}"
        self._bar.update(self._task, completed=done, score=score_text, speed=f"{steps_per_second:,.0f}")
        if not self._live and (time.monotonic() - self._last_line > QUIET_SECONDS or done == self._total):
            self._last_line = time.monotonic()
            say(
                self._console,
                f"{self._title}: {done / self._total:4.0%}, {self._score_name} {score_text}, {steps_per_second:,.0f} steps/s, "
                f"{seconds_left:,.0f} s left",
            )
