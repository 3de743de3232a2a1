"""The command `jaxpg`: list, train, sweep, evaluate, plot.

What only one command needs is imported there, once its arguments are read: `--help` need not wait for orbax or matplotlib.
"""

import argparse
import contextlib
import dataclasses
import decimal
import fnmatch
import io
import itertools
import json
import os
import shutil
import sys
import textwrap
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
import tyro

from jaxpg.algorithm import (
    LARGEST,
    LONGEST,
    REGISTRY,
    Field,
    InputError,
    allowed_value,
    fields,
    lookup,
    still_read,
    unknown,
    unmet,
    whole_number,
    written,
)
from jaxpg.errors import counted
from jaxpg.experiment.devices import cache_compiled_programs, use_cpu_devices
from jaxpg.experiment.errors import RunError
from jaxpg.experiment.files import LARGEST_CONFIG, read_json
from jaxpg.experiment.paths import as_path
from jaxpg.randomness import use_fast_random_bits
from jaxpg_envs import EnvironmentInputError, UnknownEnvironmentError, registered

COMMANDS = {
    "list": "show the algorithms and environments",
    "train": "train an algorithm on an environment: all seeds in one compiled run",
    "sweep": "train many configurations: those that share sizes and choices, and all seeds, in one compiled program",
    "evaluate": "evaluate a saved run afresh",
    "plot": "draw the learning curves of runs",
}
USAGE = "usage: jaxpg COMMAND ...\n\n" + "".join(f"  jaxpg {name:9} {text}\n" for name, text in COMMANDS.items())
USAGE += "\n`jaxpg COMMAND --help` shows what a command takes.\n"
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]  # --name, without a --no-name


def main(arguments: list[str]) -> NoReturn:
    """Runs a command and exits: 0 on success, 2 on bad input, 1 if a run had to stop."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as of standard error: names may hold what it cannot show
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(USAGE, end="")
            sys.exit(0 if arguments else 2)
        command, *rest = arguments
        if command not in COMMANDS:
            raise InputError(f"unknown command {unknown(command, COMMANDS)}")
        {"list": _list, "train": _train, "sweep": _sweep, "evaluate": _evaluate, "plot": _plot}[command](rest)
        sys.stdout.flush()
        sys.exit(0)
    except (InputError, UnknownEnvironmentError, EnvironmentInputError) as error:
        _fail(str(error), 2)
    except RunError as error:
        _fail(str(error), 1)
    except OSError as error:  # of our output
        with contextlib.suppress(OSError):  # unless it is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still has to write when it ends
        if isinstance(error, BrokenPipeError):  # its reader, such as `head`, has gone
            sys.exit(0)
        _fail(f"the output could not be written: {error}", 1)


def _fail(message: str, code: int) -> NoReturn:
    with contextlib.suppress(OSError):  # standard error may be on the disk that is full
        print(f"jaxpg: {message}", file=sys.stderr)
    sys.exit(code)


def _parse(kind: type, arguments: list[str], command: str) -> Any:
    description = COMMANDS[command.split()[0]]
    return tyro.cli(kind, args=arguments, prog=f"jaxpg {command}", description=description, registry=PRIMITIVES)


def typed_whole_number(text: str) -> int:
    """An integer as people type it: 1000000, 1_000_000, 1e6.

    Raises:
      ValueError: it is none.
    """
    try:
        number = decimal.Decimal(text)
        if number.adjusted() < 19 and number == number.to_integral_value():
            return int(number)
    except (decimal.InvalidOperation, OverflowError):  # no number, NaN or infinity
        pass
    raise ValueError(f"must be a whole number below 1e19, such as 1000000 or 1e6, got {text!r}")


PRIMITIVES = tyro.constructors.ConstructorRegistry()


@PRIMITIVES.primitive_rule
def _whole_numbers(info: Any) -> Any:
    """How tyro reads what is an integer, an optional one, or a tuple of them."""
    many = (typing.get_origin(info.type), typing.get_args(info.type)) == (tuple, (int, ...))
    if info.type not in (int, int | None) and not many:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*" if many else 1,
        metavar="[INT [INT ...]]" if many else "INT",
        instance_from_str=lambda texts: tuple(map(typed_whole_number, texts)) if many else typed_whole_number(texts[0]),
        is_instance=lambda value: True,  # of a default, which the signatures vouch for
        str_from_instance=lambda value: [str(each) for each in (value if many else (value,))],
    )


@PRIMITIVES.primitive_rule
def _paths(info: Any) -> Any:
    """How tyro reads what is a path, or an optional one."""
    if info.type not in (Path, Path | None):
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda texts: as_path("it", texts[0]),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    )


# --- list ---------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class ListArguments:
    """Arguments of `jaxpg list`."""

    filter: str | None = None
    """only what has this text, or matches this pattern ("brax/*uni"), in its name or in what is said of it"""
    json: Flag = False
    """print JSON"""


def _list(arguments: list[str]) -> None:
    options = _parse(ListArguments, arguments, "list")
    algorithms = [
        {key: getattr(entry, key) for key in ("name", "field", "actions", "paper", "status")}
        for _, entry in sorted(REGISTRY.items())
    ]
    environments = [entry._asdict() for entry in registered()]
    if options.filter is not None:
        pattern = f"*{options.filter.lower()}*"
        algorithms, environments = (
            [row for row in rows if any(fnmatch.fnmatchcase(text.lower(), pattern) for text in row.values())]
            for rows in (algorithms, environments)
        )
        if not algorithms and not environments:
            raise InputError(f"no algorithm or environment has {options.filter!r}; `jaxpg list` shows all")
    if options.json:
        print(json.dumps({"algorithms": algorithms, "environments": environments}, indent=2))
        return
    fields_first = sorted(algorithms, key=lambda row: row["field"])
    for field, rows in itertools.groupby(fields_first, lambda row: row["field"]):
        texts = {row["name"]: f"{row['paper']}; {row['actions']} actions; {row['status']}" for row in rows}
        print(_paragraphs(f"algorithms: {field}", texts))
    for suite, rows in itertools.groupby(environments, lambda row: row["suite"]):
        print(_paragraphs(f"environments: {suite}", {row["id"]: row["description"] for row in rows}))


def _paragraphs(title: str, texts: dict[str, str]) -> str:
    """Names and what is said of each: beside it, or below where the terminal is narrow; whole lines where there is none."""
    columns = shutil.get_terminal_size((sys.maxsize, 0)).columns
    indent = max(map(len, texts)) + 4
    beside = columns - indent >= 24
    width = columns - indent if beside else max(24, columns - 4)
    lines = [title]
    for name, text in texts.items():
        wrapped = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
        if not beside:
            lines += [f"  {name}", *(f"    {line}" for line in wrapped)]
            continue
        lines += [f"  {name:{indent - 2}}{wrapped[0]}", *(" " * indent + line for line in wrapped[1:])]
    return "\n".join([*(line.rstrip() for line in lines), ""])


# --- train --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class TrainingArguments:
    """What `jaxpg train` and `jaxpg sweep` take for every algorithm."""

    env: str
    """environment, as `jaxpg list` shows it, or package.module:factory, a function of yours that returns (env, params)"""
    out: Path
    """the folder of the results"""
    total_steps: int | None = None
    """environment steps per seed, rounded up to whole updates (default: the algorithm's)"""
    seed: int = 0
    """of everything random"""
    num_seeds: int = 1
    """agents (of each configuration), trained side by side in one program"""
    num_devices: int = 1
    """devices that share the agents; on a CPU, one core each"""
    env_options: tuple[str, ...] = ()
    """KEY=VALUE for the environment, such as backend=spring"""
    resume: Flag = False
    """continue what was interrupted (or start it, if it never began); with more --total-steps, go on after the end"""
    json: Flag = False
    """print the results as JSON"""


@dataclasses.dataclass
class TrainArguments(TrainingArguments):
    """Arguments of `jaxpg train` that every algorithm takes."""

    config: Path | None = None
    """a sweep's best.json (all but its length), or a run's config.json: its hyperparameters become the defaults"""
    eval_every: int | None = None
    """environment steps per seed from one evaluation of the deterministic policy to the next; without it, none"""
    eval_episodes: int = 16
    """whole episodes of each such evaluation"""
    init_from: Path | None = None
    """the folder of a run of the same algorithm: begin with its parameters and statistics"""
    init_optimizer: Flag = False
    """begin with that run's optimiser state as well"""
    wandb: str | None = None
    """a Weights & Biases project to log to as well"""


def _train(arguments: list[str]) -> None:
    algorithm, rest = _algorithm_first("train", arguments)
    _refuse_as_hyperparameters(TrainArguments, rest)
    known = fields(lookup(algorithm).config_class)
    parse = lambda fields: _parse(_with_hyperparameters(TrainArguments, fields), rest, f"train {algorithm}")
    saved = _saved_settings(algorithm, known, rest)
    options = parse([field._replace(default=saved.get(field.name, field.default)) for field in known])
    settings = dataclasses.asdict(options.set)
    if saved:  # what is read no more, since the flags chose otherwise, is passed over unless they set it
        given = dataclasses.asdict(parse(known).set)
        settings |= {field.name: given[field.name] for field in known if field.name in given and unmet(field, settings)}
    if options.total_steps is None:
        options.total_steps = saved.get("total_steps")
    from jaxpg.experiment.run import run

    names = ("eval_every", "eval_episodes", "init_from", "init_optimizer", "wandb")
    further = {name: getattr(options, name) for name in names}
    summary = run(algorithm, **_common(options), **further, **settings)
    print(json.dumps(summary) if options.json else _words(summary, options.out))


def _algorithm_first(command: str, arguments: list[str]) -> tuple[str, list[str]]:
    """The algorithm, and the arguments after it."""
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: jaxpg {command} ALGORITHM --env ENV --out DIR ...\n")
        print(f"`jaxpg {command} ALGORITHM --help` shows the rest.\nALGORITHM is one of: {', '.join(sorted(REGISTRY))}.")
        sys.exit(0)
    if not arguments or arguments[0].startswith("-"):
        raise InputError(f"jaxpg {command} needs an algorithm first, one of: {', '.join(sorted(REGISTRY))}")
    lookup(arguments[0])
    return arguments[0], arguments[1:]


def _saved_settings(algorithm: str, known: list[Field], arguments: list[str]) -> dict[str, Any]:
    """The hyperparameters in the file that `--config` names, checked; none if it is not given.

    Raises:
      InputError: it cannot be read, is no configuration of the algorithm, or one of its values is none of the field's.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", nargs="?")
    path = parser.parse_known_args(arguments)[0].config
    if path is None:
        return {}
    try:
        saved = read_json(as_path("--config", path).resolve(), LARGEST_CONFIG)
        owner, values = saved["algorithm"], saved["config"]
        if not isinstance(values, dict):
            raise TypeError("it holds no hyperparameters by name")
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"--config: cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"--config: {path} is no configuration: give a sweep's best.json or a run's config.json") from error
    where = f"--config: {path}"
    if owner != algorithm:
        raise InputError(f"{where} is a configuration of {written(owner)}, not of {algorithm!r}")
    by_name = {field.name: field for field in known}
    is_run = "versions" in saved  # maybe of an earlier version, which accepted what nobody read
    for name in values:
        if name not in by_name and not is_run:
            raise InputError(f"{where}: {algorithm} has no hyperparameter {unknown(name, by_name)}")
    allowed = {
        name: allowed_value(f"{where}: {algorithm}: {name}", by_name[name], value)
        for name, value in values.items()
        if name in by_name
    }
    if not saved.get("final", True):
        finished, number = (written(saved.get(name)) for name in ("finished_configurations", "num_configurations"))
        part = f"{finished} of {number} configurations are finished"
        print(f"jaxpg: warning: {path} is not final: {part}; complete the sweep with --resume", file=sys.stderr)
    return still_read(algorithm, allowed) if is_run else allowed


def _refuse_as_hyperparameters(base: type, arguments: list[str]) -> None:
    """Raises `InputError` for `--set.total-steps` and the like: they are flags without a group."""
    flags = [field.name.replace("_", "-") for field in dataclasses.fields(base)]
    for argument in arguments:
        group, _, name = argument.partition("=")[0].replace("_", "-").partition(".")
        if group in ("--set", "--grid", "--range") and name in flags:
            raise InputError(f"{group}.{name} is no hyperparameter that can be set or swept like this: give --{name}")


def _common(options: TrainingArguments) -> dict[str, Any]:
    """What `run` and `sweep` both take; also wakes the devices."""
    if options.total_steps is not None:
        whole_number("--total-steps", options.total_steps, 1, LONGEST)
    env_options = dict(_option(text) for text in options.env_options)
    suite = options.env.partition("/")[0]
    use_cpu_devices(options.num_devices, linear_algebra=suite in ("brax", "mjx", "playground") or ":" in options.env)
    cache_compiled_programs()
    names = ("env", "out", "seed", "num_seeds", "num_devices", "resume")
    steps = {} if options.total_steps is None else {"total_steps": options.total_steps}
    return {name: getattr(options, name) for name in names} | {"env_options": env_options, **steps}


def _with_hyperparameters(base: type, known: list[Field], **groups: type) -> type:
    """Arguments with a group `set` of the hyperparameters and their defaults, and other groups."""
    hyperparameters = dataclasses.make_dataclass(
        "Hyperparameters",
        [
            (
                field.name,
                Annotated[field.kind, tyro.conf.arg(help=field.help), tyro.conf.FlagConversionOff],
                dataclasses.field(default=field.default),
            )
            for field in _settable(known)
        ],
    )
    members = {"set": hyperparameters, **groups}
    steps = next(field for field in known if field.name == "total_steps")
    words = tyro.conf.arg(help=f"{steps.help}, per seed (default: {steps.default})", help_behavior_hint="")
    return dataclasses.make_dataclass(
        "Arguments",
        [
            ("total_steps", Annotated[int | None, words], None),
            *((name, kind, dataclasses.field(default_factory=kind)) for name, kind in members.items()),
        ],
        bases=(base,),
    )


def _settable(known: list[Field]) -> list[Field]:
    """The fields of a configuration that have no flag of their own."""
    return [field for field in known if field.name != "total_steps"]


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--env-options takes KEY=VALUE, got {written(text)}")
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):  # no JSON, or more of it than Python reads
        return key, value


def _words(summary: dict[str, Any], out: Path) -> str:
    low, high = summary["iqm_ci"]
    return (
        f"{summary['algorithm']} on {summary['env']}: return {_show(summary['iqm'])} "
        f"(95 % interval {_show(low)} to {_show(high)}, {counted(summary['num_seeds'], 'seed')}), "
        f"untrained {_show(summary['initial_iqm'])}\n"
        f"{summary['total_steps']:,} steps per seed at {summary['env_steps_per_second']:,.0f} steps/s in all, "
        f"after {summary['compile_seconds']:.0f} s of compilation\n"
        f"curves, checkpoints and summary: {out}"
    )


def _show(value: float | None) -> str:
    return "none (an episode did not end)" if value is None else f"{value:,.1f}"


# --- sweep --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class SweepArguments(TrainingArguments):
    """Arguments of `jaxpg sweep` that every algorithm takes."""

    resume: Flag = False
    """continue what was interrupted (or start it, if it never began), with the same settings"""
    random: int | None = None
    """number of draws from the ranges (every combination of the grid gets the same draws)"""


def _sweep(arguments: list[str]) -> None:
    algorithm, rest = _algorithm_first("sweep", arguments)
    _refuse_as_hyperparameters(SweepArguments, rest)
    known = fields(lookup(algorithm).config_class)
    settable = _settable(known)
    groups = {
        "grid": _texts("Values; all combinations are trained. Layers as 64x64,32.", "A,B,C", settable),
        "range": _texts("Bounds of the random draws.", "LOW,HIGH[,log]", [field for field in settable if field.is_leaf]),
    }
    for name in (field.name.replace("_", "-") for field in settable if not field.is_leaf):
        if any(argument.split("=")[0].replace("_", "-") == f"--range.{name}" for argument in rest):
            raise InputError(f"--range.{name} is not real-valued: give a grid of it, --grid.{name} a,b,c")
    options = _parse(_with_hyperparameters(SweepArguments, known, **groups), rest, f"sweep {algorithm}")
    from jaxpg.experiment.sweep import sweep

    grid = {
        field.name: [_value(field, item.strip()) for item in text.split(",")] if text.strip() else []
        for field in settable
        if (text := getattr(options.grid, field.name)) is not None
    }
    ranges = {
        field.name: [_value(field, end.strip()) for end in text.split(",")]
        for field in settable
        if field.is_leaf and (text := getattr(options.range, field.name)) is not None
    }
    fixed = {
        field.name: value
        for field in settable
        if (value := getattr(options.set, field.name)) != field.default  # a swept field may not be set as well
    }
    summary = sweep(algorithm, **_common(options), grid=grid, ranges=ranges, random=options.random, **fixed)
    if options.json:
        print(json.dumps(summary))
        return
    print(_sweep_words(summary))
    print(_best_table(summary))
    best = f", the best configuration: {options.out / 'best.json'}" if summary["best"] else ""
    print(f"table and picture: {options.out / 'results.csv'}, {options.out / 'sweep.png'}{best}")


def _texts(description: str, metavar: str, swept: list[Field]) -> type:
    """A group of optional texts, one per field; None where it is not given."""
    flags = {field.name: tyro.conf.arg(help=field.help, help_behavior_hint="", metavar=metavar) for field in swept}
    kinds = {name: Annotated[str | None, flag] for name, flag in flags.items()}
    return dataclasses.make_dataclass("Texts", kinds.items(), namespace={"__doc__": description, **dict.fromkeys(kinds)})


def _value(field: Field, text: str) -> Any:
    """A swept value from its text; where it is none of the field's kind, the text, which `configure` then refuses."""
    try:
        if field.kind is bool:
            return {"True": True, "False": False}[text]
        if typing.get_origin(field.kind) is tuple:
            return [typed_whole_number(size) for size in text.split("x")]
        return float(text) if field.kind in (int, float) else text
    except (ValueError, KeyError):
        return text


def _best_table(summary: dict[str, Any]) -> str:
    """The ten configurations of the highest score, in whole lines whatever the terminal's width."""
    from jaxpg.experiment.sweep import rank
    from jaxpg.experiment.sweep_picture import value_text

    ranked = sorted(summary["results"], key=rank, reverse=True)
    rows = [[*ranked[0]["hyperparameters"], "return", "95 % interval", ""]]
    for result in ranked[:10]:
        low, high = result["iqm_ci"]
        interval = "" if low is None or summary["num_seeds"] == 1 else f"{low:,.1f} to {high:,.1f}"
        faults = [(len(result["diverged"]), "diverged"), (result["returns"].count(None) - len(result["diverged"]), "endless")]
        rows.append(
            [
                *(value_text(value) for value in result["hyperparameters"].values()),
                "none" if result["iqm"] is None else f"{result['iqm']:,.1f}",
                interval,
                ", ".join(f"{count} {fault}" for count, fault in faults if count),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _sweep_words(summary: dict[str, Any]) -> str:
    number = summary["num_configurations"]
    configurations, seeds = counted(number, "configuration"), counted(summary["num_seeds"], "seed")
    return (
        f"{summary['algorithm']} on {summary['env']}: {configurations} x {seeds} "
        f"in {counted(summary['num_groups'], 'program')}, {summary['seconds']:,.0f} s"
        + ("; the best ten" if number > 10 else "")
    )


# --- evaluate, plot -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class EvaluateArguments:
    """Arguments of `jaxpg evaluate`."""

    folder: tyro.conf.Positional[Path]
    """a run's folder"""
    episodes: int = 128
    """whole episodes per seed"""
    env: str | None = None
    """another environment than the run's"""
    env_options: tuple[str, ...] = ()
    """KEY=VALUE for the environment, in place of the run's"""
    checkpoint: Literal["last", "best"] = "last"
    """best: each seed's best policy by the evaluations during training (--eval-every)"""
    stochastic: Flag = False
    """sample actions instead of taking the best"""
    json: Flag = False
    """print JSON"""


def _evaluate(arguments: list[str]) -> None:
    options = _parse(EvaluateArguments, arguments, "evaluate")
    from jaxpg.experiment.evaluation import evaluate_run
    from jaxpg.experiment.folder import read_description
    from jaxpg.experiment.logs import finite_or_none
    from jaxpg.experiment.saved import load
    from jaxpg.experiment.statistics import bootstrap_interval, interquartile_mean

    whole_number("--episodes", options.episodes, 1, LARGEST)
    use_fast_random_bits()
    cache_compiled_programs()
    warn = lambda text: print(f"jaxpg: warning: {text}", file=sys.stderr)
    is_its_own = read_description(options.folder)["env"] == options.env  # then the user vouches for it
    saved = load(options.folder, warn, env=options.env if is_its_own else None, checkpoint=options.checkpoint)
    env_options = dict(_option(text) for text in options.env_options)
    returns = evaluate_run(saved, options.episodes, options.env, env_options, deterministic=not options.stochastic)
    iqm, low, high = finite_or_none(np.array([interquartile_mean(returns), *bootstrap_interval(returns)]))
    env = options.env or saved.description["env"]
    result = {
        "algorithm": saved.description["algorithm"],
        "env": env,
        "episodes": options.episodes,
        "deterministic": not options.stochastic,
        "checkpoint": options.checkpoint,
        "returns": finite_or_none(returns),
        "iqm": iqm,
        "iqm_ci": [low, high],
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{result['algorithm']} on {env}: return {_show(iqm)} (95 % interval {_show(low)} to {_show(high)})")


@dataclasses.dataclass
class PlotArguments:
    """Arguments of `jaxpg plot`."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """runs' folders"""
    out: Path
    """the picture's file"""
    metric: str | None = None
    """what to draw (default: the return, and that of the evaluations during training)"""


def _plot(arguments: list[str]) -> None:
    options = _parse(PlotArguments, arguments, "plot")
    from jaxpg.experiment.plots import plot_learning_curves

    if not options.folders:
        raise InputError("jaxpg plot needs at least one run's folder")
    plot_learning_curves(options.folders, options.out, options.metric)
    print(options.out)
