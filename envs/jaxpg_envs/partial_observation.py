"""An environment of which the agent sees only a part: memory has to supply the rest."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import environment, spaces
from jaxtyping import Array, PRNGKeyArray, PyTree

from jaxpg_envs.registry import EnvironmentInputError, make


def stateless_cartpole() -> tuple["PartialObservation", Any]:
    """CartPole whose observation is the cart's position (m) and the pole's angle (rad), without the velocities."""
    env, params = make("CartPole-v1")
    return PartialObservation(env, (0, 2), "StatelessCartPole-v1"), params


class PartialObservation(environment.Environment):
    """`env` with only some components of its observations, in `info["final_observation"]` too.

    The states, rewards, ends and parameters are those of `env`.
    """

    def __init__(self, env: Any, components: Sequence[int], name: str = "") -> None:
        """A view of an environment.

        Args:
            env: an environment with gymnax's interface whose observation is one array.
            components: indices along the observation's last axis, in the order in which they are shown.
            name: what `name` returns; default: that of `env`, or of its class.

        Raises:
            EnvironmentInputError: there is no component to show, or one that the observation does not have.
        """
        name = name or getattr(env, "name", type(env).__name__)
        size = env.observation_space(env.default_params).shape[-1]
        unknown = [component for component in components if not 0 <= component < size]
        if unknown or not components:
            raise EnvironmentInputError(f"{name}: components={tuple(components)}; choose one or more of 0 to {size - 1}")
        self.env = env
        self.components = tuple(components)
        self._name = name

    def _seen(self, observation: Array) -> Array:
        return observation[..., jnp.array(self.components)]

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self, key: PRNGKeyArray, state: PyTree, action: Any, params: PyTree | None = None
    ) -> tuple[Array, PyTree, Array, Array, Array, dict]:
        """As `env.step`: observation, state, reward, terminated, truncated, info."""
        observation, state, reward, terminated, truncated, info = self.env.step(key, state, action, params)
        info = {**info, "final_observation": self._seen(info["final_observation"])}
        return self._seen(observation), state, reward, terminated, truncated, info

    def step_env(
        self, key: PRNGKeyArray, state: PyTree, action: Any, params: PyTree
    ) -> tuple[Array, PyTree, Array, Array, dict]:
        observation, *rest = self.env.step_env(key, state, action, params)
        return self._seen(observation), *rest

    def reset_env(self, key: PRNGKeyArray, params: PyTree) -> tuple[Array, PyTree]:
        observation, state = self.env.reset_env(key, params)
        return self._seen(observation), state

    def is_truncated(self, state: PyTree, params: PyTree) -> Array:
        return self.env.is_truncated(state, params)

    def is_terminated(self, state: PyTree, params: PyTree) -> Array:
        return self.env.is_terminated(state, params)

    @property
    def default_params(self) -> PyTree:
        return self.env.default_params

    @property
    def name(self) -> str:
        return self._name

    @property
    def num_actions(self) -> int:
        return self.env.num_actions

    def action_space(self, params: PyTree | None = None) -> Any:
        return self.env.action_space(params)

    def observation_space(self, params: PyTree) -> spaces.Box:
        whole = self.env.observation_space(params)
        low, high = (self._seen(jnp.broadcast_to(bound, whole.shape)) for bound in (whole.low, whole.high))
        return spaces.Box(low, high, low.shape, whole.dtype)

    def state_space(self, params: PyTree) -> Any:
        return self.env.state_space(params)

    @property
    def supports_transition_gradients(self) -> bool:
        return self.env.supports_transition_gradients

    @property
    def transition_gradients_enabled(self) -> bool:
        return self.env.transition_gradients_enabled

    def with_transition_gradients(self) -> "PartialObservation":
        return PartialObservation(self.env.with_transition_gradients(), self.components, self._name)
