"""MuJoCo Playground's environments behind gymnax's interface."""

from typing import Any

import jax
from gymnax.environments import spaces
from jaxtyping import Array, PRNGKeyArray, PyTree
from mujoco_playground import MjxEnv, dm_control_suite

from jaxpg_envs.spaces import Dict
from jaxpg_envs.suite import SuiteEnvironment, SuiteParams, SuiteStep, unbounded


class PlaygroundEnvironment(SuiteEnvironment):
    """One environment of MuJoCo Playground (see `SuiteEnvironment`).

    `terminated` is Playground's `done`. Actions are meant for [-1, 1] and are not clipped.
    """

    def __init__(self, playground: MjxEnv, name: str, max_steps_in_episode: int = 1000) -> None:
        """An environment that follows gymnax's interface.

        Args:
            playground: an unwrapped `mujoco_playground.MjxEnv`.
            name: what `name` returns.
            max_steps_in_episode: time limit in `default_params`.
        """
        self.playground = playground
        observation = jax.eval_shape(playground.reset, jax.random.key(0)).obs
        parts = jax.tree.map(unbounded, observation)
        observation_space = Dict(parts) if isinstance(parts, dict) else parts
        action_space = spaces.Box(-1.0, 1.0, (playground.action_size,))
        super().__init__(name, action_space, observation_space, SuiteParams(max_steps_in_episode))

    def reset_suite(self, key: PRNGKeyArray, params: SuiteParams) -> tuple[PyTree, PyTree]:
        state = self.playground.reset(key)
        return state.obs, state

    def step_suite(self, key: PRNGKeyArray, state: PyTree, action: Array, params: SuiteParams) -> SuiteStep:
        copy = jax.tree.map(lambda leaf: leaf, state)  # Playground writes into the dictionaries it is given
        if "rng" in copy.info:
            copy.info["rng"] = key  # chance is the step's key, as everywhere
        state = self.playground.step(copy, action)
        return SuiteStep(state.obs, state, state.reward, state.done > 0.5, metrics=state.metrics)


def make(name: str, /, impl: str = "jax", max_steps_in_episode: int | None = None, **kwargs: Any) -> PlaygroundEnvironment:
    """Playground's `name`; `kwargs` override entries of its configuration, such as `ctrl_dt` (seconds).

    `impl` is MJX's implementation: "jax" runs everywhere, "warp" needs an NVIDIA GPU.

    Raises:
        ValueError: `action_repeat` is not 1: Playground leaves it to wrappers that are not used here.
    """
    if kwargs.get("action_repeat", 1) != 1:
        raise ValueError("action_repeat is not supported; hold actions for longer by ctrl_dt (seconds), a multiple of sim_dt")
    config = dm_control_suite.get_default_config(name)
    playground = dm_control_suite.load(name, config, {"impl": impl, **kwargs})
    return PlaygroundEnvironment(playground, f"playground/{name}", max_steps_in_episode or config.episode_length)
