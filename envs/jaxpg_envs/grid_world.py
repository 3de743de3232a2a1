"""An agent that turns and walks through a grid, sees what is before it, and looks for the goal."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from jaxpg_envs.auto_reset import step_and_reset
from jaxpg_envs.grid import EMPTY, FORWARD, GOAL, LAVA, WALL, Level, code_at, draw_level, grid_shape
from jaxpg_envs.registry import EnvironmentInputError
from jaxpg_envs.spaces import Dict

VIEW = 5  # cells ahead, the agent's own included, and cells across
Observation = dict[str, Float[Array, "..."]]


@struct.dataclass
class GridWorldState(environment.EnvState):
    """`time` in steps; `position`, row and column; `direction`, 0 right, 1 down, 2 left, 3 up; all int32. Not the level."""

    time: Any
    position: Any
    direction: Any


@struct.dataclass
class GridWorldParams(environment.EnvParams):
    """What may differ between the environments of one batch.

    Attributes:
        max_steps_in_episode: time limit in steps, also the T of the reward.
        level: `CaveLevel` or `MazeLevel`, of any size; `params.replace(level=level)`.
    """

    max_steps_in_episode: Any = 250
    level: Any = None


class GridWorld(environment.Environment[GridWorldState, GridWorldParams]):
    """MiniGrid's navigation without its objects, for levels that are parameters: automatic resets keep to the same level.

    Actions: turn left, turn right, step forward, which walls prevent. An episode ends at the goal with a reward of
    1 - 0.9 t / T, t being the number of steps taken, or on lava; every other reward is 0.

    Observed are the 5 x 5 cells in front of the agent, seen through walls, and the compass direction. The view is upright:
    its last row is the agent's, with the agent in the middle, and its first column is at the left hand. The agent's own
    cell is seen empty, what is outside of the level as wall. An observation is a dictionary: "direction", one-hot, and
    "image", for each cell of the view a one-hot code of what it holds (MiniGrid writes type, colour and state as numbers);
    both float32.
    """

    step = jax.jit(step_and_reset, static_argnums=0)

    def __init__(
        self,
        name: str,
        kinds: Sequence[int],
        params: GridWorldParams,
        first_direction: Callable[[PRNGKeyArray, Any], Int[Array, ""]],
        sample_level: Callable[[PRNGKeyArray], Any],
        mutate_level: Callable[[PRNGKeyArray, Any, int], Any],
    ) -> None:
        """A world from its pure functions.

        Args:
            name: what `name` returns.
            kinds: the codes of what cells can hold.
            params: the default parameters.
            first_direction: of a key and a level.
            sample_level: a random level from a key.
            mutate_level: a similar level from a key, a level and a static number of edits.
        """
        super().__init__()
        self._name = name
        self._kinds = np.array(kinds, np.int8)
        self._params = params
        self._first_direction = first_direction
        self._sample_level = sample_level
        self._mutate_level = mutate_level

    @property
    def name(self) -> str:
        return self._name

    @property
    def default_params(self) -> GridWorldParams:
        return self._params

    @property
    def num_actions(self) -> int:
        return 3

    def action_space(self, params: GridWorldParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(3)

    def observation_space(self, params: GridWorldParams) -> Dict:
        shapes = {"direction": (len(FORWARD),), "image": (VIEW, VIEW, len(self._kinds))}
        return Dict({name: spaces.Box(0.0, 1.0, shape, jnp.float32) for name, shape in shapes.items()})

    def sample_level(self, key: PRNGKeyArray) -> Level:
        """A level of the domain-randomisation generator, see `grid.random_level`."""
        return self._sample_level(key)

    def mutate_level(self, key: PRNGKeyArray, level: Level, num_edits: int) -> Level:
        """A level after `num_edits` random edits, see `grid.edited_level`; `num_edits` is static.

        Raises:
            EnvironmentInputError: `num_edits` is not positive.
        """
        return self._mutate_level(key, level, num_edits)

    def draw_level(self, level: Level) -> UInt8[np.ndarray, "height width 3"]:
        """A picture, see `grid.draw_level`."""
        return draw_level(level)

    def reset_env(self, key: PRNGKeyArray, params: GridWorldParams) -> tuple[Observation, GridWorldState]:
        """The agent at the level's start."""
        position = jnp.stack(jnp.divmod(jnp.asarray(params.level.start, jnp.int32), grid_shape(params.level)[1]))
        state = GridWorldState(time=jnp.int32(0), position=position, direction=self._first_direction(key, params.level))
        return self._observe(state, params), state

    def step_env(
        self, key: PRNGKeyArray, state: GridWorldState, action: Int[Array, ""], params: GridWorldParams
    ) -> tuple[Observation, GridWorldState, Float[Array, ""], Bool[Array, ""], dict]:
        """One turn or one step forward."""
        del key
        direction = (state.direction + jnp.array([-1, 1, 0])[action]) % len(FORWARD)
        ahead = state.position + jnp.array(FORWARD)[direction]
        walks = (action == 2) & (code_at(params.level, ahead[0], ahead[1]) != WALL)
        position = jnp.where(walks, ahead, state.position)
        state = state.replace(time=state.time + 1, position=position, direction=direction)
        success = code_at(params.level, position[0], position[1]) == GOAL
        reward = jnp.where(success, 1.0 - 0.9 * state.time / params.max_steps_in_episode, 0.0).astype(jnp.float32)
        info = {"success": success, "discount": self.discount(state, params)}
        return self._observe(state, params), state, reward, self.is_terminated(state, params), info

    def is_terminated(self, state: GridWorldState, params: GridWorldParams) -> Bool[Array, ""]:
        """Whether the agent is at the goal or on lava."""
        code = code_at(params.level, state.position[0], state.position[1])
        return (code == GOAL) | (code == LAVA)

    def is_truncated(self, state: GridWorldState, params: GridWorldParams) -> Bool[Array, ""]:
        """Whether the time limit is reached."""
        return state.time >= params.max_steps_in_episode

    def _observe(self, state: GridWorldState, params: GridWorldParams) -> Observation:
        steps = jnp.array(FORWARD)
        forward, right = steps[state.direction], steps[(state.direction + 1) % len(FORWARD)]
        down, across = np.indices((VIEW, VIEW))
        ahead, aside = VIEW - 1 - down[..., None], across[..., None] - VIEW // 2
        seen = state.position + ahead * forward + aside * right
        view = code_at(params.level, seen[..., 0], seen[..., 1]).at[VIEW - 1, VIEW // 2].set(EMPTY)
        direction = jnp.arange(len(FORWARD)) == state.direction
        return {"direction": direction.astype(jnp.float32), "image": (view[..., None] == self._kinds).astype(jnp.float32)}


def check_sizes(id: str, size: int, max_steps_in_episode: int) -> None:
    """Raises `EnvironmentInputError` if a square level of `size` cells has no room, or an episode no step."""
    if size < 2:
        raise EnvironmentInputError(f"{id}: size={size!r}; a level has at least 2 cells on each side")
    if max_steps_in_episode < 1:
        raise EnvironmentInputError(f"{id}: max_steps_in_episode={max_steps_in_episode!r}; an episode has at least one step")
