"""The command `jaxpg`: list, train, evaluate, plot."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from jaxpg.algorithm import REGISTRY, InputError, fields, lookup, unknown
from jaxpg.experiment import logs
from jaxpg.experiment.devices import cache_compiled_programs, use_cpu_devices
from jaxpg.experiment.errors import RunError
from jaxpg.experiment.plots import plot_learning_curves
from jaxpg.experiment.run import evaluate_run, load, run
from jaxpg.experiment.statistics import bootstrap_interval, interquartile_mean
from jaxpg_envs import EnvironmentInputError, UnknownEnvironmentError, registered

COMMANDS = {
    "list": "show the algorithms and environments",
    "train": "train an algorithm on an environment: all seeds in one compiled run",
    "evaluate": "evaluate a saved run afresh",
    "plot": "draw the learning curves of runs",
}
USAGE = "usage: jaxpg COMMAND ...\n\n" + "".join(f"  jaxpg {name:9} {text}\n" for name, text in COMMANDS.items())
USAGE += "\n`jaxpg COMMAND --help` shows what a command takes.\n"
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]  # --name, without a --no-name


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command and exits: 0 on success, 2 on bad input, 1 if a run had to stop, 130 if it was interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _end_at_once_if_interrupted("; continue with --resume" if arguments[:1] == ["train"] else "")
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(USAGE, end="")
            sys.exit(0 if arguments else 2)
        command, *rest = arguments
        if command not in COMMANDS:
            raise InputError(f"unknown command {unknown(command, COMMANDS)}")
        {"list": _list, "train": _train, "evaluate": _evaluate, "plot": _plot}[command](rest)
        sys.exit(0)
    except (InputError, UnknownEnvironmentError, EnvironmentInputError) as error:
        _fail(str(error), 2)
    except RunError as error:
        _fail(str(error), 1)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _end_at_once_if_interrupted(hint: str) -> None:
    """At Ctrl-C or SIGTERM, leaves without ceremony: what is on disk is whole at any moment.

    An exception instead would have to pass through other people's threads and event loops, and an orderly end would wait for
    the work that the device has begun.
    """

    def end(*_: Any) -> NoReturn:
        show_cursor = "\r\x1b[?25h" if os.isatty(2) else ""  # which the progress bar has hidden
        os.write(2, f"{show_cursor}jaxpg: interrupted{hint}\n".encode())
        os._exit(130)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as in the background of a shell script
            signal.signal(number, end)


def _fail(message: str, code: int) -> NoReturn:
    print(f"jaxpg: {message}", file=sys.stderr)
    sys.exit(code)


def _parse(kind: type, arguments: list[str], command: str) -> Any:
    return tyro.cli(kind, args=arguments, prog=f"jaxpg {command}", description=COMMANDS[command.split()[0]])


# --- list ---------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class ListArguments:
    """Arguments of `jaxpg list`."""

    json: Flag = False
    """print JSON"""


def _list(arguments: list[str]) -> None:
    options = _parse(ListArguments, arguments, "list")
    algorithms = [
        {key: getattr(entry, key) for key in ("name", "field", "actions", "paper", "status")}
        for _, entry in sorted(REGISTRY.items())
    ]
    environments = [entry._asdict() for entry in registered()]
    if options.json:
        print(json.dumps({"algorithms": algorithms, "environments": environments}, indent=2))
        return
    console = Console()
    for title, rows in (("algorithms", algorithms), ("environments", environments)):
        table = Table(title=title, title_justify="left", box=None, header_style="bold")
        for column in rows[0]:
            table.add_column(column)
        for row in rows:
            table.add_row(*row.values())
        console.print(table, "")


# --- train --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class TrainArguments:
    """Arguments of `jaxpg train` that every algorithm takes."""

    env: str
    """environment, as `jaxpg list` shows it"""
    out: Path
    """the run's folder"""
    total_steps: int | None = None
    """environment steps per seed, rounded up to whole updates (default: the algorithm's)"""
    seed: int = 0
    """of the whole run"""
    num_seeds: int = 1
    """agents trained side by side in one program"""
    num_devices: int = 1
    """devices that share the seeds; on a CPU, one core each"""
    env_options: tuple[str, ...] = ()
    """KEY=VALUE for the environment, such as backend=spring"""
    resume: Flag = False
    """continue an interrupted run (or start it, if it never began)"""
    wandb: str | None = None
    """a Weights & Biases project to log to as well"""
    json: Flag = False
    """print the summary as JSON"""


def _train(arguments: list[str]) -> None:
    if not arguments or arguments[0].startswith("-"):
        if arguments and arguments[0] in ("-h", "--help"):
            print("usage: jaxpg train ALGORITHM --env ENV --out DIR ...\n\n`jaxpg train ALGORITHM --help` shows the rest.")
            print(f"ALGORITHM is one of: {', '.join(sorted(REGISTRY))}.")
            return
        raise InputError(f"jaxpg train needs an algorithm first, one of: {', '.join(sorted(REGISTRY))}")
    algorithm, *rest = arguments
    options = _parse(_train_arguments(algorithm), rest, f"train {algorithm}")
    hyperparameters = dataclasses.asdict(options.set)
    if options.total_steps is not None:
        if options.total_steps < 1:
            raise InputError(f"--total-steps must be at least 1, got {options.total_steps}")
        hyperparameters["total_steps"] = options.total_steps
    use_cpu_devices(options.num_devices)
    cache_compiled_programs()
    summary = run(
        algorithm,
        options.env,
        options.out,
        seed=options.seed,
        num_seeds=options.num_seeds,
        num_devices=options.num_devices,
        resume=options.resume,
        env_options=dict(_option(text) for text in options.env_options),
        wandb=options.wandb,
        **hyperparameters,
    )
    print(json.dumps(summary) if options.json else _words(summary, options.out))


def _train_arguments(algorithm: str) -> type:
    """`TrainArguments` and a group `set` with the algorithm's hyperparameters."""
    config_fields = [field for field in fields(lookup(algorithm).config_class) if field.name != "total_steps"]
    hyperparameters = dataclasses.make_dataclass(
        "Hyperparameters",
        [
            (
                field.name,
                Annotated[field.kind, tyro.conf.arg(help=field.help), tyro.conf.FlagConversionOff],
                dataclasses.field(default=field.default),
            )
            for field in config_fields
        ],
    )
    default = dataclasses.field(default_factory=hyperparameters)
    return dataclasses.make_dataclass("Arguments", [("set", hyperparameters, default)], bases=(TrainArguments,))


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--env-options takes KEY=VALUE, got {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def _words(summary: dict[str, Any], out: Path) -> str:
    low, high = summary["iqm_ci"]
    return (
        f"{summary['algorithm']} on {summary['env']}: return {_show(summary['iqm'])} "
        f"(95 % interval {_show(low)} to {_show(high)}, {summary['num_seeds']} seeds), "
        f"untrained {_show(summary['initial_iqm'])}\n"
        f"{summary['total_steps']:,} steps per seed at {summary['env_steps_per_second']:,.0f} steps/s in all, "
        f"after {summary['compile_seconds']:.0f} s of compilation\n"
        f"curves, checkpoints and summary: {out}"
    )


def _show(value: float | None) -> str:
    return "none (an episode did not end)" if value is None else f"{value:,.1f}"


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
    stochastic: Flag = False
    """sample actions instead of taking the best"""
    json: Flag = False
    """print JSON"""


def _evaluate(arguments: list[str]) -> None:
    options = _parse(EvaluateArguments, arguments, "evaluate")
    if options.episodes < 1:
        raise InputError(f"--episodes must be at least 1, got {options.episodes}")
    cache_compiled_programs()
    saved = load(options.folder, warn=lambda text: print(f"jaxpg: warning: {text}", file=sys.stderr))
    env_options = dict(_option(text) for text in options.env_options)
    returns = evaluate_run(saved, options.episodes, options.env, env_options, deterministic=not options.stochastic)
    iqm, low, high = logs.finite_or_none(np.array([interquartile_mean(returns), *bootstrap_interval(returns)]))
    env = options.env or saved.description["env"]
    result = {
        "algorithm": saved.description["algorithm"],
        "env": env,
        "episodes": options.episodes,
        "deterministic": not options.stochastic,
        "returns": logs.finite_or_none(returns),
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
    metric: str = "episode_return"
    """what to draw"""


def _plot(arguments: list[str]) -> None:
    options = _parse(PlotArguments, arguments, "plot")
    if not options.folders:
        raise InputError("jaxpg plot needs at least one run's folder")
    plot_learning_curves(options.folders, options.out, options.metric)
    print(options.out)
