"""The catalogue of planted mistakes fits the code, and three of them are planted; `make test-mutants` plants all."""

import ast
import subprocess
import sys
from collections import Counter

import pytest
from mutants import ROOT, TESTS, catalogue, rotating

MUTANTS = catalogue()
FAMILIES = {
    "bookkeeping",
    "value chains",
    "episode ends",
    "memory",
    "replay",
    "repertoires",
    "level buffers",
    "meta-learning",
    "resume",
}


def test_there_are_mistakes_of_every_family():
    assert len(MUTANTS) >= 100
    counts = Counter(mutant.family for mutant in MUTANTS)
    assert set(counts) == FAMILIES
    assert min(counts.values()) >= 10
    for attribute in ("mistake", "file"):
        assert all(getattr(mutant, attribute) for mutant in MUTANTS)
    assert len({mutant.mistake for mutant in MUTANTS}) == len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS})


@pytest.mark.parametrize("file", sorted({mutant.file for mutant in MUTANTS}))
def test_every_mistake_has_one_place_and_is_python(file):
    assert file.startswith(("jaxpg/", "envs/"))
    text = (ROOT / file).read_text()
    for mutant in MUTANTS:
        if mutant.file == file:
            planted = mutant.planted()
            assert planted != text
            assert "\n" not in mutant.old + mutant.new, "of one line"
            compile(planted, file, "exec")


def test_the_tests_that_must_fail_exist():
    functions = {}
    for test in {test for mutant in MUTANTS for test in mutant.tests}:
        path, _, name = test.partition("[")[0].partition("::")
        if path not in functions:
            tree = ast.parse((TESTS / path).read_text())
            functions[path] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in functions[path], test
    assert all(mutant.tests for mutant in MUTANTS)


def test_a_rotation_follows_the_files_alone(monkeypatch):
    some = rotating(MUTANTS, 5)
    assert some == rotating(MUTANTS, 5)
    assert some == rotating(MUTANTS[::-1], 5)
    assert len({mutant.number for mutant in some}) == 5
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda path: b"another content")
    assert some != rotating(MUTANTS, 5)


def test_planted_mistakes_are_noticed():
    """Three of them; which ones, follows from the content of the files that they are in."""
    command = [sys.executable, TESTS / "mutants.py", "--rotate", "3"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1].endswith("0 of 3 survived")
