"""Small environments with gymnax 1.0's interface, written by hand: nothing of them but the interface is shared with gymnax.

`traces` counts how often Python ran through `step`, which is how often it was traced.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Discrete(NamedTuple):
    n: int
    shape: tuple = ()


class Box(NamedTuple):
    low: Any
    high: Any
    shape: tuple


class Dict(NamedTuple):
    spaces: dict[str, Any]


class Environment:
    """Automatic reset around `start`, `move` and `observe`; `state["time"]` counts the steps of an episode."""

    def __init__(self):
        self.traces = 0

    @property
    def name(self):
        return type(self).__name__

    def reset(self, key, params):
        state = {"time": jnp.int32(0), **self.start(key, params)}
        return self.observe(state), state

    def step(self, key, state, action, params):
        self.traces += 1
        move_key, reset_key = jax.random.split(key)
        moved, reward, terminated = self.move(move_key, state, action, params)
        moved = {**moved, "time": state["time"] + 1}
        truncated = moved["time"] >= params["time_limit"]
        final_observation = self.observe(moved)
        fresh = self.reset(reset_key, params)
        choose = lambda new, old: jnp.where(terminated | truncated, new, old)
        observation, state = jax.tree.map(choose, fresh, (final_observation, moved))
        return observation, state, reward, terminated, truncated, {"final_observation": final_observation}


class Cycle(Environment):
    """States 0, 1, ..., n - 1, 0, ... whatever one does, `rewards[s]` for leaving s, and no end but the time limit.

    Without the limit, a cycle's values solve V(s) = rewards[s] + discount * V(s + 1).
    """

    def __init__(self, num_states=2):
        super().__init__()
        self.num_states = num_states

    def params(self, rewards, time_limit):
        return {"rewards": jnp.asarray(rewards, jnp.float32), "time_limit": jnp.int32(time_limit)}

    def start(self, key, params):
        return {"place": jnp.int32(0)}

    def move(self, key, state, action, params):
        moved = {"place": (state["place"] + 1) % self.num_states}
        return moved, params["rewards"][state["place"]], jnp.array(False)

    def observe(self, state):
        return state["place"]

    def observation_space(self, params):
        return Discrete(self.num_states)

    def action_space(self, params):
        return Discrete(3)


class Walk(Environment):
    """A noisy walk that terminates outside `limit`; one observes the position and the action that arrived."""

    def __init__(self, size=2):
        super().__init__()
        self.size = size

    def params(self, limit=1.2, time_limit=5, wind=0.0):
        return {"limit": jnp.float32(limit), "time_limit": jnp.int32(time_limit), "wind": jnp.float32(wind)}

    def start(self, key, params):
        return {"position": 0.3 * jax.random.normal(key, (self.size,)), "action": jnp.zeros(self.size)}

    def move(self, key, state, action, params):
        noise = jax.random.normal(key, (self.size,))
        position = state["position"] + action + 0.3 * noise + params["wind"]
        terminated = jnp.abs(position).max() > params["limit"]
        return {"position": position, "action": action}, 1.0 - jnp.square(position).sum(), terminated

    def observe(self, state):
        return jnp.concatenate([state["position"], state["action"]])

    def observation_space(self, params):
        return Box(-jnp.inf, jnp.inf, (2 * self.size,))

    def action_space(self, params):
        return Box(-0.5, 0.5, (self.size,))


class Peaks(Environment):
    """One step, two best actions: -0.6 and 0.6, of reward 1, and nothing in between."""

    def params(self):
        return {"time_limit": jnp.int32(10)}

    def start(self, key, params):
        return {}

    def move(self, key, state, action, params):
        reward = jnp.exp(-0.5 * jnp.square((jnp.abs(action[0]) - 0.6) / 0.15))
        return {}, reward, jnp.array(True)

    def observe(self, state):
        return jnp.zeros(1)

    def observation_space(self, params):
        return Box(0.0, 1.0, (1,))

    def action_space(self, params):
        return Box(-1.0, 1.0, (1,))


class Aim(Environment):
    """One step, any space of actions; the farther an action is from `best`, in units of `width`, the worse.

    The action that arrived is observed at the end of the episode.
    """

    def __init__(self, space, best=0.0, width=1.0):
        super().__init__()
        self.space, self.best, self.width = space, best, width

    def params(self):
        return {"time_limit": jnp.int32(1)}

    def start(self, key, params):
        return {"action": jnp.zeros(np.shape(self.best))}

    def move(self, key, state, action, params):
        distance = (action - self.best) / self.width
        return {"action": jnp.asarray(action, jnp.float32)}, -jnp.square(distance).mean(), jnp.array(True)

    def observe(self, state):
        return state["action"].ravel()

    def observation_space(self, params):
        return Box(-jnp.inf, jnp.inf, (math.prod(np.shape(self.best)),))

    def action_space(self, params):
        return self.space


class Lifetimes(Environment):
    """Pays the action, 0 or 1; lasts `short` or `long` steps, at even odds; episodes after the first pay 1000 per step."""

    def params(self, short, long, time_limit=10_000):
        return {"lengths": jnp.array([short, long]), "time_limit": jnp.int32(time_limit)}

    def start(self, key, params):
        return {"length": jax.random.choice(key, params["lengths"]), "episode": jnp.int32(0)}

    def move(self, key, state, action, params):
        ended = state["time"] + 1 >= state["length"]
        return state, jnp.where(state["episode"] == 0, action.astype(jnp.float32), 1000.0), ended

    def step(self, key, state, action, params):
        observation, new_state, *rest = super().step(key, state, action, params)
        return observation, {**new_state, "episode": state["episode"] + (new_state["time"] == 0)}, *rest

    def observe(self, state):
        return state["time"].astype(jnp.float32)[None]

    def observation_space(self, params):
        return Box(0.0, jnp.inf, (1,))

    def action_space(self, params):
        return Discrete(2)


class Pictures(Cycle):
    """A cycle seen as a picture in which one of four pixels is bright."""

    def observe(self, state):
        return jax.nn.one_hot(state["place"], 4).reshape(2, 2, 1) * jnp.ones((2, 2, 3))

    def observation_space(self, params):
        return Box(0, 1, (2, 2, 3))


class Recall(Environment):
    """A sign is shown at the start of an episode of `length` steps; naming it in the last step pays 1, the other -1."""

    def params(self, length=4):
        return {"length": jnp.int32(length), "time_limit": jnp.int32(1000)}

    def start(self, key, params):
        return {"sign": jax.random.bernoulli(key).astype(jnp.int32), "left": params["length"]}

    def move(self, key, state, action, params):
        left = state["left"] - 1
        pays = jnp.where(action == state["sign"], 1.0, -1.0)
        return {"sign": state["sign"], "left": left}, jnp.where(left == 0, pays, 0.0), left == 0

    def observe(self, state):
        return jnp.stack([jnp.where(state["time"] == 0, 2.0 * state["sign"] - 1.0, 0.0), 1.0 * (state["left"] == 1)])

    def observation_space(self, params):
        return Box(-1.0, 1.0, (2,))

    def action_space(self, params):
        return Discrete(2)


class Tabular(Environment):
    """A Markov decision process as tables: rewards and ends (state, action), probabilities (state, action, next state).

    An episode starts anywhere. `exact_values` solves it.
    """

    def __init__(self, num_states=3, num_actions=2):
        super().__init__()
        self.num_states, self.num_actions = num_states, num_actions

    def params(self, seed=0, time_limit=3, spread=2.0):
        """The larger `spread`, the surer where a step leads."""
        keys = jax.random.split(jax.random.key(seed), 3)
        shape = (self.num_states, self.num_actions)
        return {
            "rewards": jax.random.normal(keys[0], shape),
            "moves": jax.nn.softmax(spread * jax.random.normal(keys[1], (*shape, self.num_states))),
            "ends": jax.random.bernoulli(keys[2], 0.2, shape),
            "time_limit": jnp.int32(time_limit),
        }

    def exact_values(self, params, discount, value_of=lambda q: q.max(-1)):
        """The fixed point of Q(s, a) = r + discount * (1 - end) * sum_s' p(s') value_of(Q)(s')."""
        q = jnp.zeros_like(params["rewards"])
        for _ in range(200):
            q = params["rewards"] + discount * (1.0 - params["ends"]) * (params["moves"] @ value_of(q))
        return q

    def start(self, key, params):
        return {"place": jax.random.randint(key, (), 0, self.num_states)}

    def move(self, key, state, action, params):
        place = state["place"]
        following = jax.random.categorical(key, jnp.log(params["moves"][place, action]))
        return {"place": following.astype(jnp.int32)}, params["rewards"][place, action], params["ends"][place, action]

    def observe(self, state):
        return state["place"]

    def observation_space(self, params):
        return Discrete(self.num_states)

    def action_space(self, params):
        return Discrete(self.num_actions)


class Steady(Environment):
    """One state that pays 1 per step, whatever one does, for ever or, if `ends`, once; the time limit is 3 steps."""

    def params(self, ends=False):
        return {"ends": jnp.bool_(ends), "time_limit": jnp.int32(3)}

    def start(self, key, params):
        return {}

    def move(self, key, state, action, params):
        return {}, jnp.float32(1), params["ends"]

    def observe(self, state):
        return jnp.ones(1)

    def observation_space(self, params):
        return Box(0.0, 1.0, (1,))

    def action_space(self, params):
        return Box(-2.0, 2.0, (2,))


class Diverging(Walk):
    """A walk whose simulator turns NaN outside the limit: the episode terminates there or, if `goes_on`, does not.

    If `unpaid`, the reward of that step is NaN too.
    """

    def params(self, goes_on=False, unpaid=False, **others):
        return {**super().params(**others), "goes_on": jnp.bool_(goes_on), "unpaid": jnp.bool_(unpaid)}

    def move(self, key, state, action, params):
        moved, reward, outside = super().move(key, state, action, params)
        moved["position"] = jnp.where(outside, jnp.nan, moved["position"])
        return moved, jnp.where(outside & params["unpaid"], jnp.nan, reward), outside & ~params["goes_on"]


class Glitches(Environment):
    """Counts the steps of an episode of three; what step `unpaid` pays or `unseen` shows is no number.

    If `ends`, an episode terminates after its three steps, else it is cut.
    """

    def params(self, unpaid=-1, unseen=-1, ends=False, number=jnp.nan):
        faults = {"unpaid": jnp.int32(unpaid), "unseen": jnp.int32(unseen), "number": jnp.float32(number)}
        return {**faults, "ends": jnp.bool_(ends), "time_limit": jnp.int32(3)}

    def start(self, key, params):
        return {"unseen": params["unseen"], "number": params["number"]}

    def move(self, key, state, action, params):
        reward = jnp.where(state["time"] == params["unpaid"], params["number"], 1.0)
        return state, reward, params["ends"] & (state["time"] == 2)

    def observe(self, state):
        shown = jnp.where(state["time"] == state["unseen"], state["number"], 1.0)
        return {"number": jnp.stack([jnp.float32(0), shown]), "time": state["time"]}

    def observation_space(self, params):
        return Dict({"number": Box(-1.0, 1.0, (2,)), "time": Discrete(4)})

    def action_space(self, params):
        return Discrete(2)


class DivergingChoices(Diverging):
    """The same with three actions: left, nowhere, right."""

    def move(self, key, state, action, params):
        return super().move(key, state, jnp.full(self.size, 0.4) * (action - 1), params)

    def action_space(self, params):
        return Discrete(3)
