"""The planar arm, the smallest quality-diversity task: reach everywhere with joints bent as evenly as possible.

The task of Cully et al. (2015, Nature 521, arXiv 1407.3501), with the scales that QDax gives it (`qdax.tasks.arm`).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxpg_envs.auto_reset import step_and_reset
from jaxpg_envs.registry import EnvironmentInputError


@struct.dataclass
class PlanarArmState(environment.EnvState):
    """`time` in steps, int32; nothing else changes."""

    time: Any


@struct.dataclass
class PlanarArmParams(environment.EnvParams):
    """An episode ends with its first step, so that the time limit is one step too."""

    max_steps_in_episode: Any = 1


class PlanarArm(environment.Environment[PlanarArmState, PlanarArmParams]):
    """An arm of `joint` equal links in the plane is bent once, and the episode ends.

    The action holds the angle of each link to the one before, in half turns: ±1 is a link folded back. Actions are
    clipped. Observed is the constant 1. The reward is 0.5 minus the standard deviation of the angles in full
    turns, in [0, 0.5] (QDax: minus that deviation, though it calls it a variance), and the descriptor the tip's position
    in the unit square, the arm of total length 0.5 being fixed at its centre.
    """

    step = jax.jit(step_and_reset, static_argnums=0)

    def __init__(self, num_joints: int = 8) -> None:
        super().__init__()
        self._num_joints = num_joints

    @property
    def name(self) -> str:
        return "PlanarArm-v0"

    @property
    def default_params(self) -> PlanarArmParams:
        return PlanarArmParams()

    @property
    def num_actions(self) -> int:
        return self._num_joints

    def action_space(self, params: PlanarArmParams | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (self._num_joints,), jnp.float32)

    def observation_space(self, params: PlanarArmParams) -> spaces.Box:
        return spaces.Box(1.0, 1.0, (1,), jnp.float32)

    def descriptor_bounds(self, params: PlanarArmParams) -> tuple[Float[Array, " 2"], Float[Array, " 2"]]:
        """The least and the largest descriptor: the unit square."""
        return jnp.zeros(2), jnp.ones(2)

    def descriptor_names(self, params: PlanarArmParams | None = None) -> tuple[str, ...]:
        """What the descriptor's components are, with their units."""
        return "x of the tip (unit square)", "y of the tip (unit square)"

    def reset_env(self, key: PRNGKeyArray, params: PlanarArmParams) -> tuple[Float[Array, " 1"], PlanarArmState]:
        """The same for every key."""
        return jnp.ones(1), PlanarArmState(time=jnp.int32(0))

    def step_env(
        self, key: PRNGKeyArray, state: PlanarArmState, action: Float[Array, " joint"], params: PlanarArmParams
    ) -> tuple[Float[Array, " 1"], PlanarArmState, Float[Array, ""], Bool[Array, ""], dict]:
        """Reward and `info["descriptor"]` of one posture; always terminates."""
        turns = 0.5 * jnp.clip(action, -1.0, 1.0)
        variance = jnp.var(turns)
        spread = jnp.sqrt(jnp.where(variance > 0.0, variance, 1.0))  # whose slope at 0 is infinite
        reward = 0.5 - jnp.where(variance > 0.0, spread, 0.0)
        directions = 2.0 * jnp.pi * jnp.cumsum(turns)
        tip = 0.5 + 0.5 * jnp.stack([jnp.cos(directions).mean(), jnp.sin(directions).mean()])
        state = state.replace(time=state.time + 1)
        info = {"descriptor": jnp.clip(tip, 0.0, 1.0), "discount": self.discount(state, params)}
        return jnp.ones(1), state, reward, self.is_terminated(state, params), info

    def is_terminated(self, state: PlanarArmState, params: PlanarArmParams) -> Bool[Array, ""]:
        """Whether the arm was bent."""
        return state.time >= 1

    def is_truncated(self, state: PlanarArmState, params: PlanarArmParams) -> Bool[Array, ""]:
        """Whether the time limit is reached."""
        return state.time >= params.max_steps_in_episode


def planar_arm(num_joints: int = 8) -> tuple[PlanarArm, PlanarArmParams]:
    """An arm and its parameters.

    Raises:
        EnvironmentInputError: there is no joint.
    """
    if num_joints < 1:
        raise EnvironmentInputError(f"PlanarArm-v0: num_joints={num_joints!r}; an arm has at least one joint")
    env = PlanarArm(num_joints)
    return env, env.default_params
