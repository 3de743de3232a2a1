"""Environments by name: `make("CartPole-v1")`, `make("brax/ant", backend="spring")`.

gymnax and brax take seconds to import and start JAX's backend, so they are imported by the first `make` that
needs them; the table of names is ours and costs nothing.
"""

import contextlib
import difflib
import functools
import importlib
import inspect
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from jaxpg_envs.auto_reset import step_and_reset
from jaxpg_envs.errors import EnvironmentInputError, UnknownEnvironmentError
from jaxpg_envs.options import checked_options, kinds, refusal, refuse_unknown, try_out
from jaxpg_envs.suites import SUITES, how_to_install

BRAX_BACKENDS = ("generalized", "spring", "positional", "mjx")


class Entry(NamedTuple):
    """A row of `registered()`."""

    id: str
    suite: str
    description: str


_GYMNAX = {
    "CartPole-v1": ("classic control", "balance a pole on a cart"),
    "Pendulum-v1": ("classic control", "swing a pendulum up and hold it; continuous torque"),
    "Acrobot-v1": ("classic control", "swing the tip of a two-link arm above a line"),
    "MountainCar-v0": ("classic control", "rock an underpowered car out of a valley"),
    "MountainCarContinuous-v0": ("classic control", "the same with a continuous force and a cost for it"),
    "Asterix-MinAtar": ("MinAtar", "collect treasure, avoid enemies"),
    "Breakout-MinAtar": ("MinAtar", "break bricks with a ball and a paddle"),
    "Freeway-MinAtar": ("MinAtar", "cross a road with traffic"),
    "Seaquest-MinAtar": ("MinAtar", "rescue divers with a submarine that needs air"),
    "SpaceInvaders-MinAtar": ("MinAtar", "shoot descending aliens"),
    "Catch-bsuite": ("bsuite", "catch a falling ball"),
    "DeepSea-bsuite": ("bsuite", "one treasure behind N right decisions: exploration"),
    "MemoryChain-bsuite": ("bsuite", "recall bits shown at the start: memory"),
    "UmbrellaChain-bsuite": ("bsuite", "only the first action counts, at the end: credit assignment"),
    "DiscountingChain-bsuite": ("bsuite", "choose a chain by the delay of its reward: discounting"),
    "MNISTBandit-bsuite": ("bsuite", "classify a digit in one step; downloads MNIST"),
    "SimpleBandit-bsuite": ("bsuite", "eleven arms with fixed rewards"),
    "FourRooms-misc": ("misc", "grid-world of four rooms with slipping"),
    "MetaMaze-misc": ("misc", "find a goal again and again in a maze: meta-learning"),
    "PointRobot-misc": ("misc", "find a hidden goal on a circle: meta-learning"),
    "BernoulliBandit-misc": ("misc", "two arms, redrawn each episode: meta-learning"),
    "GaussianBandit-misc": ("misc", "a risky and a safe arm, redrawn each episode: meta-learning"),
    "Reacher-misc": ("misc", "move the tip of a planar arm to a goal"),
    "Swimmer-misc": ("misc", "swim to a goal among urchins"),
    "Pong-misc": ("misc", "keep a ball in play against a scripted paddle"),
    "FrozenLake-misc": ("misc", "cross slippery ice with holes"),
}

_BRAX = {
    "ant": "run with four legs",
    "halfcheetah": "run with two legs in a plane",
    "hopper": "hop forward on one leg in a plane",
    "humanoid": "walk with a human-like body",
    "humanoidstandup": "stand up with a human-like body",
    "inverted_double_pendulum": "balance two linked poles on a cart",
    "inverted_pendulum": "balance a pole on a cart",
    "pusher": "push an object to a goal with an arm",
    "reacher": "move the tip of a planar arm to a goal",
    "swimmer": "swim with three links in a fluid",
    "walker2d": "walk with two legs in a plane",
}

_BRAX_IDS = {f"brax/{name}": ("brax", text) for name, text in _BRAX.items()} | {
    f"mjx/{name}": ("brax on MJX", text)
    for name, text in _BRAX.items()
    if name != "swimmer"  # runs on brax's "generalized" backend alone
}

_QUALITY_DIVERSITY = {
    f"brax/{name}": ("brax quality-diversity", text)
    for name, text in {
        "ant_omni": "run to every place with four legs",
        "anttrap_omni": "the same with a U-shaped wall in the way",
        "hexapod_omni": "walk to every place with six legs",
        "humanoid_omni": "walk to every place with a human-like body",
        "ant_uni": "run with every use of four legs",
        "halfcheetah_uni": "run with every use of two legs in a plane",
        "hopper_uni": "hop on one leg, on the ground for long or short",
        "walker2d_uni": "walk with every use of two legs in a plane",
    }.items()
}

_JAXPG = {
    "StatelessCartPole-v1": ("jaxpg", "balance a pole on a cart without seeing velocities: memory"),
    "TargetReaching-v0": ("jaxpg", "steer a point mass past three discs to a target: several ways to go"),
    "RandomTargetReaching-v0": ("jaxpg", "the same with a new layout in every episode"),
    "PointOmni-v0": ("jaxpg", "move a point mass to every place: quality-diversity"),
    "TrapOmni-v0": ("jaxpg", "the same with a U-shaped wall in the way"),
    "PlanarArm-v0": ("jaxpg", "reach every place with an arm bent evenly, in one step: quality-diversity"),
    "CaveEscape-v0": ("jaxpg", "find the way out of a cave, by moss and past lava: environment design"),
    "Maze-v0": ("jaxpg", "find the goal in a maze seen in part: environment design"),
    "GridWorlds-v0": ("jaxpg", "collect objects in any of many grid worlds, those of LPG: meta-learning, environment design"),
}

# Modules and functions that make them; target reaching has variants of one class.
_JAXPG_FACTORIES = {
    "StatelessCartPole-v1": ("partial_observation", "stateless_cartpole"),
    "PointOmni-v0": ("point_omni", "point_omni"),
    "TrapOmni-v0": ("point_omni", "trap_omni"),
    "PlanarArm-v0": ("planar_arm", "planar_arm"),
    "CaveEscape-v0": ("cave_escape", "cave_escape"),
    "Maze-v0": ("maze", "maze"),
    "GridWorlds-v0": ("grid_worlds", "grid_worlds"),
}

_own: dict[str, tuple[Entry, Callable[..., tuple[Any, Any]]]] = {}


def registered() -> list[Entry]:
    """Every environment that `make` knows by name: id, suite and a line of description."""
    return [
        *(Entry(id, f"gymnax {suite}", text) for id, (suite, text) in _GYMNAX.items()),
        *(Entry(id, *row) for id, row in (_BRAX_IDS | _QUALITY_DIVERSITY | _JAXPG).items()),
        *(Entry(f"{suite}/{name}", suite, text) for suite, names in SUITES.items() for name, text in names.items()),
        *(entry for entry, _ in _own.values()),
    ]


def register(id: str, factory: Callable[..., tuple[Any, Any]]) -> None:
    """Make your own environment available to `make` and to the command line.

    Args:
        id: a name that is not taken.
        factory: `factory(**kwargs)` returns `(env, params)` with gymnax's interface.

    Raises:
        EnvironmentInputError: `id` is no text or taken, or `factory` is no function that makes the pair.
    """
    if not isinstance(id, str) or not id:
        raise EnvironmentInputError(f'the name of an environment must be a text such as "MyEnv-v0", got {id!r}')
    if not callable(factory) or inspect.isclass(factory):
        what = f"the class {factory.__name__}" if inspect.isclass(factory) else repr(factory)
        raise EnvironmentInputError(
            f'environment "{id}": register takes a function that returns (env, params), got {what}; '
            "write for example: lambda: (MyEnv(), params)"
        )
    if any(entry.id == id for entry in registered()):
        raise EnvironmentInputError(f'environment "{id}" is registered already; choose another name')
    description = (inspect.getdoc(factory) or "").partition("\n")[0]
    _own[id] = Entry(id, "own", description), factory


def own_factory(id: str) -> Callable[..., tuple[Any, Any]] | None:
    """The factory that was registered under this name; None if there is none."""
    return _own[id][1] if id in _own else None


def make(id: str, /, **kwargs: Any) -> tuple[Any, Any]:
    """An environment with gymnax's interface, and its default parameters.

    Args:
        id: a name from `registered()`, one registered with gymnax itself, or `package.module:factory`: a function of
            yours that returns `(env, params)`, found from the working directory or where Python looks.
        kwargs: for the constructor of the environment. `brax/NAME` takes `backend` ("generalized", the
            default, "spring", "positional", "mjx") and `max_steps_in_episode` (default 1000) besides the
            arguments of brax's class; `mjx/NAME` is `brax/NAME` with the backend "mjx". The quality-diversity
            tasks of brax take `backend` ("spring", the default, "mjx") and `max_steps_in_episode`. The other suites
            take `max_steps_in_episode` besides what `make` in their adapter says.

    Returns:
        `(env, params)`; `params` is a pytree that `env.reset` and `env.step` take.

    Raises:
        UnknownEnvironmentError: no environment has this name, or there is no such module or factory.
        EnvironmentInputError: an argument is unknown, the constructor refuses it, or the suite is not installed.
    """
    if id in _own:
        return _make_own(id, _own[id][1], kwargs)
    if ":" in id:
        return _make_own(id, _find_factory(id), kwargs)
    if id in _BRAX_IDS:
        return _make_brax(id, kwargs)
    suite, _, name = id.partition("/")
    if name in SUITES.get(suite, ()):
        return _make_from_suite(suite, name, kwargs)
    if id in _QUALITY_DIVERSITY:
        return _make_quality_diversity(id, kwargs)
    if id in _JAXPG_FACTORIES:
        module, function = _JAXPG_FACTORIES[id]
        factory = getattr(importlib.import_module(f"jaxpg_envs.{module}"), function)
        return factory(**checked_options(id, kwargs, kinds(factory)))
    if id in ("TargetReaching-v0", "RandomTargetReaching-v0"):
        refuse_unknown(id, kwargs, ())
        env = importlib.import_module("jaxpg_envs.target_reaching").TargetReaching(random=id.startswith("Random"))
        return env, env.default_params
    if id in importlib.import_module("gymnax").registered_envs:
        return _make_gymnax(id, kwargs)
    nearest = difflib.get_close_matches(id, [entry.id for entry in registered()], n=1, cutoff=0.5)
    suggestion = f' did you mean "{nearest[0]}"?' if nearest else " one of yours is written package.module:factory;"
    raise UnknownEnvironmentError(f'unknown environment "{id}";{suggestion} `jaxpg list` shows all')


def _find_factory(id: str) -> Callable[..., tuple[Any, Any]]:
    """The factory of `package.module:factory`."""
    module_name, _, path = id.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise UnknownEnvironmentError(
            f'"{id}" is not of the form package.module:factory: name the module as `import` does, without slashes'
        )
    here = os.getcwd()
    if not {"", here} & set(sys.path):
        sys.path.insert(0, here)  # a console script does not look there; for good, as the module may import others later
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and module_name.startswith(error.name or " ")
        without = " (leave .py away)" if module_name.endswith(".py") else ""
        where = f"{without} in {here} or where Python looks"
        reason = f"there is no module {module_name!r}{where}" if missing else f"{module_name}: {error}"
        raise UnknownEnvironmentError(
            f'cannot make the environment "{id}": {reason}; run the command in the folder that holds it, or install it'
        ) from error
    for name in path.split("."):
        if not hasattr(found, name):
            nearest = difflib.get_close_matches(name, dir(found), n=1, cutoff=0.5)
            suggestion = f'; did you mean "{nearest[0]}"?' if nearest else ""
            raise UnknownEnvironmentError(f'{module_name} has no "{path}"{suggestion}')
        found = getattr(found, name)
    if not callable(found):
        raise EnvironmentInputError(f'"{id}" is {found!r}: give a function that returns (env, params)')
    return found


def _make_own(id: str, factory: Callable[..., tuple[Any, Any]], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    refuse_unknown(id, kwargs, kinds(factory))
    try:
        inspect.signature(factory).bind(**kwargs)
    except (TypeError, ValueError) as error:  # or it has none, being written in C
        raise EnvironmentInputError(f"{id}: {error}; its arguments are the environment's options") from error
    try:
        made = factory(**kwargs)
    except Exception as error:
        if not kwargs:
            raise
        raise refusal(id, kwargs, error) from error
    if not isinstance(made, tuple) or len(made) != 2:
        returned = f"{len(made)} values" if isinstance(made, tuple) else f"a {type(made).__name__}"
        raise EnvironmentInputError(
            f'the factory of environment "{id}" must return the pair (env, params), but returned {returned}; params may be '
            "None or any pytree"
        )
    return made


def _make_gymnax(id: str, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    registration = importlib.import_module("gymnax.registration")
    kwargs = checked_options(id, kwargs, kinds(registration._registry[id]))
    try:
        env, params = registration.make(id, **kwargs)
    except OSError as error:
        raise EnvironmentInputError(
            f"{id} needs a data set, which gymnax downloads when the environment is made, and that failed "
            f"({error}); make it once while connected to the internet"
        ) from error
    except Exception as error:  # whatever a constructor raises
        raise refusal(id, kwargs, error) from error
    if kwargs.get("mapping_seed", 0) >= kwargs.get("n_actions", 5):
        raise EnvironmentInputError(f"{id}: mapping_seed={kwargs['mapping_seed']}; it must be smaller than n_actions")
    kind = type(env)
    if kind.step is importlib.import_module("gymnax.environments.environment").Environment.step:
        # gymnax's own `step` computes a reset at every step.
        env.__class__ = type(kind.__name__, (kind,), {"step": jax.jit(step_and_reset, static_argnums=0)})
    try_out(id, kwargs, env, params)
    return env, params


def _make_brax(id: str, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    suite, _, name = id.partition("/")
    with _without_brax_chatter():
        brax = importlib.import_module("brax.envs")
        adapter = importlib.import_module("jaxpg_envs.brax_adapter")
        kwargs = {"backend": "generalized" if suite == "brax" else "mjx"} | kwargs
        kwargs = checked_options(id, kwargs, kinds(brax._envs[name]) | {"max_steps_in_episode": int})
        backend = kwargs["backend"]
        if backend not in BRAX_BACKENDS:
            raise EnvironmentInputError(f"{id}: unknown backend {backend!r}; choose one of {', '.join(BRAX_BACKENDS)}")
        if suite == "mjx" and backend != "mjx":
            raise EnvironmentInputError(f'{id} has the backend "mjx"; write "brax/{name}" to choose {backend!r}')
        limit = {option: value for option, value in kwargs.items() if option == "max_steps_in_episode"}
        theirs = {option: value for option, value in kwargs.items() if option not in limit}
        try:
            physics = brax.get_environment(name, **theirs)
        except Exception as error:  # whatever a constructor raises
            raise refusal(id, kwargs, error) from error
        env = adapter.BraxEnvironment(physics, id, **limit)
    return env, env.default_params


def _make_quality_diversity(id: str, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    with _without_brax_chatter():
        factory = functools.partial(importlib.import_module("jaxpg_envs.quality_diversity_brax").make, id.removeprefix("brax/"))
        env = factory(**checked_options(id, kwargs, kinds(factory)))
    return env, env.default_params


def _make_from_suite(suite: str, name: str, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    id = f"{suite}/{name}"
    with _without_brax_chatter():
        try:
            adapter = importlib.import_module(f"jaxpg_envs.{suite}_adapter")
        except ModuleNotFoundError as error:
            raise EnvironmentInputError(f"{id} is not installed ({error}): {how_to_install(suite)}") from error
        kwargs = checked_options(id, kwargs, kinds(adapter.make))
        try:
            env = adapter.make(name, **kwargs)
        except Exception as error:  # whatever a constructor raises
            raise refusal(id, kwargs, error) from error
        try_out(id, kwargs, env, env.default_params)
    return env, env.default_params


@contextlib.contextmanager
def _without_brax_chatter() -> Iterator[None]:
    """Drops what brax and MJX say about Warp being absent and about their maintenance, and nothing else."""
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            warnings.filterwarnings("ignore", "JAXopt is no longer maintained")
            warnings.filterwarnings("ignore", "Brax System, piplines and environments are not actively")
            yield
    finally:
        for line in printed.getvalue().splitlines(keepends=True):
            if not line.startswith(("Failed to import warp", "Failed to import mujoco_warp")):
                sys.stdout.write(line)
