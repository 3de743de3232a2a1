"""What can go wrong around a run or a sweep, tried on tiny ones: `python tests/faults.py [--seed N] [KIND ...]`.

A trial brings a fault about, lets the command line go on, and tells what was wrong: a traceback, a result that is lost or there
twice, a state that differs from that of an undisturbed run and nobody says so, or a file outside that was touched.
`make test-faults` tries all of them and writes `benchmarks/results/faults.json`.
"""

import argparse
import contextlib
import errno
import functools
import importlib
import importlib.metadata
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
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS), str(TESTS / "experiment")]

from commands import TINY, Command, Finished, kill, no_space, on_call, register_walk, save_every_chunk  # noqa: E402
from pytest import MonkeyPatch  # noqa: E402

RESULTS = TESTS.parent / "benchmarks" / "results" / "faults.json"
PACKAGES = ("jaxpg", "jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "brax", "mujoco-mjx", "numpy")
TIMES = ("seconds", "compile_seconds", "train_seconds", "env_steps_per_second")

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
    f"--total-steps {40 * 64} {TINY} --set.memory none",
    "two devices": f"train ppo --env CartPole-v1 --num-seeds 4 --num-devices 2 --total-steps {40 * 64} {TINY}",
    "sweep": f"sweep ppo --env CartPole-v1 --num-seeds 2 --total-steps {10 * 64} {SWEPT}",
}
SMALL = {  # of what every file is damaged, in a process that has compiled it already
    "run": f"train ppo --env SmallWalk --num-seeds 2 --total-steps {6 * 64} {TINY} --eval-every 128",
    "sweep": f"sweep ppo --env SmallWalk --num-seeds 2 --total-steps {2 * 64} {SWEPT}",
}


class Trial(NamedTuple):
    """One fault.

    Attributes:
      fault: its kind: a line of the table.
      what: what it is exactly, in words.
      check: `(scratch) -> None`, or words for what went wrong; `scratch` is an empty folder of its own.
    """

    fault: str
    what: str
    check: Callable[[Path], str | None]


class Wrong(Exception):
    """What went wrong."""


def require(condition: bool, words: str) -> None:
    if not condition:
        raise Wrong(words)


# --- Commands, in a process of its own or in this one ---------------------------------------------------------------------


def prepare(scratch: str) -> None:
    """Makes this process one that runs commands: what they print goes to files, and what they have compiled is kept."""
    own = Path(scratch) / f"worker-{os.getpid()}"
    own.mkdir()
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(own / name, os.O_RDWR | os.O_CREAT | os.O_APPEND), descriptor)
    register_walk()
    save_every_chunk()
    for place in ("run:make", "run:find_environment", "run:_compile", "saved:rebuild", "environment:find_environment"):
        remember(f"jaxpg.experiment.{place}")
    remember("jaxpg.experiment.sweep:_train_group", key=lambda number, group, description, *_: (number, str(description)))


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


def call(arguments: str) -> Finished:
    """`jaxpg ARGUMENTS` in this process, which `prepare` has prepared."""
    from jaxpg.experiment.command_line import main

    for descriptor in (1, 2):
        os.ftruncate(descriptor, 0)
    code: Any = None
    try:
        main(shlex.split(arguments))
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
    require("Traceback" not in result.stderr and result.code in codes, words)
    if result.code in (1, 2):
        last = result.stderr.splitlines()[-1] if result.stderr else ""
        require(last.startswith("jaxpg: ") and (not names or any(str(name) in result.stderr for name in names)), words)


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
        require([whole[each["configuration"]] for each in found] == found, "the sweep's results differ")
        require(len({each["configuration"] for each in found}) == len(found), "results are there twice")
        return len({each["group"] for each in found})
    found, whole = rows(folder), rows(reference)
    require(found == whole[: len(found)], "the rows of metrics.jsonl are no beginning of the reference's")
    latest = folder / "latest_checkpoint.json"
    return json.loads(latest.read_text())["update"] if latest.exists() else 0


def require_same(folder: Path, reference: Path) -> None:
    require(results(folder) == results(reference), f"other results: {results(folder)}, expected {results(reference)}")
    require(rows(folder) == rows(reference), f"other rows: {len(rows(folder))}, expected {len(rows(reference))}")


def came_from(result: Finished) -> int:
    """Where a command says that it continued: after that many updates, or groups."""
    told = re.search(r"resuming .* after update (\d+) of|of which (\d+) are finished", result.stderr)
    return int(told[1] or told[2]) if told else 0


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


def interrupted(family: str, reference: Path, duration: float, number: int, seed: str, scratch: Path) -> None:
    """Sends a signal twice, at random moments, and lets the command then end: nothing is lost, doubled or different."""
    rng, folder = random.Random(seed), scratch / "out"
    command = f"{FAMILIES[family]} --out {folder} --resume"
    reached = 0
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
            require(result.code in (0, -number), f"exit code {result.code}: {result.stderr[-3000:]}")
        require_sound(result, (0, -number if number == signal.SIGKILL else 128 + number))
        require(result.code != 0 or came_from(result) >= reached, f"continued from {came_from(result)}, not {reached}")
        reached = max(require_part(folder, reference), reached)
    result = Command(command, scratch).wait()
    require_sound(result, (0,))
    if "is complete" not in result.stderr:
        require(came_from(result) >= reached, f"continued from {came_from(result)}, but {reached} were saved")
    require_same(folder, reference)


def second_writer(family: str, reference: Path, scratch: Path) -> None:
    """Another process on the same folder is refused, and the first one does not notice."""
    folder = scratch / "out"
    first = Command(f"{FAMILIES[family]} --out {folder}", scratch, save_every_chunk)
    require(first.wait_for((folder / "config.json").exists), "it ended too early")
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


DAMAGE_OF_FILES: dict[str, Callable[[Path, Path, random.Random], Any]] = {
    "cut in half": lambda path, outside, rng: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path, outside, rng: os.truncate(path, 0),
    "one bit flipped": lambda path, outside, rng: flip(path, rng),
    "another bit flipped": lambda path, outside, rng: flip(path, rng),
    "noise": lambda path, outside, rng: path.write_bytes(rng.randbytes(path.stat().st_size)),
    "twice in a row": lambda path, outside, rng: path.write_bytes(path.read_bytes() * 2),
    "JSON of somebody else": lambda path, outside, rng: path.write_text('{"name": "left-pad", "version": "1.0.0"}\n'),
    "JSON without end": lambda path, outside, rng: path.write_text("[" * 100_000),
    "a folder in its place": lambda path, outside, rng: (remove(path), path.mkdir()),
}
DAMAGE: dict[str, Callable[[Path, Path, random.Random], Any]] = {
    "removed": lambda path, outside, rng: remove(path),
    "a link in its place": lambda path, outside, rng: replace(path, outside / path.name, move=True),
    "a link to nothing": lambda path, outside, rng: replace(path, outside / path.name, move=False),
}
OTHER_VALUES = {"config.json": 60, "summary.json": 40, "results.json": 60, "best.json": 10, "metrics.jsonl": 30}
OTHER_VALUES |= {"latest_checkpoint.json": 10, "record/metadata": 20}  # how many are tried
OTHERS = ["", "3", None, True, -1, 0.5, 10**400, math.nan, math.inf, [], [[1]], {}, {"a": 1}, "--wandb"]


BRANCHES = {"checkpoints": False, "best": True}  # which of them only the evaluation of the best policies reads


def damaged(kept: Kept, name: Path, damage: Callable[[Path, Path, random.Random], Any], seed: str, scratch: Path) -> None:
    """Damages a file or folder of a copy; then it is evaluated and drawn, which changes nothing, and continued."""
    folder, outside = scratch / "copy", scratch / "outside"
    shutil.copytree(kept.folder, folder)
    outside.mkdir()
    damage(folder / name, outside, random.Random(seed))
    before, beyond = content(folder), content(outside)
    top = name.parts[0]
    readers = [arguments for arguments in kept.returns if top not in BRANCHES or BRANCHES[top] == ("best" in arguments)]
    for arguments in [*readers, *(["plot"] if kept.returns and top not in BRANCHES else [])]:
        if arguments == "plot":
            result = call(f"plot {folder} --out {scratch / 'curve.png'}")
        else:
            result = call(f"evaluate {folder} {arguments}")
        require_sound(result, (0, 1, 2), (folder,))
        is_as_before = arguments == "plot" or result.stdout == kept.returns[arguments] or name == Path("config.json")
        require(result.code != 0 or is_as_before or "warning" in result.stderr, f"other returns, silently: {result.stdout}")
    require(content(folder) == before, "reading has changed the folder")
    result = call(f"{kept.command} --out {folder} --resume")
    require_sound(result, (0, 1, 2), (folder,))
    require(content(outside) == beyond, "a file outside has changed")
    if result.code == 0:
        is_told = "warning" in result.stderr
        require(is_told or results(folder) == results(kept.finished), f"other results, silently: {results(folder)}")
        if kept.command.startswith("train"):
            digest = results(folder)["state_digest"]
            require(digest == results(kept.finished)["state_digest"], "another digest")
        if "is complete" not in result.stderr and not is_told and name != Path("metrics.jsonl"):
            require_same(folder, kept.finished)


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of a JSON tree's values, inner ones too."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from leaves(value, (*path, key))


def change_value(path: Path, outside: Path, rng: random.Random) -> None:
    """Another value, or none, at a random place of a file of JSON or of lines of JSON."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    number = rng.randrange(len(lines))
    tree = json.loads(lines[number])
    *parents, key = rng.choice(list(leaves(tree)))
    node = functools.reduce(lambda node, key: node[key], parents, tree)
    change = rng.choice(["set", "set", "removed", "doubled"])
    if change == "set":
        node[key] = rng.choice(OTHERS)
    elif change == "removed":
        del node[key]
    elif isinstance(node, list):
        node.append(node[key])
    else:
        node[f"{key}_"] = node[key]
    lines[number] = json.dumps(tree)
    path.write_text("\n".join(lines) + "\n")


def damages(seed: int, kept: list[Kept]) -> Iterator[Trial]:
    for each in kept:
        for path in sorted(each.folder.rglob("*")):
            name = path.relative_to(each.folder)
            kinds = DAMAGE if path.is_dir() or path.stat().st_size == 0 else DAMAGE | DAMAGE_OF_FILES
            for kind, damage in kinds.items():
                check = partial(damaged, each, name, damage, f"{seed} {name} {kind}")
                yield Trial(f"damage: {kind}", f"{each.name}: {name}", check)
            for number in range(OTHER_VALUES.get("/".join(name.parts[-2:]), 0)):
                check = partial(damaged, each, name, change_value, f"{seed} {name} {number}")
                yield Trial("damage: another value", f"{each.name}: {name}, number {number}", check)


def keep(name: str, scratch: Path) -> list[Kept]:
    """The finished and the interrupted one."""
    folder, command = Path(tempfile.mkdtemp(dir=scratch)), SMALL[name]
    finished, interrupted = folder / "finished", folder / "interrupted"
    require_sound(call(f"{command} --out {finished}"), (0,))
    place, number = {
        "run": ("jaxpg.experiment.checkpoints:write_atomically", 8),
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

WRITERS = (  # whatever writes passes here
    "os.open",
    "os.mkdir",
    "os.fsync",
    "os.replace",
    "jaxpg.experiment.logs.append",
    "orbax.checkpoint.CheckpointManager.save",
    "orbax.checkpoint._src.serialization.type_handlers.NumpyHandler._open_and_write",
    "orbax.checkpoint._src.path.atomicity.AtomicRenameTemporaryPath.finalize",
)


def calls_of(place: str, arguments: str, fail_at: int = 0) -> tuple[Finished, int]:
    """What becomes of a command in this process, whose `fail_at`-th call of a place finds no space; the number of calls."""
    calls = 0
    with MonkeyPatch.context() as patch:
        owner, _, name = place.rpartition(".")
        original = operator.attrgetter(name)(derive_importpath(place, raising=True)[1])


# --- All of them ----------------------------------------------------------------------------------------------------------


def reference_of(family: str, scratch: Path) -> tuple[Path, float]:
    """The folder of an undisturbed run or sweep, and how long it took."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    for name in ("first", "again"):  # compiled by then
        started = time.monotonic()
        require_sound(Command(f"{FAMILIES[family]} --out {folder / name}", folder).wait(timeout=600), (0,))
    require_same(folder / "again", folder / "first")
    return folder / "first", time.monotonic() - started


def attempt(trial: Trial, scratch: Path) -> str | None:
    """What was wrong with a trial, if anything."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    try:
        trial.check(folder)
    except Wrong as wrong:
        return str(wrong)
    except Exception:
        return traceback.format_exc()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)} (default: all, and write the table)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        scratch, context = Path(folder), multiprocessing.get_context("spawn")
        workers = len(os.sched_getaffinity(0))
        pool = stack.enter_context(ProcessPoolExecutor(workers, context, prepare, (folder,)))
        pool.submit(int).result()
        found = pool.map(partial(reference_of, scratch=scratch), FAMILIES)
        references = dict(zip(FAMILIES, found, strict=True))
        print(f"{time.monotonic() - started:.0f} s: the undisturbed ones are there", flush=True)
        table: dict[str, list[str | None]] = {}
        trials = list(interruptions(options.seed, references))
        for trial, wrong in zip(trials, pool.map(attempt, trials, [scratch] * len(trials)), strict=True):
            table.setdefault(trial.fault, []).append(wrong)
            print(f"{time.monotonic() - started:.0f} s: {trial.fault}: {trial.what}: {wrong or 'survived'}", flush=True)
    return 0


KINDS = ("interruptions",)

if __name__ == "__main__":
    sys.exit(main())
