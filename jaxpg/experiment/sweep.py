"""Hyperparameter sweeps: `jaxpg sweep`, and the same from Python.

Configurations that differ only in real-valued hyperparameters form a group, and a group is one compiled program: all its
configurations and all seeds train side by side. A new size or choice is a new group. The results of a group are written as
soon as it has finished.
"""

import csv
import io
import json
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Bool, Float, PyTree
from rich.console import Console

from jaxpg.algorithm import (
    Algorithm,
    Field,
    InputError,
    Metrics,
    Policy,
    check_value,
    fields,
    lookup,
    make,
    plain_value,
    shortest,
    unmet,
    whole_number,
)
from jaxpg.errors import counted
from jaxpg.experiment.devices import seed_mesh
from jaxpg.experiment.environment import find_environment
from jaxpg.experiment.errors import RunError, advice
from jaxpg.experiment.evaluation import EVALUATION_EPISODES, evaluation_keys, mean_returns
from jaxpg.experiment.files import is_number, is_sealed, only_writer, sealed, write_atomically
from jaxpg.experiment.folder import check_folder, describe, write_description
from jaxpg.experiment.logs import finite_or_none
from jaxpg.experiment.paths import as_path
from jaxpg.experiment.program import SEEDS, compile_step, faults, over_seeds, told_when_out_of_memory
from jaxpg.experiment.progress import RunProgress, say, standard_error
from jaxpg.experiment.run import require_numbers, require_trainable, updates_of_chunk
from jaxpg.experiment.search_space import (
    MOST_CONFIGURATIONS,
    Configuration,
    check_space,
    checked_range,
    checked_values,
    combine,
    draw,
    in_order,
    require_all_read,
)
from jaxpg.experiment.statistics import bootstrap_interval, interquartile_mean
from jaxpg.experiment.sweep_picture import plot_sweep, value_text

SWEEP_FILES = ("results.json", "results.csv", "best.json")
Result = dict[str, Any]
Report = Callable[[int, float | None, float], None]


def sweep(
    algorithm: str,
    env: Any,
    out: str | Path,
    *,
    grid: Mapping[str, Any] | None = None,
    ranges: Mapping[str, Any] | None = None,
    random: int | None = None,
    seed: int = 0,
    num_seeds: int = 1,
    num_devices: int = 1,
    resume: bool = False,
    env_options: dict[str, Any] | None = None,
    env_params: PyTree = None,
    console: Console | None = None,
    **hyperparameters: Any,
) -> dict[str, Any]:
    """Trains every configuration with the same seeds and leaves a table, a picture and the best configuration in `out`.

    A configuration's returns are those that `run` gives it alone with the same `seed` and `num_seeds`, up to rounding. Its
    score is their interquartile mean; it has none if a seed diverged (NaN) or an episode of its evaluation did not end.

    Args:
      algorithm, env, env_options, env_params, console: as for `run`.
      out: a folder that holds no sweep yet; with `resume`, that of an interrupted one, whose finished groups are kept.
      grid: field -> values; all combinations are trained.
      ranges: real-valued field -> `(low, high)`, drawn uniformly, or `(low, high, "log")`, uniformly in the logarithm.
      random: number of draws from the ranges; with a grid, every combination of the grid gets the same draws.
      seed: of the agents' keys, and of the draws.
      num_devices: devices among which a group's (configuration, seed) pairs are divided; where they do not divide, the last
        pair is repeated and the repetitions are dropped.
      **hyperparameters: fields that all configurations share, `total_steps` among them; those that do not read one, as a
        memory's size without a memory, pass it over.

    Returns:
      The content of `results.json`: `results` with one object per configuration, `best` with that of the highest score.

    Raises:
      InputError: a bad name or value, or a folder that cannot be used.
      RunError: a full disk, or a group that does not fit in the device's memory; finished groups are kept.
    """
    console = console or standard_error()
    folder = as_path("out", out)
    known = {field.name: field for field in fields(lookup(algorithm).config_class)}
    grid, ranges = in_order(algorithm, known, grid or {}), in_order(algorithm, known, ranges or {})
    random = None if random is None else whole_number("the number of random draws", random, 1, MOST_CONFIGURATIONS)
    check_space(algorithm, known, grid, ranges, random, hyperparameters)
    seed, num_seeds, num_devices = require_numbers(seed, num_seeds, num_devices)
    mesh = _mesh(known, grid, random, num_seeds, num_devices)
    environment = find_environment(env, env_options, env_params)
    values = {name: checked_values(algorithm, known[name], grid[name]) for name in grid}
    intervals = {name: checked_range(algorithm, known[name], ranges[name]) for name in ranges}
    configurations = combine(values, draw(intervals, random or 0, seed))
    require_all_read(algorithm, known, configurations, hyperparameters)
    fixed = {name: field.default for name, field in known.items()} | hyperparameters
    is_read = lambda name, configuration: not unmet(known[name], fixed | configuration)
    read_by_some = [name for name in hyperparameters if name in known and any(is_read(name, c) for c in configurations)]

    def build(**configuration: Any) -> Algorithm:
        given = {name: x for name, x in hyperparameters.items() if name not in read_by_some or is_read(name, configuration)}
        return make(algorithm, environment.env, environment.params, **given, **configuration)

    groups = _groups(known, configurations, build)
    require_trainable(algorithm, groups[0].agent, num_seeds)
    description = describe(
        algorithm, environment.name, dict(env_options or {}), seed, num_seeds, num_devices, groups[0].agent.config
    )
    common = description["config"] | {
        name: plain_value(known[name], check_value(algorithm, known[name], hyperparameters[name])) for name in read_by_some
    }
    description["config"] = {name: value for name, value in common.items() if name not in values | intervals}
    description |= {"grid": values, "ranges": intervals, "random": random}
    if environment.source:
        description["env_source"] = environment.source
    warn = lambda text: say(console, f"warning: {text}")
    with only_writer(folder, warn):
        saved = check_folder(folder, description, resume, warn, SWEEP_FILES)
        write_description(folder, description)
        results = _saved_results(saved, groups, description, folder, warn)
        # Only now the costly part: whatever the user could have mistaken has been checked.
        try:
            return _sweep(description, groups, results, environment.env, environment.params, mesh, folder, console)
        except OSError as error:
            raise RunError(
                f"the sweep's files could not be written: {error}. Finished groups are kept. {advice(error)}"
            ) from error


def _mesh(known: dict[str, Field], grid: dict[str, Any], random: int | None, num_seeds: int, num_devices: int) -> Mesh:
    """The devices that share the pairs of a group; all groups have the same size."""
    configurations = (random or 1) * math.prod(len(values) for name, values in grid.items() if known[name].is_leaf)
    if num_devices > configurations * num_seeds:
        raise InputError(
            f"num_devices = {num_devices} is more than a program's {counted(configurations, 'configuration')} x "
            f"{counted(num_seeds, 'seed')}; "
            f"give at most {configurations * num_seeds}"
        )
    return seed_mesh(num_devices, num_devices)


# --- Groups ---------------------------------------------------------------------------------------------------------------


class Group(NamedTuple):
    """Configurations that one program trains.

    Attributes:
      agent: the algorithm of the first of them: its sizes are those of all.
      population: an algorithm whose state is a `Member`.
      indices: their numbers among all configurations.
      configurations: their swept fields.
      hyperparameters: the real-valued ones among these, shape (configuration,) each.
    """

    agent: Algorithm
    population: Algorithm
    indices: list[int]
    configurations: list[Configuration]
    hyperparameters: dict[str, Float[np.ndarray, " configuration"]]


class Member(NamedTuple):
    """An algorithm's state with the hyperparameters it is trained with: a stack of them has many configurations."""

    hyperparameters: dict[str, jax.Array]
    state: PyTree


def population(build: Callable[..., Algorithm], agent: Algorithm) -> Algorithm:
    """An algorithm over members: `init((hyperparameters, key))`, `update(member)`, `policy(member)`.

    Args:
      build: `(**hyperparameters) -> Algorithm`.
      agent: one that `build` has made; its sizes are those of all.
    """

    def init(start: tuple[dict[str, jax.Array], jax.Array]) -> Member:
        hyperparameters, key = start
        return Member(hyperparameters, build(**hyperparameters).init(key))

    def update(member: Member) -> tuple[Member, Metrics]:
        state, metrics = build(**member.hyperparameters).update(member.state)
        return member._replace(state=state), metrics

    def policy(member: Member, deterministic: bool = True) -> Policy:
        return build(**member.hyperparameters).policy(member.state, deterministic)

    return agent._replace(init=init, update=jax.jit(update), policy=policy)  # jit: traced once, not at every mention


def _groups(known: dict[str, Field], configurations: list[Configuration], build: Callable[..., Algorithm]) -> list[Group]:
    """Makes the algorithm of each group, which finds sizes that do not go together."""
    by_static: dict[str, list[int]] = {}
    for index, configuration in enumerate(configurations):
        key = json.dumps([value for name, value in configuration.items() if not known[name].is_leaf])
        by_static.setdefault(key, []).append(index)
    groups = []
    for indices in by_static.values():
        chosen = [configurations[index] for index in indices]
        static = {name: value for name, value in chosen[0].items() if not known[name].is_leaf}
        leaves = {name: np.array([each[name] for each in chosen], np.float32) for name in chosen[0] if name not in static}
        agent = build(**chosen[0])
        groups.append(Group(agent, population(partial(build, **static), agent), indices, chosen, leaves))
    return groups


# --- Training -------------------------------------------------------------------------------------------------------------


def _sweep(
    description: dict[str, Any],
    groups: list[Group],
    results: list[Result],
    env: Any,
    env_params: PyTree,
    mesh: Mesh,
    folder: Path,
    console: Console,
) -> dict[str, Any]:
    """Trains the groups that have no results yet, writing after each, and draws the picture."""
    num_seeds = description["num_seeds"]
    work = [len(g.indices) * num_seeds * g.agent.num_updates * g.agent.env_steps_per_update for g in groups]
    finished = {result["group"] for result in results}
    waiting = [number for number in range(len(groups)) if number not in finished]
    done = sum(work) - sum(work[number] for number in waiting)
    size = f"{counted(sum(len(g.indices) for g in groups), 'configuration')} x {counted(num_seeds, 'seed')}"
    already = f", of which {len(finished)} are finished" if finished else ""
    say(console, f"{description['algorithm']} on {description['env']}: {size} in {counted(len(groups), 'group')}{already}")
    with RunProgress("sweep", sum(work), done, console, "best") as progress:
        for place, number in enumerate(waiting, start=1):
            name = f"group {number + 1} of {len(groups)}"
            progress.retitle(f"{name}: compiling")
            if not console.is_terminal:
                say(console, f"{name}: compiling …")
            report = _reporter(progress, name, done, sum(work) - done, len(waiting) - place)
            size = f"{counted(len(groups[number].indices), 'configuration')} x {counted(num_seeds, 'seed')}"
            rest = "give more devices, or fewer seeds or real-valued configurations. Finished groups are kept"
            too_many = f"{size} at a time do not fit: {rest}"
            with told_when_out_of_memory(partial(str, too_many)):
                results = results + _train_group(number, groups[number], description, env, env_params, mesh, report)
            done += work[number]
            _write(folder, description, _summary(description, groups, results))
    summary = _summary(description, groups, results)
    _write(folder, description, summary)
    try:
        plot_sweep(summary, folder / "sweep.png")
    except InputError as error:  # not the user's mistake here: the place to write to is ours
        raise RunError(f"all results are saved, but {error}. {advice(error)}") from error
    return summary


def _reporter(progress: RunProgress, name: str, done: int, steps_left: int, groups_left: int) -> Report:
    """For a group that begins now: `report(env_steps, best_return, steps_per_second)` after each of its chunks."""
    began = time.perf_counter()

    def report(steps: int, score: float | None, speed: float) -> None:
        compilation = time.perf_counter() - began - steps / speed  # which the groups that are left will take as well
        progress.retitle(name)
        progress.report(done + steps, score, speed, (steps_left - steps) / speed + groups_left * compilation)

    return report


def _train_group(
    number: int,
    group: Group,
    description: dict[str, Any],
    env: Any,
    env_params: PyTree,
    mesh: Mesh,
    report: Report,
) -> list[Result]:
    """Trains and evaluates a group's configurations."""
    began = time.perf_counter()
    num_seeds, num_updates = description["num_seeds"], group.agent.num_updates
    num_pairs = len(group.indices) * num_seeds
    # Filled up to a multiple of the devices with the last pair again.
    pairs = np.minimum(np.arange(math.ceil(num_pairs / mesh.size) * mesh.size), num_pairs - 1)
    configuration, seed = np.divmod(pairs, num_seeds)

    def divided(tree: PyTree) -> PyTree:
        return jax.device_put(tree, NamedSharding(mesh, SEEDS))

    keys = jax.random.split(jax.random.key(description["seed"]), num_seeds)
    start = divided(({name: values[configuration] for name, values in group.hyperparameters.items()}, keys[seed]))
    init = over_seeds(group.population.init, mesh)
    step = compile_step(group.population, jax.eval_shape(init, start), mesh)
    states, diverged, done = init(start), np.zeros(len(pairs), bool), 0
    chunk = updates_of_chunk(group.agent)
    started = time.perf_counter()
    with ThreadPoolExecutor(1) as waiter:  # waiting for a thread, unlike waiting for JAX, ends at Ctrl-C
        while done < num_updates:
            updates = min(chunk, num_updates - done)
            states, metrics = step(states, jnp.int32(updates))
            metrics = waiter.submit(jax.device_get, metrics).result()
            done += updates
            diverged |= np.any(list(faults(metrics).values()), axis=0)
            steps = num_pairs * done * group.agent.env_steps_per_update
            report(steps, _best_return(metrics, num_pairs, num_seeds), steps / (time.perf_counter() - started))
        returns = np.full(len(pairs), np.nan)
        if not diverged.all():
            if diverged.any():  # policies of NaNs might never end an episode: a sound one takes their place
                sound = np.where(diverged, np.argmin(diverged), np.arange(len(pairs)))
                states = divided(jax.tree.map(lambda x: x[sound], states))
            keys = divided(evaluation_keys(description["seed"], num_seeds)[seed])
            evaluated = mean_returns(group.population.policy, env, mesh, EVALUATION_EPISODES, True, env_params, states, keys)
            returns = np.where(diverged, np.nan, waiter.submit(jax.device_get, evaluated).result())
    table = np.stack([returns, diverged])[:, :num_pairs].reshape(2, -1, num_seeds)
    return _results(number, group, table[0], table[1].astype(bool), time.perf_counter() - began)


def _best_return(metrics: dict[str, np.ndarray], num_pairs: int, num_seeds: int) -> float | None:
    """The best configuration's mean episode return over seeds; None if none has one."""
    if "episode_return" not in metrics:
        return None
    means = metrics["episode_return"][:num_pairs].reshape(-1, num_seeds).mean(axis=1)
    return max((float(mean) for mean in means if math.isfinite(mean)), default=None)


# --- Results --------------------------------------------------------------------------------------------------------------


def _results(
    number: int,
    group: Group,
    returns: Float[np.ndarray, "configuration seed"],
    diverged: Bool[np.ndarray, "configuration seed"],
    seconds: float,
) -> list[Result]:
    # Without one seed a configuration has no score: the mean of those that are left would flatter it.
    complete = np.isfinite(returns).all(axis=1, keepdims=True)
    scores = np.where(complete, returns, np.nan).T
    iqm, low, high = (finite_or_none(np.atleast_1d(x)) for x in (interquartile_mean(scores), *bootstrap_interval(scores)))
    return [
        sealed(
            {
                "configuration": index,
                "group": number,
                "hyperparameters": group.configurations[row],
                "iqm": iqm[row],
                "iqm_ci": [low[row], high[row]],
                "returns": finite_or_none(returns[row]),
                "diverged": np.flatnonzero(diverged[row]).tolist(),
                "seconds": seconds,
            }
        )
        for row, index in enumerate(group.indices)
    ]


def rank(result: Result) -> tuple[float, float]:
    """Orders results: by their score; of equal ones, that whose interval begins higher is better."""
    return (-math.inf, -math.inf) if result["iqm"] is None else (result["iqm"], result["iqm_ci"][0])


def _summary(description: dict[str, Any], groups: list[Group], results: list[Result]) -> dict[str, Any]:
    """The content of `results.json`."""
    scored = [result for result in results if result["iqm"] is not None]
    return {
        **{name: description[name] for name in ("algorithm", "env", "seed", "num_seeds")},
        "num_configurations": sum(len(group.indices) for group in groups),
        "num_groups": len(groups),
        "evaluation_episodes": EVALUATION_EPISODES,
        "seconds": sum({result["group"]: result["seconds"] for result in results}.values()),
        "best": max(scored, key=rank, default=None),
        "results": sorted(results, key=lambda result: result["configuration"]),
    }


def _saved_results(
    saved: dict[str, Any] | None, groups: list[Group], description: dict[str, Any], folder: Path, warn: Callable[[str], None]
) -> list[Result]:
    """The results of an interrupted sweep's finished groups.

    A group counts as finished if each of its configurations is there exactly once, and whole. `warn` is told of what else is
    there; it is kept in a file of its own, and those groups are trained again.

    Raises:
      InputError: the file has no results, or those of another sweep.
    """
    if saved is None:
        return []
    path, expected = folder / SWEEP_FILES[0], {name: description[name] for name in ("algorithm", "env", "seed", "num_seeds")}
    listed = saved.get("results")
    if not isinstance(listed, list) or {name: saved.get(name) for name in expected} != expected:
        raise InputError(f"{path} holds no results of this sweep: put it elsewhere, then continue with --resume")
    kept: list[Result] = []
    for number, group in enumerate(groups):
        found = [each for each in listed if isinstance(each, dict) and each.get("group") == number]
        whole = {each["configuration"] for each in found if _is_whole(each, group, description["num_seeds"])}
        if len(found) == len(whole) == len(group.indices):
            kept += found
        elif found:
            warn(f"{path}: group {number + 1} is not there exactly once and whole: it is trained again")
    strangers = len(listed) - sum(isinstance(each, dict) and each.get("group") in range(len(groups)) for each in listed)
    if strangers:
        warn(f"{path}: {strangers} of {len(listed)} results are of no group of this sweep: they are left out")
    if len(kept) < len(listed):
        write_atomically(folder / "results.damaged.json", path.read_bytes())
    return kept


def _is_whole(result: Result, group: Group, num_seeds: int) -> bool:
    """Whether a saved result is as `_results` makes it."""
    index, scores, seeds = result.get("configuration"), result.get("iqm_ci"), result.get("returns")
    return (
        type(index) is int
        and index in group.indices
        and result.get("hyperparameters") == json.loads(json.dumps(group.configurations[group.indices.index(index)]))
        and (isinstance(scores, list) and len(scores) == 2 and isinstance(seeds, list) and len(seeds) == num_seeds)
        and all(x is None or is_number(x) for x in (result.get("iqm"), *scores, *seeds))
        and (result.get("iqm") is None) == (None in scores) == (None in seeds)
        and isinstance(result.get("diverged"), list)
        and all(type(seed) is int and 0 <= seed < num_seeds for seed in result["diverged"])
        and is_number(result.get("seconds"))
        and is_sealed(result)
    )


def _write(folder: Path, description: dict[str, Any], summary: dict[str, Any]) -> None:
    """Writes `results.json`, from which a sweep continues, the table `results.csv`, and `best.json`, final or not."""
    write_atomically(folder / "results.json", json.dumps(summary, indent=2) + "\n")
    write_atomically(folder / "results.csv", _table(summary))
    best = summary["best"]
    if best is not None:
        named = {name: description[name] for name in ("algorithm", "env", "env_options")}
        config = description["config"] | best["hyperparameters"]
        # Apart unless it was swept, because a sweep is often shorter than the run that follows.
        length = {name: config.pop(name) for name in ("total_steps",) if name in description["config"]}
        scores = {name: best[name] for name in ("iqm", "iqm_ci", "returns")}
        finished, number = len(summary["results"]), summary["num_configurations"]
        stands = {"final": finished == number, "finished_configurations": finished, "num_configurations": number}
        write_atomically(
            folder / "best.json", json.dumps(named | stands | length | {"config": config} | scores, indent=2) + "\n"
        )


def _table(summary: dict[str, Any]) -> str:
    """One row per configuration; `diverged` counts seeds, `seconds` are those of the whole group."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(summary["results"][0]["hyperparameters"])
    seeds = [f"return_{seed}" for seed in range(summary["num_seeds"])]
    writer.writerow(["configuration", *names, "iqm", "iqm_low", "iqm_high", *seeds, "diverged", "group", "seconds"])
    for result in summary["results"]:
        values = [value_text(value, digits=9) for value in result["hyperparameters"].values()]
        scores = [x if x is None else shortest(np.float32(x)) for x in (result["iqm"], *result["iqm_ci"], *result["returns"])]
        rest = [len(result["diverged"]), result["group"], f"{result['seconds']:.3f}"]
        writer.writerow([result["configuration"], *values, *scores, *rest])
    return text.getvalue()
