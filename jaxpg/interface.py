"""Whether an environment has the interface of gymnax 1.0: found out by abstract evaluation, before anything is compiled."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxpg.errors import InputError
from jaxpg.spaces import action_decoder, choices, is_box

RETURNS = ("observation", "state", "reward", "terminated", "truncated", "info")


def require_interface(env: Any, params: PyTree) -> None:
    """Checks `reset`, `step` and the spaces of an environment; traces `reset` and `step` once and computes nothing.

    Not looked at are environments of `jaxpg_envs`, some of which take seconds to trace, those with levels (`sample_level`),
    whose parameters may hold a set of them, and None, for algorithms that need none. Parameters may be traced. Spaces of
    an unknown kind are left to the algorithm, which says what it takes.

    Raises:
      InputError: something is missing or of another form; the message says what, and how to add it.
    """
    if env is None or type(env).__module__.partition(".")[0] == "jaxpg_envs" or hasattr(env, "sample_level"):
        return
    if inspect.isclass(env):
        raise InputError(f"the environment is the class {env.__name__} itself: give an instance of it, {env.__name__}()")
    name = type(env).__name__
    for space in ("observation_space", "action_space"):
        _require_method(env, name, space, ("params",))
    action = _an_action(env, params)
    if action is None or not _is_known(env.observation_space(params)):
        return
    _require_method(env, name, "reset", ("key", "params"))
    _require_method(env, name, "step", ("key", "state", "action", "params"))
    key = jax.eval_shape(jax.random.key, 0)
    # Parameters are closed over, as in a rollout: Python numbers among them stay what they are.
    observation, state = jax.eval_shape(lambda key: _after_reset(name, env.reset(key, params)), key)
    _require_fit(name, "observation", env.observation_space(params), observation)
    step = lambda key, state, action: _after_step(name, observation, state, env.step(key, state, action, params))
    jax.eval_shape(step, key, state, action)


def _require_method(env: Any, name: str, method: str, arguments: tuple[str, ...]) -> None:
    written = f"{method}({', '.join(arguments)})"
    whole = "an environment has gymnax 1.0's reset(key, params), step(key, state, action, params) with automatic reset, "
    whole += "observation_space(params) and action_space(params)"
    if not hasattr(env, method):
        raise InputError(f"{name} has no {written}: {whole}")
    function = getattr(env, method)
    if not callable(function):
        raise InputError(
            f"{method} of {name} is no method but {function!r}: write `def {method}(self, params)` that returns it"
        )
    try:
        signature = inspect.signature(function)
    except ValueError:  # written in C
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        taken = f"{method}({', '.join(signature.parameters)})"
        raise InputError(f"{name} has {taken}, not {written}: {whole}") from error


def _after_reset(name: str, returned: Any) -> Any:
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise InputError(f"reset of {name} returns {_words(returned)}, not the pair (observation, state)")
    _require_arrays(name, "reset", dict(zip(("observation", "state"), returned, strict=True)))
    return returned


def _after_step(name: str, observation: PyTree, state: PyTree, returned: Any) -> Any:
    """Checks what `step` returned against the observation and the state that it was given."""
    if not isinstance(returned, tuple) or len(returned) != len(RETURNS):
        hint = (
            "; split an older interface's `done` into terminated (the task ended) and truncated (a time limit)"
            if isinstance(returned, tuple) and len(returned) == 5
            else ""
        )
        raise InputError(f"step of {name} returns {_words(returned)}, not the six ({', '.join(RETURNS)}){hint}")
    found = dict(zip(RETURNS, returned, strict=True))
    _require_arrays(name, "step", found)
    info = found.pop("info")
    for value in ("reward", "terminated", "truncated"):
        shape = jnp.shape(found[value]) if jax.tree.structure(found[value]) == jax.tree.structure(0) else None
        if shape is None or math.prod(shape) != 1 or (shape and value != "reward"):
            raise InputError(
                f"step of {name} returns as {value} {_words(found[value])}, not one number: the six are {', '.join(RETURNS)}"
            )
    if not isinstance(info, Mapping) or "final_observation" not in info:
        raise InputError(
            f"step of {name} gives no info['final_observation']: where an episode ends, the observation is already that of the "
            "next one, but values are learned from the last of the old. Add {'final_observation': observation} to info, the "
            "observation before the automatic reset, at every step"
        )
    _require_same(name, "observation", "after step", found["observation"], observation)
    _require_same(name, "state", "after step", found["state"], state)
    _require_same(name, "observation", "in info['final_observation']", info["final_observation"], observation)
    return found["observation"], found["state"]


def _require_arrays(name: str, method: str, values: dict[str, Any]) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(values):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, bool | int | float):
            where = path[0].key + jax.tree_util.keystr(path[1:])
            raise InputError(f"{method} of {name} returns in its {where} {_words(leaf)}, which is no array")


def _require_same(name: str, what: str, where: str, found: PyTree, after_reset: PyTree) -> None:
    """The structure, shapes and dtypes of what `reset` gave, since a compiled loop has one type for ever."""
    expected = dict(jax.tree_util.tree_leaves_with_path(after_reset))
    leaves = dict(jax.tree_util.tree_leaves_with_path(found))
    if jax.tree.structure(found) != jax.tree.structure(after_reset):
        differ = sorted(map(jax.tree_util.keystr, expected.keys() ^ leaves.keys()))
        parts = f" in {', '.join(differ)}" if differ else f": {jax.tree.structure(found)}, {jax.tree.structure(after_reset)}"
        raise InputError(f"the {what} of {name} has other parts {where} than after reset{parts}")
    for path, leaf in leaves.items():
        old = expected[path]
        same_type = _dtype(leaf) == old.dtype or old.weak_type  # a weak type, as of Python's numbers, gives way
        if jnp.shape(leaf) != old.shape or not same_type:
            raise InputError(
                f"the {what}{jax.tree_util.keystr(path)} of {name} is {_type(leaf)} {where} but {_type(old)} after reset: "
                "give it one shape and dtype, for example by jnp.asarray(value, dtype) in both"
            )


def _require_fit(name: str, what: str, space: Any, found: PyTree) -> None:
    """An array observation has as many numbers as its box."""
    is_box = hasattr(space, "low") and hasattr(space, "shape")
    if is_box and hasattr(found, "shape") and math.prod(space.shape) != math.prod(found.shape):
        raise InputError(f"{what}_space of {name} has the shape {tuple(space.shape)}, but reset gives {_type(found)}")


def _is_known(space: Any) -> bool:
    return any(hasattr(space, attribute) for attribute in ("n", "nvec", "low", "spaces"))


def _an_action(env: Any, params: PyTree) -> jax.ShapeDtypeStruct | None:
    """Shape and dtype of an action as the environment takes it; None for spaces of an unknown kind."""
    space = env.action_space(params)
    numbers = choices(space)
    if is_box(space):
        action = jax.ShapeDtypeStruct((math.prod(space.shape),), jnp.float32)
    elif numbers is not None:
        action = jax.ShapeDtypeStruct((numbers.size,) if numbers.ndim else (), jnp.int32)
    else:
        return None
    return jax.eval_shape(action_decoder(env, params), action)


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} values"
    return _type(value) if hasattr(value, "dtype") else f"a {type(value).__name__}"


def _type(value: Any) -> str:
    return f"{_dtype(value)}{list(jnp.shape(value))}"


def _dtype(value: Any) -> Any:
    return value.dtype if hasattr(value, "dtype") else jnp.result_type(value)  # the latter does not know keys
