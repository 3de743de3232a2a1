import json
import math
import shlex
import shutil

import commands
import jax
import pytest

from jaxpg.experiment.command_line import main

jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A finished run of two seeds that has saved every chunk; not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands.RUNNER, "SAVE_SHARE", math.inf)
        commands.RUNNER.run("ppo", "CartPole-v1", folder, num_seeds=2, total_steps=commands.TOTAL_STEPS, **commands.SETTINGS)
    return folder


@pytest.fixture
def copy_of_run(finished_run, tmp_path):
    """The same run as if it had been killed after the last checkpoint."""
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder)
    (folder / "summary.json").unlink()
    return folder


@pytest.fixture(scope="session")
def finished_digest(finished_run):
    return json.loads((finished_run / "summary.json").read_text())["state_digest"]


@pytest.fixture
def jaxpg(capsys, tmp_path, monkeypatch):
    """Runs a command in this process, in an empty folder: `jaxpg("list --json") -> (code, stdout, stderr)`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NPROC", "1")
    monkeypatch.delenv("COLUMNS", raising=False)  # else lines are as long as in the terminal that it is of

    def call(arguments):
        with pytest.raises(SystemExit) as end:
            main(shlex.split(arguments))
        return end.value.code, *capsys.readouterr()

    return call
