"""The command line in processes of its own, which tests may kill.

They are forked from a server that has imported jaxpg once and has not started JAX: importing takes longer than a small run.
"""

import errno
import importlib
import math
import multiprocessing
import os
import resource
import shlex
import signal
import sys
import time
import types
from pathlib import Path
from typing import NamedTuple

import environments

import jaxpg_envs

# Read when the server imports JAX.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[2] / ".cache" / "jax"))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["jaxpg.experiment.command_line", "jaxpg.experiment.sweep", "jaxpg.algorithms.online.ppo"])

RUNNER = importlib.import_module("jaxpg.experiment.run")  # `jaxpg.experiment.run` is the function
PROGRAM = importlib.import_module("jaxpg.experiment.program")
EVALUATION = importlib.import_module("jaxpg.experiment.evaluation")
SETTINGS = {"hidden_sizes": (8,), "num_envs": 4, "num_steps": 16, "num_epochs": 1, "num_minibatches": 2}
TINY = "--set.hidden-sizes 8 --set.num-envs 4 --set.num-steps 16 --set.num-epochs 1 --set.num-minibatches 2"
NUM_UPDATES = 203  # in chunks of 2, and a last one of 1
TOTAL_STEPS = NUM_UPDATES * 64
WALK = environments.Walk()


class Finished(NamedTuple):
    code: int
    stdout: str
    stderr: str


class Command:
    """A running `jaxpg ARGUMENTS`; `hook()` is called in its process first."""

    def __init__(self, arguments, scratch, hook=None):
        self._files = [Path(scratch) / "stdout", Path(scratch) / "stderr"]
        for file in self._files:
            file.write_text("")
        self.process = CONTEXT.Process(target=_main, args=(shlex.split(arguments), self._files, hook))
        self.process.start()

    def stderr(self):
        return self._files[1].read_text()

    def wait_for(self, condition, timeout=120):
        """Waits until `condition()` holds or the command has ended; returns whether it is running."""
        deadline = time.monotonic() + timeout
        while self.process.is_alive() and not condition():
            if time.monotonic() > deadline:
                self.process.kill()
                raise TimeoutError(f"nothing after {timeout} s: {self.stderr()}")
            time.sleep(0.002)
        return self.process.is_alive()

    def wait(self, timeout=120):
        self.wait_for(lambda: False, timeout)
        self.process.join()
        return Finished(self.process.exitcode, *(file.read_text() for file in self._files))


def _main(arguments, files, hook):
    for descriptor, file in zip((1, 2), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_TRUNC), descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # even if the tests run in the background of a shell script
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # or under nohup
    if hook is not None:
        hook()
    try:
        importlib.import_module("jaxpg.__main__").main(arguments)
    finally:
        sys.stdout.flush()


# --- Hooks: `functools.partial` gives them their arguments ----------------------------------------------------------------


def compile_quickly():
    """As `checks.QUICK_COMPILE`, of a process that has not started JAX."""
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    register_walk()


def compile_quickly_and(hook):
    # A hook of a test's own module would import that first, which may start JAX.
    compile_quickly()
    hook()


def register_walk():
    jaxpg_envs.register("SmallWalk", lambda: (WALK, WALK.params()))


def save_every_chunk():
    RUNNER.SAVE_SHARE = math.inf


def on_call(place, call, action, first_save_every_chunk=True):
    """Does `action` in place of the `call`-th call of `place`, written as "module:object.attribute"."""
    if first_save_every_chunk:
        save_every_chunk()
    module, path = place.split(":")
    *parents, name = path.split(".")
    owner = importlib.import_module(module)
    for parent in parents:
        owner = getattr(owner, parent)
    original, calls = getattr(owner, name), 0

    def replacement(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            action()
        return original(*args, **kwargs)

    setattr(owner, name, replacement)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def send(number):
    os.kill(os.getpid(), number)


def stop_itself():
    send(signal.SIGSTOP)


def endless_chunk(patience=None):
    """The metrics of the first chunk never arrive; `patience` in place of that of `jaxpg.experiment.signals`."""
    if patience is not None:
        importlib.import_module("jaxpg.experiment.signals").PATIENCE = patience

    def wait_for_ever(_):
        print("waiting for ever", file=sys.stderr, flush=True)
        time.sleep(1e6)

    RUNNER.jax = types.SimpleNamespace(**{**vars(RUNNER.jax), "device_get": wait_for_ever})


def no_space():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def limit_file_size(size):
    save_every_chunk()
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
