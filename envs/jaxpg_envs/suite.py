"""What the adapters of environment suites share: the time limit, the automatic reset, and the types."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from jaxpg_envs.auto_reset import step_and_reset, strongly_typed, vary_alike


@struct.dataclass
class SuiteState(environment.EnvState):
    """`time`: steps since the start of the episode, int32. `suite`: the suite's own state.

    `truncated`: whether the suite itself cut the episode off here.
    """

    time: Any
    suite: Any
    truncated: Any


@struct.dataclass
class SuiteParams(environment.EnvParams):
    """What may differ between the environments of one batch, or be traced.

    Attributes:
        max_steps_in_episode: time limit in environment steps.
        suite: the suite's own parameters, None where it has none.
    """

    max_steps_in_episode: Any = 10_000
    suite: Any = None


class SuiteStep(NamedTuple):
    """What a suite says of one step; `metrics` is a dictionary of whatever else it reports."""

    observation: PyTree
    state: PyTree
    reward: Any
    terminated: Any
    truncated: Any = False
    metrics: Mapping[str, Any] = {}


class SuiteEnvironment(environment.Environment[SuiteState, SuiteParams]):
    """An environment of another suite, unbatched, with the interface of gymnax 1.0.

    The rules are the suite's; its wrappers are not used. Every episode starts with a fresh key, and the start is
    computed only for environments whose episode ended (see `reset_where_done`). `terminated` says that the task
    ended, `truncated` that the time limit is reached; both may be true at one step: bootstrap by `terminated`
    alone. Observations and states are constants to the gradient.

    An adapter implements `reset_suite` and `step_suite`. Their keys are raw ones, since suites keep them in
    their states; observations may be tuples or dataclasses where the space is a `Dict`: they become dictionaries.
    """

    def __init__(self, name: str, action_space: spaces.Space, observation_space: spaces.Space, params: SuiteParams) -> None:
        """What does not change: the id that `name` returns, the spaces, and `default_params`."""
        self._name = name
        self._action_space = action_space
        self._observation_space = observation_space
        self._params = params

    def reset_suite(self, key: PRNGKeyArray, params: SuiteParams) -> tuple[PyTree, PyTree]:
        """A start of an episode: observation, and the suite's state."""
        raise NotImplementedError

    def step_suite(self, key: PRNGKeyArray, state: PyTree, action: Array, params: SuiteParams) -> SuiteStep:
        """One step from the suite's state."""
        raise NotImplementedError

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self, key: PRNGKeyArray, state: SuiteState, action: Array, params: SuiteParams | None = None
    ) -> tuple[PyTree, SuiteState, Float[Array, ""], Bool[Array, ""], Bool[Array, ""], dict]:
        """See `step_and_reset`; `info["metrics"]` holds what the suite reports besides."""
        return step_and_reset(self, key, state, action, params)

    def step_env(
        self, key: PRNGKeyArray, state: SuiteState, action: Array, params: SuiteParams
    ) -> tuple[PyTree, SuiteState, Float[Array, ""], Bool[Array, ""], dict]:
        """One step without automatic reset: observation, state, reward, terminated, info."""
        step = self.step_suite(jax.random.key_data(key), state.suite, action, params)
        # A scan wants one type for ever, and some suites change theirs after the reset.
        suite = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), step.state, state.suite)
        successor = SuiteState(state.time + 1, suite, jnp.asarray(step.truncated, bool))
        observation = _as_declared(self._observation_space, step.observation)
        observation, successor = jax.lax.stop_gradient((observation, successor))
        terminated = jnp.asarray(step.terminated, bool)
        info = {"discount": 1.0 - terminated, "metrics": dict(step.metrics)}
        return observation, successor, jnp.asarray(step.reward, jnp.float32), terminated, info

    def reset_env(self, key: PRNGKeyArray, params: SuiteParams) -> tuple[PyTree, SuiteState]:
        """A start of an episode: observation, state."""
        observation, suite = self.reset_suite(jax.random.key_data(key), params)
        state = SuiteState(jnp.int32(0), strongly_typed(suite), jnp.bool_(False))
        observation, state, _ = vary_alike((_as_declared(self._observation_space, observation), state, key))
        return observation, state

    def is_truncated(self, state: SuiteState, params: SuiteParams) -> Bool[Array, ""]:
        """Whether the time limit is reached, or the suite cut the episode off."""
        return (state.time >= params.max_steps_in_episode) | state.truncated

    @property
    def default_params(self) -> SuiteParams:
        return self._params

    @property
    def name(self) -> str:
        return self._name

    @property
    def num_actions(self) -> int:
        """Number of actions, or of components of an action."""
        space = self._action_space
        return space.n if isinstance(space, spaces.Discrete) else space.shape[0]

    def action_space(self, params: SuiteParams | None = None) -> spaces.Space:
        return self._action_space

    def observation_space(self, params: SuiteParams | None = None) -> spaces.Space:
        return self._observation_space


def unbounded(observation: PyTree) -> spaces.Space:
    """The space of all arrays of a shape and dtype, [0, 1] if boolean; for a suite that declares none."""
    low, high = (False, True) if observation.dtype == jnp.bool_ else (-jnp.inf, jnp.inf)
    return spaces.Box(low, high, observation.shape, observation.dtype)


def _as_declared(space: spaces.Space, value: Any) -> PyTree:
    if isinstance(space, spaces.Dict):
        field = value.__getitem__ if isinstance(value, Mapping) else partial(getattr, value)
        return {name: _as_declared(child, field(name)) for name, child in space.spaces.items()}
    return jnp.asarray(value, space.dtype)
