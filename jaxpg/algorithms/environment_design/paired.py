"""PAIRED (Dennis et al., 2020, arXiv 2012.02096): an adversary builds the levels that one student can solve and another cannot.

The adversary places goal and start (on GridWorlds start and objects), then walls, one cell per step, seeing the level so far,
the step and a random vector. Two students play what it built and learn from it, the antagonist and the protagonist, which is
the policy. The adversary is paid the regret: the best return of the antagonist less the mean return of the protagonist.

Differences from the paper: the adversary has the sizes of the students' actor and critic and no memory; where two things
coincide, the second moves to the next free cell; levels have walls alone (on CaveEscape no lava or moss); a maze's first
direction is always the same; all else of a level of GridWorlds is that of `params.level`.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

from jaxpg.algorithm import Algorithm, Metrics, Policy, Scalar, hyperparameter, register, static
from jaxpg.algorithms.environment_design import scores
from jaxpg.algorithms.environment_design.curriculum import (
    StudentConfig,
    make_student,
    num_updates,
    own_slots,
    single_level,
)
from jaxpg.algorithms.online import ppo
from jaxpg.algorithms.online.ppo import PPOConfig
from jaxpg.counting import increment, init_count
from jaxpg.on_policy import Learner, make_network
from jaxpg.rollout import Transition, init_rollout, nonfinite_metrics
from jaxpg_envs.levels import WALL

NOISE_SIZE = 50  # of the random vector
PLACED = ("goal", "start", "objects")  # fields of levels, where they have them, that hold nodes


@struct.dataclass
class PAIREDConfig(StudentConfig):
    """The students' hyperparameters and the adversary's, which is trained by PPO whatever they are."""

    num_epochs: int = static(5, "passes over the batch per update, of PPO's students and of the adversary")
    num_walls: int = static(25, "walls that the adversary may build, several of them in one place")
    adversary_learning_rate: Scalar = hyperparameter(1e-4, "step size of the adversary", low=0)
    adversary_entropy_coefficient: Scalar = hyperparameter(0.0, "weight of the adversary's entropy bonus", low=0)


class PAIREDState(NamedTuple):
    """The whole state of a run."""

    key: jax.Array
    learner: Learner
    antagonist: Learner
    adversary: Learner
    updates: Int[Array, "*digit"]


class BuildingState(NamedTuple):
    """The level so far, the number of steps, and the random vector of the episode."""

    level: PyTree
    time: Int[Array, ""]
    noise: Float[Array, " noise"]


class Building:
    """Designing a level as an environment with gymnax's interface: each action names a cell, first the goal's if there is one.

    An episode is a step for each thing that is placed, 2 in a maze, and `num_walls` more. It pays nothing, as what a level is
    worth shows only when it is played. Nothing is reset at its end, so that the last state holds the level.
    """

    name = "Building"

    def __init__(self, empty_level: PyTree, num_walls: int) -> None:
        self._empty = empty_level
        self._num_placed = placed(empty_level).size
        self.num_steps = num_walls + self._num_placed
        self._num_nodes = math.prod(empty_level[0].shape)

    def action_space(self, params: PyTree) -> Any:
        from gymnax.environments import spaces  # here, because it takes seconds and starts JAX's backend

        return spaces.Discrete(self._num_nodes)

    def observation_space(self, params: PyTree) -> Any:
        from gymnax.environments import spaces

        size = (1 + self._num_placed) * self._num_nodes + self.num_steps + 1 + NOISE_SIZE
        return spaces.Box(-jnp.inf, jnp.inf, (size,), jnp.float32)

    def reset(self, key: jax.Array, params: PyTree) -> tuple[Float[Array, " feature"], BuildingState]:
        """An empty level and a new random vector."""
        state = BuildingState(self._empty, jnp.int32(0), jax.random.normal(key, (NOISE_SIZE,)))
        return self._observe(state), state

    def step(self, key: jax.Array, state: BuildingState, action: Int[Array, ""], params: PyTree) -> tuple:
        """Places goal, start, an object or a wall; nothing where a wall would cover them."""
        level, node = state.level, action.astype(jnp.int32)
        nodes, order, cells = placed(level), jnp.arange(self._num_placed), level[0].reshape(-1)
        taken = (cells == WALL).at[jnp.where(order < state.time, nodes, self._num_nodes)].set(True, mode="drop")
        away = (jnp.arange(self._num_nodes) - node) % self._num_nodes
        nearest = jnp.argmin(jnp.where(taken, self._num_nodes, away)).astype(jnp.int32)
        walled = cells.at[node].set(jnp.where((node == nodes).any(), cells[node], WALL).astype(cells.dtype))
        cells = jnp.where(state.time < self._num_placed, cells, walled)
        level = level._replace(**{level._fields[0]: cells.reshape(level[0].shape)})
        level = with_placed(level, jnp.where(order == state.time, nearest, nodes))
        state = BuildingState(level, state.time + 1, state.noise)
        observation = self._observe(state)
        done = state.time >= self.num_steps
        return observation, state, jnp.float32(0), done, jnp.bool_(False), {"final_observation": observation}

    def _observe(self, state: BuildingState) -> Float[Array, " feature"]:
        walls = (state.level[0].reshape(-1) == WALL).astype(jnp.float32)
        so_far = (jnp.arange(self._num_placed) < state.time)[:, None]
        nodes = jax.nn.one_hot(placed(state.level), self._num_nodes) * so_far
        return jnp.concatenate([walls, nodes.reshape(-1), jax.nn.one_hot(state.time, self.num_steps + 1), state.noise])


def placed(level: PyTree) -> Int[Array, " place"]:
    """The nodes of what is placed in a level before walls."""
    return jnp.concatenate([jnp.atleast_1d(getattr(level, name)) for name in PLACED if hasattr(level, name)])


def with_placed(level: PyTree, nodes: Int[Array, " place"]) -> PyTree:
    """The level with these nodes."""
    for name in PLACED:
        if hasattr(level, name):
            old = jnp.asarray(getattr(level, name))
            level, nodes = level._replace(**{name: nodes[: old.size].reshape(old.shape)}), nodes[old.size :]
    return level


def paid(steps: Transition, regret: Float[Array, " env"]) -> Transition:
    """The steps of building levels, the last of each paid the level's regret, all others nothing."""
    return steps._replace(reward=jnp.where(steps.done, regret, 0.0))


@register(
    "paired",
    PAIREDConfig,
    paper="Dennis et al. 2020, arXiv 2012.02096",
    field="environment_design",
    actions="discrete, continuous",
    status="results",
)
def paired(config: PAIREDConfig, env: Any, params: PyTree) -> Algorithm:
    """Two students, and an adversary that is paid their regret."""
    params, _ = single_level("paired", env, params)
    updates = num_updates(config, 2)
    student = make_student(config, env, params, updates)
    nothing = lambda level: jax.tree.map(lambda x: jnp.zeros_like(jnp.asarray(x)), level)
    building = Building(getattr(env, "empty_level", nothing)(params.level), config.num_walls)
    adversary_config = PPOConfig(
        total_steps=updates * config.num_envs * building.num_steps,
        num_envs=config.num_envs,
        num_steps=building.num_steps,
        num_epochs=config.num_epochs,
        num_minibatches=1,
        clip_values=True,
        hidden_sizes=config.hidden_sizes,
        normalize_observations=False,
        normalize_rewards=False,
        anneal_learning_rate=config.anneal_learning_rate,
        annealing_fraction=config.annealing_fraction,
        learning_rate_end=config.learning_rate_end,
        learning_rate=config.adversary_learning_rate,
        discount=config.discount,
        entropy_coefficient=config.adversary_entropy_coefficient,
    )
    adversary = ppo.make_parts(adversary_config, building, (), make_network("paired", adversary_config, building, ()))

    def init(key: jax.Array) -> PAIREDState:
        key, *keys = jax.random.split(key, 4)
        return PAIREDState(key, student.init(keys[0]), student.init(keys[1]), adversary.init(keys[2]), init_count(updates))

    def build(key: jax.Array, learner: Learner) -> tuple[PyTree, PyTree]:
        """Levels, and the steps that led to them."""
        reset_key, act_key = jax.random.split(key)
        start = init_rollout(reset_key, building, (), config.num_envs)
        end, transitions = adversary.collect(act_key, learner, start, ())
        return end.env_state.level, transitions

    def update(state: PAIREDState) -> tuple[PAIREDState, Metrics]:
        key, build_key, learn_key, *keys = jax.random.split(state.key, 7)
        levels, steps = build(build_key, state.adversary)
        slots = own_slots(config.num_envs)
        played, outcome, metrics = student.play(keys[0], state.learner, levels, slots)
        rival_played, rival_outcome, _ = student.play(keys[1], state.antagonist, levels, slots)
        regret = scores.regret(rival_outcome.episodes, outcome.episodes)
        learner, learning = student.learn(keys[2], state.learner, played)
        antagonist, rival_learning = student.learn(keys[3], state.antagonist, rival_played)
        builder, building_metrics = adversary.learn(learn_key, state.adversary, paid(steps, regret))
        metrics |= learning | {"regret": regret.mean(), "adversary_entropy": building_metrics["entropy"]}
        metrics |= {"antagonist_parameter_norm": rival_learning["parameter_norm"]} | nonfinite_metrics(played, rival_played)
        return PAIREDState(key, learner, antagonist, builder, increment(state.updates)), metrics

    def policy(state: PAIREDState, deterministic: bool = True) -> Policy:
        return student.policy(state.learner, deterministic)

    return Algorithm(init, update, policy, config, 2 * config.num_envs * config.num_steps, updates)
