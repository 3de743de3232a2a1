"""Options of environments: whatever is given, what cannot be is refused in words, before anything is made or compiled."""

import functools
import importlib
import math

import jax
import numpy as np
import pytest
from brax import envs as brax_envs

import jaxpg_envs
from jaxpg_envs import EnvironmentInputError, registry
from jaxpg_envs.options import ANY, checked_options, kinds
from jaxpg_envs.suites import SUITES

ODD = ["abc", "", None, [1], {}, -1, 0.5, 1e9, 10**15, 10**400, math.nan, math.inf, -math.inf, True, ["a"], [[1]], [2, 1], "\0"]


def maker(id):
    """The function or class that takes an environment's options."""
    name = id.partition("/")[2]
    if id in registry._GYMNAX:
        return importlib.import_module("gymnax.registration")._registry[id]
    if id in registry._BRAX_IDS:
        return importlib.import_module("brax.envs")._envs[name]
    if id in registry._QUALITY_DIVERSITY:
        return functools.partial(importlib.import_module("jaxpg_envs.quality_diversity_brax").make, name)
    if id in registry._JAXPG_FACTORIES:
        module, function = registry._JAXPG_FACTORIES[id]
        return getattr(importlib.import_module(f"jaxpg_envs.{module}"), function)
    return lambda: None


INSTALLED = [entry.id for entry in jaxpg_envs.registered() if entry.suite != "own" and entry.id.split("/")[0] not in SUITES]


def refusal(call, *arguments, **options):
    """What it says; None if it is content."""
    try:
        call(*arguments, **options)
    except EnvironmentInputError as error:
        return str(error)


@pytest.mark.parametrize("id", INSTALLED)
def test_odd_options_work_or_are_refused_in_words(id, monkeypatch):
    """By what annotations, defaults and bounds say; what these let pass, gymnax's own are made with and traced."""
    data = np.zeros((10, 28, 28)), np.zeros(10, int)
    monkeypatch.setattr("gymnax.utils.load_mnist.load_mnist", lambda: (data, data))  # else downloaded
    known = kinds(maker(id))
    assert ANY not in known
    if id in registry._BRAX_IDS:
        known["max_steps_in_episode"] = int
    for name, kind in known.items():
        accepted = []
        for value in ODD:
            wrong = refusal(checked_options, id, {name: value}, known)
            assert wrong is None or wrong.startswith(f"{id}: {name}=")
            if wrong is None:
                accepted.append(value)
            if wrong is not None or "/" not in id:  # brax's are dear to make
                said = refusal(jaxpg_envs.make, id, **{name: value})
                assert said == wrong or (wrong is None and said.startswith(f"{id} refuses {name}="))
        if kind is int:
            assert all((0 < value <= 1e9 and value == int(value)) or name == "mapping_seed" for value in accepted)
        if kind is float:
            assert all(abs(value) <= 1e15 and value is not True for value in accepted)
    for name in ("id", "self", "nosuch", "kwargs"):
        assert f"{id}: unknown argument {name}; " in refusal(jaxpg_envs.make, id, **{name: 3})


@pytest.mark.parametrize("suite", SUITES)
def test_suites_that_are_not_installed_refuse_too(suite):
    with pytest.raises(EnvironmentInputError):
        jaxpg_envs.make(f"{suite}/{next(iter(SUITES[suite]))}", max_steps_in_episode="abc")


@pytest.mark.parametrize(
    ("id", "options", "message"),
    [
        ("Maze-v0", {"size": "abc"}, "Maze-v0: size='abc'; it must be a whole number"),
        ("Maze-v0", {"size": 1e9}, "Maze-v0: size=1000000000; it must lie in [1, 1000]"),
        ("MemoryChain-bsuite", {"num_bits": -1}, "MemoryChain-bsuite: num_bits=-1; it must lie in [1, 10000]"),
        ("brax/ant", {"n_frames": -1}, "brax/ant: n_frames=-1; it must lie in [1, 1000]"),
        ("brax/ant", {"backend": 3}, "brax/ant: backend=3; it must be a text"),
        ("brax/ant", {"healthy_z_range": [0.3]}, "brax/ant: healthy_z_range=[0.3]; it must be [a number, a number]"),
        ("brax/ant", {"healthy_z_range": [1, 1]}, "brax/ant: healthy_z_range=[1, 1]; the first number must be the smaller one"),
        ("brax/ant", {"healthy_reward": 1e39}, "brax/ant: healthy_reward=1e+39; it must be finite and fit in 32 bits"),
        ("brax/ant_uni", {"max_steps_in_episode": 0}, "brax/ant_uni: max_steps_in_episode=0; it must lie in [1, 2147483647]"),
        ("brax/ant_uni", {"max_steps_in_episode": "x"}, "max_steps_in_episode='x'; it must be a whole number or null"),
        ("MetaMaze-misc", {"maze_size": 4}, "MetaMaze-misc refuses maze_size=4: AssertionError"),
        (
            "FourRooms-misc",
            {"goal_fixed": [1]},
            "FourRooms-misc refuses goal_fixed=[1]: select cases must have the same shapes",
        ),
        ("FourRooms-misc", {"goal_fixed": [1, 13]}, "goal_fixed=[1, 13]; it must lie in [0, 12]"),
        ("FourRooms-misc", {"use_visual_obs": "False"}, "use_visual_obs='False'; it must be true or false"),
        ("FrozenLake-misc", {"desc": "SG"}, "desc='SG'; it must be a list, of a text each or null"),
        ("DiscountingChain-bsuite", {"mapping_seed": 5}, "mapping_seed=5; it must be smaller than n_actions"),
        ("DeepSea-bsuite", {"action_mapping_key": 3}, "action_mapping_key=3; it must be"),
        ("DeepSea-bsuite", {"siz": 3}, 'DeepSea-bsuite: unknown argument siz; did you mean "size"? it takes size'),
        ("Maze-v0", {"x" * 300: 3}, f"Maze-v0: unknown argument {'x' * 200}...; it takes size"),
    ],
)
def test_what_a_refusal_says(id, options, message):
    assert message in refusal(jaxpg_envs.make, id, **options)


def test_numbers_arrive_in_the_type_that_is_wanted():
    known = kinds(brax_envs._envs["ant"]) | {"max_steps_in_episode": int}
    given = {"n_frames": 2.0, "healthy_reward": 10**15, "healthy_z_range": [0.2, math.inf], "max_steps_in_episode": 1e3}
    found = checked_options("brax/ant", given, known)
    assert found == given
    assert [type(value) for value in found.values()] == [int, float, list, int]


def test_an_own_factory_that_fails_on_its_options_is_no_traceback(monkeypatch):
    monkeypatch.setattr(registry, "_own", {})

    def own(size=3):
        return jax.numpy.zeros(size), None

    jaxpg_envs.register("Own", own)
    assert jaxpg_envs.make("Own", size=(2, 2))[0].shape == (2, 2)
    assert refusal(jaxpg_envs.make, "Own", size=-1).startswith("Own refuses size=-1: ")
    assert "no signature" in refusal(jaxpg_envs.make, "builtins:max")
