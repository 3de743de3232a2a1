"""Whatever is typed, and whatever stands in a file that is named: words and an exit code, never a traceback."""

import importlib
import json
import math
import re
import shlex

import fuzz
import pytest
from commands import RUNNER
from hypothesis import HealthCheck, given, settings

from jaxpg.experiment.command_line import main

EXAMPLES = settings(
    max_examples=100,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in, but for a run; all that takes time ends the command instead."""
    monkeypatch.chdir(tmp_path)
    fuzz.prepare(tmp_path, monkeypatch)
    return tmp_path


@EXAMPLES
@given(arguments=fuzz.command_lines(), content=fuzz.configurations())
def test_odd_command_lines_end_in_words(arguments, content, place):
    (place / "c.json").write_bytes(content)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code in (0, 1, 2)


@EXAMPLES
@given(content=fuzz.configurations())
def test_odd_configurations_end_in_words(content, place):
    (place / "c.json").write_bytes(content)
    with pytest.raises(SystemExit) as end:
        main(["train", "ppo", "--env", "CartPole-v1", "--out", "out", "--config", "c.json"])
    assert end.value.code in (0, 2)


# --- Values stay values -----------------------------------------------------------------------------------------------


def write(place, name="c.json", algorithm="ppo", **content):
    (place / name).write_text(json.dumps({"algorithm": algorithm} | content))


def train(capsys, arguments=""):
    """The exit code and what is said of `jaxpg train ppo` with the file c.json."""
    with pytest.raises(SystemExit) as end:
        main(["train", "ppo", "--env", "CartPole-v1", "--out", "out", "--config", "c.json", *arguments.split()])
    return end.value.code, capsys.readouterr().err.strip()


WHOLE, NUMBER, BOOL = "must be a whole number, got", "must be a number, got", "must be True or False, got"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("num_envs", ["8", "--num-seeds", "3"], f"{WHOLE} ['8', '--num-seeds', '3']"),
        ("num_envs", "--wandb", f"{WHOLE} '--wandb'"),
        ("num_envs", "8", f"{WHOLE} '8'"),
        ("num_envs", True, f"{WHOLE} True"),
        ("num_envs", 2.5, f"{WHOLE} 2.5"),
        ("num_envs", None, f"{WHOLE} None"),
        ("num_envs", math.nan, f"{WHOLE} nan"),
        ("num_envs", -1, "must be at least 1, got -1"),
        ("num_envs", 10**26, "must be at most 2147483647, got 100000000000000000000000000"),
        ("total_steps", 10**18 + 1, "must be at most 1000000000000000000, got 1000000000000000001"),
        ("hidden_sizes", ["64", "--wandb", "x"], f"{WHOLE} '64'"),
        ("hidden_sizes", [[64]], f"{WHOLE} [64]"),
        ("hidden_sizes", 64, "must be a sequence of integers, got 64"),
        ("hidden_sizes", {"64": 1}, "must be a sequence of integers, got {'64': 1}"),
        ("hidden_sizes", [8] * 101, "must be at most 100 integers, got (8, 8,"),
        ("learning_rate", "1e-3", f"{NUMBER} '1e-3'"),
        ("learning_rate", False, f"{NUMBER} False"),
        ("learning_rate", [[1], 2], f"{NUMBER} [[1], 2]"),
        ("learning_rate", math.inf, "must lie in [0, inf), got inf"),
        ("learning_rate", 1e39, "must lie in [0, inf) in 32 bits, got 1e+39"),
        ("learning_rate", 10**400, "must lie in [0, inf) in 32 bits, got 1000"),
        ("normalize_rewards", "False", f"{BOOL} 'False'"),
        ("normalize_rewards", 0, f"{BOOL} 0"),
        ("activation", ["relu"], "cannot be \"['relu']\""),
        ("activation", "--help", "cannot be '--help'"),
        ("nosuch", 3, "ppo has no hyperparameter 'nosuch'"),
    ],
)
def test_a_file_holds_values_not_flags(field, value, words, place, capsys):
    write(place, config={field: value})
    code, said = train(capsys)
    of_field = f"ppo: {field} " if field != "nosuch" else ""
    assert code == 2
    assert said.startswith(f"jaxpg: --config: c.json: {of_field}{words}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "c.json is no configuration"),
        (b"[" * 100_000, "c.json is no configuration"),
        (b"\xff\xfe", "c.json is no configuration"),
        (b"9" * 5000, "c.json is no configuration"),
        (b'["algorithm", "config"]', "c.json is no configuration"),
        (b'{"algorithm": "ppo"}', "c.json is no configuration"),
        (b'{"algorithm": "ppo", "config": [["num_envs", 8]]}', "c.json is no configuration"),
        (b'{"algorithm": ["ppo"], "config": {}}', "c.json is a configuration of ['ppo'], not of 'ppo'"),
    ],
)
def test_a_file_that_is_no_configuration(content, words, place, capsys):
    (place / "c.json").write_bytes(content)
    code, said = train(capsys)
    assert code == 2
    assert words in said


def test_values_of_a_file_become_defaults(place, capsys, monkeypatch):
    """Flags override them, what the flags leave unread is passed over, and a run's file may be of an older version."""
    given = {}
    monkeypatch.setattr(RUNNER, "run", lambda *_, **arguments: given.update(arguments))
    monkeypatch.setattr("jaxpg.experiment.command_line._words", lambda *_: "")
    saved = {"num_envs": 8.0, "learning_rate": 1, "hidden_sizes": [5, 4], "activation": "relu", "total_steps": 777}
    write(place, config=saved | {"surrogate": "kl", "kl_coefficient": 0.5})
    assert train(capsys) == (0, "")
    expected = {"num_envs": 8, "learning_rate": 1.0, "hidden_sizes": (5, 4), "activation": "relu", "total_steps": 777}
    assert {name: given[name] for name in [*saved, "kl_coefficient"]} == expected | {"kl_coefficient": 0.5}
    assert type(given["num_envs"]) is int
    assert train(capsys, "--set.surrogate clip --set.num-envs 4 --total-steps 99") == (0, "")
    assert [given[name] for name in ("num_envs", "total_steps", "kl_coefficient")] == [4, 99, 1.0]
    write(place, config={"gone": 3, "kl_coefficient": 0.5, "gae_lambda": 0.5}, versions={})
    assert train(capsys) == (0, "")
    assert [given[name] for name in ("gae_lambda", "kl_coefficient")] == [0.5, 1.0]


# --- Numbers and paths ----------------------------------------------------------------------------------------------------

CART_POLE = "train ppo --env CartPole-v1 --out out"
ODD = {
    f"{CART_POLE} --total-steps 2e18": "--total-steps must be at most 1000000000000000000, got 2000000000000000000",
    f"{CART_POLE} --set.num-steps {'9' * 26}": "--set.num-steps: must be a whole number below 1e19",
    f"{CART_POLE} --set.num-steps 1e18": "ppo: num_steps must be at most 2147483647, got 1000000000000000000",
    f"{CART_POLE} --set.num-envs 2147483647": "2147483647 * 128 = 274877906816 steps is more than 32 bits can number",
    f"{CART_POLE} --set.learning-rate 1e400": "ppo: learning_rate must lie in [0, inf), got inf",
    f"{CART_POLE} --set.learning-rate 1e39": "ppo: learning_rate must lie in [0, inf) in 32 bits, got 1e+39",
    f"{CART_POLE} --seed 4294967296": "seed must be at most 4294967295, got 4294967296",
    f"{CART_POLE} --num-seeds 1e13": "num_seeds must be at most 2147483647, got 10000000000000",
    f"{CART_POLE} --num-devices 1000": "the number of devices must be at most 256, got 1000",
    f"{CART_POLE} --eval-every 2e18": "eval_every must be at most 1000000000000000000",
    f"{CART_POLE} --eval-every 64 --eval-episodes 1e13": "eval_episodes must be at most 2147483647, got 10000000000000",
    f"{CART_POLE} --env-options =3": "CartPole-v1: unknown argument ; it takes none",
    f"{CART_POLE} --env-options id=3": "CartPole-v1: unknown argument id; it takes none",
    f"{CART_POLE} --env-options x={'9' * 5000}": "CartPole-v1: unknown argument x; it takes none",
    f"{CART_POLE} --env-options x={'[' * 5000}": "CartPole-v1: unknown argument x; it takes none",
    f"{CART_POLE} --init-from ''": "--init-from: it must be a path, got ''",
    "train ppo --env CartPole-v1 --out ''": "--out: it must be a path, got ''",
    f"train ppo --env CartPole-v1 --out {'x' * 300}": "File name too long",
    "train ppo --env CartPole-v1 --out a\0b": "embedded null byte",
    "train ppo --env CartPole-v1 --out a\ud800b": "must be a path, got 'a\\ud800b'",
    "sweep ppo --env CartPole-v1 --out out --random 1e9 --range.discount 0.5,0.9": (
        "the number of random draws must be at most 1000000, got 1000000000"
    ),
    "sweep ppo --env CartPole-v1 --out out --random 1e6 --range.discount 0.5,0.9 --grid.num-envs 4,8": (
        "a sweep has at most 1000000 configurations, this one has 2000000"
    ),
    "evaluate a-run --episodes 1e13": "--episodes must be at most 2147483647, got 10000000000000",
    "evaluate ''": "it must be a path, got ''",
}


@pytest.mark.parametrize("arguments", ODD)
def test_odd_numbers_and_paths_are_named(arguments, place, capsys):
    with pytest.raises(SystemExit) as end:
        main(shlex.split(arguments))
    assert end.value.code == 2
    said = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().err).split())
    assert ODD[arguments] in said


@pytest.mark.parametrize("arguments", ["--total-steps 1e15", "--total-steps 1e18 --eval-every 1e18", "--set.num-envs 1e6"])
def test_large_numbers_are_allowed(arguments, place):
    with pytest.raises(SystemExit) as end:
        main([*CART_POLE.split(), *arguments.split()])
    assert end.value.code == 0


def test_names_that_the_terminal_cannot_show(place, capsys, monkeypatch):
    plots = importlib.import_module("jaxpg.experiment.plots")
    monkeypatch.setattr(plots, "plot_learning_curves", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        main(["plot", "a-run", "--out", "a\udc80b.png"])
    assert end.value.code == 0
    assert capsys.readouterr().out == "a\\udc80b.png\n"
