"""The options of environments: their names, types and bounds, looked up in what takes them, before anything is made of them."""

import collections.abc
import difflib
import inspect
import itertools
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxpg_envs.errors import EnvironmentInputError

ANY = "**"
LARGEST = 2**31 - 1
LARGEST_FLOAT = float(np.finfo(np.float32).max)

# Of numbers, by the option's name: what is smaller makes nothing, and what is larger takes for ever or all memory.
_BOUNDS: dict[str, tuple[float, float]] = {
    "max_steps_in_episode": (1, LARGEST),
    "n_frames": (1, 1000),
    "size": (1, 1000),
    "rows": (2, 1000),
    "columns": (1, 1000),
    "width": (2, 1000),
    "height": (2, 1000),
    "paddle_half_height": (0, 1000),
    "maze_size": (3, 101),
    "rf_size": (3, 101),
    "num_bits": (1, 10_000),
    "n_distractor": (0, 10_000),
    "n_actions": (1, 10_000),
    "mapping_seed": (0, 9_999),
    "num_actions": (1, 10_000),
    "num_joints": (1, 1000),
    "num_urchins": (1, 10_000),
    "goal_fixed": (0, 12),
    "pos_fixed": (0, 12),
    "fraction": (1e-4, 1),
}

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", types.NoneType: "null"}


def checked_options(id: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the types and within the bounds that they must have; 1e3 as an integer, and 1 as a float where one is wanted.

    Args:
        id: of the environment, for messages.
        known: what `kinds` says of that which takes them.

    Raises:
        EnvironmentInputError: an option is unknown, of another type, or out of bounds.
    """
    refuse_unknown(id, options, known)
    return {name: _checked(id, name, value, known.get(name, Any)) for name, value in options.items()}


def refuse_unknown(id: str, options: Mapping[str, Any], known: Collection[str]) -> None:
    """Raises `EnvironmentInputError` for options that are not among the known ones, or `ANY`."""
    unknown = [name for name in options if name not in known]
    if unknown and ANY not in known:
        near = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.5)
        hint = f'did you mean "{near[0]}"? ' if near else ""
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise EnvironmentInputError(f"{id}: unknown argument {', '.join(map(_shortened, unknown))}; {hint}{takes}")


def kinds(factory: Callable) -> dict[str, Any]:
    """What a function or a class takes by keyword, and the type of each: as annotated, or as its default is.

    `ANY` is among them if it takes others as well. Where a class passes `**kwargs` on, its base counts.
    """
    functions = [factory]
    if inspect.isclass(factory):
        functions = [vars(base)["__init__"] for base in factory.__mro__[:-1] if "__init__" in vars(base)]
    found: dict[str, Any] = {}
    for function in functions:
        try:
            taken = inspect.signature(function).parameters.values()
        except ValueError:  # written in C
            return {ANY: Any}
        named = [p for p in taken if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in found]
        found |= {parameter.name: _kind(function, parameter) for parameter in named}
        if all(p.kind != p.VAR_KEYWORD for p in taken):
            break
    else:
        if not inspect.isclass(factory):
            found[ANY] = Any
    given = ("self", "sys")  # brax's classes hand `sys` to their base
    return {name: kind for name, kind in found.items() if name not in given}


def try_out(id: str, options: Mapping[str, Any], env: Any, params: Any) -> None:
    """Traces `reset` and `step` once and computes nothing, since some options only show their faults then.

    Not for physics, which takes seconds to trace, and whose options are numbers and switches.

    Raises:
        EnvironmentInputError: they fail.
    """
    if not options.keys() - {"max_steps_in_episode"}:  # a number in the parameters
        return
    try:
        key = jax.eval_shape(jax.random.key, 0)
        _, state = jax.eval_shape(lambda key: env.reset(key, params), key)
        action = jax.eval_shape(env.action_space(params).sample, key)
        jax.eval_shape(lambda key, state, action: env.step(key, state, action, params), key, state, action)
        env.observation_space(params)
    except Exception as error:  # whatever their code raises
        raise refusal(id, options, error) from error


def refusal(id: str, options: Mapping[str, Any], error: Exception) -> EnvironmentInputError:
    """What is raised where an environment's code fails on its options."""
    if isinstance(error, EnvironmentInputError):
        return error
    given = ", ".join(f"{name}={_written(value)}" for name, value in options.items()) or "its defaults"
    reason = _shortened(str(error).strip().partition("\n")[0])
    return EnvironmentInputError(f"{id} refuses {given}: {reason or type(error).__name__}")


def _kind(function: Callable, parameter: inspect.Parameter) -> Any:
    """The type that an argument is of; `Any` if nothing tells."""
    try:
        annotation = typing.get_type_hints(getattr(function, "func", function)).get(parameter.name)  # of a `partial`, its own
    except (NameError, TypeError):  # types that are not imported
        annotation = None
    default = parameter.default
    if annotation is not None:
        return annotation
    if isinstance(default, tuple):
        return tuple[tuple(map(type, default))]  # type: ignore[misc]
    return type(default) if type(default) in (bool, int, float, str) else Any


def _checked(id: str, name: str, value: Any, kind: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and _fits(int(value), kind) and not _fits(value, kind):
        value = int(value)
    where = f"{id}: {name}={_written(value)}"
    if not _fits(value, kind):
        raise EnvironmentInputError(f"{where}; it must be {_words(kind)}")
    numbers = list(_numbers(value))
    if name in _BOUNDS:
        low, high = _BOUNDS[name]
        if not all(low <= number <= high for number in numbers):
            raise EnvironmentInputError(f"{where}; it must lie in [{low}, {high}]")
    elif name.endswith("_range"):  # maybe of all numbers
        if not all(low < high for low, high in itertools.pairwise(numbers)):
            raise EnvironmentInputError(f"{where}; the first number must be the smaller one")
    elif not all(abs(number) <= LARGEST_FLOAT for number in numbers):
        raise EnvironmentInputError(f"{where}; it must be finite and fit in 32 bits")
    return float(value) if kind is float else value  # JAX takes no integers of more than 32 bits


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type, as far as annotations of options go; an integer is a float, but no bool an integer."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in (int, float):
        number = int | np.integer if kind is int else int | float | np.number
        return isinstance(value, number) and not isinstance(value, bool)
    if kind is bool:
        return isinstance(value, bool | np.bool_)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is collections.abc.Callable:
        return callable(value)
    if origin in (list, tuple, collections.abc.Sequence):
        if not isinstance(value, list | tuple | np.ndarray | jax.Array):
            return False
        items = np.asarray(value).tolist() if hasattr(value, "dtype") else list(value)
        if origin is tuple and arguments[1:] != (...,):
            return len(items) == len(arguments) and all(map(_fits, items, arguments))
        return all(_fits(item, arguments[0]) for item in items)
    return not isinstance(kind, type) or isinstance(value, kind)


def _words(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_words, arguments))
    if origin is collections.abc.Callable:
        return "a function"
    if origin is tuple and arguments[1:] != (...,):
        return f"[{', '.join(map(_words, arguments))}]"
    if origin in (list, tuple, collections.abc.Sequence):
        return f"a list, of {_words(arguments[0])} each"
    return _WORDS.get(kind, f"a {getattr(kind, '__name__', kind)}")


def _numbers(value: Any) -> Iterator[Any]:
    """The real numbers in it."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float | np.number) and not isinstance(value, bool):
        yield value


def _written(value: Any) -> str:
    try:
        return _shortened(repr(value))
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "a number of thousands of digits"


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."
