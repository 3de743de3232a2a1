"""Names and arguments: what `make` accepts, and what it says otherwise."""

import inspect
import os
import subprocess
import sys

import gymnax
import jax
import jax.numpy as jnp
import pytest
from brax import envs as brax_envs
from checks import assert_close, quick_jit

import jaxpg_envs
from jaxpg_envs import EnvironmentInputError, UnknownEnvironmentError, registry
from jaxpg_envs.quality_diversity_brax import TASKS
from jaxpg_envs.suites import SUITES

OURS = {"StatelessCartPole-v1", "TargetReaching-v0", "RandomTargetReaching-v0", "PointOmni-v0", "TrapOmni-v0", "PlanarArm-v0"}
OURS |= {"CaveEscape-v0", "Maze-v0", "GridWorlds-v0"}


def test_the_table_is_complete():
    names = set(brax_envs._envs) - {"fast"}  # brax's own test environment
    physics = {f"{suite}/{name}" for suite in ("brax", "mjx") for name in names} - {"mjx/swimmer"}
    tasks = {f"brax/{name}" for name in TASKS}
    others = {"own", *SUITES}  # other tests register their own; of the extras see test_suites.py
    ours = [entry for entry in jaxpg_envs.registered() if entry.suite not in others]
    assert {entry.id for entry in ours} == set(gymnax.registered_envs) | physics | OURS | tasks
    assert all(entry.suite and entry.description for entry in jaxpg_envs.registered() if entry.suite != "own")


def test_importing_is_light():
    heavy = {"gymnax", "brax", "mujoco", "mujoco_playground", *SUITES}
    program = f"import sys, jaxpg_envs; jaxpg_envs.registered(); print({heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=with_path())
    assert result.stdout.strip() == "set()", result.stderr


def test_making_a_brax_environment_is_quiet():
    program = "import jaxpg_envs; jaxpg_envs.make('brax/inverted_pendulum'); print('made')"
    command = [sys.executable, "-W", "default::UserWarning", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, env=with_path())
    assert result.stdout == "made\n"
    assert "maintained" not in result.stderr


def with_path():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("CartPole-v2", "CartPole-v1"), ("cartpole", "CartPole-v1"), ("hopper", "mjx/hopper"), ("brax/antt", "brax/ant")],
)
def test_an_unknown_name_offers_the_nearest(wrong, nearest):
    with pytest.raises(UnknownEnvironmentError) as error:
        jaxpg_envs.make(wrong)
    assert str(error.value) == (f'unknown environment "{wrong}"; did you mean "{nearest}"? `jaxpg list` shows all')


def test_a_name_like_no_other():
    with pytest.raises(
        UnknownEnvironmentError,
        match=r'^unknown environment "xyz"; one of yours is written package.module:factory; `jaxpg list` shows all$',
    ):
        jaxpg_envs.make("xyz")


@pytest.mark.parametrize(
    ("id", "kwargs", "message"),
    [
        ("brax/ant", {"backend": "warp"}, "'warp'; choose one of generalized, spring, positional, mjx"),
        ("mjx/ant", {"backend": "spring"}, "write \"brax/ant\" to choose 'spring'"),
        (
            "brax/ant",
            {"frames": 3},
            'unknown argument frames; did you mean "n_frames"\\? it takes .*healthy_z_range.*n_frames.*max_steps',
        ),
        ("CartPole-v1", {"gravity": 3.0}, "unknown argument gravity; it takes none"),
        ("DeepSea-bsuite", {"sise": 3}, 'unknown argument sise; did you mean "size"\\? it takes size'),
        ("FrozenLake-misc", {"map_name": "9x9"}, "refuses map_name='9x9': .*'8x8'"),
        ("FrozenLake-misc", {"success_rate": 2.0}, "refuses success_rate=2.0: .*between 0 and 1"),
    ],
)
def test_wrong_arguments(id, kwargs, message):
    with pytest.raises(EnvironmentInputError, match=message):
        jaxpg_envs.make(id, **kwargs)


def test_a_failed_download(monkeypatch):
    from gymnax.utils import load_mnist

    def fail():
        raise OSError("no route to host")

    monkeypatch.setattr(load_mnist, "load_mnist", fail)
    with pytest.raises(EnvironmentInputError, match=r"needs a data set.*no route to host.*connected"):
        jaxpg_envs.make("MNISTBandit-bsuite")


def test_arguments_arrive():
    env, params = jaxpg_envs.make("brax/ant", backend="spring", n_frames=3, max_steps_in_episode=20)
    assert (env.brax.backend, env.brax._n_frames, params.max_steps_in_episode) == ("spring", 3, 20)
    env, params = jaxpg_envs.make("brax/inverted_pendulum")
    assert (env.brax.backend, params.max_steps_in_episode, env.name) == ("generalized", 1000, "brax/inverted_pendulum")
    assert jaxpg_envs.make("mjx/inverted_pendulum")[0].brax.backend == "mjx"
    env, params = jaxpg_envs.make("DeepSea-bsuite", size=5)
    assert env.observation_space(params).shape == (5, 5)


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_own", {})


@pytest.mark.usefixtures("own_registry")
def test_own_environment():
    def short_cartpole(limit=10):
        """CartPole with a short clock.

        More text.
        """
        env, params = gymnax.make("CartPole-v1")
        return env, params.replace(max_steps_in_episode=limit)

    jaxpg_envs.register("ShortCartPole", short_cartpole)
    assert jaxpg_envs.registered()[-1] == ("ShortCartPole", "own", "CartPole with a short clock.")
    assert jaxpg_envs.make("ShortCartPole", limit=5)[1].max_steps_in_episode == 5
    with pytest.raises(EnvironmentInputError, match='unknown argument limits; did you mean "limit"\\? it takes limit'):
        jaxpg_envs.make("ShortCartPole", limits=5)
    with pytest.raises(UnknownEnvironmentError, match='did you mean "ShortCartPole"'):
        jaxpg_envs.make("ShortCartPol")
    for taken in ("ShortCartPole", "CartPole-v1", "brax/ant"):
        with pytest.raises(EnvironmentInputError, match="registered already; choose another name"):
            jaxpg_envs.register(taken, short_cartpole)


@pytest.mark.usefixtures("own_registry")
def make_nothing():
    """Nothing."""


@pytest.mark.parametrize(
    ("id", "factory", "message"),
    [
        (
            "Own-v0",
            registry.Entry,
            r'"Own-v0": register takes a function that returns \(env, params\), got the class Entry; write',
        ),
        ("Own-v0", (1, 2), r"got \(1, 2\); write for example: lambda"),
        ("Own-v0", None, "got None"),
        ("", make_nothing, "must be a text"),
        (3, make_nothing, "must be a text such as .*, got 3"),
    ],
)
def test_what_is_no_factory_is_refused(id, factory, message):
    with pytest.raises(EnvironmentInputError, match=message):
        inspect.unwrap(jaxpg_envs.register)(id, factory)  # without the tests' check of types
    assert id not in [entry.id for entry in jaxpg_envs.registered()]


@pytest.mark.parametrize(
    ("made", "words"), [(None, "a NoneType"), ((1, 2, 3), "3 values"), ([1, 2], "a list"), (object(), "a object")]
)
def test_a_factory_that_makes_no_pair_is_refused(made, words):
    id = f"Made-{words}"
    jaxpg_envs.register(id, lambda: made)
    with pytest.raises(
        EnvironmentInputError, match=rf'"{id}" must return the pair \(env, params\), but returned {words}; params'
    ):
        jaxpg_envs.make(id)


def test_own_environment_takes_any_argument_if_its_factory_does():
    jaxpg_envs.register("Any", lambda **kwargs: (kwargs, None))
    assert jaxpg_envs.make("Any", colour="red")[0] == {"colour": "red"}


@pytest.mark.parametrize("id", ["CartPole-v1", "Asterix-MinAtar"])
def test_gymnax_environments_step_as_in_gymnax(id):
    """Only what a reset costs is different: through episodes that end, the same values."""

    def play(env, params):
        def step(carry, key):
            act, *keys = jax.random.split(key, 5)
            action = jax.vmap(env.action_space(params).sample)(jax.random.split(act, 4))
            observation, state, *rest = jax.vmap(env.step, (0, 0, 0, None))(jnp.stack(keys), carry, action, params)
            return state, (observation, rest[:3], rest[3]["final_observation"])

        start = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), 4), params)[1]
        return jax.lax.scan(step, start, jax.random.split(jax.random.key(1), 100))

    ours, gymnaxs = (quick_jit(lambda make=make: play(*make(id)))() for make in (jaxpg_envs.make, gymnax.make))
    assert_close(ours, gymnaxs, rtol=1e-4, atol=1e-5)
    assert ours[1][1][1].any()  # terminated
