"""The README's own algorithm: it passes the linters as they are configured, trains, and learns."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the README's file in its place."""
    tree = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "jaxpg", tree / "jaxpg", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    section = (ROOT / "README.md").read_text().partition("## How to add an algorithm")[2]
    place = re.search(r"this one is `(jaxpg/algorithms/\w+/my_algorithm\.py)`", section)
    program = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert place is not None
    assert program is not None
    (tree / place[1]).write_text(program[1])
    return tree


def run(tree: Path, *command: str) -> str:
    """What a command prints in the tree's folder; its words are shown if it fails."""
    paths = os.pathsep.join([str(tree), str(ROOT / "envs")])
    environment = os.environ | {"PYTHONPATH": paths, "MYPYPATH": paths}
    result = subprocess.run([sys.executable, *command], cwd=tree, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("command", ["ruff check", "ruff format --check --diff", "mypy --no-incremental"])
def test_the_template_passes_the_linters(tree: Path, command: str) -> None:
    run(tree, "-m", *command.split(), str(next(tree.glob("jaxpg/algorithms/*/my_algorithm.py"))))


def test_the_template_learns(tree: Path) -> None:
    program = """if True:
        import jax, jaxpg, jaxpg_envs
        algorithm = jaxpg.make("my_algorithm", *jaxpg_envs.make("CartPole-v1"))
        assert algorithm.num_updates == 196
        state, metrics = jaxpg.train(algorithm, jax.random.key(0))
        print(metrics["episode_return"][:5].mean(), metrics["episode_return"][-5:].mean())
    """
    first, last = map(float, run(tree, "-c", program).split())
    assert last > 2 * first


def test_the_template_trains_from_the_command_line(tree: Path) -> None:
    main = "from jaxpg.__main__ import main; main()"
    assert "my_algorithm" in [row["name"] for row in json.loads(run(tree, "-c", main, "list", "--json"))["algorithms"]]
    train = "train my_algorithm --env CartPole-v1 --out out --total-steps 1024 --num-seeds 2 --set.learning-rate 0.02 --json"
    summary = json.loads(run(tree, "-c", main, *train.split()))
    assert (summary["algorithm"], summary["total_steps"], len(summary["returns"])) == ("my_algorithm", 1024, 2)
    assert (tree / "out" / "curve.png").exists()
