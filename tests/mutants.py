"""Mistakes planted one by one, and the tests that must notice: `python tests/mutants.py [--only FAMILY|NUMBER ...]`.

`mutants.toml` holds the mistakes: each is a piece of a line that occurs once in its file, and what stands there instead. In a
copy of the tree, the tests that are named pass; then each mistake is planted, its tests run in a process of their own, and it
is taken out again. One that none of them catches is a survivor: the exit code is 1, and what it needs is a test.
`make test-mutants` plants all of them and writes `benchmarks/results/mutants.json`; `--only` makes its lines of that anew.

`--rotate N` plants N of them, and trusts that their tests pass without: which ones follows from the content of the files that
the catalogue changes (`rotating`), so that it is the same whenever that is the same, and another choice after most changes.
"""

import argparse
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import time
import tomllib
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).parent
ROOT = TESTS.parent
CATALOGUE = TESTS / "mutants.toml"
RESULTS = ROOT / "benchmarks" / "results" / "mutants.json"
PACKAGES = ("jaxpg", "jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "brax", "mujoco-mjx", "numpy")
COPIED = ("jaxpg", "envs", "tests", "benchmarks", "pyproject.toml", "README.md")
# Imported once, in a process that all others are forked from: none of them starts JAX's backend, nor a thread.
PRELOADED = ["jax.numpy", "flax.linen", "optax", "chex", "distrax", "beartype", "jaxtyping", "hypothesis", "pytest", "rlax"]
PRELOADED += ["orbax.checkpoint", "scipy.stats", "tensorboardX.proto.event_pb2", "rich.console"]
PATIENCE = 300  # seconds that a mistake's tests may take
# Compiling is most of what this costs.
QUICKLY = {"XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true", "NPROC": "1"}
NOBODY, BROKEN, ENDLESS = "nobody", "it cannot even be imported", f"it has not ended after {PATIENCE} s"


class Mutant(NamedTuple):
    """A mistake of one line.

    Attributes:
      number: from 1, its place in the catalogue.
      family: of the code that it is in.
      mistake: in words.
      file: from the root.
      old, new: what stands in the file, once, and what is to stand there.
      tests: of which one must fail, as pytest names them, from `tests`.
    """

    number: int
    family: str
    mistake: str
    file: str
    old: str
    new: str
    tests: list[str]

    def planted(self, root: Path = ROOT) -> str:
        """The content of the file with the mistake in it; raises ValueError if there is not the one place for it."""
        text = (root / self.file).read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"mutant {self.number}: {self.file} has {text.count(self.old)} times {self.old!r}, not once")
        return text.replace(self.old, self.new)


def catalogue() -> list[Mutant]:
    """All of them, in order."""
    return [Mutant(number, **each) for number, each in enumerate(tomllib.loads(CATALOGUE.read_text())["mutant"], start=1)]


def rotating(mutants: list[Mutant], count: int) -> list[Mutant]:
    """So many of them, by a hash of what stands in the files that they change."""
    files = hashlib.sha256(
        b"".join((ROOT / file).read_bytes() for file in sorted({mutant.file for mutant in mutants}))
    ).digest()
    return sorted(mutants, key=lambda mutant: hashlib.sha256(files + mutant.mistake.encode()).digest())[:count]


# --- In a process of its own ----------------------------------------------------------------------------------------------


class Failures:
    """A plugin of pytest that notes which tests fail."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.names.append(report.nodeid.removeprefix("tests/"))


def run_tests(tree: Path, tests: list[str], planted: bool, answer: Connection) -> None:
    """Sends pytest's exit code and the names of the tests that failed; what it says is in a file beside the tree.

    Where a mistake is planted the first failure is enough, and no bytecode is kept.
    """
    output = os.open(tree.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    import pytest
    from hypothesis import Phase, settings

    settings.register_profile("first example", phases=[Phase.explicit, Phase.generate])
    settings.load_profile("first example")  # that fails is enough: it need not be a small one
    os.chdir(tree)
    sys.path[:0] = paths = [str(tree), str(tree / "envs")]
    os.environ |= QUICKLY | {"PYTHONPATH": os.pathsep.join(paths)}
    sys.dont_write_bytecode = planted
    failures = Failures()
    options = ["-x"] if planted else []
    code = int(pytest.main([*options, "--rootdir", str(tree), *(f"tests/{test}" for test in tests)], plugins=[failures]))
    answer.send((code, failures.names))
    answer.close()
    os._exit(0)  # whatever threads there are


def tried(tree: Path, tests: list[str], planted: bool) -> tuple[int | None, list[str]]:
    """Exit code of these tests in the tree, and which of them failed; no code if they have not ended in time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    answer, question = context.Pipe(duplex=False)
    process = context.Process(target=run_tests, args=(tree, tests, planted, question))
    process.start()
    question.close()
    try:
        return answer.recv() if not planted or answer.poll(PATIENCE) else (None, [])
    except EOFError:  # it has died
        return -1, []
    finally:
        process.kill()
        process.join()


# --- All of them ----------------------------------------------------------------------------------------------------------


def catcher(tree: Path, mutant: Mutant) -> str:
    """The test that catches a mistake, or `NOBODY`, `BROKEN` or `ENDLESS`; the tree is afterwards as it was."""
    path, beside = tree / mutant.file, tree.with_suffix(".original")
    shutil.copy2(path, beside)
    path.write_text(mutant.planted(tree))
    os.utime(path, ns=(0, 0))  # another time than that of the bytecode that is there
    try:
        code, failures = tried(tree, mutant.tests, planted=True)
    finally:
        shutil.copy2(beside, path)
    if code is None:
        return ENDLESS
    return failures[0] if code == 1 and failures else NOBODY if code == 0 else BROKEN


def copied(scratch: Path) -> Path:
    """A copy of the tree, bytecode included; compiled programs are kept where the tests keep theirs."""
    tree = scratch / "tree"
    tree.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name)
        else:
            shutil.copy2(ROOT / name, tree / name)
    (ROOT / ".cache").mkdir(exist_ok=True)
    (tree / ".cache").symlink_to(ROOT / ".cache")
    return tree


def write(mutants: list[Mutant], table: list[dict[str, Any]], seconds: float) -> None:
    """Writes the lines of the table that are new, beside those that were there; nothing, as long as some were never planted."""
    saved = json.loads(RESULTS.read_text()) if RESULTS.exists() and len(table) < len(mutants) else {"table": [], "seconds": 0.0}
    lines = {(line["file"], line["mistake"]): line for line in saved["table"] + table}
    if any((mutant.file, mutant.mistake) not in lines for mutant in mutants):
        return
    whole = [lines[mutant.file, mutant.mistake] for mutant in mutants]
    survivors = sum(line["caught_by"] in (NOBODY, BROKEN, ENDLESS) for line in whole)
    claim = {
        "claim": f"planted mistakes, of {len(whole)}, that no test notices",
        "paper": "none: a property of jaxpg's tests",
        "measured": survivors,
        "interval": [survivors, survivors],
        "expected": "<= 0",
        "holds": survivors == 0,
        "null": len(whole),
        "verdict": "holds" if survivors == 0 else "fails",
    }
    report = {
        "name": "mutants",
        "size": "full",
        "seconds": round(saved["seconds"] + seconds, 1),
        "versions": {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES},
        "machine": {"cpu_cores": os.cpu_count(), "accelerator": None},
        "table": whole,
        "claims": [claim],
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="FAMILY|NUMBER", help="default: all")
    parser.add_argument("--rotate", type=int, metavar="N", help="only N, as the files' content has it, and not the clean copy")
    options = parser.parse_args()
    everything = catalogue()
    known = {str(mutant.number) for mutant in everything} | {mutant.family for mutant in everything}
    if unknown := set(options.only or ()) - known:
        parser.error(f"no family and no number: {', '.join(sorted(unknown))}")
    mutants = [mutant for mutant in everything if not options.only or {mutant.family, str(mutant.number)} & set(options.only)]
    if options.rotate is not None:
        mutants = rotating(mutants, options.rotate)
    started = time.monotonic()
    say = lambda text: print(f"{time.monotonic() - started:4.0f} s  {text}", flush=True)
    table = []
    with tempfile.TemporaryDirectory() as scratch:
        tree = copied(Path(scratch))
        if options.rotate is None:
            tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
            say(f"{len(tests)} tests on the clean copy")
            code, failures = tried(tree, tests, planted=False)
            if code != 0:
                print(tree.with_suffix(".out").read_text())
                say(f"they do not pass without any mistake: {', '.join(failures) or f'pytest says {code}'}")
                return 1
        say(f"{len(mutants)} mutants")
        for mutant in mutants:
            began = time.monotonic()
            caught_by = catcher(tree, mutant)
            seconds = round(time.monotonic() - began, 1)
            survives = caught_by in (NOBODY, BROKEN, ENDLESS)
            words = f"{mutant.mistake} ({mutant.file}): {caught_by}, {seconds} s"
            say(f"{mutant.number:3} {'SURVIVED: ' if survives else ''}{words}")
            table.append({"family": mutant.family, "file": mutant.file, "mistake": mutant.mistake, "caught_by": caught_by})
    survivors = sum(line["caught_by"] in (NOBODY, BROKEN, ENDLESS) for line in table)
    if options.rotate is None:
        write(everything, table, time.monotonic() - started)
    say(f"{survivors} of {len(table)} survived")
    return min(survivors, 1)


if __name__ == "__main__":
    sys.exit(main())
