"""Tiny environments with known answers, such that a wrong answer names the mistake.

A question is a Markov decision process of three states and three actions, in tables: what its best actions are can be said
without a computer. All have the same shapes, so that one compiled program answers all of them, for many seeds.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from environments import Box, Discrete, Recall, Tabular
from flax import struct

from jaxpg.algorithms.meta_learning.update_rule import UpdateRule
from jaxpg_envs.levels import CaveLevel

DISCOUNT = 0.5


class Question(NamedTuple):
    """Tables, the best action of each state where there is one, and what is wrong with who does not find them."""

    tables: dict[str, Any]
    best: dict[int, int]
    mistake: str


def question(
    mistake: str, starts: list[float], best: dict[int, int], steps: dict[tuple[int, int], tuple], time_limit: int = 9
) -> Question:
    """Of steps `{(state, action): (reward, successor)}`, or `(reward,)` if they terminate; all others cost 1 and terminate."""
    rewards, ends, moves = np.full((3, 3), -1.0), np.ones((3, 3), bool), np.zeros((3, 3, 3))
    moves[:, :, 0] = 1.0
    for at, (reward, *successor) in steps.items():
        rewards[at], ends[at] = reward, not successor
        moves[at] = np.eye(3)[successor[0] if successor else at[0]]
    tables = {"rewards": rewards, "ends": ends, "moves": moves, "starts": np.array(starts), "time_limit": time_limit}
    as_array = lambda x: jnp.asarray(x, jnp.float32 if np.asarray(x).dtype == float else None)
    return Question(jax.tree.map(as_array, tables), best, mistake)


def pays(reward: float, state: int) -> dict[tuple[int, int], tuple]:
    """Whatever one does in a state, it pays that and terminates."""
    return {(state, action): (reward,) for action in range(3)}


FIRST = [1.0, 0.0, 0.0]
QUESTIONS = {
    "actions": question(
        "actions are confused with one another, or the worse are preferred",
        FIRST,
        {0: 1},
        {(0, 0): (0.0,), (0, 1): (1.0,), (0, 2): (0.5,)},
    ),
    "observations": question(
        "observations, or what came of them, are those of another step or of another environment",
        [0.4, 0.3, 0.3],
        {0: 0, 1: 1, 2: 0},
        {(0, 0): (1.0, 1), (0, 1): (0.0, 1), (1, 0): (0.0, 2), (1, 1): (1.0, 2), (2, 0): (1.0,), (2, 1): (0.0,)},
    ),
    "later": question(
        "what comes later is not bootstrapped, or not from the best that can be done then",
        FIRST,
        {0: 1, 2: 1},
        {(0, 0): (1.0,), (0, 1): (0.0, 2), (2, 1): (3.0,)},
    ),
    "later, discounted": question(
        "what comes later is not discounted",
        FIRST,
        {0: 0},
        {(0, 0): (1.0,), (0, 1): (0.0, 2), **pays(1.4, 2)},
    ),
    "cut": question(
        "a time limit is taken for an end of the task",
        FIRST,
        {0: 1},
        {(0, 0): (1.0,), (0, 1): (0.95, 0)},
        time_limit=1,
    ),
    "ended": question(
        "what lies behind a termination is bootstrapped from",
        FIRST,
        {0: 0},
        {(0, 0): (0.75, 2), (0, 1): (1.0,), **pays(1.0, 2)},
    ),
    "cut elsewhere": question(
        "at a time limit the value is not that of the final observation",
        [1 / 3] * 3,
        {0: 1},
        {(0, 0): (1.0,), (0, 1): (0.4, 1), **pays(3.0, 1), **pays(-4.0, 2)},
        time_limit=1,
    ),
}


class Probe(Tabular):
    """The process of a question.

    With a box, its lower end is the first action and its upper end the second: between them, they are drawn by lot. So the best
    action is one of its ends, and the value of an action is linear.
    """

    def __init__(self, box: tuple[float, float] | None = None):
        super().__init__(3, 3)
        self.box = box

    def start(self, key, params):
        return {"place": jax.random.categorical(key, jnp.log(params["starts"])).astype(jnp.int32)}

    def move(self, key, state, action, params):
        if self.box is not None:
            lot_key, key = jax.random.split(key)
            action = jax.random.bernoulli(lot_key, self.share(action)).astype(jnp.int32)
        return super().move(key, state, action, params)

    def share(self, action):
        """Of the second action in the lot."""
        low, high = self.box
        return (action[..., 0] - low) / (high - low)

    def action_space(self, params):
        return Discrete(3) if self.box is None else Box(*self.box, (1,))


class Cue(Recall):
    """A sign is shown once and has to be named later; with a box, its lower half names one sign, its upper half the other."""

    def __init__(self, box: tuple[float, float] | None = None):
        super().__init__()
        self.box = box

    def move(self, key, state, action, params):
        named = action if self.box is None else (action[0] > sum(self.box) / 2).astype(jnp.int32)
        return super().move(key, state, named, params)

    def action_space(self, params):
        return Discrete(2) if self.box is None else Box(*self.box, (1,))


@struct.dataclass
class PlateParams:
    """Of `Plate`."""

    max_steps_in_episode: int = 2


class Plate:
    """Two steps of two numbers each: the first number of the last step is the descriptor, the second one pays 1 at 1/2.

    In every cell of descriptors the best fitness is 2.
    """

    name = "Plate"

    def reset(self, key, params):
        return jnp.zeros(1), jnp.int32(0)

    def step(self, key, state, action, params):
        reward, time = 1.0 - jnp.square(action[1] - 0.5), state + 1
        truncated = time >= params.max_steps_in_episode
        info = {"final_observation": time[None].astype(jnp.float32), "descriptor": action[:1]}
        time = jnp.where(truncated, 0, time)
        return time[None].astype(jnp.float32), time, reward, jnp.bool_(False), truncated, info

    def descriptor_bounds(self, params):
        return -jnp.ones(1), jnp.ones(1)

    def observation_space(self, params):
        return Box(0.0, 2.0, (1,))

    def action_space(self, params):
        return Box(-1.0, 1.0, (2,))


@struct.dataclass
class DoorsParams:
    """Of `Doors`."""

    level: CaveLevel
    max_steps_in_episode: int = 1


class Doors:
    """Four doors, which the level numbers: the one of its goal pays 1. One step."""

    name = "Doors"

    def sample_level(self, key):
        goal, start = jax.random.choice(key, 4, (2,), replace=False).astype(jnp.int32)
        return CaveLevel(jnp.zeros((2, 2), jnp.int8), goal, start)

    def mutate_level(self, key, level, num_edits):
        return self.sample_level(key)

    def reset(self, key, params):
        return params.level.goal, jnp.int32(0)

    def step(self, key, state, action, params):
        reward = (action == params.level.goal).astype(jnp.float32)
        final = {"final_observation": params.level.goal}
        return params.level.goal, state, reward, jnp.bool_(True), jnp.bool_(False), final

    def observation_space(self, params):
        return Discrete(4)

    def action_space(self, params):
        return Discrete(4)


def actor_critic_rule(discount=DISCOUNT, scale=20.0, small=0.01):
    """An update rule and its parameters, written by hand: what an actor-critic with one-step targets does.

    Predictions are of two bins, and the value is `scale * (probability of the second one - 1/2)`. Hidden units are, times
    `small`, the advantage r + discount v' - v and the target r + discount v', both with either sign; they forget at once.
    """
    rule = UpdateRule(hidden_size=4, num_bins=2)
    params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), jax.eval_shape(rule.initial, jax.random.key(0)))
    layers = params["params"]
    layers["Dense_0"]["kernel"][1, 0], layers["Dense_1"]["kernel"][0] = scale, 1.0
    layers["Dense_1"]["bias"][:] = -scale / 2
    reward, value, following = np.eye(5)[[0, 3, 4]]
    advantage, target = reward + discount * following - value, reward + discount * following
    gru = layers["Memory_0"]["GRUCell_0"]
    gru["in"]["kernel"][:] = small * np.stack([advantage, -advantage, target, -target], axis=1)
    gru["iz"]["bias"][:] = -50.0
    layers["Dense_2"]["kernel"][:2, 0] = -1 / small, 1 / small  # it is descended along
    layers["Dense_3"]["kernel"][2:, 1] = 4 / scale / small, -4 / scale / small  # of the logistic function at 1/2
    return rule, params
