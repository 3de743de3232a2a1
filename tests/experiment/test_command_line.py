import importlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import commands
import pytest
from commands import RUNNER, Command

import jaxpg_envs
from jaxpg.algorithm import REGISTRY, fields
from jaxpg.experiment import evaluate_run, load

CART_POLE = "--env CartPole-v1 --out run"
COMMAND_LINE = importlib.import_module("jaxpg.experiment.command_line")

SAME_RUN = f"--env CartPole-v1 --out a-run --resume --num-seeds 2 --total-steps {commands.TOTAL_STEPS} {commands.TINY}"

# --- Mistakes -------------------------------------------------------------------------------------------------------------

MISTAKES = {
    # what is typed: what stderr must name
    "": ["usage: jaxpg COMMAND"],
    "trian ppo": ["unknown command 'trian'", "did you mean 'train'", "evaluate, list, plot"],
    "train": ["needs an algorithm", "ppo"],
    f"train --env {CART_POLE}": ["needs an algorithm", "ppo"],
    f"train pppo {CART_POLE}": ["unknown algorithm 'pppo'", "did you mean 'ppo'", "pmoe_sac, ppo, pqn"],
    "train ppo --env CartPol-v1 --out run": ['unknown environment "CartPol-v1"', 'did you mean "CartPole-v1"', "jaxpg list"],
    "train ppo --env nonsense --out run": ['unknown environment "nonsense"', "package.module:factory", "jaxpg list"],
    "train ppo --out run": ["--env"],
    "train ppo --env CartPole-v1": ["--out"],
    f"train ppo {CART_POLE} --set.lerning-rate 1": ["--set.lerning-rate", "--set.learning-rate"],
    f"train ppo {CART_POLE} --num-seed 1": ["--num-seed", "--num-seeds"],
    f"train ppo {CART_POLE} --set.total-steps 100": ["--set.total-steps is no hyperparameter", "give --total-steps"],
    f"train ppo {CART_POLE} --set.num_seeds=2": ["--set.num-seeds is no hyperparameter", "give --num-seeds"],
    f"sweep ppo {CART_POLE} --grid.total-steps 1e5,1e6": ["--grid.total-steps is no hyperparameter", "give --total-steps"],
    f"train ppo {CART_POLE} --set.num-minibatches 7": ["num_minibatches = 7", "8 * 128 = 1024", "nearest that does is 8"],
    f"train ppo {CART_POLE} --set.learning-rate fast": ["--set.learning-rate", "fast"],
    f"train ppo {CART_POLE} --set.learning-rate -1": ["learning_rate must lie in [0, inf)", "-1"],
    f"train ppo {CART_POLE} --set.learning-rate nan": ["learning_rate must lie in [0, inf)", "nan"],
    f"train ppo {CART_POLE} --set.learning-rate inf": ["learning_rate must lie in [0, inf)", "inf"],
    f"train ppo {CART_POLE} --set.discount 1.5": ["discount must lie in [0, 1]", "1.5"],
    f"train ppo {CART_POLE} --set.num-envs 0": ["num_envs must be at least 1, got 0"],
    f"train ppo {CART_POLE} --set.num-envs 2.5": ["--set.num-envs: must be a whole number", "got '2.5'"],
    f"train ppo {CART_POLE} --set.hidden-sizes 8 x": ["--set.hidden-sizes: must be a whole number", "got 'x'"],
    f"train ppo {CART_POLE} --set.hidden-sizes 8 1e-3": ["--set.hidden-sizes: must be a whole number", "got '1e-3'"],
    f"train ppo {CART_POLE} --set.hidden-sizes 0": ["hidden_sizes must be at least 1, got 0"],
    f"train ppo {CART_POLE} --set.activation gelu": ["--set.activation", "gelu", "tanh", "relu", "swish"],
    f"train pmoe_ppo {CART_POLE}": ["pmoe_ppo needs continuous actions", "CartPole-v1", "ppo"],
    f"train ppo {CART_POLE} --total-steps 0": ["--total-steps must be at least 1, got 0"],
    f"train ppo {CART_POLE} --total-steps -5": ["--total-steps must be at least 1, got -5"],
    f"train ppo {CART_POLE} --total-steps many": ["--total-steps: must be a whole number", "'many'"],
    f"train ppo {CART_POLE} --total-steps 1.5": ["--total-steps: must be a whole number below 1e19, such as 1000000 or 1e6"],
    f"train ppo {CART_POLE} --total-steps 1e-3": ["--total-steps: must be a whole number", "got '1e-3'"],
    f"train ppo {CART_POLE} --total-steps 1e999999999": ["--total-steps: must be a whole number", "got '1e999999999'"],
    f"train ppo {CART_POLE} --total-steps inf": ["--total-steps: must be a whole number below 1e19", "got 'inf'"],
    f"train ppo {CART_POLE} --set.num-envs=-Infinity": ["--set.num-envs: must be a whole number", "got '-Infinity'"],
    f"train ppo {CART_POLE} --eval-episodes 3": ["eval_episodes needs eval_every"],
    f"train ppo {CART_POLE} --num-seeds 1.5": ["--num-seeds: must be a whole number", "got '1.5'"],
    f"train ppo {CART_POLE} --seed -1": ["seed must be at least 0, got -1"],
    f"train ppo {CART_POLE} --seed one": ["--seed", "one"],
    f"train ppo {CART_POLE} --num-seeds 0": ["num_seeds", "at least 1", "got 0"],
    f"train ppo {CART_POLE} --num-seeds -2": ["num_seeds", "at least 1", "got -2"],
    f"train ppo {CART_POLE} --num-devices 0": ["devices", "at least 1", "got 0"],
    f"train ppo {CART_POLE} --env-options backend": ["--env-options takes KEY=VALUE", "'backend'"],
    f"train ppo {CART_POLE} --env-options gravity=1": ["CartPole-v1", "unknown argument gravity"],
    "train ppo --env brax/ant --out run --env-options backend=sprung": ["brax/ant", "'sprung'", "spring"],
    "train ppo --env CartPole-v1 --out a-file": ["cannot write to the output folder a-file"],
    "train ppo --env CartPole-v1 --out a-file/run": ["cannot write to the output folder a-file/run"],
    "train ppo --env CartPole-v1 --out /dev/null/run": ["cannot write to the output folder /dev/null/run"],
    f"train learned_rule {CART_POLE} --set.rule grid_world": ["'grid_world'; did you mean 'grid_worlds'?", "save_rule"],
    f"train learned_rule {CART_POLE} --set.rule=": ["learned_rule: rule must be a text of printable letters, got ''"],
    f"train learned_rule {CART_POLE} --set.rule a-run": ["a-run holds a run of ppo, which trains none", "lpg, groove or"],
    f"train ppo {CART_POLE} --wandb project": ["--wandb needs the package wandb", "pip install"],
    "train ppo --env CartPole-v1 --out a-run": ["a-run holds a run already", "--resume", "another --out"],
    "train ppo --env CartPole-v1 --out a-run --resume": ["a-run holds another run", "num_seeds is 2, not 1"],
    "train ppo --env CartPole-v1 --out a-foreign-run --resume": ["a-foreign-run/config.json was not written by jaxpg"],
    "evaluate": ["a run's folder"],
    "evaluate nowhere": ["nowhere holds no run"],
    "evaluate a-file": ["a-file holds no run"],
    "evaluate a-run --episodes 0": ["--episodes must be at least 1, got 0"],
    "evaluate a-run --episodes few": ["--episodes: must be a whole number", "few"],
    "evaluate a-run --episodes nan": ["--episodes: must be a whole number", "nan"],
    f"train ppo {SAME_RUN} --set.learning-rate 1e-3": ["its learning_rate is 0.0003, not 0.001;"],
    "evaluate a-run --env CartPol-v1": ['unknown environment "CartPol-v1"', 'did you mean "CartPole-v1"'],
    "evaluate a-run --env Acrobot-v1": ["trained with the observation_space", "Acrobot-v1"],
    "evaluate a-run --json --env-options x": ["--env-options takes KEY=VALUE", "'x'"],
    "plot --out x.png": ["at least one"],
    "plot nowhere --out x.png": ["nowhere", "no such folder"],
    "plot a-run": ["--out"],
    "plot a-run --out x.pgn": ["'pgn'", "did you mean 'png'"],
    "plot a-run --out a-file/x.png": ["cannot write the picture 'a-file/x.png'"],
    "plot a-run --out x.png --metric episode_retrun": ["'episode_retrun'", "did you mean 'episode_return'"],
    "list --jsn": ["--jsn", "--json"],
    "list --filter no-such-thing": ["no algorithm or environment has 'no-such-thing'", "`jaxpg list` shows all"],
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_named_with_what_is_allowed(arguments, jaxpg, finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(RUNNER, "compile_step", lambda *_: pytest.fail("it compiled"))
    monkeypatch.setitem(sys.modules, "wandb", None)
    (tmp_path / "a-file").write_text("")
    (tmp_path / "a-run").symlink_to(finished_run)
    (tmp_path / "a-foreign-run").mkdir()
    (tmp_path / "a-foreign-run" / "config.json").write_text('{"name": "left-pad"}')
    before = sorted(tmp_path.rglob("*"))
    code, stdout, stderr = jaxpg(arguments)
    said = " ".join(re.sub("[│╭╮╰╯─]", " ", stdout + stderr if arguments == "" else stderr).split())
    assert code == 2
    assert "Traceback" not in said
    for words in MISTAKES[arguments]:
        assert words in said
    assert sorted(tmp_path.rglob("*")) == before


def test_the_number_of_devices_is_checked_before_they_are_made(tmp_path):
    """In a process of its own, where JAX has not been started."""
    result = Command(f"train ppo --env CartPole-v1 --out {tmp_path / 'run'} --num-seeds 3 --num-devices 250", tmp_path).wait()
    assert (result.code, result.stdout) == (2, "")
    assert "num_seeds = 3 does not divide among num_devices = 250; it divides among 1, 3" in result.stderr


def test_a_folder_that_may_not_be_written_to(jaxpg, tmp_path, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", forbidden)  # root, who may run the tests, is never refused
    code, _, stderr = jaxpg(f"train ppo {CART_POLE}")
    assert code == 2
    assert "cannot write to the output folder run: [Errno 13] Permission denied" in stderr


# --- What works -----------------------------------------------------------------------------------------------------------


def test_help_lists_every_hyperparameter(jaxpg):
    code, stdout, stderr = jaxpg("train ppo --help")
    assert (code, stderr) == (0, "")
    said = " ".join(re.sub("[│╭╮╰╯─]", " ", stdout).split())
    for field in fields(REGISTRY["ppo"].config_class):
        flag = "--total-steps" if field.name == "total_steps" else f"--set.{field.name.replace('_', '-')}"
        assert flag in said
        if field.name != "total_steps":
            assert field.help.split(",")[0].split(":")[0] in said
    for arguments in ("--help", "train --help", "evaluate --help", "plot --help", "list -h"):
        assert jaxpg(arguments)[0] == 0


@pytest.mark.parametrize("text", ["1e3", "1_000", "1000", "1000.0", "0.1e4"])
def test_whole_numbers_as_people_type_them(text, jaxpg, monkeypatch):
    """In every integer flag, with dashes or underscores."""
    given = {}
    monkeypatch.setattr(RUNNER, "run", lambda *_, **arguments: given.update(arguments))
    monkeypatch.setattr(COMMAND_LINE, "use_cpu_devices", lambda *_, **__: None)
    monkeypatch.setattr(COMMAND_LINE, "_words", lambda *_: "")
    flags = "--total-steps {0} --seed {0} --num_seeds {0} --num-devices {0} --set.num_envs {0} --set.hidden-sizes {0} 8 {0}"
    assert jaxpg(f"train ppo {CART_POLE} {flags.format(text)}")[0] == 0
    names = ("total_steps", "seed", "num_seeds", "num_devices", "num_envs", "hidden_sizes")
    found = [given[name] for name in names]
    assert found == [1000, 1000, 1000, 1000, 1000, (1000, 8, 1000)]
    assert all(type(value) is int for value in [*found[:-1], *found[-1]])


@pytest.mark.parametrize("final", [True, False])
def test_the_best_of_a_sweep_lends_its_hyperparameters_but_not_its_length(final, jaxpg, tmp_path, monkeypatch):
    best = {"algorithm": "ppo", "env": "CartPole-v1", "final": final, "finished_configurations": 3, "num_configurations": 6}
    best |= {"total_steps": 320, "config": {"learning_rate": 0.25, "num_envs": 4}}
    (tmp_path / "best.json").write_text(json.dumps(best))
    given = {}
    monkeypatch.setattr(RUNNER, "run", lambda *_, **arguments: given.update(arguments))
    monkeypatch.setattr(COMMAND_LINE, "_words", lambda *_: "")
    code, _, told = jaxpg(f"train ppo {CART_POLE} --config best.json")
    assert (code, given["learning_rate"], given["num_envs"], "total_steps" in given) == (0, 0.25, 4, False)
    assert ("best.json is not final: 3 of 6 configurations are finished; complete the sweep with --resume" in told) != final


def test_help_says_how_long_a_run_is_by_default(jaxpg):
    for command, default in (("train ppo", "500000"), ("sweep dqn", "100000"), ("train map_elites", "64000000")):
        _, stdout, _ = jaxpg(f"{command} --help")
        said = " ".join(re.sub("[│╭╮╰╯─]", " ", stdout).split())
        assert re.search(rf"--total-steps INT environment steps [^()]*\(default: {default}\)", said)


def test_list(jaxpg):
    code, stdout, _ = jaxpg("list --json")
    assert code == 0
    listed = json.loads(stdout)
    assert [row["name"] for row in listed["algorithms"]] == sorted(REGISTRY)
    assert all(row["paper"] and row["status"] for row in listed["algorithms"])
    assert [row["id"] for row in listed["environments"]] == [entry.id for entry in jaxpg_envs.registered()]
    code, stdout, _ = jaxpg("list")
    assert code == 0
    lines = stdout.splitlines()  # not a terminal: a line for each
    for entry in jaxpg_envs.registered():
        assert any(line.split() == [entry.id, *entry.description.split()] for line in lines)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_list_fits_the_terminal_with_whole_names(columns, jaxpg, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    code, stdout, _ = jaxpg("list")
    assert code == 0
    lines = stdout.splitlines()
    assert max(map(len, lines)) <= columns
    names = [line.split()[0] for line in lines if re.match(r"  \S", line)]
    assert sorted(names) == sorted([*REGISTRY, *(entry.id for entry in jaxpg_envs.registered())])
    said = " ".join(stdout.split())
    for entry in REGISTRY.values():
        assert f"{entry.name} {entry.paper}; {entry.actions} actions; {entry.status}" in said
    for entry in jaxpg_envs.registered():
        assert f"{entry.id} {entry.description}".strip() in said


@pytest.mark.parametrize(
    ("text", "algorithms", "environments"),
    [
        ("pmoe", ["pmoe_ppo", "pmoe_sac", "soft_option_critic"], []),
        ("brax/*uni", [], ["brax/ant_uni", "brax/halfcheetah_uni", "brax/hopper_uni", "brax/walker2d_uni"]),
        ("CARTPOLE-v", [], ["CartPole-v1", "StatelessCartPole-v1"]),
        ("schulman", ["ppo", "trpo"], []),
        ("seen in part", [], ["Maze-v0"]),
    ],
)
def test_list_filtered(text, algorithms, environments, jaxpg):
    code, stdout, _ = jaxpg(f"list --json --filter '{text}'")
    listed = json.loads(stdout)
    assert code == 0
    assert [row["name"] for row in listed["algorithms"]] == algorithms
    assert [row["id"] for row in listed["environments"]] == environments
    code, stdout, _ = jaxpg(f"list --filter '{text}'")
    assert [line.split()[0] for line in stdout.splitlines() if line.startswith("  ")] == [*algorithms, *environments]


def test_evaluate(jaxpg, finished_run):
    code, stdout, stderr = jaxpg(f"evaluate {finished_run} --episodes 7 --json")
    assert (code, stderr) == (0, "")
    result = json.loads(stdout)
    saved = load(finished_run)
    assert result["returns"] == evaluate_run(saved, num_episodes=7).tolist()
    assert (result["algorithm"], result["env"], result["episodes"]) == ("ppo", "CartPole-v1", 7)
    assert result["iqm_ci"][0] <= result["iqm"] <= result["iqm_ci"][1]
    code, stdout, _ = jaxpg(f"evaluate {finished_run} --episodes 7 --stochastic")
    assert code == 0
    assert stdout.startswith("ppo on CartPole-v1: return ")


def test_evaluate_warns_of_a_damaged_checkpoint(jaxpg, copy_of_run):
    shutil.rmtree(copy_of_run / "checkpoints" / str(commands.NUM_UPDATES))
    code, stdout, stderr = jaxpg(f"evaluate {copy_of_run} --episodes 7 --json")
    assert code == 0
    assert json.loads(stdout)["episodes"] == 7
    assert f"jaxpg: warning: the newest checkpoint (update {commands.NUM_UPDATES}) is gone: falling back" in stderr
    for path in (copy_of_run / "checkpoints").rglob("manifest.ocdbt"):
        path.write_text("")
    code, stdout, stderr = jaxpg(f"evaluate {copy_of_run}")
    assert (code, stdout) == (1, "")
    assert "can be read: start the run again in another folder" in stderr


def test_plot(jaxpg, finished_run, copy_of_run, tmp_path):
    code, stdout, _ = jaxpg(f"plot {finished_run} {copy_of_run} --out new/x.png")
    assert (code, stdout) == (0, "new/x.png\n")
    assert (tmp_path / "new" / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_complete_run_is_shown_again(jaxpg, finished_run):
    arguments = f"--env CartPole-v1 --num-seeds 2 --total-steps {commands.TOTAL_STEPS} {commands.TINY} --resume"
    code, stdout, stderr = jaxpg(f"train ppo {arguments} --out {finished_run} --json")
    assert code == 0
    assert "is complete: nothing left to do" in stderr
    assert json.loads(stdout) == json.loads((finished_run / "summary.json").read_text())
    code, stdout, _ = jaxpg(f"train ppo {arguments} --out {finished_run}")
    assert f"curves, checkpoints and summary: {finished_run}" in stdout


def test_the_installed_command_exits_quietly_when_its_reader_goes(tmp_path):
    command = Path(sys.executable).with_name("jaxpg")
    result = subprocess.run(f"{command} list | head -1", shell=True, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.startswith("algorithms")
    assert result.stderr == ""


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs a device without space")
def test_output_that_cannot_be_written(jaxpg, monkeypatch):
    command = Path(sys.executable).with_name("jaxpg")
    result = subprocess.run(f"{command} list > {FULL}", shell=True, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr.splitlines()) == (
        1,
        ["jaxpg: the output could not be written: [Errno 28] No space left on device"],
    )
    # A log on a full disk: neither a mistake's exit code nor a run depends on it.
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(FULL.open("wb", buffering=0), write_through=True))
    assert jaxpg("train ppo --env CartPol --out logged")[0] == 2
    settings = f"--env CartPole-v1 --num-seeds 2 --total-steps {commands.TOTAL_STEPS} {commands.TINY}"
    code, stdout, _ = jaxpg(f"train ppo {settings} --out logged --json")
    assert code == 0
    assert json.loads(stdout)["total_steps"] == commands.TOTAL_STEPS
