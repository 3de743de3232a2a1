"""Environments of the user's: from the command line by a factory, from Python as objects, and found again."""

import json
import math
import sys

import commands
import environments
import gymnax
import pytest

import jaxpg_envs
from jaxpg.algorithm import InputError
from jaxpg.experiment import evaluate_run, load, run, sweep
from jaxpg.experiment.environment import find_again
from jaxpg_envs import EnvironmentInputError, UnknownEnvironmentError

MODULE = '''
import environments
from a_helper_beside_it import LIMIT

def make(wind: float = 0.0):
    """A walk in the wind."""
    env = environments.Walk()
    return env, env.params(LIMIT, wind=wind)

def windy(wind, rain=0): return make(wind)

number = 3
def none(): return None
'''


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "own_walk.py").write_text(MODULE)
    (tmp_path / "a_helper_beside_it.py").write_text("LIMIT = 1.5\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path not in ("", str(tmp_path))])
    for name in ("own_walk", "a_helper_beside_it"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def train(env, folder, **settings):
    return run("ppo", env, folder, **{"total_steps": 128, **commands.SETTINGS, **settings})


def description(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_factory_on_the_command_line(project, jaxpg):
    command = f"train ppo --env own_walk:make --env-options wind=0.25 --out run --total-steps 128 {commands.TINY}"
    code, _, told = jaxpg(command)
    assert code == 0, told
    assert (description(project / "run")["env"], description(project / "run")["env_options"]) == (
        "own_walk:make",
        {"wind": 0.25},
    )
    digest = json.loads((project / "run" / "summary.json").read_text())["state_digest"]
    (project / "run" / "summary.json").unlink()
    assert jaxpg(f"{command} --resume")[0] == 0
    assert json.loads((project / "run" / "summary.json").read_text())["state_digest"] == digest
    code, printed, _ = jaxpg("evaluate run --episodes 3 --json")
    assert (code, json.loads(printed)["env"]) == (0, "own_walk:make")
    code, printed, _ = jaxpg("evaluate run --env own_walk:make --env-options wind=-1 --episodes 3 --json")
    assert code == 0
    assert float(load(project / "run").env_params["wind"]) == 0.25


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("own_walk:mak", r'own_walk has no "mak"; did you mean "make"\?'),
        ("own_wall:make", "there is no module 'own_wall' in .* run the command in the folder that holds it, or install it"),
        ("own_walk:number", r'"own_walk:number" is 3: give a function that returns \(env, params\)'),
        ("own_walk:none", r'"own_walk:none" must return the pair \(env, params\), but returned a NoneType'),
        (":make", "is not of the form package.module:factory"),
        ("./own_walk:make", "is not of the form package.module:factory: name the module as `import` does"),
        ("a/folder/own_walk:make", "is not of the form package.module:factory: name the module as `import` does"),
        ("own_walk.py:make", r"there is no module 'own_walk.py' \(leave .py away\) in"),
        ("own_walk:windy", "own_walk:windy: missing a required argument: 'wind'; its arguments are the environment's options"),
        ("own_walk:", 'own_walk has no ""'),
    ],
)
def test_factories_that_are_not(project, jaxpg, env, message):
    code, _, told = jaxpg(f"train ppo --env {env} --out run")
    assert code == 2
    assert "Traceback" not in told
    with pytest.raises((UnknownEnvironmentError, EnvironmentInputError), match=message):
        jaxpg_envs.make(env)


def test_an_unknown_option_of_a_factory(project):
    with pytest.raises(
        EnvironmentInputError, match=r'own_walk:make: unknown argument rain; did you mean "wind"\? it takes wind'
    ):
        jaxpg_envs.make("own_walk:make", rain=1)


def test_code_that_somebody_elses_folder_names_is_not_called(project, jaxpg):
    train("own_walk:make", project / "run", env_options={"wind": 0.25})
    config = description(project / "run")
    assert len(config["signature"]) == 64
    for change in (
        {"signature": None},
        {"signature": "0" * 64},
        {"env_options": {"wind": 3}},
        {"env": "os:getcwd", "env_source": {}},
    ):
        (project / "run" / "config.json").write_text(json.dumps(config | change))
        code, _, told = jaxpg("evaluate run --episodes 2")
        assert (code, "a folder that you have not made (here): if you trust it, give it yourself, --env" in told) == (2, True)
        if "env" not in change:
            assert jaxpg("evaluate run --episodes 2 --env own_walk:make")[0] == 0
            wind = float(load(project / "run", env="own_walk:make").env_params["wind"])
            assert wind == (config | change)["env_options"]["wind"]


def test_a_function_in_python(project, monkeypatch):
    monkeypatch.syspath_prepend(project)
    import own_walk

    train(own_walk.make, project / "run", env_options={"wind": 0.5})
    assert description(project / "run")["env"] == "own_walk:make"
    assert float(load(project / "run").env_params["wind"]) == 0.5
    with pytest.raises(InputError, match="cannot be found again by a resumed run: give a function of a module"):
        train(lambda: own_walk.make(), project / "other")


def test_an_object_that_its_class_makes_again(tmp_path):
    train(gymnax.environments.CartPole(), tmp_path / "run")
    saved = load(tmp_path / "run")
    assert math.isfinite(evaluate_run(saved, num_episodes=2)[0])
    assert train(gymnax.environments.CartPole(), tmp_path / "run", resume=True)["state_digest"]
    heavier = gymnax.environments.CartPole().default_params.replace(gravity=12.0)
    with pytest.raises(InputError, match="holds another run: its env_source is"):
        train(gymnax.environments.CartPole(), tmp_path / "run", env_params=heavier, resume=True)


def test_an_object_that_nobody_can_make_again(tmp_path):
    walk = environments.Walk(3)
    train(walk, tmp_path / "run", env_params=walk.params())
    with pytest.raises(InputError, match=r"an object of environments:Walk, which cannot be made again .*env_params=params"):
        load(tmp_path / "run")
    saved = load(tmp_path / "run", env=environments.Walk(3), env_params=walk.params())
    assert math.isfinite(evaluate_run(saved, num_episodes=2)[0])
    calm, stormy = (walk.params(wind=wind) for wind in (0.0, 2.0))
    returns = [evaluate_run(saved, num_episodes=8, env=walk, env_params=params)[0] for params in (calm, stormy)]
    assert returns[0] > returns[1]


def test_a_registered_environment_is_found_where_it_is_not_registered(project, monkeypatch):
    monkeypatch.syspath_prepend(project)
    import own_walk

    jaxpg_envs.register("RegisteredWalk", own_walk.make)
    train("RegisteredWalk", project / "run", env_options={"wind": 0.5})
    monkeypatch.delitem(jaxpg_envs.registry._own, "RegisteredWalk")
    assert float(load(project / "run").env_params["wind"]) == 0.5


@pytest.mark.parametrize("source", [3, None, ["class"], {"class": 3}])
def test_a_source_that_is_none(source):
    with pytest.raises(InputError, match="env_source must say where its environment comes from, got"):
        find_again({"env": "SmallWalk", "env_options": {}, "env_source": source})


def test_a_sweep_over_an_object(tmp_path):
    walk = environments.Walk()
    settings = {"grid": {"learning_rate": [1e-3, 1e-2]}, "total_steps": 128, "env_params": walk.params(), **commands.SETTINGS}
    results = sweep("ppo", walk, tmp_path / "sweep", **settings)
    assert len(results["results"]) == 2


@pytest.mark.parametrize(
    ("env", "settings", "message"),
    [
        (3, {}, "env must be a name, an environment object or a function"),
        (environments.Walk, {}, "env must be a name, an environment object or a function"),
        (environments.Walk(), {}, "Walk has no default_params: give env_params"),
        ("CartPole-v1", {"env_params": ()}, "env_params goes with an environment object"),
        (gymnax.environments.CartPole(), {"env_options": {"a": 1}}, "env_options are for a name or a factory"),
    ],
)
def test_what_is_no_environment(tmp_path, env, settings, message):
    with pytest.raises(InputError, match=message):
        train(env, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()
