"""Every registered environment keeps the contract of gymnax's interface.

Per environment there is one compiled program, a rollout of random actions, and everything is concluded from its
numbers: the same keys under two time limits show what a time limit may change, and a rollout that starts with
the key of an automatic reset shows what that reset should have given.

The suites that are extras are tested, by one or two of their environments, where they are installed:
`pip install -c requirements.lock -e '.[dev,jumanji,pgx,craftax,xminigrid,playground]'`.
"""

from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import QUICK_COMPILE
from numpy.testing import assert_allclose, assert_array_equal

import jaxpg_envs
from jaxpg_envs.suites import SUITES

STEPS = 40
LIMIT = 3
NO_LIMIT = 10_000

# Physics compiles in a third of the time.
PHYSICS_OPTIONS = QUICK_COMPILE | {"xla_disable_hlo_passes": "while-loop-invariant-code-motion,while-loop-constant-sinking"}

# Defects of gymnax 1.0.1 and of the suites, each an exception to one check. It must fail there: a fix upstream shows here.
DEVIATIONS = {
    ("Catch-bsuite", "observation dtype"): "declares int32, gives float32",
    ("FourRooms-misc", "observation dtype"): "declares float32, gives int32",
    ("MemoryChain-bsuite", "observation in space"): "shows a bit as -1 or 1, declares a minimum of 0",
    ("GaussianBandit-misc", "observation in space"): "shows rewards and a clock below the declared minimum 0",
    ("MetaMaze-misc", "observation in space"): "shows the reward of 10, declares a maximum of 1",
    ("UmbrellaChain-bsuite", "reward dtype"): "int32",
    ("BernoulliBandit-misc", "reward dtype"): "int32",
    ("FrozenLake-misc", "discount"): "not in info",
    ("jumanji/TSP-v1", "observation in space"): "shows position -1 before the first city",
}

SAME_START = {  # by definition of the task
    "Asterix-MinAtar",
    "DeepSea-bsuite",
    "DiscountingChain-bsuite",
    "FourRooms-misc",
    "FrozenLake-misc",
    "GridWorlds-v0",
    "Maze-v0",
    "PlanarArm-v0",
    "PointOmni-v0",
    "Pong-misc",
    "Seaquest-MinAtar",
    "SpaceInvaders-MinAtar",
    "TargetReaching-v0",
    "TrapOmni-v0",
    "brax/hopper_uni",
    "pgx/minatar-asterix",
    "pgx/minatar-seaquest",
}
SHOWS_LIMIT = {"DiscountingChain-bsuite"}  # its observation is a clock, in units of the time limit

# Of the quality-diversity tasks on brax's robots one stands for all; "own" are those of other tests.
APART = {*SUITES, "brax quality-diversity", "own"}
IDS = [*(entry.id for entry in jaxpg_envs.registered() if entry.suite not in APART), "brax/hopper_uni"]
BACKENDS = [("brax/inverted_pendulum", {"backend": backend}) for backend in ("spring", "positional")]
EXTRAS = [  # any other id may stand here, but pgx/minatar-space_invaders: a blank state lets it search for ever
    "jumanji/Game2048-v1",
    "jumanji/JobShop-v0",
    "jumanji/Maze-v0",
    "jumanji/TSP-v1",
    "pgx/2048",
    "pgx/tic_tac_toe",
    "pgx/minatar-breakout",
    "craftax/Craftax-Classic-Symbolic-v1",
    "xminigrid/MiniGrid-DoorKey-5x5",
    "playground/PendulumSwingup",
]


# Robots that take a quarter of a minute and more to compile; smaller ones stand for them.
DEAR = ("ant", "humanoid", "humanoidstandup", "pusher", "halfcheetah", "walker2d", "hopper")
CASES = [*((id, {}) for id in [*IDS, *EXTRAS]), *BACKENDS]  # the other two backends are brax/* and mjx/*


def case(id, kwargs):
    suite = id.partition("/")[0]
    package = {"playground": "mujoco_playground"}.get(suite, suite)
    missing = suite in SUITES and find_spec(package) is None
    skip = pytest.mark.skipif(missing, reason=f"needs the extra jaxpg[{suite}]")
    marks = [skip, pytest.mark.environments] if id.rpartition("/")[2] in DEAR else [skip]
    return pytest.param(id, kwargs, id=" ".join([id, *kwargs.values()]), marks=marks)


class Step(NamedTuple):
    observation: Any
    state: Any
    reward: Any
    terminated: Any
    truncated: Any
    info: Any
    in_space: Any
    successor: Any


def rollout(env, with_successor, state, keys, params):
    """Random actions from `state` in a batch of environments: `Step`, leading axes time and environment.

    Every parameter has an axis of environments.
    """

    def step(state, key, params):
        space = env.observation_space(params)
        action = env.action_space(params).sample(jax.random.fold_in(key, 1))
        observation, after, reward, terminated, truncated, info = env.step(key, state, action, params)
        in_space = space.contains(observation) & space.contains(info["final_observation"])
        # `step` splits its key: the first is for the transition, the second for the reset.
        successor = env.step_env(jax.random.split(key)[0], state, action, params)[0] if with_successor else ()
        return after, Step(observation, after, reward, terminated, truncated, info, in_space, successor)

    return jax.lax.scan(lambda state, keys: jax.vmap(step)(state, keys, params), state, keys)[1]


def quickly_compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile(compiler_options=PHYSICS_OPTIONS)


def types(tree):
    """Shape, without the leading axes of time and environment, and dtype of every leaf by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    shape = lambda leaf: leaf.shape[2:] if isinstance(leaf, np.ndarray) else leaf.shape
    return {jax.tree_util.keystr(path): (shape(leaf), leaf.dtype) for path, leaf in leaves}


def declared(space):
    """The observation that a space declares: shape and dtype of every array."""
    if hasattr(space, "spaces"):
        return {name: declared(child) for name, child in space.spaces.items()}
    return jax.ShapeDtypeStruct(space.shape, space.dtype)


def row(tree, *index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def assert_close(actual, expected):
    close = lambda x, y: assert_allclose(x, y, rtol=1e-4, atol=1e-4)  # compiled for other batch sizes
    jax.tree.map(close, actual, expected)


def make_without_download(monkeypatch, id, kwargs):
    from gymnax.utils import load_mnist

    images = np.random.default_rng(0).integers(0, 128, (20, 28, 28)).astype(np.int8)
    labels = np.arange(20, dtype=np.uint8) % 10
    monkeypatch.setattr(load_mnist, "load_mnist", lambda: ((images, labels), (images, labels)))
    return jaxpg_envs.make(id, **kwargs)


@pytest.mark.parametrize(("id", "kwargs"), [case(id, kwargs) for id, kwargs in CASES])
def test_environment(id, kwargs, monkeypatch):
    env, params = make_without_download(monkeypatch, id, kwargs)

    def check(name, holds):
        assert holds != ((id, name) in DEVIATIONS), name

    # Rollouts 0 and 1 have the same keys, so have 2 and 3; 1 and 3 have a time limit. The state before the first
    # step is blank with its time over, so that this step resets it: what compiles slowly is compiled once.
    keys = jax.random.split(jax.random.key(1), (STEPS, 2))[:, jnp.array([0, 0, 1, 1])]
    limits = np.array([NO_LIMIT, LIMIT, NO_LIMIT, LIMIT])
    rows = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (4, *jnp.shape(leaf))), params)
    rows = rows.replace(max_steps_in_episode=jnp.asarray(limits, rows.max_steps_in_episode.dtype))
    observation, state = jax.eval_shape(env.reset, jax.random.key(0), params)
    blank = jax.tree.map(lambda leaf: jnp.zeros((4, *leaf.shape), leaf.dtype), state)
    blank = blank.replace(time=blank.time + NO_LIMIT)
    directly = not id.startswith(("brax/", "mjx/", "playground/")) or "inverted_pendulum" in id  # doubles the time to compile
    compiled = quickly_compiled(partial(rollout, env, directly), blank, keys, rows)
    steps = jax.tree.map(np.asarray, compiled(blank, keys, rows))
    reset_keys = jax.vmap(jax.vmap(jax.random.split))(keys)[:, :, 1]

    # Types: those declared, and the same after a reset and after a step, so that a scan can carry them.
    actual, promised = types(observation), types(declared(env.observation_space(params)))
    assert {path: shape for path, (shape, _) in actual.items()} == {path: shape for path, (shape, _) in promised.items()}
    check("observation dtype", actual == promised)
    assert types((steps.observation, steps.state)) == types((observation, state))
    assert types(steps.info["final_observation"]) == types(observation)
    check("reward dtype", types(steps.reward) == {"": ((), jnp.float32)})
    for flag in ("terminated", "truncated"):
        assert types(getattr(steps, flag)) == types(steps.info[flag]) == {"": ((), jnp.bool_)}
    check("discount", "discount" in steps.info)

    start, steps = row(steps, 0), row(steps, slice(1, None))
    assert (start.state.time == 0).all()
    if directly:
        reset = quickly_compiled(jax.vmap(env.reset), reset_keys[0], rows)
        assert_close((start.observation, start.state), reset(reset_keys[0], rows))
    done = steps.terminated | steps.truncated
    check("observation in space", steps.in_space.all())
    assert np.isfinite(steps.reward).all()

    # The clock, and with it the time limit, which is told apart from the end of the task.
    elapsed = np.zeros(4)
    for t in range(STEPS - 1):
        elapsed += 1
        assert_array_equal(steps.truncated[t], elapsed == limits)
        elapsed[done[t]] = 0
        assert_array_equal(steps.state.time[t], elapsed)
    assert_array_equal(steps.info["terminated"], steps.terminated)
    assert_array_equal(steps.info["truncated"], steps.truncated)
    if "discount" in steps.info:
        assert_array_equal(steps.info["discount"], 1.0 - steps.terminated)

    # The final observation is the true successor, and the observation too where the episode goes on.
    final_observation = steps.info["final_observation"]
    jax.tree.map(assert_array_equal, row(steps.observation, ~done), row(final_observation, ~done))
    if directly:
        assert_close(final_observation, steps.successor)
    ends = {environment: int(np.flatnonzero(done[:, environment])[0]) for environment in (1, 3)}
    for environment, end in ends.items():
        limited, unlimited = (row(steps, slice(0, end + 1), e) for e in (environment, environment - 1))
        if id not in SHOWS_LIMIT:
            assert_close(limited.info["final_observation"], unlimited.info["final_observation"])
        assert_close(limited.reward, unlimited.reward)
        assert_array_equal(limited.terminated, unlimited.terminated)

    # After the end comes what the reset key of that step gives, and the same keys give the same rollout.
    for environment, end in ends.items():
        keys = keys.at[0, environment].set(keys[1 + end, environment])
    again = jax.tree.map(np.asarray, compiled(blank, keys, rows))
    for environment, end in ends.items():
        fresh = row((again.observation, again.state), 0, environment)
        assert_close(row((steps.observation, steps.state), end, environment), fresh)
    for environment in (0, 2):
        same = row(again, slice(1, None), environment)
        jax.tree.map(assert_array_equal, same, row(steps, slice(None), environment))

    # Other keys give other rollouts, and every episode starts elsewhere.
    assert any((leaf[:, 0] != leaf[:, 2]).any() for leaf in jax.tree.leaves(steps))
    starts = row((steps.observation, steps.state), done[:, 1], 1)
    varies = any((leaf != leaf[0]).any() for leaf in jax.tree.leaves(starts))
    assert varies == (id not in SAME_START)
