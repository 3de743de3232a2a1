"""What signals do: a training run finishes its chunk and saves; anything else ends at once.

Nothing here imports more than Python's own library: it stands ready before JAX is imported.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, NoReturn

NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
PATIENCE = 10.0  # seconds that a chunk may take to end
LEAVING = threading.Lock()


def end_at_once(hint: str = "") -> None:
    """From now on, SIGINT, SIGTERM and SIGHUP end this process without ceremony: what is on disk is whole at any moment.

    An exception instead would have to pass through other people's threads and event loops, and an orderly end would wait for
    the work that the device has begun. The exit code is 128 + the signal's number.
    """

    def end(number: int, *_: Any) -> NoReturn:
        leave(number, f"interrupted{hint}")

    for number in NUMBERS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as in the background of a shell script, or under nohup
            signal.signal(number, end)
    # Python calls its handlers between two lines of Python: never while a program compiles. A thread need not wait for that.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        while True:
            for number in os.read(reader, 64):
                if signal.getsignal(number) is end:
                    leave(number, f"interrupted{hint}")

    threading.Thread(target=watch, daemon=True).start()


def leave(number: int, message: str) -> NoReturn:
    """Says `message` on standard error, if it is still there, and ends the process with a signal's exit code."""
    if LEAVING.acquire(blocking=False):
        with contextlib.suppress(OSError):  # the terminal is gone
            show_cursor = "\r\x1b[?25h" if os.isatty(2) else ""  # which the progress bar has hidden
            os.write(2, f"{show_cursor}jaxpg: {message}\n".encode())
    else:
        time.sleep(0.1)  # handler and thread see the same signal: the other one is saying so
    os._exit(128 + number)


class Stop:
    """A signal's wish that a run may stop.

    Attributes:
      number: the signal's; None as long as there was none.
      overdue: done when the run has had `PATIENCE` to follow it.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.overdue: Future[None] = Future()

    def wish(self, number: int) -> None:
        self.number = number
        timer = threading.Timer(PATIENCE, self.overdue.set_result, [None])
        timer.daemon = True
        timer.start()


class Stopped(Exception):
    """A run has stopped because a signal wished it: of this number."""

    def __init__(self, stop: Stop, where: str):
        self.number = stop.number or 0
        super().__init__(f"stopped by {signal.Signals(self.number).name} {where}; continue with --resume")


@contextlib.contextmanager
def stop_when_asked() -> Iterator[Stop]:
    """Within it, the first signal is noted in what is yielded; the second does at once what it would have done outside.

    Signals that are ignored stay ignored. In another thread than the main one, where Python has no signals, none is noted.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    outside = {number: signal.getsignal(number) for number in NUMBERS}
    outside = {number: handler for number, handler in outside.items() if handler not in (signal.SIG_IGN, None)}

    def note(number: int, *_: Any) -> None:
        if stop.number is None:
            stop.wish(number)
            return
        signal.signal(number, outside[number])
        signal.raise_signal(number)

    for number in outside:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in outside.items():
            signal.signal(number, handler)
    if stop.number is not None:  # too late to be noticed within
        signal.raise_signal(stop.number)
