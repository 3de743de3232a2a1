"""jumanji's environments behind gymnax's interface."""

from typing import Any

import jax.numpy as jnp
import jumanji
import numpy as np
from gymnax.environments import spaces
from jaxtyping import Array, PRNGKeyArray, PyTree
from jumanji import specs

from jaxpg_envs.spaces import Dict, MultiDiscrete
from jaxpg_envs.suite import SuiteEnvironment, SuiteParams, SuiteStep


class JumanjiEnvironment(SuiteEnvironment):
    """One jumanji environment with a single reward (see `SuiteEnvironment`).

    Observations are dictionaries with jumanji's field names, action masks among them; actions of several integers
    are `MultiDiscrete`. A last step with discount 0 is terminated, any other is truncated: jumanji gives discount
    0 at its own `time_limit` too. The agent sees that coming in `step_count`, except in PacMan, which shows no clock.
    `max_steps_in_episode` is another limit, and truncates.
    """

    def __init__(self, jumanji_environment: Any, name: str, max_steps_in_episode: int = 10_000) -> None:
        """An environment that follows gymnax's interface.

        Args:
            jumanji_environment: an unwrapped `jumanji.env.Environment`.
            name: what `name` returns.
            max_steps_in_episode: time limit in `default_params`.

        Raises:
            ValueError: every agent has a reward of its own.
        """
        self.jumanji = jumanji_environment
        if self.jumanji.reward_spec.shape != ():
            raise ValueError(f"it has {self.jumanji.reward_spec.shape[0]} rewards, one for each agent; only one is supported")
        params = SuiteParams(max_steps_in_episode)
        super().__init__(name, _action_space(self.jumanji.action_spec), _space(self.jumanji.observation_spec), params)

    def reset_suite(self, key: PRNGKeyArray, params: SuiteParams) -> tuple[PyTree, PyTree]:
        state, timestep = self.jumanji.reset(key)
        return timestep.observation, state

    def step_suite(self, key: PRNGKeyArray, state: PyTree, action: Array, params: SuiteParams) -> SuiteStep:
        # jumanji draws from a key in the state; here chance is the step's key, as everywhere.
        state, timestep = self.jumanji.step(state.replace(key=key), action.astype(self.jumanji.action_spec.dtype))
        terminated = timestep.last() & (timestep.discount == 0)
        truncated = timestep.last() & ~terminated
        return SuiteStep(timestep.observation, state, timestep.reward, terminated, truncated, timestep.extras)


def make(name: str, /, max_steps_in_episode: int = 10_000, **kwargs: Any) -> JumanjiEnvironment:
    """jumanji's `name`; `kwargs` go to its constructor."""
    return JumanjiEnvironment(jumanji.make(name, **kwargs), f"jumanji/{name}", max_steps_in_episode)


def _action_space(spec: specs.BoundedArray) -> spaces.Space:
    if isinstance(spec, specs.DiscreteArray) or not jnp.issubdtype(spec.dtype, jnp.integer):
        return _space(spec)
    return MultiDiscrete(np.broadcast_to(spec.maximum + 1, spec.shape))


def _space(spec: specs.Spec) -> spaces.Space:
    if isinstance(spec, specs.DiscreteArray):
        return spaces.Discrete(spec.num_values)
    if isinstance(spec, specs.BoundedArray):
        return spaces.Box(spec.minimum, spec.maximum, spec.shape, spec.dtype)
    if isinstance(spec, specs.Array):
        return spaces.Box(-jnp.inf, jnp.inf, spec.shape, spec.dtype)
    return Dict({name: _space(child) for name, child in spec._specs.items()})
