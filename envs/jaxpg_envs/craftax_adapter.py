"""Craftax and Craftax-Classic, symbolic, behind gymnax's interface."""

from typing import Any

import jax.numpy as jnp
from craftax.craftax_env import make_craftax_env_from_name
from gymnax.environments import spaces
from jaxtyping import Array, PRNGKeyArray, PyTree

from jaxpg_envs.suite import SuiteEnvironment, SuiteParams, SuiteStep


class CraftaxEnvironment(SuiteEnvironment):
    """Craftax or Craftax-Classic (see `SuiteEnvironment`).

    `terminated` is death, and in Craftax victory; Craftax itself also calls its time limit so, which here is
    `params.max_steps_in_episode` and truncates. Craftax's other parameters are `params.suite`. `info["metrics"]`
    has the achievements, in percent, where an episode ended, and zeros elsewhere.
    """

    def __init__(self, craftax: Any, name: str, max_steps_in_episode: int | None = None) -> None:
        """An environment that follows gymnax's interface.

        Args:
            craftax: a Craftax environment without automatic reset.
            name: what `name` returns.
            max_steps_in_episode: time limit in `default_params`; default: Craftax's.
        """
        self.craftax = craftax
        theirs = craftax.default_params
        params = SuiteParams(max_steps_in_episode or theirs.max_timesteps, theirs.replace(max_timesteps=None))
        box = craftax.observation_space(theirs)
        super().__init__(name, spaces.Discrete(craftax.num_actions), spaces.Box(box.low, box.high, box.shape), params)

    def reset_suite(self, key: PRNGKeyArray, params: SuiteParams) -> tuple[PyTree, PyTree]:
        return self.craftax.reset_env(key, params.suite)

    def step_suite(self, key: PRNGKeyArray, state: PyTree, action: Array, params: SuiteParams) -> SuiteStep:
        limited = params.suite.replace(max_timesteps=params.max_steps_in_episode)
        observation, state, reward, _, metrics = self.craftax.step_env(key, state, action, limited)
        unlimited = params.suite.replace(max_timesteps=jnp.iinfo(jnp.int32).max)
        return SuiteStep(observation, state, reward, self.craftax.is_terminal(state, unlimited), metrics=metrics)


def make(name: str, /, max_steps_in_episode: int | None = None) -> CraftaxEnvironment:
    """Craftax's environment `name`."""
    return CraftaxEnvironment(make_craftax_env_from_name(name, auto_reset=False), f"craftax/{name}", max_steps_in_episode)
