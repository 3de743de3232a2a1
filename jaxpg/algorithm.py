"""What an algorithm is: a few pure functions over one state, and the registry that finds it by name."""

import dataclasses
import difflib
import functools
import importlib
import itertools
import math
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sized
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import PyTree

from jaxpg.errors import InputError, counted
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
      distribution: `(params, observation) -> distribution` over actions on the policy's own scale, for policies that have
        one: bounded boxes reach from -1 to 1, integers start at 0.
      to_env: makes an action on that scale, with any leading axes, one of the environment's action space.
    """

    params: PyTree
    act: Callable[..., Any] = struct.field(pytree_node=False)
    initial_carry: PyTree = ()
    distribution: Callable[..., Any] | None = struct.field(pytree_node=False, default=None)
    to_env: Callable[..., Any] = struct.field(pytree_node=False, default=lambda action: action)


class Algorithm(NamedTuple):
    """A learning algorithm as pure functions over one state pytree, in the manner of optax.

    Attributes:
      init: `key -> state`. The state holds everything that changes; saving it is a checkpoint, stacking it a population.
      update: `state -> (state, metrics)`, metrics being named scalars; algorithms that learn from data take it as a
        second argument.
      policy: `(state, deterministic=True) -> Policy`.
      config: the frozen configuration.
      env_steps_per_update: environment steps that one update takes.
      num_updates: updates of a whole run, `ceil(config.total_steps / env_steps_per_update)`. Where `config` has
        `anneal_learning_rate` set, the learning rate has fallen to its end there, by default zero, and `train` refuses further
        updates. To go on for longer, make the algorithm with the `total_steps` of the longer run, or do not anneal.
      learns_from: the first update, counted from 1, that does what the algorithm is for; shorter runs are refused.
      until_then: words for what happens before it, with the fields that it depends on.
    """

    init: Callable[[jax.Array], State]
    update: Callable[..., tuple[State, Metrics]]
    policy: Callable[..., Policy]
    config: Any
    env_steps_per_update: int
    num_updates: int
    learns_from: int = 1
    until_then: str = ""


# --- Configurations: frozen pytrees whose real-valued hyperparameters are leaves ---------------------------------------


# The values of static fields under which a field is read: `{"surrogate": ("kl",)}`. All of a dictionary's conditions must
# hold; of several dictionaries, those of one. `()` stands for any value but an empty one. A condition on a field that the
# configuration does not have holds.
Needs: TypeAlias = dict[str, tuple] | tuple[dict[str, tuple], ...]

LARGEST = 2**31 - 1  # rows of an array, in the 32 bits that JAX counts with
LONGEST = 10**18  # environment steps, which are counted in two numbers
MOST_LAYERS = 100  # each is traced
MOST_UNITS = 2**20  # of a layer: the weights between two are no more than 64 bits can number


def hyperparameter(
    default: float | int, help: str, low: float | int = -math.inf, high: float | int = math.inf, needs: Needs = ()
) -> Any:
    """A real-valued field within [low, high]: a leaf, so that `vmap` over it compiles once.

    Args:
      needs: when it is read, if not always; elsewhere `configure` refuses to set it.
    """
    return struct.field(default=default, metadata={"help": help, "low": low, "high": high, "needs": needs})


def static(default: Any, help: str, low: int = 1, high: int = LARGEST, needs: Needs = ()) -> Any:
    """A size (integer within [low, high]), switch, choice or name: a new value is a new program.

    Args:
      high: `LONGEST` for environment steps that are only counted; rows of an array are at most `LARGEST`.
      needs: as for a hyperparameter.
    """
    metadata = {"help": help, "low": low, "high": high, "needs": needs}
    return struct.field(pytree_node=False, default=default, metadata=metadata)


class Field(NamedTuple):
    """One field of a configuration; `kind` is its type, `float` for hyperparameters, `help` says when it is read."""

    name: str
    kind: Any
    default: Any
    help: str
    is_leaf: bool
    low: float
    high: float
    needs: tuple[dict[str, tuple], ...] = ()


def fields(config_class: type) -> list[Field]:
    """The fields of a configuration class, in order."""
    hints = typing.get_type_hints(config_class)
    found = []
    for field in dataclasses.fields(config_class):
        is_leaf = field.metadata.get("pytree_node", True)
        kind = float if is_leaf else hints[field.name]
        low, high, needs = (field.metadata[name] for name in ("low", "high", "needs"))
        cases = (needs,) if isinstance(needs, dict) else needs
        known = tuple({name: values for name, values in case.items() if name in hints} for case in cases)
        needs = known if all(known) else ()
        help = field.metadata["help"] + (f" ({_words(needs)})" if needs else "")
        found.append(Field(field.name, kind, field.default, help, is_leaf, low, high, needs))
    return found


def _words(needs: tuple[dict[str, tuple], ...]) -> str:
    one = lambda name, values: f"{name} = {' or '.join(map(str, values))}" if values else f"{name} that are not empty"
    return ", or ".join(" and ".join(one(*condition) for condition in case.items()) for case in needs)


def unmet(field: Field, values: Mapping[str, Any]) -> list[str]:
    """The fields because of whose values a configuration does not read `field`; none if it does."""
    is_empty = lambda value: isinstance(value, Sized) and len(value) == 0
    holds = lambda name, allowed: name not in values or (values[name] in allowed if allowed else not is_empty(values[name]))
    cases = [[name for name, allowed in case.items() if not holds(name, allowed)] for case in field.needs]
    return list(dict.fromkeys(name for case in cases for name in case)) if all(cases) else []


def configure(name: str, config_class: type, overrides: dict[str, Any]) -> Any:
    """The configuration `config_class(**overrides)`, checked.

    Raises:
      InputError: an unknown field, a value of the wrong type or out of range, or one that nobody would read: a field whose
        `needs` are not met may be given its default only.
    """
    known = {field.name: field for field in fields(config_class)}
    for key in overrides:
        if key not in known:
            raise InputError(f"{name} has no hyperparameter {unknown(key, known)}")
    values = {key: field.default for key, field in known.items()} | overrides
    checked = {key: check_value(name, known[key], value) for key, value in values.items()}
    for key, value in overrides.items():
        if not _is_default(known[key], value):
            require_read(name, known[key], checked)
    return config_class(**checked)


def _is_default(field: Field, value: Any) -> bool:
    if field.is_leaf:
        return not isinstance(value, jax.core.Tracer) and bool(np.float32(value) == np.float32(field.default))
    return bool((tuple(value) if isinstance(field.default, tuple) else value) == field.default)


def require_read(name: str, field: Field, values: Mapping[str, Any]) -> None:
    """Raises `InputError` if a configuration of the algorithm `name` with these values does not read the field."""
    if others := unmet(field, values):
        default = f"{field.default:g}" if field.is_leaf else field.default
        raise InputError(
            f"{name}: {field.name} is read only with {_words(field.needs)}, but "
            f"{' and '.join(f'{other} is {values[other]}' for other in others)}: "
            f"leave {field.name} at {default}, or set {' or '.join(others)}"
        )


def still_read(name: str, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Of a saved configuration, maybe of an earlier version, what the algorithm `name` reads."""
    known = {field.name: field for field in fields(lookup(name).config_class)}
    return {key: value for key, value in saved.items() if key in known and not unmet(known[key], saved)}


def check_value(name: str, field: Field, value: Any) -> Any:
    """A value as a configuration of the algorithm `name` holds it; raises `InputError` if it is none of the field's."""
    allowed = allowed_value(f"{name}: {field.name}", field, value)
    return jnp.asarray(allowed, jnp.float32) if field.is_leaf else allowed


def allowed_value(where: str, field: Field, value: Any) -> Any:
    """A value of the field's type and within its bounds, without waking JAX's backend.

    Raises:
      InputError: it is not; the message begins with `where`.
    """
    if field.is_leaf:
        if not _is_real_number(value):
            raise InputError(f"{where} must be a number, got {written(value)}")
        if not isinstance(value, jax.core.Tracer):
            left, right = "[" if math.isfinite(field.low) else "(", "]" if math.isfinite(field.high) else ")"
            is_within = field.low <= value <= field.high
            if not is_within or not math.isfinite(_rounded(value)):
                bits = " in 32 bits" if is_within and value not in (-math.inf, math.inf) else ""
                raise InputError(f"{where} must lie in {left}{field.low:g}, {field.high:g}{right}{bits}, got {written(value)}")
        return value
    origin = typing.get_origin(field.kind)
    if origin is Literal:
        choices = typing.get_args(field.kind)
        if not isinstance(value, str) or value not in choices:
            raise InputError(f"{where} cannot be {unknown(value if isinstance(value, str) else written(value), choices)}")
        return value
    if origin is tuple:
        is_sequence = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
        if not is_sequence or getattr(value, "ndim", 1) == 0:
            raise InputError(f"{where} must be a sequence of integers, got {written(value)}")
        value = tuple(itertools.islice(value, MOST_LAYERS + 1))
        if len(value) > MOST_LAYERS:
            raise InputError(f"{where} must be at most {MOST_LAYERS} integers, got {written(value)}")
        return tuple(whole_number(where, item, field.low, min(field.high, MOST_UNITS)) for item in value)
    if field.kind is bool:
        if not isinstance(value, bool | np.bool_):
            raise InputError(f"{where} must be True or False, got {written(value)}")
        return bool(value)
    if field.kind is str:
        if not isinstance(value, str) or not value or not value.isprintable():
            raise InputError(f"{where} must be a text of printable letters, got {written(value)}")
        return value
    return whole_number(where, value, field.low, field.high)


def _is_real_number(value: Any) -> bool:
    """Whether it is one of Python's, numpy's or JAX's, which may be traced."""
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        return isinstance(value, int | float) and not isinstance(value, bool)
    is_real = jnp.issubdtype(value.dtype, jnp.integer) or jnp.issubdtype(value.dtype, jnp.floating)
    return is_real and value.ndim == 0


def _rounded(value: Any) -> float:
    """The nearest number of 32 bits; infinity, if there is none."""
    try:
        with np.errstate(over="ignore"):
            return float(np.float32(value))
    except OverflowError:  # an integer beyond 64 bits' floating-point numbers
        return math.inf


def whole_number(where: str, value: Any, low: int | float, high: int | float) -> int:
    """A whole number within [low, high] as an `int`, from one of Python's or numpy's, 1e6 included.

    Raises:
      InputError: it is none; the message begins with `where`.
    """
    is_whole = isinstance(value, int | np.integer) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_whole:
        raise InputError(f"{where} must be a whole number, got {written(value)}")
    if value < low:
        raise InputError(f"{where} must be at least {low}, got {written(value)}")
    if value > high:
        raise InputError(f"{where} must be at most {high}, got {written(value)}")
    return int(value)


def shortest(value: Any) -> float:
    """The number with the fewest digits that is the same float32; itself, if it is none (0.1 + 0.2)."""
    with np.errstate(over="ignore"):
        exact, rounded = float(value), np.float32(value)
    return float(str(rounded)) if float(rounded) == exact else exact


def written(value: Any) -> str:
    """A value of the user's, for a message: numbers of any type by their shortest decimal, and of what is long the start."""
    is_array = isinstance(value, jax.Array) and value.shape == () and not isinstance(value, jax.core.Tracer)
    value = value.item() if is_array or isinstance(value, np.generic) else value
    try:
        text = repr(shortest(value) if isinstance(value, float) else value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return f"a number of more than {sys.get_int_max_str_digits()} digits"
    return text if len(text) <= 200 else f"{text[:200]}..."


def plain_value(field: Field, value: Any) -> Any:
    """A checked value of a configuration as JSON has it."""
    if field.is_leaf:
        return shortest(value)
    return list(value) if isinstance(value, tuple) else value


def unknown(name: Any, known: Iterable[str]) -> str:
    """Words for a name that is not known: itself, the nearest match, and what there is."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{written(name)}{hint} There is: {', '.join(known)}"


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
    if not isinstance(name, str) or name not in REGISTRY:
        raise InputError(f"unknown algorithm {unknown(name, REGISTRY)}")
    return REGISTRY[name]


NARROW = {"float64": "float32", "int64": "int32", "uint64": "uint32", "complex128": "complex64"}


def in_32_bits(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function computing in 32 bits, whatever `jax_enable_x64` says, so that both ways give the same numbers.

    With that flag most of what JAX makes is 64 bits wide unless told otherwise, and states would change their types from one
    update to the next. Without it, this does nothing.
    """

    def narrow(leaf: Any) -> Any:
        is_wide = isinstance(leaf, jax.Array | np.ndarray) and str(leaf.dtype) in NARROW  # numbers of numpy's keep their digits
        return leaf.astype(NARROW[str(leaf.dtype)]) if is_wide else leaf

    @functools.wraps(function)
    def narrowed(*args: Any, **kwargs: Any) -> Any:
        if not jax.config.jax_enable_x64:
            return function(*args, **kwargs)
        args, kwargs = jax.tree.map(narrow, (args, kwargs))
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return narrowed


@in_32_bits
def make(name: str, env: Any, params: PyTree, **hyperparameters: Any) -> Algorithm:
    """Builds a registered algorithm for an environment.

    Args:
      name: a name that `jaxpg list` shows.
      env: any object with the interface of gymnax 1.0.
      params: the environment's parameters; a traced pytree gives a family of algorithms under `vmap`.
      **hyperparameters: fields of the algorithm's configuration; real-valued ones may be traced.

    Raises:
      InputError: an unknown name or field, a bad value or one that nobody would read, an environment the algorithm cannot
        act in, or a run that would end before it learns.
    """
    algorithm = _build(name, env, params, hyperparameters)
    try:
        require_enough_updates(algorithm, algorithm.num_updates)
    except InputError as error:
        raise InputError(f"{name}: a run of total_steps = {algorithm.config.total_steps}: {error}") from None
    return algorithm


def rebuild(name: str, env: Any, params: PyTree, saved: dict[str, Any]) -> Algorithm:
    """As `make`, from the saved configuration of a run that exists, also where today `make` would refuse it.

    What is not read (any more) is passed over.
    """
    return _build(name, env, params, still_read(name, saved))


def _build(name: str, env: Any, params: PyTree, hyperparameters: dict[str, Any]) -> Algorithm:
    entry = lookup(name)
    config = configure(name, entry.config_class, hyperparameters)
    try:
        require_interface(env, params)
        algorithm = entry.factory(config, env, params)
    except AttributeError as error:
        if env is not None and params is not None:
            raise
        missing = "an environment" if env is None else "the environment's parameters, such as env.default_params"
        raise InputError(f"{name} needs {missing}, got None; env, params = jaxpg_envs.make(name) gives both") from error
    # Compiled once per algorithm, so that a plain Python loop over `update` is fast too.
    compiled = lambda function: jax.jit(in_32_bits(_of_possible_sizes(name, config, function)))
    return algorithm._replace(init=compiled(algorithm.init), update=compiled(algorithm.update))


def _of_possible_sizes(name: str, config: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which while it is traced raises `InputError` where a product of sizes does not fit in 32 bits."""

    @functools.wraps(function)
    def of_possible_sizes(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except OverflowError as error:
            sizes = {field.name: getattr(config, field.name) for field in fields(type(config)) if field.kind is int}
            largest = max(sizes.keys() - {"total_steps"}, key=lambda size: sizes[size])
            raise InputError(
                f"{name}: its sizes make an array of more rows than 32 bits can number; the largest of them is {largest} = "
                f"{sizes[largest]}: take fewer"
            ) from error

    return of_possible_sizes


def require_enough_updates(algorithm: Algorithm, num_updates: int) -> None:
    """Raises `InputError` if a run of so many updates would end before it learns."""
    if num_updates < algorithm.learns_from:
        steps = algorithm.env_steps_per_update
        raise InputError(
            f"{counted(num_updates, 'update')} of {counted(steps, 'environment step')} will not do, since "
            f"{algorithm.until_then}, before update {algorithm.learns_from}: take at least {algorithm.learns_from * steps} "
            "steps, or lower what is named"
        )
