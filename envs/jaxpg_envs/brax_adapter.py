"""brax and MJX environments behind gymnax's interface.

The physics is brax's; its wrappers are not used: they return to one cached start state for ever and overwrite
the final observation.
"""

from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

import brax.fluid
import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxpg_envs.auto_reset import reset_where_done, vary_alike

# brax 0.14.2 calls `clip(x, a_min=...)`, a keyword that JAX 0.10 no longer has, in its fluids (swimmer).
brax.fluid.jp = SimpleNamespace(**{**vars(jnp), "clip": lambda x, a_min: jnp.maximum(x, a_min)})


@struct.dataclass
class BraxState(environment.EnvState):
    """`time`: steps since the start of the episode, int32. `brax`: brax's own `State`."""

    time: Any
    brax: Any


@struct.dataclass
class BraxParams(environment.EnvParams):
    """What may differ between the environments of one batch, or be traced.

    Attributes:
        max_steps_in_episode: time limit in environment steps.
    """

    max_steps_in_episode: Any = 1000


class BraxEnvironment(environment.Environment[BraxState, BraxParams]):
    """One brax environment, unbatched, with the interface of gymnax 1.0.

    Every episode starts from brax's own reset distribution with a fresh key, unlike brax's
    `AutoResetWrapper`, which returns to the same cached state. The start is computed only for environments
    whose episode ended (see `reset_where_done`), so it costs little, dear as resets of physics are.

    `terminated` is brax's `done`; `truncated` says that the time limit is reached. As in gymnax both may be
    true at one step: bootstrap by `terminated` alone. Actions are meant for [-1, 1] and are not clipped.

    Observations and states are constants to the gradient, as in gymnax, unless `with_transition_gradients()`
    lets it through the physics (it stops at the end of an episode; the "mjx" backend cannot).
    """

    def __init__(self, brax_environment: Any, name: str = "", max_steps_in_episode: int = 1000) -> None:
        """An environment that follows gymnax's interface.

        Args:
            brax_environment: an unwrapped `brax.envs.Env` whose observation is one array.
            name: what `name` returns; default: the class name of `brax_environment`.
            max_steps_in_episode: time limit in `default_params`.
        """
        self.brax = brax_environment
        self._supports_transition_gradients = brax_environment.backend != "mjx"  # its solver is a `while_loop`
        self._name = name or type(brax_environment).__name__
        self._max_steps_in_episode = max_steps_in_episode

    @property
    def default_params(self) -> BraxParams:
        return BraxParams(max_steps_in_episode=self._max_steps_in_episode)

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self,
        key: PRNGKeyArray,
        state: BraxState,
        action: Float[Array, " action"],
        params: BraxParams | None = None,
    ) -> tuple[Array, BraxState, Float[Array, ""], Bool[Array, ""], Bool[Array, ""], dict]:
        """One step, and a fresh start where the episode ended.

        Returns:
            observation, state, reward, terminated, truncated and info. Where the episode ended, observation
            and state are the start of the next one; `info["final_observation"]` is the true successor at
            every step. `info["metrics"]` holds what brax reports, such as the parts of the reward.
        """
        if params is None:
            params = self.default_params
        key_step, key_reset = jax.random.split(key)
        final_observation, successor, reward, terminated, info = self.step_env(key_step, state, action, params)
        truncated = self.is_truncated(successor, params)
        observation, state = reset_where_done(
            self.reset, terminated | truncated, key_reset, params, (final_observation, successor)
        )
        info |= {"terminated": terminated, "truncated": truncated, "final_observation": final_observation}
        return observation, state, reward, terminated, truncated, info

    def step_env(
        self, key: PRNGKeyArray, state: BraxState, action: Float[Array, " action"], params: BraxParams
    ) -> tuple[Array, BraxState, Float[Array, ""], Bool[Array, ""], dict]:
        """One step without automatic reset: observation, state, reward, terminated, info."""
        del key  # brax's dynamics are deterministic
        copy = jax.tree.map(lambda leaf: leaf, state.brax)  # brax writes into the dictionaries it is given
        stepped = self.brax.step(copy, action)
        # Some return Python floats, or dtypes other than at reset; a scan wants one type for ever.
        stepped = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), stepped, state.brax)
        successor = BraxState(time=state.time + 1, brax=stepped)
        observation, successor = self._apply_transition_gradient_policy(stepped.obs, successor)
        terminated = self.is_terminated(successor, params)
        info = {"discount": 1.0 - terminated, "metrics": stepped.metrics}
        return observation, successor, stepped.reward, terminated, info

    def reset_env(self, key: PRNGKeyArray, params: BraxParams) -> tuple[Array, BraxState]:
        """A start of an episode: observation, state."""
        fresh = jax.tree.map(_strongly_typed, self.brax.reset(key))
        state, _ = vary_alike((BraxState(time=jnp.int32(0), brax=fresh), key))
        return state.brax.obs, state

    def is_terminated(self, state: BraxState, params: BraxParams) -> Bool[Array, ""]:
        """Whether the task itself ended (brax's `done`)."""
        return state.brax.done > 0.5

    @property
    def name(self) -> str:
        return self._name

    @property
    def num_actions(self) -> int:
        """Number of components of an action."""
        return self.brax.action_size

    def action_space(self, params: BraxParams | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (self.brax.action_size,))

    def observation_space(self, params: BraxParams | None = None) -> spaces.Box:
        return spaces.Box(-jnp.inf, jnp.inf, self._observation_shape)

    @cached_property
    def _observation_shape(self) -> tuple[int, ...]:
        # brax's own `observation_size` computes a reset, operation by operation.
        return jax.eval_shape(self.reset, jax.random.key(0), self.default_params)[0].shape


def _strongly_typed(leaf: Any) -> Array:
    leaf = jnp.asarray(leaf)
    return leaf.astype(leaf.dtype)
