"""Target reaching among three discs, the task on which PMOE shows what its experts do (Ren et al., 2021, arXiv 2104.09122)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxpg_envs.auto_reset import step_and_reset

BOX = 5.0  # half the side of the square
START = (-4.5, -4.5)
TIME_STEP = 0.1


@struct.dataclass
class TargetReachingState(environment.EnvState):
    """Point mass, target and obstacles, in the units of the square.

    `time` in steps, int32. Float32: `position`, `velocity`, `acceleration` and `target`, shape (2,); the obstacles' `centres`,
    shape (3, 2), and `radii`, shape (3,).
    """

    time: Any
    position: Any
    velocity: Any
    acceleration: Any
    target: Any
    centres: Any
    radii: Any


@struct.dataclass
class TargetReachingParams(environment.EnvParams):
    """What may differ between the environments of one batch, or be traced.

    Attributes:
        max_steps_in_episode: time limit in steps; the authors' code has none, but speed is paid for at every step.
        random: draw target and obstacles anew for every episode.
        start_noise: standard deviation of the start's position.
        obstacle_reward: what touching an obstacle earns.
        target, target_radius, centres, radii: the layout, if it is not random.
    """

    max_steps_in_episode: Any = 300
    random: Any = False
    start_noise: Any = 0.0
    obstacle_reward: Any = -100.0
    target: Any = (3.0, 3.0)
    target_radius: Any = 0.5
    centres: Any = ((-2.5, -2.5), (-3.0, -0.5), (-0.5, -3.0))
    radii: Any = (0.6, 0.6, 0.6)


class TargetReaching(environment.Environment[TargetReachingState, TargetReachingParams]):
    """A point mass is steered from one corner to a target, past obstacles that can be passed on either side.

    The action is an acceleration within ±1. An episode ends at the target (+100), at an obstacle, or outside of the square
    (-10); every other step earns 0.1 times the speed. Observed are position, velocity, last acceleration, and the way to
    the target and to each obstacle, lengths of the square in units of its half side, and the obstacles' radii.

    Written from a description of the authors' environment; that leaving the square ends the episode is an assumption.
    """

    step = jax.jit(step_and_reset, static_argnums=0)

    def __init__(self, random: bool = False) -> None:
        """`random`: the variant with a new layout in every episode, whose obstacles cost 10, not 100."""
        super().__init__()
        self._random = random

    @property
    def name(self) -> str:
        return "RandomTargetReaching-v0" if self._random else "TargetReaching-v0"

    @property
    def default_params(self) -> TargetReachingParams:
        return TargetReachingParams(random=True, obstacle_reward=-10.0) if self._random else TargetReachingParams()

    @property
    def num_actions(self) -> int:
        return 2

    def action_space(self, params: TargetReachingParams | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)

    def observation_space(self, params: TargetReachingParams) -> spaces.Box:
        return spaces.Box(-jnp.inf, jnp.inf, (17,), jnp.float32)

    def reset_env(self, key: PRNGKeyArray, params: TargetReachingParams) -> tuple[Float[Array, " 17"], TargetReachingState]:
        """The mass at rest in its corner."""
        start_key, target_key, centre_key, radius_key = jax.random.split(key, 4)
        choose = lambda drawn, fixed: jnp.where(params.random, drawn, jnp.asarray(fixed, jnp.float32))
        zeros = jnp.zeros(2)
        state = TargetReachingState(
            time=jnp.int32(0),
            position=jnp.array(START) + params.start_noise * jax.random.normal(start_key, (2,)),
            velocity=zeros,
            acceleration=zeros,
            target=choose(jax.random.uniform(target_key, (2,), maxval=3.0), params.target),
            centres=choose(jnp.clip(2.35 * jax.random.normal(centre_key, (3, 2)), -BOX, BOX), params.centres),
            radii=choose(jax.random.randint(radius_key, (3,), 15, 30) / 50.0, params.radii),
        )
        return self._observe(state), state

    def step_env(
        self, key: PRNGKeyArray, state: TargetReachingState, action: Float[Array, " 2"], params: TargetReachingParams
    ) -> tuple[Float[Array, " 17"], TargetReachingState, Float[Array, ""], Bool[Array, ""], dict]:
        """Semi-implicit motion for a tenth of a second."""
        del key
        acceleration = jnp.clip(action, -1.0, 1.0)
        velocity = jnp.clip(state.velocity + TIME_STEP * acceleration, -1.0, 1.0)
        position = state.position + TIME_STEP * velocity + 0.5 * TIME_STEP * (velocity - state.velocity)
        state = state.replace(time=state.time + 1, position=position, velocity=velocity, acceleration=acceleration)
        arrived, hit, outside = self._ends(state, params)
        reward = jnp.select(
            [arrived, hit, outside],
            [100.0, jnp.asarray(params.obstacle_reward, jnp.float32), -10.0],
            0.1 * jnp.linalg.norm(velocity),
        )
        info = {"success": arrived, "discount": self.discount(state, params)}
        return self._observe(state), state, reward, arrived | hit | outside, info

    def is_terminated(self, state: TargetReachingState, params: TargetReachingParams) -> Bool[Array, ""]:
        """Whether the mass is at the target, at an obstacle or outside."""
        return jnp.stack(self._ends(state, params)).any()

    def is_truncated(self, state: TargetReachingState, params: TargetReachingParams) -> Bool[Array, ""]:
        """Whether the time limit is reached."""
        return state.time >= params.max_steps_in_episode

    def _ends(
        self, state: TargetReachingState, params: TargetReachingParams
    ) -> tuple[Bool[Array, ""], Bool[Array, ""], Bool[Array, ""]]:
        distance = lambda point: jnp.linalg.norm(point - state.position, axis=-1)
        arrived = distance(state.target) < params.target_radius
        hit = (distance(state.centres) < state.radii).any()
        return arrived, hit, (jnp.abs(state.position) > BOX).any()

    def _observe(self, state: TargetReachingState) -> Float[Array, " 17"]:
        to = lambda point: ((point - state.position) / BOX).ravel()
        return jnp.concatenate(
            [
                state.position / BOX,
                state.velocity,
                state.acceleration,
                to(state.target),
                to(state.centres),
                state.radii,
            ]
        )
