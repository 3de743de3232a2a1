"""Settings that nobody reads, from the command line, in sweeps, and in folders that earlier versions left."""

import importlib
import json
import shutil

import commands
import pytest

from jaxpg.algorithm import InputError, fields, lookup
from jaxpg.experiment.run import run
from jaxpg.experiment.saved import load
from jaxpg.experiment.search_space import require_all_read

RUNNER = importlib.import_module("jaxpg.experiment.run")
KNOWN = {field.name: field for field in fields(lookup("ppo").config_class)}


@pytest.fixture
def old_run(finished_run, tmp_path):
    """A complete run as an earlier version might have left it: with fields that are not read, or gone."""
    folder = tmp_path / "old"
    shutil.copytree(finished_run, folder)
    description = json.loads((folder / "config.json").read_text())
    description["config"] |= {"memory_size": 64, "kl_coefficient": 0.5, "gone": 3}
    (folder / "config.json").write_text(json.dumps(description))
    return folder


def test_a_command_that_sets_what_is_not_read_ends_before_it_makes_a_folder(jaxpg, tmp_path):
    for arguments, message in (
        ("train ppo --env CartPole-v1 --out x --set.memory-size 64", "memory_size is read only with memory = gru or lstm"),
        ("sweep ppo --env CartPole-v1 --out x --grid.memory-size 64,128", "memory_size is read only with memory = gru or lstm"),
        (
            "sweep ppo --env CartPole-v1 --out x --random 2 --range.kl-coefficient 0.1,1",
            "kl_coefficient is read only with surrogate = kl, but surrogate is clip",
        ),
        (
            "sweep ppo --env CartPole-v1 --out x --grid.kl-coefficient 1,2 --grid.surrogate kl,clip",
            "kl_coefficient is read only with surrogate = kl, but surrogate is clip",
        ),
        ("train sac --env Pendulum-v1 --out x --total-steps 500", "the policy learns nothing (learning_starts = 1000"),
    ):
        code, stdout, stderr = jaxpg(arguments)
        assert (code, stdout) == (2, "")
        assert message in stderr
        assert not (tmp_path / "x").exists()


def test_a_sweep_over_a_choice_and_what_it_needs():
    swept = [{"surrogate": "kl", "kl_coefficient": value} for value in (0.5, 1.0)]
    require_all_read("ppo", KNOWN, swept, {})
    require_all_read("ppo", KNOWN, [{"memory_size": 16}], {"memory": "gru"})
    with pytest.raises(InputError, match="kl_coefficient is read only with surrogate = kl, but surrogate is clip"):
        require_all_read("ppo", KNOWN, [{"surrogate": "clip", "kl_coefficient": 1.0}, *swept], {})


def test_configurations_of_a_sweep_pass_over_a_fixed_value_that_others_read(monkeypatch, tmp_path):
    sweeper = importlib.import_module("jaxpg.experiment.sweep")
    monkeypatch.setattr(sweeper, "_sweep", lambda description, groups, *_: description | {"groups": groups})
    grid, fixed = {"memory": ["none", "gru"], "learning_rate": [1e-3, 1e-4]}, {"memory_size": 32, "num_minibatches": 4}
    swept = sweeper.sweep("ppo", "CartPole-v1", tmp_path / "x", grid=grid, **fixed)
    assert [group.agent.config.memory_size for group in swept["groups"]] == [128, 32]
    shared = swept["config"]
    assert (shared["memory_size"], shared["num_minibatches"]) == (32, 4)
    with pytest.raises(InputError, match="memory_size is read only with memory = gru or lstm, but memory is none"):
        sweeper.sweep("ppo", "CartPole-v1", tmp_path / "y", grid=grid | {"memory": ["none"]}, **fixed)


def test_help_says_when_a_field_is_read(jaxpg):
    said = " ".join(jaxpg("train ppo --help")[1].replace("│", " ").split())
    assert "weight of the KL penalty (surrogate = kl)" in said


def test_an_old_run_is_loaded_and_continued(old_run):
    assert load(old_run).algorithm.config.memory_size == 128
    settings = {"num_seeds": 2, "total_steps": commands.TOTAL_STEPS, **commands.SETTINGS}
    assert run("ppo", "CartPole-v1", old_run, resume=True, **settings)["num_seeds"] == 2
    with pytest.raises(InputError, match=r"its learning_rate is 0\.0003"):
        run("ppo", "CartPole-v1", old_run, resume=True, learning_rate=0.01, **settings)


def test_the_configuration_of_an_old_run_can_be_given(jaxpg, monkeypatch, old_run):
    called = {}
    monkeypatch.setattr(RUNNER, "run", lambda *args, **kwargs: called.update(kwargs) or {})
    assert jaxpg(f"train ppo --env CartPole-v1 --out out --json --config {old_run / 'config.json'}")[0] == 0
    assert (called["memory_size"], called["kl_coefficient"], called["num_steps"]) == (128, 1.0, 16)
    description = json.loads((old_run / "config.json").read_text())
    description["config"] |= {"memory": "gru", "memory_size": 64}
    (old_run / "config.json").write_text(json.dumps(description))
    command = f"train ppo --env CartPole-v1 --out out --json --config {old_run / 'config.json'}"
    for flags, memory, size in (
        ("", "gru", 64),
        ("--set.memory lstm", "lstm", 64),
        ("--set.memory none", "none", 128),
        ("--set.memory none --set.memory-size 32", "none", 32),  # which `run` refuses
    ):
        assert jaxpg(f"{command} {flags}")[0] == 0
        assert (called["memory"], called["memory_size"]) == (memory, size)
