"""The environment of a run: by name, by a factory of the user's, or an object, and how it is found again from `config.json`."""

import hashlib
import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

import jaxpg_envs
from jaxpg.algorithm import InputError, written
from jaxpg.errors import name_of
from jaxpg.experiment.trust import has_code, is_own
from jaxpg_envs.registry import own_factory


class Environment(NamedTuple):
    """An environment with its parameters.

    Attributes:
      name: what `config.json` calls it.
      source: of an environment of the user's, where it comes from: `{"factory": "module:function"}`, or for an object
        `{"class": "module:Class", "fingerprint": ...}`; empty for an environment that jaxpg knows.
    """

    name: str
    env: Any
    params: PyTree
    source: dict[str, str]


def find_environment(env: Any, env_options: Mapping[str, Any] | None = None, env_params: PyTree = None) -> Environment:
    """The environment that a user names or hands over.

    Args:
      env: a name for `jaxpg_envs.make`, a factory that returns `(env, params)`, or an object with gymnax's interface.
      env_options: keyword arguments of the name's or the factory's.
      env_params: of an object, by default its `default_params`.

    Raises:
      InputError: it is none of them, or has options that it cannot take.
    """
    if not isinstance(env_options, Mapping | None) or not all(isinstance(name, str) for name in env_options or {}):
        raise InputError(f"env_options must be a mapping from names to values, got {written(env_options)}")
    options = dict(env_options or {})
    is_object = hasattr(env, "reset") and not isinstance(env, type)
    if env_params is not None and not is_object:
        raise InputError("env_params goes with an environment object; a name or a factory brings its own")
    if isinstance(env, str):
        factory = own_factory(env)
        source = {"factory": reference(factory)} if factory is not None and is_importable(factory) else {}
        return Environment(env, *jaxpg_envs.make(env, **options), source)
    if is_object:
        if options:
            raise InputError(f"env_options are for a name or a factory; {type(env).__name__} is made already")
        if env_params is None and not hasattr(env, "default_params"):
            raise InputError(f"{type(env).__name__} has no default_params: give env_params, its parameters")
        params = env.default_params if env_params is None else env_params
        source = {"class": reference(type(env)), "fingerprint": fingerprint(env, params)}
        return Environment(name_of(env), env, params, source)
    if not callable(env) or isinstance(env, type):
        raise InputError(
            f"env must be a name, an environment object or a function that returns (env, params), got {written(env)}"
        )
    if not is_importable(env):
        raise InputError(
            f"{reference(env)} cannot be found again by a resumed run: give a function of a module, or the environment object"
        )
    return Environment(reference(env), *jaxpg_envs.make(reference(env), **options), {"factory": reference(env)})


def find_again(description: dict[str, Any]) -> Environment:
    """The environment of a saved run.

    Raises:
      InputError: it is code in a folder that somebody else has made, or was an object that cannot be made again, so that it has
        to be given; or the description was not written by us.
    """
    name, source = description["env"], description.get("env_source", {})
    if not isinstance(source, dict) or not all(isinstance(text, str) for text in source.values()):
        raise InputError(f"the run's env_source must say where its environment comes from, got {written(source)}")
    if has_code(description) and not is_own(description):
        code = source.get("factory") or source.get("class") or name
        raise InputError(
            f"the run's environment is code, {code}, named by a folder that you have not made (here): if you trust it, give it "
            f"yourself, --env {name} or jaxpg.experiment.load(folder, env=...)"
        )
    if "class" not in source:
        try:
            return find_environment(name, description["env_options"])
        except jaxpg_envs.UnknownEnvironmentError:
            if "factory" not in source:
                raise
            # Registered by the script that trained, and not by this one.
            return Environment(name, *jaxpg_envs.make(source["factory"], **description["env_options"]), source)
    try:
        found = find_environment(_imported(source["class"])())
    except Exception:  # whatever a constructor without its arguments raises
        found = None
    if found is None or found.source != source:
        raise InputError(
            f"the run was trained on an object of {source['class']}, which cannot be made again without knowing how: "
            "give it, jaxpg.experiment.load(folder, env=object, env_params=params); environments from a factory, "
            "--env package.module:factory, are found again"
        )
    return found._replace(name=name)


def reference(function: Any) -> str:
    """`module:name` of a function or a class."""
    return f"{function.__module__}:{getattr(function, '__qualname__', repr(function))}"


def is_importable(function: Any) -> bool:
    """Whether its reference leads back to it."""
    try:
        return _imported(reference(function)) is function
    except (ImportError, AttributeError, ValueError):
        return False


def _imported(text: str) -> Any:
    module, _, path = text.partition(":")
    found = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def fingerprint(env: Any, params: PyTree) -> str:
    """Tells environment objects of one class apart: by their attributes and parameters."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path((vars(env) if hasattr(env, "__dict__") else {}, params))[0]:
        is_data = isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex)
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf) if is_data else None
        words = f"{array.dtype.str} {array.shape}" if array is not None else repr(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {words}\n".encode())
        total.update(array.tobytes() if array is not None else b"")
    return total.hexdigest()
