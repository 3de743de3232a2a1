"""One run from a configuration to a folder of results: `jaxpg train`, and the same from Python.

The host appears only between compiled chunks of updates: while the device computes the next chunk, the last one's metrics are
written, and now and then its state is saved.
"""

import importlib.metadata
import json
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree
from rich.console import Console

import jaxpg_envs
from jaxpg.algorithm import Algorithm, InputError, Metrics, Policy, fields, lookup, make, plain_value, shortest
from jaxpg.evaluation import evaluate
from jaxpg.experiment import logs, plots
from jaxpg.experiment.checkpoints import Checkpoints, digest, to_host, write_atomically
from jaxpg.experiment.devices import COMPILER_OPTIONS, seed_mesh
from jaxpg.experiment.errors import RunError
from jaxpg.experiment.pictures import draw_behaviour, draw_repertoire
from jaxpg.experiment.progress import RunProgress, say
from jaxpg.experiment.statistics import bootstrap_interval, interquartile_mean
from jaxpg.training import advance

CHUNKS = 100  # pieces of a run, after each of which metrics are written
SAVE_SHARE = 0.01  # of the time may go into saving; the first chunk and the last are always saved
EVALUATION_EPISODES = 128
PACKAGES = ("jaxpg", "jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "brax", "mujoco-mjx", "numpy")
SEEDS = PartitionSpec("seed")
RUN_FILES = ("summary.json", "checkpoints", "metrics.jsonl")


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
    env: str,
    out: str | Path,
    *,
    seed: int = 0,
    num_seeds: int = 1,
    num_devices: int = 1,
    resume: bool = False,
    env_options: dict[str, Any] | None = None,
    wandb: str | None = None,
    console: Console | None = None,
    **hyperparameters: Any,
) -> dict[str, Any]:
    """Trains `num_seeds` agents in one compiled program and leaves curves, checkpoints, pictures and a summary in `out`.

    Args:
      algorithm, env: names that `jaxpg list` shows.
      out: a folder that holds no run yet; with `resume`, the folder of an interrupted one, which continues and ends with
        the same state, to the bit, as if it had never been interrupted.
      seed: of the whole run, within [0, 2^32); the agents' keys are split from it.
      num_devices: devices among which the seeds are divided.
      env_options: keyword arguments of `jaxpg_envs.make`, such as `{"backend": "spring"}`.
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
    folder = Path(out)
    env_options = env_options or {}
    require_seed(seed)
    mesh = seed_mesh(num_seeds, num_devices)
    if wandb is not None:
        logs.require_wandb()
    environment, env_params = jaxpg_envs.make(env, **env_options)
    agent = make(algorithm, environment, env_params, **hyperparameters)
    description = describe(algorithm, env, env_options, seed, num_seeds, num_devices, agent.config)
    summary = prepare_folder(folder, description, resume, console)
    if summary is not None:
        say(console, f"the run in {folder} is complete: nothing left to do")
        return summary
    # Only now the costly part: whatever the user could have mistaken has been checked.
    try:
        return _run(description, agent, environment, env_params, mesh, folder, wandb, console)
    except OSError as error:
        raise RunError(
            f"the run's files could not be written: {error}. {Checkpoints(folder).kept()}. "
            "Free some space, then continue with --resume"
        ) from error


def require_seed(seed: int) -> None:
    """Raises `InputError` if a random key cannot be made of the seed without loss."""
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must lie in [0, 2^32), got {seed}")


def _run(
    description: dict[str, Any],
    agent: Algorithm,
    environment: Any,
    env_params: PyTree,
    mesh: jax.sharding.Mesh,
    folder: Path,
    wandb: str | None,
    console: Console,
) -> dict[str, Any]:
    """Trains in a prepared folder, from its newest checkpoint if it has one, and leaves the results there."""
    algorithm, env, seed, num_seeds = (description[name] for name in ("algorithm", "env", "seed", "num_seeds"))
    keys = jax.device_put(jax.random.split(jax.random.key(seed), num_seeds), NamedSharding(mesh, SEEDS))
    init = over_seeds(agent.init, mesh)
    like = jax.eval_shape(init, keys)
    checkpoints = Checkpoints(folder)
    restored = checkpoints.restore(like, lambda text: say(console, f"warning: {text}"))

    started = time.perf_counter()
    with console.status("compiling …"):
        if not console.is_terminal:
            say(console, f"compiling {algorithm} on {env} …")
        with ThreadPoolExecutor(1) as other:  # another core compiles the start meanwhile
            start = other.submit(lambda: init(keys) if restored is None else None)
            step = compile_step(agent, like, mesh)
        if restored is None:
            states, done, train_seconds = start.result(), 0, 0.0
        else:
            saved, record = restored
            states, done, train_seconds = (
                jax.device_put(saved, NamedSharding(mesh, SEEDS)),
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
        states, train_seconds = _train(step, states, done, train_seconds, agent, num_seeds, checkpoints, sinks, progress)

    final = Run(description, agent, environment, env_params, states)
    untrained = final._replace(states=init(keys))
    with console.status("evaluating …"):
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
        "compile_seconds": compile_seconds,
        "train_seconds": train_seconds,
        "env_steps_per_second": num_seeds * agent.num_updates * agent.env_steps_per_update / train_seconds,
        "state_digest": digest(to_host(states)),
    }
    with console.status("drawing …"):
        before, after = agent.policy(untrained.state()), agent.policy(final.state())
        try:
            plots.plot_learning_curves([folder], folder / "curve.png")
            draw_behaviour(before, after, environment, env_params, jax.random.key(seed), folder)
            draw_repertoire(final.state(), environment, env_params, folder)
        except InputError as error:  # not the user's mistake here: the place to write to is ours
            raise RunError(
                f"training is complete and saved, but {error}. Free some space, then continue with --resume"
            ) from error
    write_atomically(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def compile_step(agent: Algorithm, like: PyTree, mesh: jax.sharding.Mesh) -> Callable[..., tuple[PyTree, Metrics]]:
    """The one program of a run: `(states, n) -> (states, metrics)` advances all seeds by n updates, whatever n.

    Args:
      like: shapes and dtypes of the states, stacked along a leading axis (seed,). The states given to it are donated.
    """
    step = jax.jit(
        jax.shard_map(
            jax.vmap(lambda state, n: advance(agent.update, state, n), in_axes=(0, None)),
            mesh=mesh,
            in_specs=(SEEDS, PartitionSpec()),
            out_specs=SEEDS,
            check_vma=False,
        ),
        donate_argnums=0,
        compiler_options=COMPILER_OPTIONS,
    )
    if jax.config.jax_disable_jit:  # there is nothing to compile
        return step
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, SEEDS)), like)
    return step.lower(shapes, jax.ShapeDtypeStruct((), jnp.int32)).compile()


def _train(
    step: Callable[..., tuple[PyTree, Metrics]],
    states: PyTree,
    done: int,
    seconds: float,
    agent: Algorithm,
    num_seeds: int,
    checkpoints: Checkpoints,
    sinks: list[logs.Log],
    progress: RunProgress,
) -> tuple[PyTree, float]:
    """Runs the remaining chunks; returns the final states and the seconds that training has taken in all."""
    chunk = max(1, agent.num_updates // CHUNKS)
    first, before = done, seconds
    started = time.perf_counter()
    last_save, save_cost = -float("inf"), 0.0

    def launch(states: PyTree, done: int) -> tuple[PyTree, Metrics, int]:
        updates = min(chunk, agent.num_updates - done)
        return *step(states, jnp.int32(updates)), done + updates

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
        row.update({name: logs.finite_or_none(values) for name, values in rows.items()})
        if not finished:  # the device goes on while the host writes
            states, metrics, done = launch(states, done)
        for sink in sinks:
            sink(row)
        if save:
            checkpoints.save(row["update"], leaves, {"seconds": seconds})
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
    """Of each metric, for which seeds it is not finite; a mean over episodes may be NaN when none was completed."""
    return {
        name: ~np.isfinite(values) & (metrics["episodes"] > 0 if name.startswith("episode_") else True)
        for name, values in metrics.items()
    }


def over_seeds(function: Callable[..., Any], mesh: jax.sharding.Mesh) -> Callable[..., Any]:
    """`function` of one seed's arguments, compiled over all seeds and divided among the mesh's devices."""
    over = jax.shard_map(jax.vmap(function), mesh=mesh, in_specs=SEEDS, out_specs=SEEDS, check_vma=False)
    return jax.jit(over, compiler_options=COMPILER_OPTIONS)


def evaluate_run(
    run: Run,
    num_episodes: int = EVALUATION_EPISODES,
    env: str | None = None,
    env_options: dict[str, Any] | None = None,
    deterministic: bool = True,
) -> np.ndarray:
    """Mean return of each seed's policy over whole episodes, shape (seed,); NaN where an episode did not end.

    Args:
      env: the name of another environment than the run's; its observations and actions must have the same shapes.
      env_options: keyword arguments of `jaxpg_envs.make` in place of the run's.

    Raises:
      InputError: they have not.
    """
    environment, env_params = run.env, run.env_params
    if env is not None or env_options:
        env = env or run.description["env"]
        environment, env_params = jaxpg_envs.make(env, **(env_options or {}))
        for space in ("observation_space", "action_space"):
            trained, asked = getattr(run.env, space)(run.env_params), getattr(environment, space)(env_params)
            if (type(trained), trained.shape, getattr(trained, "n", 0)) != (type(asked), asked.shape, getattr(asked, "n", 0)):
                raise InputError(f"the policy was trained with the {space} {trained}, but {env} has {asked}")
    num_seeds = run.description["num_seeds"]
    keys = evaluation_keys(run.description["seed"], num_seeds)
    num_devices = run.description["num_devices"]
    mesh = seed_mesh(num_seeds, num_devices if num_devices <= len(jax.devices()) else 1)
    states, keys = jax.device_put((run.states, keys), NamedSharding(mesh, SEEDS))
    return np.asarray(
        mean_returns(run.algorithm.policy, environment, mesh, num_episodes, deterministic, env_params, states, keys)
    )


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


def load(folder: str | Path, warn: Callable[[str], None] = print) -> Run:
    """A run from its folder, with the states of its newest whole checkpoint.

    `load(folder).algorithm.policy(load(folder).state(seed))` is the trained policy of one seed.

    Raises:
      InputError: there is no run in the folder.
      RunError: none of its checkpoints can be read.
    """
    folder = Path(folder)
    description = read_description(folder)
    env, env_params = jaxpg_envs.make(description["env"], **description["env_options"])
    agent = make(description["algorithm"], env, env_params, **description["config"])
    like = jax.eval_shape(jax.vmap(agent.init), jax.random.split(jax.random.key(0), description["num_seeds"]))
    restored = Checkpoints(folder).restore(like, warn)
    if restored is None:
        raise InputError(f"the run in {folder} has not saved a checkpoint yet: let it go on for a while")
    return Run(description, agent, env, env_params, restored[0])


def describe(
    algorithm: str,
    env: str,
    env_options: dict[str, Any],
    seed: int,
    num_seeds: int,
    num_devices: int,
    config: Any,
) -> dict[str, Any]:
    """All that reproduces a run, for `config.json`."""
    values = {}
    for field in fields(lookup(algorithm).config_class):
        values[field.name] = plain_value(field, getattr(config, field.name))
    return {
        "algorithm": algorithm,
        "env": env,
        "env_options": env_options,
        "seed": seed,
        "num_seeds": num_seeds,
        "num_devices": num_devices,
        "config": values,
        "versions": {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def kind_of(description: dict[str, Any]) -> str:
    """Whether a `config.json` is that of a run or of a sweep."""
    return "sweep" if "grid" in description else "run"


def read_description(folder: Path, kind: str = "run") -> dict[str, Any]:
    """The `config.json` of a run, or of a sweep.

    Raises:
      InputError: there is none, it is not one of ours, or it is of the other kind.
    """
    path = folder / "config.json"
    kinds = {"algorithm": str, "env": str, "seed": int, "num_seeds": int, "num_devices": int}
    kinds |= dict.fromkeys(("env_options", "config", "versions"), dict)
    try:
        description = json.loads(path.read_text())
        if not isinstance(description, dict):
            raise ValueError("it is not a JSON object")
        faulty = [name for name, kind in sorted(kinds.items()) if not isinstance(description.get(name), kind)]
        if faulty:
            raise ValueError(f"it has no valid {', '.join(faulty)}")
        values = description["config"].items()  # older files have all digits of a float32
        description["config"] = {name: shortest(value) if isinstance(value, float) else value for name, value in values}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{folder} holds no {kind}: there is no config.json") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} was not written by jaxpg: {error}") from error
    if kind_of(description) != kind:
        raise InputError(f"{folder} holds a {kind_of(description)}, not a {kind}: choose another folder")
    return description


def prepare_folder(
    folder: Path, description: dict[str, Any], resume: bool, console: Console, files: tuple[str, ...] = RUN_FILES
) -> dict[str, Any] | None:
    """Makes the folder of a run (or of a sweep) and its `config.json`, or checks that they are this run's.

    Args:
      files: what else such a folder holds, the results first.

    Returns:
      The results, if there are any: the summary of a run that is complete.

    Raises:
      InputError: the folder cannot be made, holds another run, or holds a run and `resume` is not set.
    """
    config, results, kind = folder / "config.json", folder / files[0], kind_of(description)
    try:
        if config.exists():
            saved = read_description(folder, kind)
            if not resume:
                raise InputError(f"{folder} holds a {kind} already: continue it with --resume, or choose another --out")
            _require_same(saved, description, folder, console)
            return _read_results(results) if results.exists() else None
        if any((folder / name).exists() for name in files):
            raise InputError(f"{folder} holds the remains of a {kind} without its config.json: choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(config, json.dumps(description, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"cannot write to the output folder {folder}: {error}") from error
    return None


def _read_results(path: Path) -> dict[str, Any]:
    try:
        results = json.loads(path.read_text())
        if not isinstance(results, dict):
            raise ValueError("it is not a JSON object")
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): delete it, then continue with --resume") from error
    return results


def _require_same(saved: dict[str, Any], description: dict[str, Any], folder: Path, console: Console) -> None:
    """Raises `InputError` if a folder's run is another one; warns if it was begun with other versions."""
    settings = [name for name in description if name not in ("config", "versions")]
    for old, new, names in ((saved, description, settings), (saved["config"], description["config"], description["config"])):
        for name in names:
            if old.get(name) != new[name]:
                raise InputError(
                    f"{folder} holds another {kind_of(saved)}: its {name} is {old.get(name)!r}, not {new[name]!r}; "
                    "give the same, or choose another --out"
                )
    changed = [name for name, version in description["versions"].items() if saved["versions"].get(name) != version]
    if changed:
        say(console, f"warning: other versions than before of {', '.join(changed)}: results may differ in the last bits")


def _number(value: Any) -> float | None:
    return logs.finite_or_none(np.asarray([value]))[0]
