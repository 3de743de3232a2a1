"""What an algorithm is: a few pure functions over one state, and the registry that finds it by name."""

import dataclasses
import difflib
import importlib
import math
import typing
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import PyTree

from jaxpg.errors import InputError
from jaxpg.interface import require_interface

State: TypeAlias = PyTree
Metrics: TypeAlias = dict[str, jax.Array]
# A float or a traced float32 scalar. Not narrower, because `vmap` and `tree.map` put other leaves in its place.
Scalar: TypeAlias = Any


@struct.dataclass
class Policy:
    """How to act: a pytree, so that it passes through `jit` and `vmap` (a stack of policies is a policy).

    Attributes:
      params: what `act` reads (network parameters, normalisation statistics).
      act: `(params, key, observation, carry) -> (action, carry)` for one observation; the action lies within the
        environment's action space.
      initial_carry: memory at the start of an episode, `()` for a policy without memory.
      distribution: `(params, observation) -> distribution` over actions before they are clipped to the action space, for
        policies that have one.
    """

    params: PyTree
    act: Callable[..., Any] = struct.field(pytree_node=False)
    initial_carry: PyTree = ()
    distribution: Callable[..., Any] | None = struct.field(pytree_node=False, default=None)


class Algorithm(NamedTuple):
    """A learning algorithm as pure functions over one state pytree, in the manner of optax.

    Attributes:
      init: `key -> state`. The state holds everything that changes; saving it is a checkpoint, stacking it a population.
      update: `state -> (state, metrics)`, metrics being named scalars; algorithms that learn from data take it as a
        second argument.
      policy: `(state, deterministic=True) -> Policy`.
      config: the frozen configuration.
      env_steps_per_update: environment steps that one update takes.
      num_updates: updates of a whole run, `ceil(config.total_steps / env_steps_per_update)`.
    """

    init: Callable[[jax.Array], State]
    update: Callable[..., tuple[State, Metrics]]
    policy: Callable[..., Policy]
    config: Any
    env_steps_per_update: int
    num_updates: int


# --- Configurations: frozen pytrees whose real-valued hyperparameters are leaves ---------------------------------------


def hyperparameter(default: float | int, help: str, low: float | int = -math.inf, high: float | int = math.inf) -> Any:
    """A real-valued field within [low, high]: a leaf, so that `vmap` over it compiles once."""
    return struct.field(default=default, metadata={"help": help, "low": low, "high": high})


def static(default: Any, help: str, low: int = 1) -> Any:
    """A size (integer, at least `low`), switch or choice: a new value is a new program."""
    return struct.field(pytree_node=False, default=default, metadata={"help": help, "low": low})


class Field(NamedTuple):
    """One field of a configuration; `kind` is its type, `float` for hyperparameters."""

    name: str
    kind: Any
    default: Any
    help: str
    is_leaf: bool
    low: float
    high: float


def fields(config_class: type) -> list[Field]:
    """The fields of a configuration class, in order."""
    hints = typing.get_type_hints(config_class)
    found = []
    for field in dataclasses.fields(config_class):
        is_leaf = field.metadata.get("pytree_node", True)
        kind = float if is_leaf else hints[field.name]
        low, high = field.metadata["low"], field.metadata.get("high", math.inf)
        found.append(Field(field.name, kind, field.default, field.metadata["help"], is_leaf, low, high))
    return found


def configure(name: str, config_class: type, overrides: dict[str, Any]) -> Any:
    """The configuration `config_class(**overrides)`, checked.

    Raises:
      InputError: an unknown field, or a value of the wrong type or out of range.
    """
    known = {field.name: field for field in fields(config_class)}
    for key in overrides:
        if key not in known:
            raise InputError(f"{name} has no hyperparameter {unknown(key, known)}")
    values = {key: field.default for key, field in known.items()} | overrides
    return config_class(**{key: _checked(name, known[key], value) for key, value in values.items()})


def _checked(name: str, field: Field, value: Any) -> Any:
    where = f"{name}: {field.name}"
    if field.is_leaf:
        dtype = value.dtype if isinstance(value, jax.Array) else np.asarray(value).dtype
        is_real = jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)
        if not is_real or np.ndim(value) != 0:
            raise InputError(f"{where} must be a number, got {value!r}")
        if not isinstance(value, jax.core.Tracer) and not (field.low <= float(value) <= field.high and math.isfinite(value)):
            left, right = "[" if math.isfinite(field.low) else "(", "]" if math.isfinite(field.high) else ")"
            raise InputError(f"{where} must lie in {left}{field.low:g}, {field.high:g}{right}, got {value!r}")
        return jnp.asarray(value, jnp.float32)
    origin = typing.get_origin(field.kind)
    if origin is Literal:
        choices = typing.get_args(field.kind)
        if value not in choices:
            raise InputError(f"{where} cannot be {unknown(str(value), choices)}")
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise InputError(f"{where} must be a sequence of integers, got {value!r}")
        return tuple(_whole_number(where, item, int(field.low)) for item in value)
    if field.kind is bool:
        if not isinstance(value, bool | np.bool_):
            raise InputError(f"{where} must be True or False, got {value!r}")
        return bool(value)
    return _whole_number(where, value, int(field.low))


def _whole_number(where: str, value: Any, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer | float) or not float(value).is_integer():
        raise InputError(f"{where} must be a whole number, got {value!r}")
    if value < low:
        raise InputError(f"{where} must be at least {low}, got {value!r}")
    return int(value)


def unknown(name: str, known: Iterable[str]) -> str:
    """Words for a name that is not known: itself, the nearest match, and what there is."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{name!r}{hint} There is: {', '.join(known)}"


# --- The registry -------------------------------------------------------------------------------------------------------


Factory: TypeAlias = Callable[[Any, Any, Any], Algorithm]


class Entry(NamedTuple):
    """A registered algorithm: its factory `(config, env, params) -> Algorithm` and what the tables say of it."""

    name: str
    factory: Factory
    config_class: type
    paper: str
    field: str
    actions: str
    status: str


class Registry(MutableMapping[str, Entry]):
    """The algorithms by name. Ours are imported when they are asked for: one by its name, all when the table is read."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            _import_algorithms(name)
        return self._entries[name]

    def __setitem__(self, name: str, entry: Entry) -> None:
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        _import_algorithms()
        return iter(self._entries)

    def __len__(self) -> int:
        _import_algorithms()
        return len(self._entries)


def _import_algorithms(*name: str) -> None:
    # By its name, because algorithms stand above this module. What is imported already costs a look into a dictionary.
    importlib.import_module("jaxpg.algorithms").import_algorithms(*name)


REGISTRY = Registry()


def register(
    name: str, config_class: type, *, paper: str, field: str, actions: str, status: str
) -> Callable[[Factory], Factory]:
    """Decorator of a factory `(config, env, params) -> Algorithm`; `jaxpg.make(name, ...)` then finds it.

    Raises:
      InputError: there is an algorithm of this name, or one of ours stands in a file of another name.
    """

    def decorate(factory: Factory) -> Factory:
        package, _, file = factory.__module__.rpartition(".")
        if package.startswith("jaxpg.algorithms.") and file != name:
            raise InputError(f"the algorithm {name!r} is looked for in a file {name}.py, but it stands in {file}.py")
        if name in REGISTRY:
            raise InputError(f"an algorithm {name!r} is already registered")
        REGISTRY[name] = Entry(name, factory, config_class, paper, field, actions, status)
        return factory

    return decorate


def lookup(name: str) -> Entry:
    """The registered algorithm of this name.

    Raises:
      InputError: there is none; the nearest match is offered.
    """
    if name not in REGISTRY:
        raise InputError(f"unknown algorithm {unknown(name, REGISTRY)}")
    return REGISTRY[name]


def make(name: str, env: Any, params: PyTree, **hyperparameters: Any) -> Algorithm:
    """Builds a registered algorithm for an environment.

    Args:
      name: a name that `jaxpg list` shows.
      env: any object with the interface of gymnax 1.0.
      params: the environment's parameters; a traced pytree gives a family of algorithms under `vmap`.
      **hyperparameters: fields of the algorithm's configuration; real-valued ones may be traced.

    Raises:
      InputError: an unknown name or field, a bad value, or an environment the algorithm cannot act in.
    """
    entry = lookup(name)
    config = configure(name, entry.config_class, hyperparameters)
    require_interface(env, params)
    algorithm = entry.factory(config, env, params)
    # Compiled once per algorithm, so that a plain Python loop over `update` is fast too.
    return algorithm._replace(init=jax.jit(algorithm.init), update=jax.jit(algorithm.update))
