"""What can go wrong around a run or a sweep, tried on tiny ones: `python tests/faults.py [--seed N] [KIND ...]`.

A trial brings a fault about, lets the command line go on, and tells what was wrong: a traceback, a result that is lost or there
twice, a state that differs from that of an undisturbed run and nobody says so, or a file outside that was touched.
`make test-faults` tries all of them and writes `benchmarks/results/faults.json`.
"""

import argparse
import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import json
import math
import multiprocessing
import os
import platform
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS), str(TESTS / "experiment")]

import pytest  # noqa: E402
from commands import TINY, Command, Finished, kill, no_space, on_call, register_walk, save_every_chunk  # noqa: E402

RESULTS = TESTS.parent / "benchmarks" / "results" / "faults.json"
PACKAGES = ("jaxpg", "jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "brax", "mujoco-mjx", "numpy")
TIMES = ("seconds", "compile_seconds", "train_seconds", "env_steps_per_second", "checksum")  # the last is of all of them

# --- What is disturbed ----------------------------------------------------------------------------------------------------

OFF_POLICY = "--set.hidden-sizes 8 --set.num-envs 4 --set.buffer-size 256 --set.batch-size 8 --set.learning-starts 64"
REPERTOIRE = "--set.num-cells 16 --set.num-offspring 8 --set.hidden-sizes 4"
GRADIENTS = "--set.critic-hidden-sizes 4 --set.critic-steps 2 --set.policy-gradient-steps 2 --set.batch-size 5"
SWEPT = f"{TINY.replace(' --set.num-steps 16', '')} --grid.learning-rate 1e-3,1e38 --grid.num-steps 16,32"
FAMILIES = {
    "on-policy": f"train ppo --env CartPole-v1 --num-seeds 2 --total-steps {40 * 64} {TINY}",
    "on-policy, evaluated": f"train ppo --env CartPole-v1 --num-seeds 2 --total-steps {40 * 64} {TINY} --eval-every 320",
    "off-policy": f"train dqn --env CartPole-v1 --num-seeds 2 --total-steps 160 {OFF_POLICY}",
    "quality-diversity": f"train pga_map_elites --env PointOmni-v0 --num-seeds 2 --total-steps 32000 {REPERTOIRE} {GRADIENTS}",
    "environment design": "train plr --env CaveEscape-v0 --env-options size=5 max_steps_in_episode=10 --num-seeds 2 "
    f"--total-steps {40 * 64} {TINY} --set.memory none --set.num-levels 8",
    "two devices": f"train ppo --env CartPole-v1 --num-seeds 4 --num-devices 2 --total-steps {40 * 64} {TINY}",
    "sweep": f"sweep ppo --env CartPole-v1 --num-seeds 2 --total-steps {10 * 64} {SWEPT}",
}
SMALL = {  # of what every file is damaged, in a process that has compiled it already
    "run": f"train ppo --env SmallWalk --num-seeds 2 --total-steps {6 * 64} {TINY} --eval-every 128",
    "sweep": f"sweep ppo --env SmallWalk --num-seeds 2 --total-steps {2 * 64} {SWEPT}",
}


PATIENCE = 300  # seconds that a trial may take

# --- What may go wrong ----------------------------------------------------------------------------------------------------

TRACEBACK, LOST, DIGEST = "tracebacks", "results lost or there twice", "silent differences of a state's digest or of results"
OTHER = "other exit codes, messages or changed files than there should be"


class Trial(NamedTuple):
    """A fault.

    Attributes:
      fault: its kind: a line of the table.
      what: what it is exactly, in words.
      check: brings it about in an empty folder of its own; raises `Wrong`, or returns a word for the table's notes.
      count: how many faults it stands for.
    """

    fault: str
    what: str
    check: Callable[[Path], str | None]
    count: int = 1


class Wrong(Exception):
    """What should not have happened: its kind, and words."""

    def __init__(self, kind: str, words: str):
        super().__init__(kind, words)
        self.kind, self.words = kind, words

    def __str__(self) -> str:
        return f"{self.kind}: {self.words}"


def require(condition: bool, kind: str, words: str) -> None:
    if not condition:
        raise Wrong(kind, words)


# --- Commands, in a process of its own or in this one ---------------------------------------------------------------------


def prepare(scratch: str) -> None:
    """Makes this process one that runs commands: what they print goes to files, and what they have compiled is kept."""
    own = Path(scratch) / f"worker-{os.getpid()}"
    own.mkdir()
    signal.signal(signal.SIGALRM, too_long)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(own / name, os.O_RDWR | os.O_CREAT | os.O_APPEND), descriptor)
    register_walk()
    save_every_chunk()
    for place in ("run:make", "run:find_environment", "run:_compile", "saved:rebuild", "environment:find_environment"):
        remember(f"jaxpg.experiment.{place}")
    remember("jaxpg.experiment.sweep:_train_group", key=lambda number, group, description, *_: (number, str(description)))


def too_long(*_: Any) -> None:
    raise TimeoutError(f"it has not ended after {PATIENCE} s")


def remember(place: str, key: Callable[..., Any] = lambda *args, **settings: repr((args, settings))) -> None:
    """Replaces a function, named as for `on_call`, by one that computes everything once."""
    module, name = place.split(":")
    original, known = getattr(importlib.import_module(module), name), {}

    @functools.wraps(original)
    def remembered(*args: Any, **settings: Any) -> Any:
        found = key(*args, **settings)
        if found not in known:
            known[found] = original(*args, **settings)
        return known[found]

    setattr(importlib.import_module(module), name, remembered)


def call(arguments: str | list[str]) -> Finished:
    """`jaxpg ARGUMENTS` in this process, which `prepare` has prepared."""
    from jaxpg.experiment.command_line import main

    for descriptor in (1, 2):
        os.ftruncate(descriptor, 0)
    code: Any = None
    try:
        main(shlex.split(arguments) if isinstance(arguments, str) else arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return Finished(code, *(Path(f"/proc/self/fd/{descriptor}").read_text(errors="replace") for descriptor in (1, 2)))


def require_sound(result: Finished, codes: tuple[int, ...], names: tuple[Any, ...] = ()) -> None:
    """No traceback, one of these exit codes and, of an error, a message of ours that has one of these names in it."""
    words = f"exit code {result.code}: {result.stderr[-3000:]}"
    require("Traceback" not in result.stderr, TRACEBACK, words)
    require(result.code in codes, OTHER, words)
    if result.code in (1, 2):
        said = result.stderr.splitlines() + result.stdout.splitlines()[:1]
        is_named = not names or any(str(name) in result.stderr for name in names)
        require(is_named and any(line.startswith(("jaxpg: ", "usage: ", "╭─")) for line in said), OTHER, words)


# --- What a folder holds --------------------------------------------------------------------------------------------------


def without_times(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: without_times(value) for name, value in tree.items() if name not in TIMES}
    return [without_times(value) for value in tree] if isinstance(tree, list) else tree


def rows(folder: Path) -> list[Any]:
    """What was logged, without a torn last line."""
    path = folder / "metrics.jsonl"
    *whole, _ = path.read_bytes().split(b"\n") if path.exists() else [b""]
    return [without_times(json.loads(line)) for line in whole]


def results(folder: Path) -> Any:
    """The summary of a run, or the results of a sweep; None if there are none yet."""
    found = [folder / name for name in ("summary.json", "results.json") if (folder / name).exists()]
    return without_times(json.loads(found[0].read_text())) if found else None


def content(folder: Path) -> dict[Path, Any]:
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def require_part(folder: Path, reference: Path) -> int:
    """Checks that nothing interrupted is there twice or differs; returns how far it has surely come."""
    if (folder / "results.json").exists():
        whole = {each["configuration"]: each for each in results(reference)["results"]}
        found = results(folder)["results"]
        require([whole[each["configuration"]] for each in found] == found, DIGEST, "the sweep's results differ")
        require(len({each["configuration"] for each in found}) == len(found), LOST, "results are there twice")
        return len({each["group"] for each in found})
    found, whole = rows(folder), rows(reference)
    require(found == whole[: len(found)], LOST, "the rows of metrics.jsonl are no beginning of the reference's")
    latest = folder / "latest_checkpoint.json"
    return json.loads(latest.read_text())["update"] if latest.exists() else 0


def require_same(folder: Path, reference: Path) -> None:
    require(results(folder) == results(reference), DIGEST, f"other results: {results(folder)}, expected {results(reference)}")
    require(rows(folder) == rows(reference), LOST, f"other rows: {len(rows(folder))}, expected {len(rows(reference))}")


def require_continued(result: Finished, reached: int) -> None:
    """Checks that a command has not begun before what was reached: so many updates, or groups."""
    told = re.search(r"resuming .* after update (\d+) of|of which (\d+) are finished", result.stderr)
    is_early = (result.code != 0 and told is None) or "is complete" in result.stderr  # the command that comes to the end tells
    began = int(told[1] or told[2]) if told else 0
    require(is_early or began >= reached, LOST, f"it continued from {began}, but {reached} were there: {result.stderr}")


# --- Interruptions --------------------------------------------------------------------------------------------------------

ORBAX = "orbax.checkpoint._src.path.atomicity:AtomicRenameTemporaryPath"
WRITING = {  # where a process may be killed while it writes, and how often it comes there
    "jaxpg.experiment.logs:append": 80,
    "jaxpg.experiment.checkpoints:Checkpoints.save": 40,
    "jaxpg.experiment.checkpoints:write_atomically": 40,
    f"{ORBAX}.create": 40,
    f"{ORBAX}.finalize": 40,
    "os:replace": 44,
    "os:fsync": 44,
}


def interrupted(family: str, reference: Path, duration: float, number: int, seed: str, scratch: Path) -> str:
    """Sends a signal twice, at random moments, and lets the command then end: nothing is lost, doubled or different."""
    rng, folder = random.Random(seed), scratch / "out"
    command = f"{FAMILIES[family]} --out {folder} --resume"
    reached = in_time = 0
    for _ in range(2):
        place = rng.choice([*WRITING, None, None, None, None, None]) if family != "sweep" else None
        moment = rng.random() * duration
        if number == signal.SIGKILL and place is not None:
            hook = partial(on_call, place, rng.randint(1, WRITING[place]), kill)
            result = Command(command, scratch, hook).wait()
        else:
            running = Command(command, scratch, rng.choice([None, save_every_chunk]))
            if number != signal.SIGKILL:  # before, Python itself has not begun
                running.wait_for(lambda running=running: running.stderr())
            time.sleep(moment)
            with contextlib.suppress(ProcessLookupError):
                os.kill(running.process.pid, number)
            result = running.wait()
        if number == signal.SIGKILL:
            require(result.code in (0, -number), OTHER, f"exit code {result.code}: {result.stderr[-3000:]}")
        require_sound(result, (0, -number if number == signal.SIGKILL else 128 + number))
        require(result.stderr.count("interrupted") < 2, OTHER, f"it says so twice: {result.stderr}")
        in_time += result.code != 0
        require_continued(result, reached)
        reached = max(require_part(folder, reference), reached)
    result = Command(command, scratch).wait()
    require_sound(result, (0,))
    require_continued(result, reached)
    require_same(folder, reference)
    return f"with {in_time} of 2 signals in time"


def reference_of(family: str, scratch: Path) -> tuple[Path, float]:
    """The folder of an undisturbed run or sweep, and how long one takes that has been compiled."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    for name in ("first", "again"):
        started = time.monotonic()
        require_sound(Command(f"{FAMILIES[family]} --out {folder / name}", folder).wait(timeout=600), (0,))
    require_same(folder / "again", folder / "first")
    return folder / "first", time.monotonic() - started


def second_writer(family: str, reference: Path, scratch: Path) -> None:
    """Another process on the same folder is refused, and the first one does not notice."""
    folder = scratch / "out"
    first = Command(f"{FAMILIES[family]} --out {folder}", scratch, save_every_chunk)
    require(first.wait_for((folder / "config.json").exists), OTHER, "it ended too early")
    for resume in ("", " --resume"):
        second = call(f"{FAMILIES[family]} --out {folder}{resume}")
        require_sound(second, (2,), ("another process is training here",))
    require_sound(first.wait(), (0,))
    require_same(folder, reference)


def interruptions(seed: int, references: dict[str, tuple[Path, float]]) -> Iterator[Trial]:
    for family, (reference, duration) in references.items():
        for number in range(4):
            check = partial(interrupted, family, reference, duration, signal.SIGKILL, f"{seed} {family} {number}")
            yield Trial(f"kill -9, twice: {family}", f"number {number}", check)
    for family in ("on-policy, evaluated", "off-policy", "sweep"):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            check = partial(interrupted, family, *references[family], number, f"{seed} {family} {number}")
            yield Trial("SIGTERM, SIGINT, SIGHUP, twice", f"{number.name}, {family}", check)
    for family in ("on-policy", "quality-diversity", "sweep"):
        yield Trial("a second process on the same folder", family, partial(second_writer, family, references[family][0]))


# --- Damage ---------------------------------------------------------------------------------------------------------------


class Kept(NamedTuple):
    """A finished or an interrupted run or sweep, to be copied and damaged.

    Attributes:
      name: of both, in words.
      command: what trains it.
      folder: not to be changed.
      finished: the folder of the finished one.
      returns: what `evaluate` prints, by its arguments.
    """

    name: str
    command: str
    folder: Path
    finished: Path
    returns: dict[str, str]


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def replace(path: Path, target: Path, move: bool) -> None:
    """Puts a link in the place of a file or a folder, which goes to where the link leads, or goes."""
    shutil.move(path, target) if move else remove(path)
    path.symlink_to(target)


def change_value(path: Path, rng: random.Random) -> None:
    """Another value, or none, at a random place of a file of JSON or of lines of JSON."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    number = rng.randrange(len(lines))
    tree = json.loads(lines[number])
    *parents, key = rng.choice(list(leaves(tree)))
    node = functools.reduce(lambda node, key: node[key], parents, tree)
    change = rng.choice(["other", "other", "removed", "doubled"])
    if change == "other":
        node[key] = rng.choice(OTHERS)
    elif change == "removed":
        del node[key]
    elif isinstance(node, list):
        node.append(node[key])
    else:
        node[f"{key}_"] = node[key]
    lines[number] = json.dumps(tree)
    path.write_text("\n".join(lines) + "\n")


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of a JSON tree's values, inner ones too."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from leaves(value, (*path, key))


DAMAGE: dict[str, Callable[[Path, Path, random.Random], Any]] = {  # of a path, where a link may lead, by chance
    "removed": lambda path, outside, rng: remove(path),
    "a link in its place": lambda path, outside, rng: replace(path, outside / path.name, move=True),
    "a link to nothing in its place": lambda path, outside, rng: replace(path, outside / path.name, move=False),
}
DAMAGE_OF_FILES: dict[str, Callable[[Path, Path, random.Random], Any]] = {
    "cut in half": lambda path, outside, rng: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path, outside, rng: os.truncate(path, 0),
    "a bit flipped": lambda path, outside, rng: flip(path, rng),
    "another bit flipped": lambda path, outside, rng: flip(path, rng),
    "noise": lambda path, outside, rng: path.write_bytes(rng.randbytes(path.stat().st_size)),
    "twice in a row": lambda path, outside, rng: path.write_bytes(path.read_bytes() * 2),
    "JSON of somebody else": lambda path, outside, rng: path.write_text('{"name": "left-pad", "version": "1.0.0"}\n'),
    "JSON without end": lambda path, outside, rng: path.write_text("[" * 100_000),
    "a folder in its place": lambda path, outside, rng: (remove(path), path.mkdir()),
}
OTHER_VALUE = {"another value": lambda path, outside, rng: change_value(path, rng)}
OTHER_VALUES = {"config.json": 60, "summary.json": 40, "results.json": 60, "best.json": 10, "metrics.jsonl": 30}
OTHER_VALUES |= {"latest_checkpoint.json": 10, "record/metadata": 20}  # how many are tried
OTHERS = ["", "3", None, True, -1, 0.5, 10**400, math.nan, math.inf, [], [[1]], {}, {"a": 1}, "--wandb"]


BRANCHES = {"checkpoints": False, "best": True}  # which of them only the evaluation of the best policies reads


def damaged(kept: Kept, name: Path, kind: str, seed: str, scratch: Path) -> str:
    """Damages a file or folder of a copy; then it is evaluated and drawn, which changes nothing, and continued."""
    folder, outside = scratch / "copy", scratch / "outside"
    shutil.copytree(kept.folder, folder)
    outside.mkdir()
    (DAMAGE | DAMAGE_OF_FILES | OTHER_VALUE)[kind](folder / name, outside, random.Random(seed))
    before, beyond, top = content(folder), content(outside), name.parts[0]
    for arguments, returns in kept.returns.items():
        if top not in BRANCHES or BRANCHES[top] == ("best" in arguments):
            result = call(f"evaluate {folder} {arguments}")
            require_sound(result, (0, 1, 2), (folder,))
            is_told = result.code != 0 or result.stdout == returns or "warning" in result.stderr or top == "config.json"
            require(is_told, DIGEST, f"other returns, silently: {result.stdout}")
    if kept.returns and top not in BRANCHES:
        require_sound(call(f"plot {folder} --out {scratch / 'curve.png'}"), (0, 1, 2), (folder,))
    require(content(folder) == before, OTHER, "reading has changed the folder")
    result = call(f"{kept.command} --out {folder} --resume")
    require_sound(result, (0, 1, 2), (folder,))
    require(content(outside) == beyond, OTHER, "a file outside has changed")
    if result.code != 0:
        return "refused"
    is_told = "warning" in result.stderr
    found, expected = results(folder), results(kept.finished)
    require(is_told or found == expected, DIGEST, f"other results, silently: {found}")
    require(found.get("state_digest") == expected.get("state_digest"), DIGEST, "another digest")
    if "is complete" not in result.stderr and not is_told and name != Path("metrics.jsonl"):
        require_same(folder, kept.finished)
    return "told" if is_told else "harmless"


def newest(checkpoints: Path) -> int:
    return max(int(path.name) for path in checkpoints.glob("**/*") if path.name.isdecimal())


def damages(seed: int, kept: list[Kept]) -> Iterator[Trial]:
    for each in kept:
        for path in sorted(each.folder.rglob("*")):
            name = path.relative_to(each.folder)
            kinds = [*DAMAGE, *(DAMAGE_OF_FILES if path.is_file() and path.stat().st_size else [])]
            if name.parts[0] in BRANCHES and str(newest(each.folder / name.parts[0])) not in name.parts:
                kinds = [kind for kind in kinds if kind in ("removed", "a bit flipped")]  # of what is read in an emergency
            kinds += ["another value"] * OTHER_VALUES.get("/".join(name.parts[-2:]), 0)
            for number, kind in enumerate(kinds):
                check = partial(damaged, each, name, kind, f"{seed} {name} {number}")
                yield Trial(f"damage: {kind}", f"{each.name}: {name}, number {number}", check)


def keep(name: str, scratch: Path) -> list[Kept]:
    """The finished and the interrupted one."""
    folder, command = Path(tempfile.mkdtemp(dir=scratch)), SMALL[name]
    finished, interrupted = folder / "finished", folder / "interrupted"
    require_sound(call(f"{command} --out {finished}"), (0,))
    place, number = {
        "run": ("jaxpg.experiment.checkpoints:Checkpoints.save", 8),
        "sweep": ("jaxpg.experiment.sweep:_train_group", 2),
    }[name]
    killed = Command(f"{command} --out {interrupted}", folder, partial(walk_and_call, place, number, kill)).wait()
    require_sound(killed, (-signal.SIGKILL,))
    kept = []
    for kind, path in (("finished", finished), ("interrupted", interrupted)):
        returns = {}
        for arguments in ("--episodes 2 --json", "--episodes 2 --json --checkpoint best") if name == "run" else ():
            result = call(f"evaluate {path} {arguments}")
            require_sound(result, (0,))
            returns[arguments] = result.stdout
        kept.append(Kept(f"{kind} {name}", command, path, finished, returns))
    return kept


def walk_and_call(*arguments: Any) -> None:
    """A hook: `on_call` where there is a SmallWalk."""
    register_walk()
    on_call(*arguments)


# --- Full disks -----------------------------------------------------------------------------------------------------------

WRITERS = (  # whatever writes passes one of them
    "os:open",
    "os:mkdir",
    "os:fsync",
    "os:replace",
    "jaxpg.experiment.logs:append",
    "orbax.checkpoint:CheckpointManager.save",
    "orbax.checkpoint._src.serialization.type_handlers:NumpyHandler._open_and_write",
    f"{ORBAX}.finalize",
)


@contextlib.contextmanager
def full_at(place: str, number: int, disk: Path | None = None) -> Iterator[list[int]]:
    """Within it, a place's call of this number finds no space; gives the number of calls so far."""
    module, path = place.split(":")
    *parents, name = path.split(".")
    owner = functools.reduce(getattr, parents, importlib.import_module(module))
    original, calls = getattr(owner, name), [0]

    def replacement(*args: Any, **settings: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            return fail() if inspect.iscoroutinefunction(original) else no_space()
        return original(*args, **settings)

    async def fail() -> None:  # when it is awaited: nobody is ready for a coroutine that cannot even be made
        no_space()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, replacement)
        yield calls


@contextlib.contextmanager
def no_larger_files(size: int, disk: Path) -> Iterator[None]:
    """Within it, no file grows beyond that many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def small_disk(size: int, disk: Path) -> Iterator[None]:
    """Within it, the folder is a disk of that many kilobytes; afterwards it is a large one."""
    mount(disk, f"size={size}k")
    yield
    mount(disk, "remount,size=64m")


def mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=True)


def out_of_space(kept: Kept, fault: Callable[..., Any], scratch: Path) -> str:
    """A command fails in words, and goes on as if nothing had been once there is space."""
    disk = scratch / "disk"
    disk.mkdir()
    try:
        with fault(disk=disk):
            result = call(f"{kept.command} --out {disk / 'out'}")
        require_sound(result, (0, 1, 2))
        is_named = re.search("No space left|File too large", result.stderr) is not None
        require(result.code == 0 or is_named, OTHER, f"it is not named: {result.stderr[-2000:]}")
        again = call(f"{kept.command} --out {disk / 'out'} --resume")
        require_sound(again, (0,))
        require_same(disk / "out", kept.finished)
        remains = [str(path) for path in disk.rglob("*tmp*")]
        require(not remains, OTHER, f"it has left {remains}")
    finally:
        subprocess.run(["umount", "-l", disk], capture_output=True, check=False)
    return "not needed" if result.code == 0 else "stopped"


def calls_of(kept: Kept, scratch: Path) -> dict[str, int]:
    """How often each writer is called from the beginning to the end."""
    counts = {}
    for place in WRITERS:
        with full_at(place, 0) as calls:
            require_sound(call(f"{kept.command} --out {tempfile.mkdtemp(dir=scratch)}"), (0,))
        counts[place] = calls[0]
    return counts


def full_disks(kept: Kept, counts: dict[str, int]) -> Iterator[Trial]:
    for place, count in counts.items():
        for number in range(1, count + 1):
            check = partial(out_of_space, kept, partial(full_at, place, number))
            yield Trial(f"no space: {place.rpartition(':')[2]}", f"{kept.name}: call {number} of {count}", check)
    for size in (200, 400, 1000, 3000, 10_000, 30_000, 100_000):
        check = partial(out_of_space, kept, partial(no_larger_files, size))
        yield Trial("no space: files cannot grow", f"{kept.name}: {size} bytes", check)
    if os.geteuid() == 0:  # who may mount
        for size in (4, 8, 16, 40, 80, 120, 160, 200, 300, 400):
            check = partial(out_of_space, kept, partial(small_disk, size))
            yield Trial("no space: a small disk", f"{kept.name}: {size} kB", check)


# --- Odd input ------------------------------------------------------------------------------------------------------------


def odd_input(number: int, scratch: Path) -> None:
    """Command lines and configurations that nobody should type end in words."""
    import fuzz
    from hypothesis import HealthCheck, Phase, given, seed, settings

    chosen = settings(max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck))

    @seed(number)
    @settings(chosen, phases=[Phase.generate])
    @given(arguments=fuzz.command_lines(), content=fuzz.configurations())
    def end_in_words(arguments: list[str], content: bytes) -> None:
        (scratch / "c.json").write_bytes(content)
        require_sound(call(arguments), (0, 1, 2))

    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(scratch):
        fuzz.prepare(scratch, patch)
        end_in_words()


EXAMPLES, BATCHES = 100, 20


def odd_inputs(seed: int) -> Iterator[Trial]:
    for number in range(BATCHES):
        yield Trial(
            "odd command lines and configurations", f"batch {number}", partial(odd_input, 1000 * seed + number), EXAMPLES
        )


# --- All of them ----------------------------------------------------------------------------------------------------------


def attempt(trial: Trial, scratch: Path) -> Wrong | str | None:
    """What a trial tells."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    signal.alarm(PATIENCE)
    try:
        return trial.check(folder)
    except Wrong as wrong:
        return wrong
    except BaseException:
        return Wrong(OTHER, traceback.format_exc())
    finally:
        signal.alarm(0)
        shutil.rmtree(folder, ignore_errors=True)


def interrupting(pool: Executor, scratch: Path, seed: int) -> Iterator[Trial]:
    references = pool.map(partial(reference_of, scratch=scratch), FAMILIES)
    return interruptions(seed, dict(zip(FAMILIES, references, strict=True)))


def damaging(pool: Executor, scratch: Path, seed: int) -> Iterator[Trial]:
    return damages(seed, [each for both in pool.map(partial(keep, scratch=scratch), SMALL) for each in both])


def filling(pool: Executor, scratch: Path, seed: int) -> Iterator[Trial]:
    finished = [both[0] for both in pool.map(partial(keep, scratch=scratch), SMALL)]
    for kept, counts in zip(finished, pool.map(partial(calls_of, scratch=scratch), finished), strict=True):
        yield from full_disks(kept, counts)


KINDS: dict[str, Callable[[Executor, Path, int], Iterator[Trial]]] = {
    "interruptions": interrupting,
    "damage": damaging,
    "space": filling,
    "input": lambda pool, scratch, seed: odd_inputs(seed),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)} (default: all; only then is the table written)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    say = lambda text: print(f"{time.monotonic() - started:4.0f} s  {text}", flush=True)
    say(f"seed {options.seed}")
    told: dict[str, list[tuple[Trial, Wrong | str | None]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch, spawn = Path(folder), multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(len(os.sched_getaffinity(0)), spawn, prepare, (folder,)) as pool:
            for kind in options.kinds or KINDS:
                say(f"{kind}: preparing")
                trials = list(KINDS[kind](pool, scratch, options.seed))
                told |= {trial.fault: [] for trial in trials}
                random.Random(options.seed).shuffle(trials)  # the first ones to be tried are of every sort
                say(f"{kind}: {sum(trial.count for trial in trials)} faults")
                answers = pool.map(partial(attempt, scratch=scratch), trials)
                for number, (trial, answer) in enumerate(zip(trials, answers, strict=True), start=1):
                    if number % math.ceil(len(trials) / 20) == 0 or number == len(trials):
                        say(f"{kind}: {number} of {len(trials)} tried")
                    told[trial.fault].append((trial, answer))
                    if isinstance(answer, Wrong):
                        say(f"NOT SURVIVED: {trial.fault}: {trial.what}: {answer}")
    table = [line_of(fault, answers) for fault, answers in told.items()]
    wrongs = [answer for answers in told.values() for _, answer in answers if isinstance(answer, Wrong)]
    for line in table:
        print("{fault:50} {survived:5} of {tried:5}  {note}".format(**line))
    if not options.kinds:
        report = {
            "name": "faults",
            "size": "full",
            "seconds": round(time.monotonic() - started, 1),
            "versions": {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES},
            "machine": {"cpu_cores": os.cpu_count(), "accelerator": None},
            "seed": options.seed,
            "table": table,
            "claims": [claim_of(kind, wrongs) for kind in (TRACEBACK, LOST, DIGEST, OTHER)],
        }
        RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    say(f"{len(wrongs)} not survived")
    return min(len(wrongs), 1)


def line_of(fault: str, answers: list[tuple[Trial, Wrong | str | None]]) -> dict[str, Any]:
    """A line of the table."""
    notes = Counter(answer for _, answer in answers if isinstance(answer, str))
    return {
        "fault": fault,
        "tried": sum(trial.count for trial, _ in answers),
        "survived": sum(trial.count for trial, answer in answers if not isinstance(answer, Wrong)),
        "note": ", ".join(f"{count} {words}" for words, count in sorted(notes.items())),
    }


def claim_of(kind: str, wrongs: list[Wrong]) -> dict[str, Any]:
    number = sum(wrong.kind == kind for wrong in wrongs)
    return {
        "claim": f"{kind} in the fault suite",
        "paper": "none: a property of jaxpg",
        "measured": number,
        "expected": "0",
        "holds": number == 0,
        "null": None,
        "verdict": "holds" if number == 0 else "does not hold",
    }


if __name__ == "__main__":
    sys.exit(main())
