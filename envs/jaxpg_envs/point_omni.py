"""Quality-diversity tasks without physics: a point mass goes everywhere, in the open or past a trap.

They stand in for the Ant-Omni and AntTrap-Omni of DCG-MAP-Elites (Faldor et al., 2023) where a robot is too slow.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxpg_envs.auto_reset import step_and_reset

TIME_STEP = 0.1
USUAL_STEPS = 100
TOP_SPEED = 10.0  # after 100 steps of full acceleration, 50.5 from the start
CLEARANCE = 1e-3  # walls are that thick on either side, so that rounding cannot put a point behind one
MAX_BOUNCES = 3  # in one step; walls further apart than a step is long never ask for more than 2
TRAP = (((8.0, -8.0), (16.0, -8.0)), ((16.0, -8.0), (16.0, 8.0)), ((16.0, 8.0), (8.0, 8.0)))


@struct.dataclass
class PointOmniState(environment.EnvState):
    """`time` in steps, int32; `position` and `velocity`, float32 of shape (2,)."""

    time: Any
    position: Any
    velocity: Any


@struct.dataclass
class PointOmniParams(environment.EnvParams):
    """What may differ between the environments of one batch, or be traced.

    Attributes:
        max_steps_in_episode: time limit in steps, at which every episode ends.
        half_width: of the square that descriptors are clipped to, about 80 % of what can be reached in 100 steps.
        walls: both ends of each straight wall, float32 of shape (wall, 2, 2); the ends differ.
    """

    max_steps_in_episode: Any = USUAL_STEPS
    half_width: Any = 40.0
    walls: Any = struct.field(default_factory=lambda: jnp.zeros((0, 2, 2)))


class PointOmni(environment.Environment[PointOmniState, PointOmniParams]):
    """A point mass starts at rest in the origin of the plane; where it ends is its descriptor.

    The action is an acceleration within ±1, clipped. A step earns 1 - |a|²/2, which is never negative. Walls reflect
    without loss. Observed are the position in half widths of the square, the velocity in units of 10, and the share of 100
    steps that is left: without it a network without biases would see nothing at the start, and stay there for ever.
    """

    step = jax.jit(step_and_reset, static_argnums=0)

    def __init__(self, trap: bool = False) -> None:
        """`trap`: the variant with a U-shaped wall between the start and a quarter of the plane, open to the start."""
        super().__init__()
        self._trap = trap

    @property
    def name(self) -> str:
        return "TrapOmni-v0" if self._trap else "PointOmni-v0"

    @property
    def default_params(self) -> PointOmniParams:
        return PointOmniParams(walls=jnp.array(TRAP)) if self._trap else PointOmniParams()

    @property
    def num_actions(self) -> int:
        return 2

    def action_space(self, params: PointOmniParams | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)

    def observation_space(self, params: PointOmniParams) -> spaces.Box:
        return spaces.Box(-jnp.inf, jnp.inf, (5,), jnp.float32)

    def descriptor_bounds(self, params: PointOmniParams) -> tuple[Float[Array, " 2"], Float[Array, " 2"]]:
        """The least and the largest descriptor: the corners of the square."""
        corner = jnp.full(2, params.half_width, jnp.float32)
        return -corner, corner

    def descriptor_names(self, params: PointOmniParams | None = None) -> tuple[str, ...]:
        """What the descriptor's components are, with their units."""
        return "final x (m)", "final y (m)"

    def reset_env(self, key: PRNGKeyArray, params: PointOmniParams) -> tuple[Float[Array, " 5"], PointOmniState]:
        """The same for every key."""
        state = PointOmniState(time=jnp.int32(0), position=jnp.zeros(2), velocity=jnp.zeros(2))
        return self._observe(state, params), state

    def step_env(
        self, key: PRNGKeyArray, state: PointOmniState, action: Float[Array, " 2"], params: PointOmniParams
    ) -> tuple[Float[Array, " 5"], PointOmniState, Float[Array, ""], Bool[Array, ""], dict]:
        """Semi-implicit motion for a tenth of a second; `info["descriptor"]` is the position, clipped to the square."""
        del key
        acceleration = jnp.clip(action, -1.0, 1.0)
        velocity = state.velocity + TIME_STEP * acceleration
        position, velocity = reflected_motion(state.position, velocity, TIME_STEP, params.walls)
        state = state.replace(time=state.time + 1, position=position, velocity=velocity)
        reward = 1.0 - 0.5 * jnp.square(acceleration).sum()
        descriptor = jnp.clip(position, *self.descriptor_bounds(params))
        info = {"descriptor": descriptor, "discount": self.discount(state, params)}
        return self._observe(state, params), state, reward, self.is_terminated(state, params), info

    def is_terminated(self, state: PointOmniState, params: PointOmniParams) -> Bool[Array, ""]:
        """Never."""
        return jnp.zeros_like(state.time, bool)

    def is_truncated(self, state: PointOmniState, params: PointOmniParams) -> Bool[Array, ""]:
        """Whether the time limit is reached."""
        return state.time >= params.max_steps_in_episode

    def _observe(self, state: PointOmniState, params: PointOmniParams) -> Float[Array, " 5"]:
        left = 1.0 - state.time / USUAL_STEPS
        return jnp.concatenate([state.position / params.half_width, state.velocity / TOP_SPEED, left[None]])


def reflected_motion(
    position: Float[Array, " 2"], velocity: Float[Array, " 2"], time_step: Any, walls: Float[Array, "wall 2 2"]
) -> tuple[Float[Array, " 2"], Float[Array, " 2"]]:
    """Uniform motion among walls that reflect as mirrors do: position and velocity after `time_step`.

    No speed carries the point through a wall: it is met where the path comes within `CLEARANCE` of it, and a point that
    would be reflected more than `MAX_BOUNCES` times stays at the last wall until the next step.

    Args:
        position, velocity: at the start.
        time_step: the duration.
        walls: both ends of each wall.
    """
    way = time_step * velocity
    if len(walls) == 0:
        return position + way, velocity
    corner, along = walls[:, 0], walls[:, 1] - walls[:, 0]
    length = jnp.linalg.norm(along, axis=-1)
    along = along / length[:, None]
    normal = along[:, ::-1] * jnp.array([-1.0, 1.0])
    for _ in range(MAX_BOUNCES + 1):
        distance = jnp.sum(normal * (position - corner), axis=-1)
        side = jnp.where(distance >= 0.0, 1.0, -1.0)
        distance, approach = side * distance, -side * (normal @ way)
        speed = jnp.where(approach > 0.0, approach, 1.0)
        contact, crossing = jnp.maximum(distance - CLEARANCE, 0.0) / speed, distance / speed  # in parts of the way

        def beside(part: Float[Array, " wall"], position: Any = position, way: Any = way) -> Bool[Array, " wall"]:
            """Whether the point is beside the wall, not past its ends, after that part of the way."""
            place = jnp.sum(along * (position + part[:, None] * way - corner), axis=-1)
            return (place >= -2.0 * CLEARANCE) & (place <= length + 2.0 * CLEARANCE) & (part < 1.0)

        # One can come close to a wall's line before its end and cross it behind.
        met = (approach > 0.0) & (beside(contact) | beside(crossing))
        parts = jnp.where(met, contact, 1.0)
        first = jnp.argmin(parts)
        position = position + parts[first] * way
        mirrored = lambda vector, n=normal[first]: vector - 2.0 * (vector @ n) * n
        way = jnp.where(met.any(), mirrored((1.0 - parts[first]) * way), 0.0)
        velocity = jnp.where(met.any(), mirrored(velocity), velocity)
    return position, velocity


def point_omni() -> tuple[PointOmni, PointOmniParams]:
    """The open plane, and its parameters."""
    env = PointOmni()
    return env, env.default_params


def trap_omni() -> tuple[PointOmni, PointOmniParams]:
    """The plane with the trap, and its parameters."""
    env = PointOmni(trap=True)
    return env, env.default_params
