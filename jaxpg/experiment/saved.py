"""A saved run, read from its folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from jaxpg.algorithm import Algorithm, InputError, rebuild
from jaxpg.algorithms.quality_diversity.memory import Memory, grow_memory
from jaxpg.experiment.best import restore_best
from jaxpg.experiment.checkpoints import Checkpoints
from jaxpg.experiment.environment import Environment, find_again, find_environment
from jaxpg.experiment.folder import read_description
from jaxpg.experiment.paths import as_path
from jaxpg.on_policy import OnPolicyConfig
from jaxpg.replay import Buffer, grow_buffer
from jaxpg.spaces import box_bounds, is_box
from jaxpg_envs import EnvironmentInputError, UnknownEnvironmentError


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
    try:
        environment = find_again(description) if env is None else find_environment(env, description["env_options"], env_params)
        agent = rebuild(description["algorithm"], environment.env, environment.params, description["config"])
    except (InputError, UnknownEnvironmentError, EnvironmentInputError) as error:
        raise InputError(f"the run in {folder} cannot be made again: {error}") from error
    warn_of_other_actions(description, agent, environment, warn)
    like = jax.eval_shape(jax.vmap(agent.init), jax.random.split(jax.random.key(0), description["num_seeds"]))
    if checkpoint == "best":
        states = restore_best(folder, agent, like, warn)
        if states is None:
            raise InputError(f"the run in {folder} has kept no best policy: train with --eval-every N")
    else:
        restored = Checkpoints(folder).restore(partial(shapes_at_saving, description, agent, environment, like), warn)
        if restored is None:
            raise InputError(f"the run in {folder} has not saved a checkpoint yet: let it go on for a while")
        states = enlarge(restored[0], like)
    return Run(description, agent, environment.env, environment.params, states)


def shapes_at_saving(
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


def warn_of_other_actions(
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
