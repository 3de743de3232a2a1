"""An environment's parameters, changed or drawn at random without breaking what depends on them."""

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from jaxpg_envs.registry import EnvironmentInputError


class Rules(NamedTuple):
    """What a class of parameters does not say itself.

    Attributes:
        derived: fields that follow from others: the formula, and the function of the parameters.
        unread: fields that no step, reset or space reads.
        aliases: clearer names: the field, and its value per unit of the alias.
        minimum: smallest sensible values; `POSITIVE` excludes 0.
    """

    derived: Mapping[str, tuple[str, Callable[[Any], Any]]] = {}
    unread: Sequence[str] = ()
    aliases: Mapping[str, tuple[str, float]] = {}
    minimum: Mapping[str, float] = {}


POSITIVE = float(np.finfo(np.float32).tiny)

# By qualified name, because importing gymnax and brax takes seconds.
_RULES = {
    "gymnax.environments.classic_control.cartpole.EnvParams": Rules(
        derived={
            "total_mass": ("masscart + masspole", lambda p: p.masscart + p.masspole),
            "polemass_length": ("masspole * length", lambda p: p.masspole * p.length),
        },
        aliases={"pole_length": ("length", 0.5)},  # `length` is the distance to the pole's centre of mass
    ),
    "gymnax.environments.classic_control.acrobot.EnvParams": Rules(unread=["link_length_2"]),
    "gymnax.environments.minatar.asterix.EnvParams": Rules(unread=["shot_cool_down"]),
    "gymnax.environments.minatar.seaquest.EnvParams": Rules(unread=["ramp_interval", "enemy_move_interval"]),
    "gymnax.environments.misc.bernoulli_bandit.EnvParams": Rules(
        derived={"t_max": ("max_steps_in_episode", lambda p: p.max_steps_in_episode)},  # scales the clock it shows
    ),
    "jaxpg_envs.brax_adapter.BraxParams": Rules(
        minimum={"mass_scale": POSITIVE, "friction_scale": 0.0, "damping_scale": 0.0},
    ),
}


def replace_params(params: PyTree, **changes: Any) -> PyTree:
    """`params` with some fields changed, and those that follow from them recomputed.

    `params.replace` leaves derived fields as they were: CartPole with a heavier pole would keep its total mass, and
    follow no physics at all. Works on traced values; what they hold cannot be checked then.

    Args:
        params: the parameters of an environment, a dataclass.
        changes: new values by the name of the field. CartPole also takes `pole_length`, the length of the whole
            pole in m, where its field `length` is half of that.

    Raises:
        EnvironmentInputError: a name is unknown, derived from others, or without any effect; a value is not
            finite, too small, or not an integer or a flag where the field is one.
    """
    rules = _rules(params)
    fields: dict[str, Any] = {}
    for name, value in changes.items():
        field = _field(params, name)
        if field in fields:
            raise EnvironmentInputError(f'"{name}" and "{field}" are the same parameter; give one of them')
        value = _checked(name, value, params, field)
        fields[field] = value if field == name else value * rules.aliases[name][1]
    changed = dataclasses.replace(params, **fields)
    return dataclasses.replace(changed, **{name: derive(changed) for name, (_, derive) in rules.derived.items()})


def sample_params(key: PRNGKeyArray, params: PyTree, ranges: Mapping[str, Any]) -> PyTree:
    """`params` with some fields drawn uniformly, each on its own, and those that follow from them recomputed.

    Pure: `vmap` it over keys for a batch of different environments, and step them with `in_axes` 0 for the
    parameters.

        params = jax.vmap(lambda key: sample_params(key, params, {"pole_length": (0.3, 1.2)}))(keys)

    Args:
        key: typed or raw.
        params: the parameters of one environment, a dataclass.
        ranges: (low, high) by the names that `replace_params` takes. A pair of numbers makes one draw, which all
            entries of the field share (`mass_scale`: all bodies are heavier by one factor); a pair of arrays
            makes a draw for each entry. Integers include `high`. The draws of one field do not depend on which
            others are drawn.

    Raises:
        EnvironmentInputError: as `replace_params`; a range is not a pair, is reversed, not finite, or does not fit
            the field's shape; the field is a flag.
    """
    names = list(_fields(params))
    draws = {}
    for name, bounds in ranges.items():
        field = _field(params, name)
        low, high = _range(name, bounds, params, field)
        field_key = jax.random.fold_in(key, names.index(field))
        if _kind(_declared(params, field)) == "an integer":
            draw = jax.random.randint(field_key, low.shape, low, high + 1)
        else:
            draw = jax.random.uniform(field_key, low.shape, minval=low, maxval=high)
        draws[name] = draw if _is_optional(params, field) else jnp.broadcast_to(draw, jnp.shape(getattr(params, field)))
    return replace_params(params, **draws)


def _fields(params: Any) -> dict[str, dataclasses.Field]:
    if not dataclasses.is_dataclass(params):
        raise EnvironmentInputError(f"the parameters of an environment are a dataclass, not {type(params).__name__}")
    return {field.name: field for field in dataclasses.fields(params)}


def _rules(params: Any) -> Rules:
    names = [f"{base.__module__}.{base.__qualname__}" for base in type(params).__mro__]
    return next((_RULES[name] for name in names if name in _RULES), Rules())


def _field(params: Any, name: str) -> str:
    """The field that `name` stands for."""
    rules = _rules(params)
    if name in rules.derived:
        raise EnvironmentInputError(f'"{name}" follows from others ({name} = {rules.derived[name][0]}); change those')
    if name in rules.unread:
        raise EnvironmentInputError(f'"{name}" has no effect: the environment never reads it')
    if name in rules.aliases:
        return rules.aliases[name][0]
    fields = _fields(params)
    if name in fields:
        return name
    allowed = [field for field in [*fields, *rules.aliases] if field not in (*rules.derived, *rules.unread)]
    nearest = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    suggestion = f'did you mean "{nearest[0]}"? ' if nearest else ""
    raise EnvironmentInputError(f'unknown parameter "{name}"; {suggestion}it takes {", ".join(allowed)}')


def _checked(name: str, value: Any, params: Any, field: str) -> Any:
    """A value for `field`, which the caller knows as `name`: a number, an array, or None where that is the default."""
    if value is None and _is_optional(params, field):
        return None
    expected = _kind(_declared(params, field))
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        raise EnvironmentInputError(f"{name}={value!r} is not {expected}") from None
    if _kind(array) != expected and (_kind(array), expected) != ("an integer", "a number"):
        raise EnvironmentInputError(f"{name}={value!r} is not {expected}")
    minimum = _rules(params).minimum.get(field, -math.inf)
    if _is_concrete(value):
        if not np.isfinite(value).all():
            raise EnvironmentInputError(f"{name}={value!r} is not finite")
        if (np.asarray(value) < minimum).any():
            allowed = "positive" if minimum == POSITIVE else f"at least {minimum:g}"
            raise EnvironmentInputError(f"{name}={value!r}; it must be {allowed}")
    return value if np.isscalar(value) else array


def _range(name: str, bounds: Any, params: Any, field: str) -> tuple[jax.Array, jax.Array]:
    """Both ends, of one shape."""
    if _kind(_declared(params, field)) == "a flag":
        raise EnvironmentInputError(f"{name} is a flag, which has no range")
    if not hasattr(bounds, "__len__") or len(bounds) != 2:
        raise EnvironmentInputError(f"the range of {name} is (low, high), not {bounds!r}")
    low, high = (jnp.asarray(_checked(name, bound, params, field)) for bound in bounds)
    shape = low.shape if _is_optional(params, field) else jnp.shape(getattr(params, field))
    if low.shape != high.shape or low.shape not in ((), shape):
        arrays = f" or arrays of the shape {shape}" if shape else ""
        raise EnvironmentInputError(f"the ends of the range of {name} must be numbers{arrays}: {bounds!r}")
    if _is_concrete(*bounds) and (np.asarray(bounds[0]) > np.asarray(bounds[1])).any():
        raise EnvironmentInputError(f"the range of {name} is reversed: {bounds!r}")
    return low, high


def _declared(params: Any, field: str) -> Any:
    """A value that shows what kind the field is: its default, or what it holds if it has none."""
    if _is_optional(params, field):
        return 1.0
    default = _fields(params)[field].default
    return getattr(params, field) if default is dataclasses.MISSING else default


def _is_optional(params: Any, field: str) -> bool:
    return _fields(params)[field].default is None


def _kind(value: Any) -> str:
    dtype = jnp.result_type(value)
    if jnp.issubdtype(dtype, jnp.bool_):
        return "a flag"
    return "an integer" if jnp.issubdtype(dtype, jnp.integer) else "a number"


def _is_concrete(*values: Any) -> bool:
    return not any(isinstance(value, jax.core.Tracer) for value in values)
