"""Evaluation of a run's policies over whole episodes: `jaxpg evaluate`, and the same from Python."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jaxpg.algorithm import InputError, Policy
from jaxpg.evaluation import evaluate
from jaxpg.experiment.devices import COMPILER_OPTIONS, seed_mesh
from jaxpg.experiment.environment import find_environment
from jaxpg.experiment.program import SEEDS, bytes_of, require_memory, told_when_out_of_memory
from jaxpg.experiment.saved import Run
from jaxpg.interface import require_interface
from jaxpg.spaces import difference

EVALUATION_EPISODES = 128


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
      InputError: they have not, or that many episodes at a time need more memory than there is.
      RunError: they turned out to.
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
    advice = f"evaluate fewer episodes than {num_episodes:,}"
    require_memory(num_seeds * num_episodes * bytes_of(jax.eval_shape(environment.reset, keys[0], params)), mesh, advice)
    states, keys = jax.device_put((run.states, keys), NamedSharding(mesh, SEEDS))
    with told_when_out_of_memory(lambda: advice):
        returns = mean_returns(run.algorithm.policy, environment, mesh, num_episodes, deterministic, params, states, keys)
        return np.asarray(returns)


def evaluation_keys(seed: int, num_seeds: int) -> jax.Array:
    """A key per seed for the evaluation, none of them among the agents' keys, shape (seed,)."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), num_seeds), num_seeds)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4), compiler_options=COMPILER_OPTIONS)
def mean_returns(
    policy: Callable[..., Policy],
    env: Any,
    mesh: Mesh,
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
