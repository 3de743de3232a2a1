"""One run from a configuration to a folder of results: `jaxpg train`, and the same from Python.

The host appears only between compiled chunks of updates: while the device computes the next chunk, the last one's metrics are
written, and now and then its state is saved.
"""

import contextlib
import json
import math
import signal
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree
from rich.console import Console

from jaxpg.algorithm import LARGEST, LONGEST, Algorithm, InputError, Metrics, make, whole_number
from jaxpg.experiment import logs
from jaxpg.experiment.best import Best
from jaxpg.experiment.checkpoints import Checkpoints, digest, has_nan, to_host
from jaxpg.experiment.devices import seed_mesh
from jaxpg.experiment.environment import Environment, find_environment
from jaxpg.experiment.errors import RunError, advice
from jaxpg.experiment.evaluation import EVALUATION_EPISODES, evaluate_run
from jaxpg.experiment.files import only_writer, sealed, write_atomically
from jaxpg.experiment.folder import check_folder, describe, read_description, write_description
from jaxpg.experiment.paths import as_path
from jaxpg.experiment.pictures import draw_behaviour, draw_repertoire
from jaxpg.experiment.plots import plot_learning_curves, read_curves
from jaxpg.experiment.program import (
    COLLECTED,
    SEEDS,
    bytes_of,
    compile_init,
    compile_step,
    faults,
    how_to_fit,
    judge_of,
    memory_of,
    require_memory,
    told_when_out_of_memory,
)
from jaxpg.experiment.progress import RunProgress, say, stage, standard_error
from jaxpg.experiment.saved import Run, enlarge, load, shapes_at_saving, warn_of_other_actions
from jaxpg.experiment.signals import Stop, Stopped, stop_when_asked
from jaxpg.experiment.statistics import bootstrap_interval, interquartile_mean
from jaxpg.experiment.trust import has_code, sign
from jaxpg.experiment.warm_start import transfer

CHUNKS = 100  # pieces of a run, after each of which metrics are written
LONGEST_CHUNK = 2**24  # environment steps of each seed: or a run of days would say and save nothing for hours
SMALLER = "A smaller learning rate often helps"
SAVE_SHARE = 0.01  # of the time may go into saving; the first chunk and the last are always saved


def run(
    algorithm: str,
    env: Any,
    out: str | Path,
    *,
    seed: int = 0,
    num_seeds: int = 1,
    num_devices: int = 1,
    resume: bool = False,
    env_options: dict[str, Any] | None = None,
    env_params: PyTree = None,
    eval_every: int | float | None = None,
    eval_episodes: int | float = 16,
    init_from: str | Path | None = None,
    init_optimizer: bool = False,
    wandb: str | None = None,
    console: Console | None = None,
    **hyperparameters: Any,
) -> dict[str, Any]:
    """Trains `num_seeds` agents in one compiled program and leaves curves, checkpoints, pictures and a summary in `out`.

    Args:
      algorithm: a name that `jaxpg list` shows.
      env: likewise, or `package.module:factory`; an environment object; or a function that returns `(env, params)`.
      out: a folder that holds no run yet; with `resume`, the folder of an interrupted one, which continues and ends with
        the same state, to the bit, as if it had never been interrupted (on another number of devices, up to rounding). A
        larger `total_steps` lengthens the run, complete or not: what follows the run's length, as annealed rates do, is from
        then on that of the longer run. Without `total_steps`, it is the folder's.
      seed: of the whole run, within [0, 2^32); the agents' keys are split from it.
      num_devices: devices among which the seeds are divided.
      env_options: keyword arguments of `jaxpg_envs.make`, such as `{"backend": "spring"}`.
      env_params: the parameters of an environment object (default: its `default_params`).
      eval_every: environment steps, per seed, from one evaluation of the deterministic policy to the next, rounded up to
        whole updates; the mean return is logged as `evaluation_return`, and each seed's best policy so far is kept.
      eval_episodes: whole episodes of each such evaluation.
      init_from: the folder of a run of the same algorithm whose parameters and statistics this one begins with, seed by
        seed, or all from its only seed. The environment may be another one with the same spaces.
      init_optimizer: begin with that run's optimiser state as well.
      wandb: a Weights & Biases project to log to as well.
      console: where progress is shown (default: standard error).
      **hyperparameters: fields of the algorithm's configuration, `total_steps` among them.

    Returns:
      The content of `summary.json`.

    Raises:
      InputError: a bad name or value, a folder that cannot be used or that another process trains in, or more memory needed
        than there is.
      RunError: what is not finite was collected or learned, a full disk or memory, or checkpoints that cannot be read;
        everything saved before is kept.
      KeyboardInterrupt, SystemExit: SIGINT; SIGTERM or SIGHUP. The chunk that was being computed is saved, unless it would
        have taken more than ten seconds; a second signal does at once what it does elsewhere.
    """
    # In a notebook, lines of text: a live bar there needs more packages.
    console = console or standard_error()
    folder = as_path("out", out)
    seed, num_seeds, num_devices = require_numbers(seed, num_seeds, num_devices)
    mesh = seed_mesh(num_seeds, num_devices)
    if wandb is not None:
        logs.require_wandb()
    given: dict[str, Any] = {}
    if eval_every is not None:
        given["evaluation"] = _evaluation(eval_every, eval_episodes)
    elif eval_episodes != 16:
        raise InputError("eval_episodes needs eval_every, the environment steps from one evaluation to the next")
    if init_from is not None:
        given["init_from"] = {"folder": str(as_path("init_from", init_from).absolute()), "optimizer": init_optimizer}
    elif init_optimizer:
        raise InputError("init_optimizer needs init_from, the folder of a run")
    if resume and (folder / "config.json").exists():  # what is not given is as before
        saved = read_description(folder)
        given = {name: saved[name] for name in ("evaluation", "init_from", "lengthened_from") if name in saved} | given
        length = {name: value for name, value in saved["config"].items() if name == "total_steps"}
        hyperparameters = length | hyperparameters
    environment = find_environment(env, env_options, env_params)
    agent = make(algorithm, environment.env, environment.params, **hyperparameters)
    like = require_trainable(algorithm, agent, num_seeds)
    description = describe(algorithm, environment.name, dict(env_options or {}), seed, num_seeds, num_devices, agent.config)
    description |= ({"env_source": environment.source} if environment.source else {}) | given
    if has_code(description):
        description["signature"] = sign(description)
    begin = _warm_start(description, like, environment) if "init_from" in given and not Checkpoints(folder).updates() else None
    warn = lambda text: say(console, f"warning: {text}")
    with contextlib.ExitStack() as held:
        exists = (folder / "config.json").exists()
        if exists:  # at once: what is in it may change otherwise
            held.enter_context(only_writer(folder, warn))
        summary = check_folder(folder, description, resume, warn)
        if exists:
            warn_of_other_actions(read_description(folder), agent, environment, warn)
        if summary is not None and summary["total_steps"] >= agent.num_updates * agent.env_steps_per_update:
            say(console, f"the run in {folder} is complete: nothing left to do")
            return summary
        # Only now the costly part: whatever the user could have mistaken has been checked.
        try:
            out_of_memory = told_when_out_of_memory(lambda: how_to_fit(agent, num_seeds))
            with stage(console, f"compiling {algorithm} on {environment.name}"), out_of_memory:
                programs = _compile(agent, environment, description, like, mesh)
            if not exists:  # a run that does not fit in the memory leaves no folder
                held.enter_context(only_writer(folder, warn))
                check_folder(folder, description, resume, warn)
            write_description(folder, description)
            with told_when_out_of_memory(lambda: f"{how_to_fit(agent, num_seeds)}. {Checkpoints(folder).kept()}"):
                return _run(programs, description, agent, environment, begin, mesh, folder, wandb, console)
        except Stopped as stopped:
            say(console, str(stopped))
            raise (KeyboardInterrupt() if stopped.number == signal.SIGINT else SystemExit(128 + stopped.number)) from None
        except OSError as error:
            raise RunError(
                f"the run's files could not be written: {error}. {Checkpoints(folder).kept()}. {advice(error)}"
            ) from error


def _evaluation(every: int | float, episodes: int | float) -> dict[str, int]:
    """The evaluations during a run, as `config.json` has them."""
    steps, episodes = whole_number("eval_every", every, 1, LONGEST), whole_number("eval_episodes", episodes, 1, LARGEST)
    return {"every_steps": steps, "episodes": episodes}


def _warm_start(description: dict[str, Any], like: PyTree, environment: Environment) -> Callable[[PyTree], PyTree]:
    """What gives fresh states the parameters of the run in `init_from`."""
    folder = Path(description["init_from"]["folder"])
    is_same = read_description(folder)["env"] == description["env"] and "factory" in environment.source  # the user has given it
    source = load(folder, env=description["env"] if is_same else None)
    if source.description["algorithm"] != description["algorithm"]:
        raise InputError(
            f"init_from: {description['init_from']['folder']} holds a run of {source.description['algorithm']!r}, "
            f"not of {description['algorithm']!r}"
        )
    return transfer(source.states, like, description["num_seeds"], description["init_from"]["optimizer"])


def require_trainable(name: str, agent: Algorithm, num_seeds: int) -> PyTree:
    """Shapes and dtypes of the states, stacked along a leading axis (seed,), of an algorithm that can run in a loop.

    Raises:
      InputError: `update` changes the type of the state, or its metrics are not named scalars.
    """
    state = jax.eval_shape(agent.init, jax.random.key(0))
    result = jax.eval_shape(agent.update, state)
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict) or not result[1]:
        raise InputError(f"{name}: update must return (state, metrics), metrics being a dictionary of scalars, one or more")
    after, metrics = result
    faulty = [str(key) for key, value in metrics.items() if getattr(value, "shape", None) != ()]
    if faulty:
        raise InputError(f"{name}: metrics must be scalars, but {', '.join(faulty)} of update are not: average them")
    faulty = [repr(key) for key, value in metrics.items() if not isinstance(key, str) or value.dtype == bool]
    if faulty:
        raise InputError(f"{name}: metrics are numbers by name, but {', '.join(faulty)} is a truth value or no name")
    if jax.tree.structure(state) != jax.tree.structure(after):
        raise InputError(f"{name}: update returns a state of another structure than init's: it must stay the same")
    for (path, old), new in zip(jax.tree_util.tree_flatten_with_path(state)[0], jax.tree.leaves(after), strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise InputError(
                f"{name}: update makes {jax.tree_util.keystr(path, simple=True, separator='.')} a {new.dtype}{new.shape}, "
                f"which init makes a {old.dtype}{old.shape}: it must stay the same"
            )
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((num_seeds, *x.shape), x.dtype), state)


def require_numbers(seed: Any, num_seeds: Any, num_devices: Any) -> tuple[int, int, int]:
    """The three as `int`; raises `InputError` if one is none, or a random key cannot be made of the seed without loss."""
    return (
        whole_number("seed", seed, 0, 2**32 - 1),
        whole_number("num_seeds", num_seeds, 1, LARGEST),
        whole_number("num_devices", num_devices, 1, LARGEST),
    )


class Programs(NamedTuple):
    """The compiled programs of a run: `init(keys) -> states`, `step` of `compile_step`, and how long they took."""

    init: Callable[[jax.Array], PyTree]
    step: Callable[..., tuple[PyTree, Metrics]]
    seconds: float


def _compile(agent: Algorithm, environment: Environment, description: dict[str, Any], like: PyTree, mesh: Mesh) -> Programs:
    """Compiles a run's programs.

    Raises:
      InputError: they need more memory than the devices have.
    """
    advice = how_to_fit(agent, description["num_seeds"])
    require_memory(bytes_of(like), mesh, advice)
    evaluation = description.get("evaluation")
    judge = evaluation and judge_of(agent, environment, evaluation["episodes"])
    started = time.perf_counter()
    with ThreadPoolExecutor(1) as other:  # another core compiles the start meanwhile
        init = other.submit(compile_init, agent, like, mesh)
        step = compile_step(agent, like, mesh, judge)
        if not jax.config.jax_disable_jit:  # else there is nothing compiled
            require_memory(memory_of(step) * mesh.size, mesh, advice)
        return Programs(init.result(), step, time.perf_counter() - started)


def _run(
    programs: Programs,
    description: dict[str, Any],
    agent: Algorithm,
    environment: Environment,
    begin: Callable[[PyTree], PyTree] | None,
    mesh: Mesh,
    folder: Path,
    wandb: str | None,
    console: Console,
) -> dict[str, Any]:
    """Trains in a prepared folder, from its newest checkpoint if it has one, and leaves the results there."""
    algorithm, env, seed, num_seeds = (description[name] for name in ("algorithm", "env", "seed", "num_seeds"))
    keys = jax.device_put(jax.random.split(jax.random.key(seed), num_seeds), NamedSharding(mesh, SEEDS))
    init = programs.init if begin is None else lambda keys: begin(programs.init(keys))
    like = jax.eval_shape(jax.vmap(agent.init), keys)
    warn = lambda text: say(console, f"warning: {text}")
    checkpoints = Checkpoints(folder)
    restored = checkpoints.restore(partial(shapes_at_saving, description, agent, environment, like), warn)
    best = None if description.get("evaluation") is None else Best(folder, agent, like, warn)

    if restored is None:
        states, done, train_seconds = init(keys), 0, 0.0
    else:
        saved, record = restored
        done, train_seconds = record["update"], record["seconds"]
        states = jax.device_put(enlarge(saved, like), NamedSharding(mesh, SEEDS))
        checkpoints.set_aside(after=done)
        kept = [] if best is None else zip(record.get("best", []), best.record["updates"], strict=False)
        if lost := [str(seed) for seed, (then, now) in enumerate(kept) if now < then]:
            warn(f"the best policy of seed {', '.join(lost)} is gone from {folder / 'best'}: the best from here on is kept")
        say(console, f"resuming {folder} after update {done} of {agent.num_updates}")
    jax.block_until_ready(states)

    sinks = [
        logs.json_lines(folder / "metrics.jsonl", done, warn),
        logs.tensorboard(folder, done * agent.env_steps_per_update),
    ]
    if wandb is not None:
        sinks.append(logs.weights_and_biases(wandb, folder, description))
    with RunProgress(f"{algorithm} on {env}", agent.num_updates, done, console) as progress, stop_when_asked() as stop:
        states, train_seconds = _train(
            programs.step, states, done, train_seconds, agent, description, checkpoints, best, sinks, progress, stop
        )

    final = Run(description, agent, environment.env, environment.params, states)
    untrained = final._replace(states=init(keys))
    with stage(console, f"evaluating: {EVALUATION_EPISODES} episodes per seed, trained and untrained"):
        returns, initial_returns = evaluate_run(final), evaluate_run(untrained)
    low, high = bootstrap_interval(returns)
    summary = {
        **{name: description[name] for name in ("algorithm", "env", "seed", "num_seeds")},
        "total_steps": agent.num_updates * agent.env_steps_per_update,
        "returns": logs.finite_or_none(returns),
        "iqm": _number(interquartile_mean(returns)),
        "iqm_ci": [_number(low), _number(high)],
        "initial_returns": logs.finite_or_none(initial_returns),
        "initial_iqm": _number(interquartile_mean(initial_returns)),
        "evaluation_episodes": EVALUATION_EPISODES,
        **({} if best is None else {"best": {name: best.record[name] for name in ("updates", "returns")}}),
        "compile_seconds": programs.seconds,
        "train_seconds": train_seconds,
        "env_steps_per_second": num_seeds * agent.num_updates * agent.env_steps_per_update / train_seconds,
        "state_digest": digest(to_host(states)),
    }
    with stage(console, "drawing the curve and the behaviour"):
        before, after = agent.policy(untrained.state()), agent.policy(final.state())
        is_drawn = True
        try:
            read_curves(folder)
        except InputError as error:  # the metrics are gone or damaged, but not what was learned
            warn(f"the learning curve is not drawn: {error}")
            is_drawn = False
        try:
            if is_drawn:
                plot_learning_curves([folder], folder / "curve.png")
            # A key of its own: the first one split from the seed's is agent 0's.
            draw_key, caption = jax.random.fold_in(jax.random.key(seed), num_seeds + 2), f"{algorithm} on {env}, seed {seed}"
            draw_behaviour(before, after, environment.env, environment.params, draw_key, folder, caption)
            draw_repertoire(final.state(), environment.env, environment.params, folder, caption)
        except InputError as error:  # not the user's mistake here: the place to write to is ours
            raise RunError(f"training is complete and saved, but {error}. {advice(error)}") from error
    summary = sealed(summary)
    write_atomically(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def _train(
    step: Callable[..., tuple[PyTree, Metrics]],
    states: PyTree,
    done: int,
    seconds: float,
    agent: Algorithm,
    description: dict[str, Any],
    checkpoints: Checkpoints,
    best: Best | None,
    sinks: list[logs.Log],
    progress: RunProgress,
    stop: Stop,
) -> tuple[PyTree, float]:
    """Runs the remaining chunks; returns the final states and the seconds that training has taken in all.

    Raises:
      Stopped: `stop` wished it; the last chunk is saved, unless it would have taken too long to end.
    """
    num_seeds, evaluation = description["num_seeds"], description.get("evaluation")
    chunk = updates_of_chunk(agent)
    # Updates from one evaluation to the next; the keys are not those of the evaluation at the end.
    every = agent.num_updates if evaluation is None else math.ceil(evaluation["every_steps"] / agent.env_steps_per_update)
    keys = jax.random.fold_in(jax.random.key(description["seed"]), num_seeds + 1)
    length = {name: value for name, value in description["config"].items() if name == "total_steps"}
    first, before = done, seconds
    started = time.perf_counter()
    last_save, save_cost = -float("inf"), 0.0

    def is_due(done: int) -> bool:
        return done % every == 0 or done == agent.num_updates

    def launch(states: PyTree, done: int) -> tuple[PyTree, Metrics, int]:
        updates = min(chunk, agent.num_updates - done, every - done % every)
        done += updates
        if evaluation is None:
            return *step(states, jnp.int32(updates)), done
        own = jax.random.split(jax.random.fold_in(keys, done % 2**32), num_seeds)
        own = jax.device_put(own, jax.tree.leaves(states)[0].sharding)
        return *step(states, jnp.int32(updates), own, jnp.bool_(is_due(done))), done

    if done == agent.num_updates:
        return states, seconds
    waiter = ThreadPoolExecutor(1)  # waiting for a thread, unlike waiting for JAX, ends at Ctrl-C
    states, metrics, done = launch(states, done)
    while True:
        arriving = waiter.submit(jax.device_get, metrics)
        wait([arriving, stop.overdue], return_when=FIRST_COMPLETED)
        if not arriving.done():
            raise Stopped(stop, f"within the updates up to {done}. {checkpoints.kept()}")
        rows = arriving.result()
        now = time.perf_counter()
        seconds = before + now - started
        _require_finite(rows, done, description, checkpoints)
        finished, stopping = done == agent.num_updates, stop.number is not None
        save = finished or stopping or now - last_save > save_cost / SAVE_SHARE
        leaves = to_host(states) if save else {}
        require_sound(leaves, done, checkpoints)
        row: logs.Row = {"update": done, "env_steps": done * agent.env_steps_per_update, "seconds": seconds}
        if evaluation is not None and not is_due(done):
            del rows["evaluation_return"]
        row.update({name: logs.finite_or_none(values) for name, values in rows.items()})
        if best is not None and is_due(done):
            best.offer(done, rows["evaluation_return"], states)
        if not finished and not stopping:  # the device goes on while the host writes
            states, metrics, done = launch(states, done)
        for sink in sinks:
            sink(row)
        if save:
            judged = {} if best is None else {"best": best.record["updates"]}
            checkpoints.save(row["update"], leaves, length | judged | {"seconds": seconds})
            last_save = time.perf_counter()
            save_cost = last_save - now
        if stopping:
            raise Stopped(stop, f"after update {row['update']}, which is saved")
        speed = num_seeds * (row["update"] - first) * agent.env_steps_per_update / (seconds - before)
        left = (seconds - before) / (row["update"] - first) * (agent.num_updates - row["update"])
        scores = [x for x in row.get("episode_return", []) if x is not None]
        progress.report(row["update"], sum(scores) / len(scores) if scores else None, speed, left)
        if finished:
            return states, seconds


def updates_of_chunk(agent: Algorithm) -> int:
    """Updates between two rows of metrics: a hundredth of the run's, and no more than `LONGEST_CHUNK` steps take."""
    return max(1, min(agent.num_updates // CHUNKS, LONGEST_CHUNK // agent.env_steps_per_update))


def _require_finite(metrics: dict[str, np.ndarray], update: int, description: dict[str, Any], checkpoints: Checkpoints) -> None:
    """Takes the counts of what is not finite out of the metrics of a chunk.

    Raises:
      RunError: there is something, collected or learned: the state is not to be saved.
    """
    rejected = metrics.get("rejected", np.zeros(1)) > 0
    for name, faulty in faults(metrics).items():
        if not faulty.any():
            continue
        where = f"(seed {', '.join(map(str, np.flatnonzero(faulty)))}) in the updates up to {update}. {checkpoints.kept()}"
        if name in COLLECTED:
            what = name.replace("_", " ").replace("nonfinite", "non-finite")
            raise RunError(
                f"training stopped: {description['env']} gave {what} {where}, from before. Most likely the environment is at "
                f"fault, for some action or parameter; if the losses had grown before, it is the algorithm. {SMALLER}"
            )
        advice = f"{description['env']} gave fitnesses or descriptors that are not finite" if rejected.any() else SMALLER
        raise RunError(f"training stopped: {name} is {metrics[name][faulty][0]} {where}. {advice}")
    for name in COLLECTED:
        metrics.pop(name, None)


def require_sound(leaves: dict[str, np.ndarray], update: int, checkpoints: Checkpoints) -> None:
    """Raises `RunError` if a state that is to be saved holds a NaN: whoever resumed from it would stop again.

    An environment may have its reasons for one in its own state, and report one behind a termination, as memories remember it.
    """
    for name, leaf in leaves.items():
        if not {"env_state", "next_observation", "rows"} & set(name.split(".")) and has_nan(leaf):
            raise RunError(
                f"training stopped: {name} of the state after update {update} holds NaN. {checkpoints.kept()}, from before. "
                f"{SMALLER}"
            )


def _number(value: Any) -> float | None:
    return logs.finite_or_none(np.asarray([value]))[0]
