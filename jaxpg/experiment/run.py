"""One run from a configuration to a folder of results: `jaxpg train`, and the same from Python.

The host appears only between compiled chunks of updates: while the device computes the next chunk, the last one's metrics are
written, and now and then its state is saved.
"""

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree
from rich.console import Console

from jaxpg.algorithm import LARGEST, LONGEST, Algorithm, InputError, Metrics, Policy, make, rebuild, whole_number
from jaxpg.algorithms.quality_diversity.memory import Memory, grow_memory
from jaxpg.counting import LARGE
from jaxpg.evaluation import evaluate
from jaxpg.experiment import logs, plots
from jaxpg.experiment.best import Best, restore_best
from jaxpg.experiment.checkpoints import Checkpoints, digest, to_host, write_atomically
from jaxpg.experiment.devices import COMPILER_OPTIONS, seed_mesh
from jaxpg.experiment.environment import Environment, find_again, find_environment
from jaxpg.experiment.errors import RunError, advice
from jaxpg.experiment.folder import describe, prepare_folder, read_description
from jaxpg.experiment.paths import as_path
from jaxpg.experiment.pictures import draw_behaviour, draw_repertoire
from jaxpg.experiment.progress import RunProgress, say, stage
from jaxpg.experiment.statistics import bootstrap_interval, interquartile_mean
from jaxpg.experiment.warm_start import transfer
from jaxpg.interface import require_interface
from jaxpg.on_policy import OnPolicyConfig
from jaxpg.replay import Buffer, grow_buffer
from jaxpg.spaces import box_bounds, difference, is_box
from jaxpg.training import advance

CHUNKS = 100  # pieces of a run, after each of which metrics are written
SAVE_SHARE = 0.01  # of the time may go into saving; the first chunk and the last are always saved
EVALUATION_EPISODES = 128
SEEDS = PartitionSpec("seed")


class Run(NamedTuple):
    """A saved or running experiment: what `load` returns.

    Attributes:
      description: the content of `config.json`.
      algorithm: the algorithm, built from the description.
      env, env_params: the environment.
      states: the algorithm's states, stacked along a leading axis (seed,).
    """

    description: dict[str, Any]
    algorithm: Algorithm
    env: Any
    env_params: PyTree
    states: PyTree

    def state(self, seed: int = 0) -> PyTree:
        """One seed's state."""
        return jax.tree.map(lambda x: x[seed], self.states)


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
      InputError: a bad name or value, or a folder that cannot be used.
      RunError: NaN in training, a full disk, or checkpoints that cannot be read; everything saved before is kept.
    """
    # In a notebook, lines of text: a live bar there needs more packages.
    console = console or Console(stderr=True, force_jupyter=False)
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
    begin = _warm_start(description, like) if "init_from" in given and not Checkpoints(folder).updates() else None
    summary = prepare_folder(folder, description, resume, console)
    if resume:
        _warn_of_other_actions(read_description(folder), agent, environment, lambda text: say(console, f"warning: {text}"))
    if summary is not None and summary.get("total_steps", math.inf) >= agent.num_updates * agent.env_steps_per_update:
        say(console, f"the run in {folder} is complete: nothing left to do")
        return summary
    # Only now the costly part: whatever the user could have mistaken has been checked.
    try:
        return _run(description, agent, environment, begin, mesh, folder, wandb, console)
    except OSError as error:
        raise RunError(
            f"the run's files could not be written: {error}. {Checkpoints(folder).kept()}. {advice(error)}"
        ) from error


def _evaluation(every: int | float, episodes: int | float) -> dict[str, int]:
    """The evaluations during a run, as `config.json` has them."""
    steps, episodes = whole_number("eval_every", every, 1, LONGEST), whole_number("eval_episodes", episodes, 1, LARGEST)
    return {"every_steps": steps, "episodes": episodes}


def _warm_start(description: dict[str, Any], like: PyTree) -> Callable[[PyTree], PyTree]:
    """What gives fresh states the parameters of the run in `init_from`."""
    source = load(description["init_from"]["folder"])
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


def _run(
    description: dict[str, Any],
    agent: Algorithm,
    environment: Environment,
    begin: Callable[[PyTree], PyTree] | None,
    mesh: jax.sharding.Mesh,
    folder: Path,
    wandb: str | None,
    console: Console,
) -> dict[str, Any]:
    """Trains in a prepared folder, from its newest checkpoint if it has one, and leaves the results there."""
    algorithm, env, seed, num_seeds = (description[name] for name in ("algorithm", "env", "seed", "num_seeds"))
    keys = jax.device_put(jax.random.split(jax.random.key(seed), num_seeds), NamedSharding(mesh, SEEDS))
    fresh = over_seeds(agent.init, mesh)
    init = fresh if begin is None else lambda keys: begin(fresh(keys))
    like = jax.eval_shape(fresh, keys)
    warn = lambda text: say(console, f"warning: {text}")
    checkpoints = Checkpoints(folder)
    restored = checkpoints.restore(partial(_shapes_at_saving, description, agent, environment, like), warn)
    evaluation = description.get("evaluation")
    best = None if evaluation is None else Best(folder, agent, like, warn)

    started = time.perf_counter()
    with stage(console, f"compiling {algorithm} on {env}"):
        with ThreadPoolExecutor(1) as other:  # another core compiles the start meanwhile
            start = other.submit(lambda: init(keys) if restored is None else None)
            step = compile_step(agent, like, mesh, evaluation and _judge(agent, environment, evaluation["episodes"]))
        if restored is None:
            states, done, train_seconds = start.result(), 0, 0.0
        else:
            saved, record = restored
            states, done, train_seconds = (
                jax.device_put(enlarge(saved, like), NamedSharding(mesh, SEEDS)),
                record["update"],
                record["seconds"],
            )
            checkpoints.set_aside(after=done)
            say(console, f"resuming {folder} after update {done} of {agent.num_updates}")
        jax.block_until_ready(states)
    compile_seconds = time.perf_counter() - started

    sinks = [
        logs.json_lines(folder / "metrics.jsonl", done),
        logs.tensorboard(folder, done * agent.env_steps_per_update),
    ]
    if wandb is not None:
        sinks.append(logs.weights_and_biases(wandb, folder, description))
    with RunProgress(f"{algorithm} on {env}", agent.num_updates, done, console) as progress:
        states, train_seconds = _train(
            step, states, done, train_seconds, agent, description, checkpoints, best, sinks, progress
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
        "compile_seconds": compile_seconds,
        "train_seconds": train_seconds,
        "env_steps_per_second": num_seeds * agent.num_updates * agent.env_steps_per_update / train_seconds,
        "state_digest": digest(to_host(states)),
    }
    with stage(console, "drawing the curve and the behaviour"):
        before, after = agent.policy(untrained.state()), agent.policy(final.state())
        try:
            plots.plot_learning_curves([folder], folder / "curve.png")
            # A key of its own: the first one split from the seed's is agent 0's.
            draw_key, caption = jax.random.fold_in(jax.random.key(seed), num_seeds + 2), f"{algorithm} on {env}, seed {seed}"
            draw_behaviour(before, after, environment.env, environment.params, draw_key, folder, caption)
            draw_repertoire(final.state(), environment.env, environment.params, folder, caption)
        except InputError as error:  # not the user's mistake here: the place to write to is ours
            raise RunError(f"training is complete and saved, but {error}. {advice(error)}") from error
    write_atomically(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def _warn_of_other_actions(
    description: dict[str, Any], agent: Algorithm, environment: Environment, warn: Callable[[str], None]
) -> None:
    """Tells of a run whose on-policy actions were the environment's own numbers: today they are on a scale from -1 to 1."""
    space = environment.env.action_space(environment.params)
    if description["versions"].get("jaxpg") != "0.1.0" or not isinstance(agent.config, OnPolicyConfig) or not is_box(space):
        return
    if any((np.abs(bound) != 1).any() for bound in box_bounds(space)):
        warn(
            "this run was trained by jaxpg 0.1.0, whose actions were the environment's own numbers; now they are scaled to "
            f"{space}, so that its policy acts differently: train it again"
        )


def _shapes_at_saving(
    description: dict[str, Any], agent: Algorithm, environment: Environment, like: PyTree, record: dict[str, Any]
) -> PyTree:
    """Shapes and dtypes of the states in a checkpoint: those of a run that was lengthened since have smaller buffers."""
    now = description["config"].get("total_steps")
    then = record.get("total_steps", description.get("lengthened_from", [now])[0])
    if then == now:
        return like
    config = description["config"] | {"total_steps": then}
    shorter = rebuild(description["algorithm"], environment.env, environment.params, config)
    return jax.eval_shape(jax.vmap(shorter.init), jax.random.split(jax.random.key(0), description["num_seeds"]))


def enlarge(states: PyTree, like: PyTree) -> PyTree:
    """States whose buffers hold as many steps as those of `like`: those of a longer run."""

    def enlarged(node: PyTree, expected: PyTree) -> PyTree:
        if isinstance(node, Buffer) and node.steps.reward.shape != expected.steps.reward.shape:
            return jax.vmap(partial(grow_buffer, rows=expected.steps.reward.shape[1]))(node)
        if isinstance(node, Memory) and node.rows.shape != expected.rows.shape:
            return jax.vmap(partial(grow_memory, capacity=expected.rows.shape[1]))(node)
        return node

    return jax.tree.map(enlarged, states, like, is_leaf=lambda node: isinstance(node, Buffer | Memory))


def _judge(agent: Algorithm, environment: Environment, num_episodes: int) -> Callable[[PyTree, jax.Array], jax.Array]:
    """`(state, key) -> mean return` of the deterministic policy over whole episodes."""

    def judge(state: PyTree, key: jax.Array) -> jax.Array:
        return evaluate(agent.policy(state), environment.env, environment.params, key, num_episodes).mean()

    return judge


def compile_step(
    agent: Algorithm, like: PyTree, mesh: jax.sharding.Mesh, judge: Callable[[PyTree, jax.Array], jax.Array] | None = None
) -> Callable[..., tuple[PyTree, Metrics]]:
    """The one program of a run: `(states, n) -> (states, metrics)` advances all seeds by n updates, whatever n.

    Args:
      like: shapes and dtypes of the states, stacked along a leading axis (seed,). The states given to it are donated.
      judge: `(state, key) -> return`. With it, the program takes keys (seed,) and a flag as well, and where the flag is set
        the metrics have the return as `evaluation_return`.
    """

    def advance_one(state: PyTree, n: jax.Array, *evaluation: jax.Array) -> tuple[PyTree, Metrics]:
        state, metrics = advance(agent.update, state, n)
        if judge is not None:
            key, is_due = evaluation
            metrics["evaluation_return"] = jax.lax.cond(is_due, judge, lambda *_: jnp.float32(0), state, key)
        return state, metrics

    shapes = [
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, SEEDS)), like),
        jax.ShapeDtypeStruct((), jnp.int32),
    ]
    axes, specs = [0, None], [SEEDS, PartitionSpec()]
    if judge is not None:
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), jax.tree.leaves(like)[0].shape[0]))
        shapes += [
            jax.ShapeDtypeStruct(keys.shape, keys.dtype, sharding=NamedSharding(mesh, SEEDS)),
            jax.ShapeDtypeStruct((), bool),
        ]
        axes, specs = [*axes, 0, None], [*specs, SEEDS, PartitionSpec()]
    step = jax.jit(
        jax.shard_map(jax.vmap(advance_one, in_axes=axes), mesh=mesh, in_specs=tuple(specs), out_specs=SEEDS, check_vma=False),
        donate_argnums=0,
        compiler_options=COMPILER_OPTIONS,
    )
    if jax.config.jax_disable_jit:  # there is nothing to compile
        return step
    return step.lower(*shapes).compile()


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
) -> tuple[PyTree, float]:
    """Runs the remaining chunks; returns the final states and the seconds that training has taken in all."""
    num_seeds, evaluation = description["num_seeds"], description.get("evaluation")
    chunk = max(1, min(agent.num_updates // CHUNKS, LARGE))
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
        rows = waiter.submit(jax.device_get, metrics).result()
        now = time.perf_counter()
        seconds = before + now - started
        _require_finite(rows, done, checkpoints)
        finished = done == agent.num_updates
        save = finished or now - last_save > save_cost / SAVE_SHARE
        leaves = to_host(states) if save else {}
        row: logs.Row = {"update": done, "env_steps": done * agent.env_steps_per_update, "seconds": seconds}
        if evaluation is not None and not is_due(done):
            del rows["evaluation_return"]
        row.update({name: logs.finite_or_none(values) for name, values in rows.items()})
        if best is not None and is_due(done):
            best.offer(done, rows["evaluation_return"], states)
        if not finished:  # the device goes on while the host writes
            states, metrics, done = launch(states, done)
        for sink in sinks:
            sink(row)
        if save:
            checkpoints.save(row["update"], leaves, length | {"seconds": seconds})
            last_save = time.perf_counter()
            save_cost = last_save - now
        speed = num_seeds * (row["update"] - first) * agent.env_steps_per_update / (seconds - before)
        left = (seconds - before) / (row["update"] - first) * (agent.num_updates - row["update"])
        scores = [x for x in row.get("episode_return", []) if x is not None]
        progress.report(row["update"], sum(scores) / len(scores) if scores else None, speed, left)
        if finished:
            return states, seconds


def _require_finite(metrics: dict[str, np.ndarray], update: int, checkpoints: Checkpoints) -> None:
    for name, faulty in faults(metrics).items():
        if faulty.any():
            seeds = ", ".join(map(str, np.flatnonzero(faulty)))
            raise RunError(
                f"training stopped: {name} is {metrics[name][faulty][0]} (seed {seeds}) in the updates up to {update}. "
                f"{checkpoints.kept()}. A smaller learning rate often helps"
            )


def faults(metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of each metric, for which seeds it is not finite.

    A mean over episodes may be NaN when none was completed, or, in an evaluation, when one did not end.
    """
    completed = lambda name: "episodes" not in metrics or not name.startswith("episode_") or metrics["episodes"] > 0
    return {name: ~np.isfinite(values) & completed(name) for name, values in metrics.items() if name != "evaluation_return"}


def over_seeds(function: Callable[..., Any], mesh: jax.sharding.Mesh) -> Callable[..., Any]:
    """`function` of one seed's arguments, compiled over all seeds and divided among the mesh's devices."""
    over = jax.shard_map(jax.vmap(function), mesh=mesh, in_specs=SEEDS, out_specs=SEEDS, check_vma=False)
    return jax.jit(over, compiler_options=COMPILER_OPTIONS)


def evaluate_run(
    run: Run,
    num_episodes: int = EVALUATION_EPISODES,
    env: Any = None,
    env_options: dict[str, Any] | None = None,
    deterministic: bool = True,
    env_params: PyTree = None,
) -> np.ndarray:
    """Mean return of each seed's policy over whole episodes, shape (seed,); NaN where an episode did not end.

    Args:
      env: another environment than the run's, as `run` takes it; its observations and actions must be of the same spaces.
      env_options: keyword arguments of `jaxpg_envs.make` in place of the run's.
      env_params: the parameters of an environment object.

    Raises:
      InputError: they have not.
    """
    environment, params = run.env, run.env_params
    if env is not None or env_options:
        env, environment, params, _ = find_environment(run.description["env"] if env is None else env, env_options, env_params)
        require_interface(environment, params)
        for space in ("observation_space", "action_space"):
            trained, asked = getattr(run.env, space)(run.env_params), getattr(environment, space)(params)
            differs = difference(space, trained, env, asked)
            if differs:
                raise InputError(differs)
    num_seeds = run.description["num_seeds"]
    keys = evaluation_keys(run.description["seed"], num_seeds)
    num_devices = run.description["num_devices"]
    mesh = seed_mesh(num_seeds, num_devices if num_devices <= len(jax.devices()) else 1)
    states, keys = jax.device_put((run.states, keys), NamedSharding(mesh, SEEDS))
    return np.asarray(mean_returns(run.algorithm.policy, environment, mesh, num_episodes, deterministic, params, states, keys))


def evaluation_keys(seed: int, num_seeds: int) -> jax.Array:
    """A key per seed for the evaluation, none of them among the agents' keys, shape (seed,)."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), num_seeds), num_seeds)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4), compiler_options=COMPILER_OPTIONS)
def mean_returns(
    policy: Callable[..., Policy],
    env: Any,
    mesh: jax.sharding.Mesh,
    num_episodes: int,
    deterministic: bool,
    env_params: PyTree,
    states: PyTree,
    keys: jax.Array,
) -> jax.Array:
    """Mean return of each state's policy over whole episodes, shape (seed,); compiled once for all states of a run."""

    def of_seed(env_params: PyTree, state: PyTree, key: jax.Array) -> jax.Array:
        return evaluate(policy(state, deterministic), env, env_params, key, num_episodes).mean()

    of_seeds = jax.vmap(of_seed, in_axes=(None, 0, 0))
    in_specs = (PartitionSpec(), SEEDS, SEEDS)
    return jax.shard_map(of_seeds, mesh=mesh, in_specs=in_specs, out_specs=SEEDS, check_vma=False)(env_params, states, keys)


def load(
    folder: str | Path,
    warn: Callable[[str], None] = print,
    *,
    env: Any = None,
    env_params: PyTree = None,
    checkpoint: Literal["last", "best"] = "last",
) -> Run:
    """A run from its folder, with the states of its newest whole checkpoint.

    `load(folder).algorithm.policy(load(folder).state(seed))` is the trained policy of one seed.

    Args:
      env, env_params: the environment object that the run was trained on, if it cannot be made again from `config.json`.
      checkpoint: "best" for the policies of each seed's best evaluation so far (`run(..., eval_every=...)`): such states
        are to be acted with, not to be trained on; all in them that no policy reads is zero.

    Raises:
      InputError: there is no run in the folder, it has no such checkpoint, or its environment cannot be found.
      RunError: none of its checkpoints can be read.
    """
    folder = as_path("folder", folder)
    if checkpoint not in ("last", "best"):
        raise InputError(f"checkpoint must be last or best, got {checkpoint!r}")
    description = read_description(folder)
    environment = find_again(description) if env is None else find_environment(env, description["env_options"], env_params)
    agent = rebuild(description["algorithm"], environment.env, environment.params, description["config"])
    _warn_of_other_actions(description, agent, environment, warn)
    like = jax.eval_shape(jax.vmap(agent.init), jax.random.split(jax.random.key(0), description["num_seeds"]))
    if checkpoint == "best":
        states = restore_best(folder, agent, like, warn)
        if states is None:
            raise InputError(f"the run in {folder} has kept no best policy: train with --eval-every N")
    else:
        restored = Checkpoints(folder).restore(partial(_shapes_at_saving, description, agent, environment, like), warn)
        if restored is None:
            raise InputError(f"the run in {folder} has not saved a checkpoint yet: let it go on for a while")
        states = enlarge(restored[0], like)
    return Run(description, agent, environment.env, environment.params, states)


def _number(value: Any) -> float | None:
    return logs.finite_or_none(np.asarray([value]))[0]
