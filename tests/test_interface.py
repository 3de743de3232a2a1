"""Environments with a wrong interface are refused in words before anything is compiled; right ones are left alone."""

from collections.abc import Callable
from typing import Any

import gymnasium.spaces as gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import quick_jit
from environments import Box, Cycle, Walk
from gymnax.environments import spaces as gymnax

import jaxpg
import jaxpg_envs
from jaxpg.algorithm import REGISTRY, InputError

WALK = Walk()
PARAMS = WALK.params()


def changed(**methods: Any) -> Walk:
    """A walk of which some methods are others."""
    return type("Changed", (Walk,), methods)()


def stepping(change: Callable[..., Any]) -> Walk:
    """A walk whose step returns `change(*the six)`."""
    return changed(step=lambda self, *arguments: change(*Walk.step(self, *arguments)))


class WithoutStep:
    observation_space, action_space = WALK.observation_space, WALK.action_space

    def reset(self, key: jax.Array, params: Any) -> Any:
        return WALK.reset(key, params)


class WithoutSpaces:
    reset, step = WALK.reset, WALK.step


class Gymnasium(Walk):
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:  # type: ignore[override]
        return jnp.zeros(4), {}

    def step(self, action: Any) -> Any:  # type: ignore[override]
        return jnp.zeros(4), 0.0, False, False, {}


class WithoutParams(Walk):
    def step(self, key: jax.Array, state: Any, action: Any) -> Any:  # type: ignore[override]
        return Walk.step(self, key, state, action, PARAMS)


class Remembering(Walk):
    """With a key and a Python number in its state."""

    def start(self, key: jax.Array, params: Any) -> Any:
        return Walk.start(self, key, params) | {"key": key, "count": 0}

    def move(self, key: jax.Array, state: Any, action: Any, params: Any) -> Any:
        moved, *rest = Walk.move(self, key, state, action, params)
        return moved | {"key": jax.random.split(state["key"])[0], "count": state["count"] + 1}, *rest


WRONG = [
    (WithoutStep(), r"WithoutStep has no step\(key, state, action, params\): an environment has gymnax 1.0's"),
    (WithoutSpaces(), r"WithoutSpaces has no observation_space\(params\): an environment has"),
    (object(), r"object has no observation_space\(params\)"),
    (Walk, r"is the class Walk itself: give an instance of it, Walk\(\)"),
    (Gymnasium(), r"Gymnasium has reset\(seed, options\), not reset\(key, params\)"),
    (WithoutParams(), r"WithoutParams has step\(key, state, action\), not step\(key, state, action, params\)"),
    (changed(action_space=None), r"action_space of Changed is no method but None"),
    (
        changed(action_space=property(lambda self: Box(-1, 1, (2,)))),
        r"action_space of Changed is no method but Box.*`def action",
    ),
    (changed(reset=lambda self, key, params: jnp.zeros(4)), r"reset of Changed returns float32\[4\], not the pair"),
    (changed(reset=lambda self, key, params: ("north", {})), r"reset of Changed returns in its observation a str, which is no"),
    (
        stepping(lambda o, s, r, d, t, i: (o, s, r, d | t, i)),
        r"step of Changed returns 5 values, not the six .*; split an older",
    ),
    (stepping(lambda o, s, r, d, t, i: (o, r, d, t, i)), r"returns 5 values"),
    (stepping(lambda o, s, r, d, t, i: (o, s, r, d, t)), r"returns 5 values"),
    (stepping(lambda o, s, r, d, t, i: {"observation": o}), r"step of Changed returns a dict, not the six"),
    (stepping(lambda o, s, r, d, t, i: (o, s, r, d, i, t)), r"returns as truncated a dict, not one number: the six are"),
    (stepping(lambda o, s, r, d, t, i: (o, r, s, d, t, i)), r"returns as reward a dict, not one number"),
    (stepping(lambda o, s, r, d, t, i: (o, s, jnp.stack([r, r]), d, t, i)), r"returns as reward float32\[2\], not one number"),
    (stepping(lambda o, s, r, d, t, i: (o, s, r, d[None], t, i)), r"returns as terminated bool\[1\], not one number"),
    (stepping(lambda o, s, r, d, t, i: (o, s, r, d, None, i)), r"returns as truncated a NoneType"),
    (stepping(lambda o, s, r, d, t, i: (o, s, r, d, t, {})), r"step of Changed gives no info\['final_observation'\].*Add"),
    (stepping(lambda o, s, r, d, t, i: (o, s, r, d, t, i | {"who": "me"})), r"in its info\['who'\] a str, which is no array"),
    (stepping(lambda o, s, r, d, t, i: (o, s, r, d, t, None)), r"gives no info\['final_observation'\]"),
    (
        stepping(lambda o, s, r, d, t, i: (o, s, r, d, t, {"final_observation": o[:2]})),
        r"observation of Changed is float32\[2\] in info\['final_observation'\] but float32\[4\] after reset",
    ),
    (
        stepping(lambda o, s, r, d, t, i: (o, s | {"time": s["time"] * 1.5}, r, d, t, i)),
        r"state\['time'\] of Changed is float32\[\] after step but int32\[\] after reset: give it one shape and dtype",
    ),
    (
        stepping(lambda o, s, r, d, t, i: (o, s | {"wind": r}, r, d, t, i)),
        r"state of Changed has other parts after step than after reset in \['wind'\]",
    ),
    (
        stepping(lambda o, s, r, d, t, i: (o[:3], s, r, d, t, i)),
        r"observation of Changed is float32\[3\] after step but float32\[4\] after reset",
    ),
    (
        changed(observation_space=lambda self, params: Box(-1, 1, (3,))),
        r"observation_space of Changed has the shape \(3,\), but reset gives float32\[4\]",
    ),
]


@pytest.mark.parametrize(("env", "message"), WRONG)
def test_wrong_interfaces(env: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *_, **__: pytest.fail("it compiled"))
    for name in ("ppo", "sac"):
        with pytest.raises(InputError, match=message):
            jaxpg.make(name, env, PARAMS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pmoe_ppo", "needs continuous actions, but Cycle has"),
        ("sac", "needs continuous actions, but Cycle has"),
        ("map_elites", "needs a task with a descriptor, but Walk has none"),
        ("plr", "chooses levels, but Cycle has none"),
        ("ppo", "but Walk has the buttons"),
    ],
)
def test_messages_do_without_a_name(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env: Any = Cycle() if "Cycle" in message else Walk()  # discrete and continuous actions
    monkeypatch.delattr(next(kind for kind in type(env).__mro__ if "name" in vars(kind)), "name")
    if name == "ppo":
        monkeypatch.setattr(Walk, "action_space", lambda self, params: "the buttons")
    with pytest.raises(InputError, match=message):
        jaxpg.make(name, env, PARAMS if isinstance(env, Walk) else env.params([1.0, 2.0], 5))


@pytest.mark.parametrize("name", sorted(name for name, entry in REGISTRY.items() if entry.field != "environment_design"))
def test_every_algorithm_refuses_them(name: str) -> None:
    with pytest.raises(InputError, match=r"gives no info\['final_observation'\]"):
        jaxpg.make(name, stepping(lambda o, s, r, d, t, i: (o, s, r, d, t, {})), PARAMS)


RIGHT = [
    (WALK, PARAMS),
    (Cycle(), Cycle().params([1.0, 2.0], 5)),
    (stepping(lambda o, s, r, d, t, i: (o, s, r[None], d, t, i)), PARAMS),  # a reward of one number in a row
    (stepping(lambda o, s, r, d, t, i: (o, s, 1, np.bool_(False), False, i)), PARAMS),  # Python's and numpy's numbers
    (Remembering(), PARAMS),
]


@pytest.mark.parametrize(("env", "params"), RIGHT)
def test_right_interfaces_train(env: Any, params: Any) -> None:
    algorithm = jaxpg.make("a2c", env, params, num_envs=2, num_steps=3, hidden_sizes=(4,))
    state, _ = quick_jit(lambda key: jaxpg.train(algorithm, key, 2))(jax.random.key(0))
    assert jax.tree.all(jax.tree.map(lambda x: jnp.isfinite(x).all(), state.learner.params))


TABLE = jnp.arange(10.0)
STRICT = [
    (gymnasium.Box(3, 7, (2,), np.int32), lambda action: TABLE[action[0]] + TABLE[action[1]]),
    (gymnasium.Box(3, 7, (), np.int32), lambda action: TABLE[action]),
    (gymnasium.Box(0, 255, (2,), np.uint8), lambda action: (action[0] << 1) + action[1]),
    (gymnax.Box(0, 1, (2,), bool), lambda action: ~action[0] & action[1]),
    (gymnasium.MultiBinary(3), lambda action: action[0] ^ action[2]),
    (gymnasium.MultiBinary((2, 3)), lambda action: action[0, 2] + action[1].sum()),
    (gymnasium.MultiDiscrete([[3, 4], [2, 2]]), lambda action: TABLE[action[0, 1]]),
    (gymnasium.Discrete(3, start=5), lambda action: TABLE[action]),
]


@pytest.mark.parametrize(("space", "use"), STRICT)
def test_environments_are_looked_at_with_actions_of_their_space(space: Any, use: Callable[[Any], Any]) -> None:
    """Of its shape and dtype, which they may rely on: an index, a shift, a negation."""
    move = lambda self, key, state, action, params: (state, jnp.asarray(use(action), jnp.float32), jnp.array(False))
    env = changed(move=move, action_space=lambda self, params: space)
    algorithm = jaxpg.make("a2c", env, PARAMS, num_envs=2, num_steps=3, hidden_sizes=(4,))
    jax.eval_shape(algorithm.update, jax.eval_shape(algorithm.init, jax.random.key(0)))


def test_traced_parameters() -> None:
    def returns(wind: jax.Array, learning_rate: jax.Array) -> jax.Array:
        params = PARAMS | {"wind": wind}
        algorithm = jaxpg.make("a2c", WALK, params, num_envs=2, num_steps=3, hidden_sizes=(4,), learning_rate=learning_rate)
        return jaxpg.train(algorithm, jax.random.key(0), 2)[1]["episode_length"]

    assert quick_jit(jax.vmap(returns))(jnp.array([0.0, 9.0]), jnp.array([1e-3, 1e-2])).shape == (2, 2)
    without = stepping(lambda o, s, r, d, t, i: (o, s, r, d, t, {}))
    with pytest.raises(InputError, match="final_observation"):
        jax.vmap(lambda wind: jaxpg.make("ppo", without, PARAMS | {"wind": wind}).init(jax.random.key(0)))(jnp.zeros(2))


def test_each_function_is_traced_once() -> None:
    env = Walk()
    jaxpg.make("ppo", env, PARAMS)
    assert env.traces == 1


@pytest.mark.parametrize("id", ["CartPole-v1", "Maze-v0", "brax/ant"])
def test_our_own_environments_are_not_traced(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env, params = jaxpg_envs.make(id)
    monkeypatch.setattr(type(env), "reset", lambda *_: pytest.fail("it was traced"))
    jaxpg.interface.require_interface(env, params)
