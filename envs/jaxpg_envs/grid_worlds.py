"""The grid worlds of learned policy gradient (LPG, Oh et al. 2020) and GROOVE (Jackson et al. 2023): objects are collected.

Some objects pay and some cost, some end the episode, and they appear again.
"""

import difflib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt8

from jaxpg_envs import grid_worlds_levels
from jaxpg_envs.auto_reset import step_and_reset
from jaxpg_envs.errors import EnvironmentInputError
from jaxpg_envs.grid_worlds_levels import (
    DISTRIBUTIONS,
    MOVES,
    RANDOM_LEVELS,
    GridWorldsLevel,
    draw_level,
    edited_level,
    free_nodes,
    inside_of,
    is_used,
    moved,
)
from jaxpg_envs.spaces import Dict

CLOCK = 0.001  # what a step adds to the time that is observed
DEFAULT_LEVEL = 10  # seed of one that is large, among those to train with, and pays


@struct.dataclass
class GridWorldsState(environment.EnvState):
    """What changes in an episode.

    Attributes:
        time: in steps, int32.
        node: the agent's, int32.
        objects: (object,) int32, the nodes of the objects, be they there or not.
        exists: (object,) bool, which of them are there.
        terminated: whether an object that was collected ended the episode.
    """

    time: Any
    node: Any
    objects: Any
    exists: Any
    terminated: Any


@struct.dataclass
class GridWorldsParams(environment.EnvParams):
    """What may differ between the environments of one batch.

    Attributes:
        max_steps_in_episode: time limit in steps, where the level's own is not shorter.
        level: `GridWorldsLevel`, with arrays of any sizes; `params.replace(level=level)`.
    """

    max_steps_in_episode: Any = 2000
    level: Any = None


class GridWorlds(environment.Environment[GridWorldsState, GridWorldsParams]):
    """An agent walks through a grid and collects objects by arriving at them.

    Actions: up, down, left, right, and stay; walls and the edge are in the way. An object that is there when the agent
    arrives, or stays, at its cell pays its reward, terminates the episode with its probability, and is gone after the step.
    Each object that was absent before a step appears with its probability, also below the agent, who collects it in the step
    that follows. Episodes begin with all objects; the level's time limit truncates them.

    Where observations are tabular, objects keep to the cells that the level says. Observed is a number: which cell the agent is
    in and which set of objects is there, cell + number of cells * sum of 2^object. As "planes", objects begin and appear in
    random free cells, and only the agent's start is the level's. Observed is a dictionary: "image" holds for each cell whether
    the agent, a wall, and an object of each kind is there, "time" a thousandth of the number of steps, both in float32.
    (GROOVE's code has vectors: the number one-hot, with the time behind it, which makes no table of it any more; and all
    planes but that of walls, with the time.)
    """

    step = jax.jit(step_and_reset, static_argnums=0)

    def __init__(self, levels: str = "all", tabular: bool = True) -> None:
        """`levels`: the distribution of `DISTRIBUTIONS` that `sample_level` draws from."""
        super().__init__()
        self._levels = levels
        self._tabular = tabular

    @property
    def name(self) -> str:
        return "GridWorlds-v0"

    @property
    def default_params(self) -> GridWorldsParams:
        limit = int(DISTRIBUTIONS[self._levels].max_steps.max())
        return GridWorldsParams(max_steps_in_episode=limit, level=jax.jit(self.sample_level)(jax.random.key(DEFAULT_LEVEL)))

    @property
    def num_actions(self) -> int:
        return len(MOVES)

    def action_space(self, params: GridWorldsParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(len(MOVES))

    def observation_space(self, params: GridWorldsParams) -> spaces.Discrete | Dict:
        level = params.level
        if self._tabular:
            return spaces.Discrete(level.walls.size * 2 ** level.objects.shape[0])
        image = spaces.Box(0.0, 1.0, (*level.walls.shape, 2 + level.reward.shape[0]), jnp.float32)
        return Dict({"image": image, "time": spaces.Box(0.0, jnp.inf, (1,), jnp.float32)})

    def sample_level(self, key: PRNGKeyArray) -> GridWorldsLevel:
        """A level of the distribution, see `grid_worlds_levels.sample_level`."""
        return grid_worlds_levels.sample_level(key, self._levels)

    def mutate_level(self, key: PRNGKeyArray, level: GridWorldsLevel, num_edits: int) -> GridWorldsLevel:
        """A level after `num_edits` random edits, see `grid_worlds_levels.edited_level`; `num_edits` is static.

        Raises:
            EnvironmentInputError: `num_edits` is not positive.
        """
        return edited_level(key, level, num_edits, self._tabular)

    def empty_level(self, level: GridWorldsLevel) -> GridWorldsLevel:
        """The level without its walls, for those that build one: `env.empty_level`, if there is one, says what stays."""
        return level._replace(walls=~inside_of(level.size, level.walls.shape[0]))

    def draw_level(self, level: GridWorldsLevel) -> UInt8[np.ndarray, "height width 3"]:
        """A picture, see `grid_worlds_levels.draw_level`; without the objects where their cells are not the level's."""
        return draw_level(level, self._tabular)

    def optimal_return(self, level: GridWorldsLevel) -> Float[Array, ""]:
        """What the best policy earns, see `grid_worlds_levels.optimal_return`.

        Raises:
            EnvironmentInputError: objects have no cells of their own.
        """
        if not self._tabular:
            raise EnvironmentInputError("optimal returns are those of tabular observations (observation = tabular)")
        return grid_worlds_levels.optimal_return(level)

    def reset_env(self, key: PRNGKeyArray, params: GridWorldsParams) -> tuple[PyTree, GridWorldsState]:
        """The agent at the level's start, and all objects."""
        level = params.level
        objects, exists = jnp.asarray(level.objects), is_used(level)
        if not self._tabular:
            objects, exists = free_nodes(key, self._ground(level).at[level.start].set(False), exists)
        state = GridWorldsState(jnp.int32(0), jnp.asarray(level.start, jnp.int32), objects, exists, jnp.bool_(False))
        return self._observe(state, params), state

    def step_env(
        self, key: PRNGKeyArray, state: GridWorldsState, action: Int[Array, ""], params: GridWorldsParams
    ) -> tuple[PyTree, GridWorldsState, Float[Array, ""], Bool[Array, ""], dict]:
        """One move, what is collected by it, and what appears."""
        level, kind = params.level, jnp.asarray(params.level.kind)
        end_key, appear_key, place_key = jax.random.split(key, 3)
        node = moved(level.walls, state.node, action)
        collected = state.exists & (state.objects == node)
        total = lambda value: jnp.where(collected, jnp.asarray(value)[kind], 0.0).sum()
        ends = jax.random.bernoulli(end_key, jnp.minimum(total(level.termination), 1.0))
        appears = jax.random.bernoulli(appear_key, jnp.asarray(level.respawn)[kind]) & ~state.exists & is_used(level)
        objects = state.objects
        if not self._tabular:
            occupied = jnp.where(state.exists, state.objects, node)  # none appears unless one is absent
            nodes, appears = free_nodes(place_key, self._ground(level).at[occupied].set(False), appears)
            objects = jnp.where(appears, nodes, objects)
        exists = (state.exists | appears) & ~collected
        state = GridWorldsState(state.time + 1, node, objects, exists, ends)
        info = {"discount": self.discount(state, params)}
        return self._observe(state, params), state, total(level.reward), ends, info

    def is_terminated(self, state: GridWorldsState, params: GridWorldsParams) -> Bool[Array, ""]:
        """Whether an object that was collected ended the episode."""
        return state.terminated

    def is_truncated(self, state: GridWorldsState, params: GridWorldsParams) -> Bool[Array, ""]:
        """Whether the time limit is reached, the level's or that of the parameters."""
        return state.time >= jnp.minimum(params.level.max_steps, params.max_steps_in_episode)

    def _ground(self, level: GridWorldsLevel) -> Bool[Array, " node"]:
        return ~jnp.asarray(level.walls).reshape(-1)

    def _observe(self, state: GridWorldsState, params: GridWorldsParams) -> PyTree:
        level, num_nodes = params.level, params.level.walls.size
        if self._tabular:
            return state.node + num_nodes * jnp.sum(state.exists * 2 ** np.arange(level.objects.shape[0]), dtype=jnp.int32)
        time = CLOCK * state.time[None].astype(jnp.float32)
        planes = jnp.zeros((level.reward.shape[0], num_nodes), bool).at[level.kind, state.objects].max(state.exists)
        agent = jnp.arange(num_nodes) == state.node
        image = jnp.concatenate([jnp.stack([agent, ~self._ground(level)]), planes]).T.reshape(*level.walls.shape, -1)
        return {"image": image.astype(jnp.float32), "time": time}


def grid_worlds(levels: str = "all", observation: str = "tabular") -> tuple[GridWorlds, GridWorldsParams]:
    """The environment, and parameters with a level of its distribution, always the same one. See `GridWorlds`.

    A level says how many updates an agent is to learn on it for (`level.lifetime`), and `env.optimal_return(level)` what can be
    earned. Draw levels, and give each to a row of environments:

        env, params = jaxpg_envs.make("GridWorlds-v0", levels="small")
        levels = jax.vmap(env.sample_level)(jax.random.split(key, 8))
        best = jax.jit(jax.vmap(env.optimal_return))(levels)

    Args:
        levels: what `env.sample_level` draws from.
            To train: "all"; "all_shortlife", "all_randlife" and "all_vrandlife", which differ in lifetimes; "small", "medium"
            and "large".
            To test: "dense", "sparse", "long", "longer" and "long_dense", of which "handcrafted" is any; mazes with objects, by
            their names in `jaxpg_envs.levels.HELD_OUT_MAZES`, of which "mazes" is any. Start and objects are drawn.
            With observation="planes": "rand_all"; "rand_dense", "rand_long", "rand_small", "rand_sparse", "rand_very_dense".
        observation: "tabular" or "planes".

    Raises:
        EnvironmentInputError: there is no such distribution or observation, or they do not fit together.
    """
    if levels not in DISTRIBUTIONS:
        nearest = difflib.get_close_matches(levels, DISTRIBUTIONS, n=1, cutoff=0.5)
        suggestion = f'did you mean "{nearest[0]}"? ' if nearest else ""
        names = ", ".join(DISTRIBUTIONS)
        raise EnvironmentInputError(f"GridWorlds-v0 refuses levels={levels!r}: {suggestion}there are {names}")
    if observation not in ("tabular", "planes"):
        raise EnvironmentInputError(f"GridWorlds-v0 refuses observation={observation!r}: choose one of tabular, planes")
    if levels in RANDOM_LEVELS and observation == "tabular":
        raise EnvironmentInputError(f"GridWorlds-v0 refuses levels={levels!r}: objects are anywhere; choose observation=planes")
    env = GridWorlds(levels, observation == "tabular")
    return env, env.default_params
