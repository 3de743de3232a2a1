"""brax and MJX environments behind gymnax's interface.

The physics is brax's; its wrappers are not used: they return to one cached start state for ever and overwrite
the final observation.
"""

import copy
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

import brax.fluid
import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxpg_envs import brax_physics
from jaxpg_envs.auto_reset import step_and_reset, strongly_typed, vary_alike
from jaxpg_envs.registry import EnvironmentInputError

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

    The physics is brax's own where a field is None, and then costs nothing. The backends "generalized" and "mjx"
    honour the others; the rest refuse all fields but the first. A scale is one number for all parts of the
    robot or one for each, in the order of `BraxEnvironment.physics_names`. `jaxpg_envs.replace_params` and
    `sample_params` refuse values without sense; `replace` takes all.

    Attributes:
        max_steps_in_episode: time limit in environment steps.
        mass_scale: factor of the bodies' masses and moments of inertia; positive.
        friction_scale: factor of the geoms' friction coefficients (sliding, torsional, rolling); not negative. A
            contact has the larger friction of its two geoms, so that the floor's counts too.
        damping_scale: factor of the joints' damping; not negative.
        gear_scale: factor of the actuators' gears, hence of the forces and torques of a motor.
        gravity: downward acceleration in m/s^2, in place of the model's (9.81 in most).
    """

    max_steps_in_episode: Any = 1000
    mass_scale: Any = None
    friction_scale: Any = None
    damping_scale: Any = None
    gear_scale: Any = None
    gravity: Any = None

    def physics(self) -> dict[str, Any]:
        """The fields that ask for another physics."""
        fields = ("mass_scale", "friction_scale", "damping_scale", "gear_scale", "gravity")
        return {name: value for name in fields if (value := getattr(self, name)) is not None}


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
        """See `step_and_reset`; `info["metrics"]` holds what brax reports, such as the parts of the reward."""
        return step_and_reset(self, key, state, action, params)

    def step_env(
        self, key: PRNGKeyArray, state: BraxState, action: Float[Array, " action"], params: BraxParams
    ) -> tuple[Array, BraxState, Float[Array, ""], Bool[Array, ""], dict]:
        """One step without automatic reset: observation, state, reward, terminated, info."""
        del key  # brax's dynamics are deterministic
        given = jax.tree.map(lambda leaf: leaf, state.brax)  # brax writes into the dictionaries it is given
        stepped = self._with_physics(params).step(given, action)
        # Some return Python floats, or dtypes other than at reset; a scan wants one type for ever.
        stepped = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), stepped, state.brax)
        successor = BraxState(time=state.time + 1, brax=stepped)
        observation, successor = self._apply_transition_gradient_policy(stepped.obs, successor)
        terminated = self.is_terminated(successor, params)
        info = {"discount": 1.0 - terminated, "metrics": stepped.metrics}
        return observation, successor, stepped.reward, terminated, info

    def reset_env(self, key: PRNGKeyArray, params: BraxParams) -> tuple[Array, BraxState]:
        """A start of an episode: observation, state."""
        fresh = strongly_typed(self._with_physics(params).reset(key))
        state, _ = vary_alike((BraxState(time=jnp.int32(0), brax=fresh), key))
        return state.brax.obs, state

    def is_terminated(self, state: BraxState, params: BraxParams) -> Bool[Array, ""]:
        """Whether the task itself ended (brax's `done`)."""
        return state.brax.done > 0.5

    def _with_physics(self, params: BraxParams) -> Any:
        """brax's environment; where `params` ask for another physics, a copy with that system."""
        physics = params.physics()
        if not physics:
            return self.brax
        if self.brax.backend not in brax_physics.BACKENDS:
            raise EnvironmentInputError(
                f'{self.name}: the backend "{self.brax.backend}" does not honour {", ".join(physics)}; '
                f"choose one of {', '.join(brax_physics.BACKENDS)}"
            )
        changed = copy.copy(self.brax)
        changed.sys = brax_physics.with_physics(self.brax.sys, **physics)
        return changed

    @property
    def physics_names(self) -> dict[str, list[str]]:
        """Which part of the robot each entry of an array of scales in `BraxParams` belongs to."""
        return brax_physics.part_names(self.brax.sys)

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
