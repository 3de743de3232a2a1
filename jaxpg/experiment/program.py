"""The compiled programs of a run: all seeds side by side, divided among the devices."""

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jaxpg.algorithm import Algorithm, InputError, Metrics
from jaxpg.evaluation import evaluate
from jaxpg.experiment.devices import COMPILER_OPTIONS
from jaxpg.experiment.environment import Environment
from jaxpg.experiment.errors import RunError
from jaxpg.training import advance

SEEDS = PartitionSpec("seed")
COLLECTED = ("nonfinite_rewards", "nonfinite_observations")  # metrics of what an update has collected
SIZES = ("num_envs", "num_steps", "buffer_size", "batch_size", "num_offspring", "num_cells", "num_levels", "hidden_sizes")


def over_seeds(function: Callable[..., Any], mesh: Mesh) -> jax.stages.Wrapped:
    """`function` of one seed's arguments, compiled over all seeds and divided among the mesh's devices."""
    over = jax.shard_map(jax.vmap(function), mesh=mesh, in_specs=SEEDS, out_specs=SEEDS, check_vma=False)
    return jax.jit(over, compiler_options=COMPILER_OPTIONS)


def compile_init(agent: Algorithm, like: PyTree, mesh: Mesh) -> Callable[[jax.Array], PyTree]:
    """`keys (seed,) -> states`, compiled; `like` as for `compile_step`."""
    init = over_seeds(agent.init, mesh)
    if jax.config.jax_disable_jit:  # there is nothing to compile
        return init
    return init.lower(_keys_like(like, mesh)).compile()


def _keys_like(like: PyTree, mesh: Mesh) -> jax.ShapeDtypeStruct:
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), jax.tree.leaves(like)[0].shape[0]))
    return jax.ShapeDtypeStruct(keys.shape, keys.dtype, sharding=NamedSharding(mesh, SEEDS))


def compile_step(
    agent: Algorithm, like: PyTree, mesh: Mesh, judge: Callable[[PyTree, jax.Array], jax.Array] | None = None
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
        shapes += [_keys_like(like, mesh), jax.ShapeDtypeStruct((), bool)]
        axes, specs = [*axes, 0, None], [*specs, SEEDS, PartitionSpec()]
    step = jax.jit(
        jax.shard_map(jax.vmap(advance_one, in_axes=axes), mesh=mesh, in_specs=tuple(specs), out_specs=SEEDS, check_vma=False),
        donate_argnums=0,
        compiler_options=COMPILER_OPTIONS,
    )
    if jax.config.jax_disable_jit:  # there is nothing to compile
        return step
    return step.lower(*shapes).compile()


def judge_of(agent: Algorithm, environment: Environment, num_episodes: int) -> Callable[[PyTree, jax.Array], jax.Array]:
    """`(state, key) -> mean return` of the deterministic policy over whole episodes."""

    def judge(state: PyTree, key: jax.Array) -> jax.Array:
        return evaluate(agent.policy(state), environment.env, environment.params, key, num_episodes).mean()

    return judge


def faults(metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of each metric, for which seeds it is not finite, or, first, counts what was collected and is not.

    A mean over episodes may be NaN when none was completed, or, in an evaluation, when one did not end.
    """
    completed = lambda name: "episodes" not in metrics or not name.startswith("episode_") or metrics["episodes"] > 0
    collected = {name: metrics[name] != 0 for name in COLLECTED if name in metrics}
    others = metrics.keys() - collected.keys() - {"evaluation_return"}
    return collected | {name: ~np.isfinite(metrics[name]) & completed(name) for name in metrics if name in others}


def memory_of(program: jax.stages.Compiled) -> int:
    """Bytes that a compiled program holds on each device while it runs; 0 where XLA does not say."""
    sizes = program.memory_analysis()
    if sizes is None:
        return 0
    used = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    return used - sizes.alias_size_in_bytes


def bytes_of(tree: PyTree) -> int:
    """Size of a pytree of arrays, or of their shapes and dtypes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def require_memory(needed: int, mesh: Mesh, advice: str) -> None:
    """Raises `InputError`, with `advice`, if that many bytes are more than the mesh's devices have in all."""
    devices = mesh.devices.flat
    if devices[0].platform == "cpu":
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        there = sum((device.memory_stats() or {}).get("bytes_limit", sys.maxsize) for device in devices)
    if needed > there:
        raise InputError(f"this takes {needed / 2**30:,.1f} GiB of memory, and there are {there / 2**30:,.1f}: {advice}")


@contextlib.contextmanager
def told_when_out_of_memory(advice: Callable[[], str]) -> Iterator[None]:
    """Raises `RunError`, with `advice()`, where XLA finds no memory, or an array would have more rows than 32 bits number."""
    try:
        yield
    except OverflowError as error:
        raise RunError(f"out of memory: {advice()}") from error
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise RunError(f"out of memory: {advice()}") from error


def how_to_fit(agent: Algorithm, num_seeds: int) -> str:
    """What to reduce so that a run takes less memory."""
    sizes = [f"{name} = {value}" for name in SIZES if (value := getattr(agent.config, name, None)) is not None]
    seeds = [f"the seeds ({num_seeds})"] if num_seeds > 1 else []
    return f"reduce {', '.join(sizes + seeds)}" if sizes + seeds else "give a smaller environment"
