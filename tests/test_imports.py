"""What is imported when: little by `import jaxpg`, the rest by its first use."""

import importlib
import json
import subprocess
import sys

import jax.numpy as jnp
import jaxtyping
import pytest

import jaxpg
from jaxpg.algorithm import REGISTRY, InputError, register
from jaxpg.algorithms.online.ppo import PPOConfig

HEAVY = {"distrax", "tensorflow_probability", "orbax", "matplotlib", "brax", "gymnax", "mujoco", "evosax", "scipy", "optax"}


def imported(program: str) -> set[str]:
    """The modules that a fresh interpreter has imported after `program`, and the packages that hold them."""
    program = f"{program}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    modules = json.loads(result.stdout.splitlines()[-1])
    return {*modules, *(name.partition(".")[0] for name in modules)}


def test_importing_both_packages_imports_nothing_heavy() -> None:
    assert imported("import jaxpg, jaxpg_envs") & (HEAVY | {"flax", "tyro", "rich"}) == set()


@pytest.mark.parametrize("arguments", [["--help"], ["list", "--help"], ["train"]])
def test_the_command_line_imports_what_it_needs(arguments: list[str]) -> None:
    main = "from jaxpg.__main__ import main\ntry: main({})\nexcept SystemExit: pass"
    modules = imported(main.format(arguments))
    of_algorithms = {"distrax", "tensorflow_probability", "optax", "evosax", "scipy"} if arguments == ["train"] else set()
    assert modules & HEAVY <= of_algorithms  # `jaxpg train` names all algorithms
    assert "jaxpg.experiment.run" not in modules


def test_an_algorithm_is_imported_when_it_is_asked_for() -> None:
    modules = imported("import jaxpg\njaxpg.REGISTRY['a2c']")
    assert "jaxpg.algorithms.online.a2c" in modules
    assert not modules & {"jaxpg.algorithms.online.dqn", "jaxpg.algorithms.environment_design.plr", "orbax", "matplotlib"}
    assert "jaxpg.algorithms.online.dqn" in imported(
        "import jaxpg\nassert len(list(jaxpg.REGISTRY)) == len(jaxpg.REGISTRY) > 20"
    )


def test_every_public_name_is_found() -> None:
    for package in (jaxpg, jaxpg.experiment):
        assert {name for name in package.__all__ if getattr(package, name) is None} == set()
        assert set(package.__all__) <= set(dir(package))
        with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
            package.nothing  # noqa: B018
    assert jaxpg.algorithms.online.ppo.PPOConfig is PPOConfig
    assert jaxpg.natural_gradient.__name__ == "jaxpg.natural_gradient"


@pytest.mark.parametrize("name", ["run", "sweep"])
def test_a_function_is_not_hidden_by_the_module_of_its_name(name: str) -> None:
    program = f"import jaxpg.experiment.{name}\nassert callable(jaxpg.experiment.{name})\n"
    assert f"jaxpg.experiment.{name}" in imported(program + f"from jaxpg.experiment import {name}\nassert callable({name})")


def test_import_hooks_see_what_is_imported_late() -> None:
    """Here that of `conftest.py`, which checks shapes."""
    with pytest.raises(jaxtyping.TypeCheckError):
        jaxpg.losses.value_loss(jnp.zeros(3, int), jnp.zeros(3, int))
    with pytest.raises(jaxtyping.TypeCheckError):
        jaxpg.evaluate("no policy", None, None, None)


def test_the_registry_is_a_mapping_that_can_be_changed() -> None:
    name = "of_this_test"
    assert name not in REGISTRY
    decorate = register(name, PPOConfig, paper="", field="", actions="", status="")
    decorate(lambda config, env, params: None)
    try:
        assert name in REGISTRY
        assert name in list(REGISTRY)
    finally:
        del REGISTRY[name]
    assert name not in REGISTRY
    assert REGISTRY.get(name) is None
    with pytest.raises(InputError, match="an algorithm 'sac' is already registered"):  # whether or not its file was imported
        register("sac", PPOConfig, paper="", field="", actions="", status="")(lambda config, env, params: None)


def test_our_algorithms_bear_the_names_of_their_files() -> None:
    for name, entry in REGISTRY.items():
        assert entry.factory.__module__.rpartition(".")[2] == name == entry.name
    factory = importlib.import_module("jaxpg.algorithms.online.ppo").ppo
    with pytest.raises(InputError, match=r"'clipped' is looked for in a file clipped\.py, but it stands in ppo\.py"):
        register("clipped", PPOConfig, paper="", field="", actions="", status="")(factory)
