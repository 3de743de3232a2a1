"""Strategies of command lines and files that nobody should type, for tests that nothing but words comes of them."""

import dataclasses
import importlib
import itertools
import json
import os
import typing
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from jaxpg.algorithm import fields, lookup, make
from jaxpg.experiment.checkpoints import Checkpoints
from jaxpg.experiment.environment import find_environment
from jaxpg.experiment.folder import describe

COMMAND_LINE = importlib.import_module("jaxpg.experiment.command_line")
KNOWN = {name: fields(lookup(name).config_class) for name in ("ppo", "dqn", "map_elites")}
NUMBERS = [
    *("0", "1", "2", "3", "-1", "-0", "2.5", "1e3", "1e9", "1e13", "1e15", "1e18", "2147483647", "2147483648", "4294967296"),
    *("9" * 26, "9" * 5000, "1e400", "1e-400", "1e39", "-1e39", "nan", "NaN", "sNaN", "inf", "-Infinity", "1_0", "0x10", "१२"),
]
TEXTS = [
    *("", " ", "-", "--", "---", "=", ",", "x", "X" * 300, "X" * 5000, "ü", "日本", "\0", "a\0b", "\n", "a\nb", "\x1b[31m"),
    *(
        "\udc80",
        "\ud800",
        "None",
        "null",
        "True",
        "true",
        "False",
        "[]",
        "{}",
        "[1,",
        "[" * 2000,
        '"',
        "$HOME",
        "~",
        "../..",
        "*",
    ),
    *(
        "--wandb",
        "-h=3",
        "--help=3",
        "@file",
        "a=b",
        "%s",
        "{0}",
        "1,2",
        "1,1",
        "64x64,32",
        "1e-5,1e-2,log",
        "tanh",
        "relu,tanh",
    ),
]
FOLDERS = ["out", "a-run", "a-file", "a-file/x", "nowhere", ".", "/dev/null", "/proc/nothing", "c.json", *TEXTS]
ENVIRONMENTS = [
    *("CartPole-v1", "Pendulum-v1", "Maze-v0", "MemoryChain-bsuite", "DiscountingChain-bsuite", "FrozenLake-misc"),
    *("PlanarArm-v0", "PointOmni-v0", "cartpole", "jumanji/Snake-v1", "nosuch/x", ":", "a:b", "os:getcwd", "math:pi", "a/b:c"),
    *("builtins:max", "json:dumps", "jaxpg_envs.maze:maze", "a.py:f", "math:"),
]
KEYS = [
    "size",
    "num_bits",
    "n_actions",
    "mapping_seed",
    "desc",
    "success_rate",
    "max_steps_in_episode",
    "id",
    "backend",
    "siz",
    "",
]

values = st.sampled_from(NUMBERS) | st.sampled_from(TEXTS) | st.text(max_size=8)


def _mostly(usual: st.SearchStrategy, odd: st.SearchStrategy) -> st.SearchStrategy:
    return st.sampled_from([usual] * 9 + [odd]).flatmap(lambda chosen: chosen)


def _flags(arguments: type, algorithm: str = "", groups: tuple[str, ...] = ()) -> dict[str, st.SearchStrategy]:
    """The flags that a command takes, and what may follow each."""
    named = {field.name: field.type for field in dataclasses.fields(arguments) if field.name not in ("folder", "folders")}
    flags = {f"--{name.replace('_', '-')}": _following(name, kind) for name, kind in named.items()}
    for group, field in itertools.product(groups, KNOWN.get(algorithm, ())):
        listed = st.lists(_following(field.name, field.kind), min_size=1, max_size=3).map(",".join)
        flags[f"--{group}.{field.name.replace('_', '-')}"] = _following(field.name, field.kind) if group == "set" else listed
    return flags


def _following(name: str, kind: Any) -> st.SearchStrategy:
    if kind in (int, float, int | None):
        return _mostly(st.sampled_from(NUMBERS), values)
    if name == "env":
        return _mostly(st.sampled_from(ENVIRONMENTS), values)
    if kind in (Path, Path | None):
        return st.sampled_from(FOLDERS)
    if name == "env_options":
        return _mostly(st.builds("{}={}".format, st.sampled_from(KEYS), values), values)
    choices = [str(choice) for choice in typing.get_args(kind) if isinstance(choice, str)] or ["8", "True", "64x64", "x"]
    return _mostly(st.sampled_from(choices), values)


@st.composite
def _flag(draw: Any, flags: dict[str, st.SearchStrategy]) -> list[str]:
    """A flag with what may follow it."""
    name = draw(st.sampled_from(sorted(flags)))
    value = draw(flags[name])
    form = draw(_mostly(st.sampled_from(["apart", "joined"]), st.sampled_from(["alone", "many", "unknown", "abbreviated"])))
    forms = {"apart": [name, value], "joined": [f"{name}={value}"], "alone": [name], "many": [name, value, draw(values)]}
    return (forms | {"unknown": ["--nosuch", value], "abbreviated": [name[:-1], value]})[form]


@st.composite
def command_lines(draw: Any) -> list[str]:
    """Arguments of `jaxpg`: mostly of a command, with what it must have and with some flags of odd values."""
    command = draw(st.sampled_from(["train"] * 4 + ["sweep"] * 4 + ["evaluate", "evaluate", "plot", "list", "other"]))
    if command == "other":
        return draw(st.lists(values | st.sampled_from(sorted(COMMAND_LINE.COMMANDS)), max_size=4))
    start = [command]
    if command in ("train", "sweep"):
        algorithm = draw(_mostly(st.sampled_from(sorted(KNOWN)), values))
        kind = {"train": COMMAND_LINE.TrainArguments, "sweep": COMMAND_LINE.SweepArguments}[command]
        flags = _flags(kind, algorithm, ("set",) if command == "train" else ("set", "grid", "range"))
        start += [algorithm, "--env", draw(_mostly(st.sampled_from(ENVIRONMENTS), values)), "--out", "out"]
        usual = ["--config", "c.json"] if command == "train" else ["--grid.discount", "0.9,0.5"]
        start += draw(st.sampled_from([[], [], usual]))
    else:
        kinds = {"evaluate": COMMAND_LINE.EvaluateArguments, "plot": COMMAND_LINE.PlotArguments}
        flags = _flags(kinds.get(command, COMMAND_LINE.ListArguments))
        start += [] if command == "list" else [draw(_mostly(st.just("a-run"), st.sampled_from(FOLDERS)))]
        start += ["--out", "x.png"] if command == "plot" else []
    return start + [argument for flag in draw(st.lists(_flag(flags), max_size=3)) for argument in flag]


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([*TEXTS, *NUMBERS, 10**19, 10**400, 8.0, 0.5, -1]),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.sampled_from(TEXTS), child, max_size=2),
    max_leaves=4,
)


@st.composite
def configurations(draw: Any, algorithm: str = "ppo") -> bytes:
    """Content of a file for `--config`: mostly a configuration of the algorithm with odd values, else anything."""
    names = st.sampled_from([field.name for field in KNOWN[algorithm]] * 2 + ["nosuch"])
    content = {
        "algorithm": draw(_mostly(st.just(algorithm), _json)),
        "config": draw(_mostly(st.dictionaries(names, _json, max_size=3), _json)),
    }
    further = st.sampled_from(["versions", "final", "finished_configurations", "total_steps", "env"])
    content |= draw(st.dictionaries(further, _json, max_size=2))
    text = json.dumps(content).encode()
    return draw(_mostly(st.just(text), st.binary(max_size=20) | _json.map(json.dumps).map(str.encode) | st.just(text[:-3])))


def prepare(folder: Path, patch: Any) -> None:
    """Puts a run into an empty folder; all that takes time then ends a command instead, until `patch` is undone."""

    def stop(*_: Any, **__: Any) -> None:
        raise SystemExit(0)

    patch.setattr("signal.signal", lambda *_: None)
    for module in ("jaxpg.experiment.run", "jaxpg.experiment.sweep"):
        patch.setattr(importlib.import_module(module), "require_trainable", stop)
    patch.setattr(Checkpoints, "restore", stop)
    for name in ("NPROC", "XLA_FLAGS"):
        patch.setenv(name, os.environ.get(name, ""))
    environment = find_environment("CartPole-v1")
    agent = make("ppo", environment.env, environment.params)
    (folder / "a-run").mkdir()
    (folder / "a-run" / "config.json").write_text(json.dumps(describe("ppo", "CartPole-v1", {}, 0, 1, 1, agent.config)))
    (folder / "a-run" / "metrics.jsonl").write_text('{"update": 1, "env_steps": 4, "seconds": 1.0, "episode_return": [1.0]}\n')
    (folder / "a-file").write_text("")
