"""What an algorithm needs to know of an environment's spaces (gymnax's, or look-alikes)."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jaxpg.errors import InputError, name_of

SUPPORTED_ACTIONS = "Box, Discrete, MultiDiscrete and MultiBinary actions"


def is_discrete(space: Any) -> bool:
    """Whether a space is a set {start, ..., start + n - 1}; `start` is 0 if it is not told."""
    return hasattr(space, "n") and not is_multi_binary(space)


def is_box(space: Any) -> bool:
    """Whether a space is a box of real vectors, or of integers."""
    has_bounds = all(hasattr(space, attribute) for attribute in ("low", "high", "shape"))
    return has_bounds and not (hasattr(space, "n") or is_multi_discrete(space))


def is_multi_discrete(space: Any) -> bool:
    """Whether a space is an array of integers, component i in {start[i], ..., start[i] + nvec[i] - 1}."""
    return hasattr(space, "nvec")


def is_multi_binary(space: Any) -> bool:
    """Whether a space is an array of zeros and ones: its `n`, which discrete spaces have too, is its shape."""
    n: Any = getattr(space, "n", None)
    if n is None or np.shape(n) != () or type(space).__name__ == "MultiBinary":
        return n is not None
    return tuple(getattr(space, "shape", None) or ()) == (n,)


def choices(space: Any) -> Int[np.ndarray, "..."] | None:
    """How many values each component of a discrete, multi-discrete or multi-binary space has, in the space's shape.

    None for any other space.

    Raises:
      InputError: there are none.
    """
    if is_multi_discrete(space):
        numbers = np.asarray(space.nvec)
    elif is_multi_binary(space):
        numbers = np.full(np.maximum(space.n, 0), 2)
    elif is_discrete(space):
        numbers = np.asarray(space.n)
    else:
        return None
    if numbers.size == 0 or (numbers < 1).any() or (numbers % 1 != 0).any():
        raise InputError(f"the space {space} has no elements: n or nvec must be positive whole numbers")
    return numbers.astype(int)


def _start(space: Any) -> Int[np.ndarray, "..."]:
    """The smallest value of a discrete or multi-discrete space, or of each of its components."""
    return np.asarray(getattr(space, "start", 0)).astype(int)


def _dtype(space: Any, default: Any) -> np.dtype:
    """The dtype that a space declares, as JAX holds it."""
    declared = getattr(space, "dtype", None)
    return jax.dtypes.canonicalize_dtype(default if declared is None else declared)


def box_bounds(space: Any) -> tuple[Float[Array | np.ndarray, "..."], Float[Array | np.ndarray, "..."]]:
    """The lower and upper bounds of a box, in its shape; numpy's float64 unless they are traced.

    The largest numbers of a dtype stand for infinity, and so does what float32 cannot hold.

    Raises:
      InputError: they are not of the box's shape.
    """
    traced = any(isinstance(bound, jax.core.Tracer) for bound in (space.low, space.high))
    xp, real = (jnp, jnp.float32) if traced else (np, np.float64)

    def bound(given: Any) -> Any:
        given = xp.asarray(given)
        largest = min(_largest(given.dtype), _largest(_dtype(space, jnp.float32)))
        value = given.astype(real)
        return xp.broadcast_to(xp.where(abs(value) >= largest, xp.copysign(np.inf, value), value), tuple(space.shape))

    try:
        return bound(space.low), bound(space.high)
    except ValueError as error:
        raise InputError(f"the bounds of {space} do not have its shape {space.shape}: {error}") from error


def _largest(dtype: Any) -> float:
    """The number that stands for infinity among bounds of that dtype. Whole numbers of 8 or 16 bits are meant as they are."""
    if jnp.issubdtype(dtype, jnp.floating):
        return float(min(jnp.finfo(dtype).max, jnp.finfo(jnp.bfloat16).max))
    if dtype.itemsize < 4 or dtype.kind not in "iu":
        return math.inf
    return float(np.nextafter(np.float32(np.iinfo(dtype).max), np.float32(0)))


def parts_of(space: Any) -> dict[Any, Any] | None:
    """The named spaces that a dictionary space (or a tuple of spaces) is made of, in order; None for any other."""
    # gymnasium's OneOf has `spaces` too, but an element is one of only one of them.
    spaces = None if type(space).__name__ == "OneOf" else getattr(space, "spaces", None)
    if isinstance(spaces, Mapping):
        return {name: spaces[name] for name in sorted(spaces)}
    return None if spaces is None else dict(enumerate(spaces))


def require_box_actions(name: str, env: Any, params: PyTree) -> Any:
    """The action space, if it is a box.

    Raises:
      InputError: it is not, so the continuous algorithm `name` cannot act here.
    """
    space = env.action_space(params)
    if not is_box(space):
        raise InputError(
            f"{name} needs continuous actions, but {name_of(env)} has {space}: choose a continuous environment "
            "(Pendulum-v1, brax/hopper, ...) or an algorithm for discrete actions (ppo)"
        )
    return space


def observation_size(env: Any, params: PyTree) -> int:
    """Length of an encoded observation.

    Raises:
      InputError: observations are of a kind that cannot be encoded.
    """
    return _size(env, env.observation_space(params))


def _size(env: Any, space: Any) -> int:
    parts = parts_of(space)
    if parts is not None:
        return sum(_size(env, part) for part in parts.values())
    numbers = choices(space)
    if numbers is not None:
        return numbers.size if is_multi_binary(space) else int(numbers.sum())
    if is_box(space):
        return math.prod(space.shape)
    raise InputError(
        f"observations of {name_of(env)} are {space}: Box, Discrete, MultiDiscrete, MultiBinary and dictionaries or tuples of "
        "them are supported"
    )


def locate_image(name: str, env: Any, params: PyTree) -> tuple[int, tuple[int, int, int]]:
    """Where the image of an observation begins once it is encoded, and its height, width and channels.

    Raises:
      InputError: observations have no image, or it has less than 3 x 3 pixels, so `name` cannot convolve.
    """
    space = env.observation_space(params)
    offset = 0
    for part in (parts_of(space) or {"": space}).values():
        if is_box(part) and len(part.shape) == 3 and min(part.shape[:2]) >= 3:
            return offset, part.shape
        offset += _size(env, part)
    raise InputError(
        f"{name}: encoder = convolution reads an image (height, width, channels) of at least 3 x 3 pixels, but observations of "
        f"{name_of(env)} are {space}: choose encoder = dense"
    )


def observation_encoder(env: Any, params: PyTree) -> Callable[[PyTree], Float[Array, "*batch feature"]]:
    """A function that makes observations, with any leading axes, flat float32 vectors.

    Integers become one-hot, boxes and binary arrays are flattened, dictionaries and tuples are concatenated (dictionaries in
    the order of their sorted names).
    """
    return _encoder(env, env.observation_space(params))


def _encoder(env: Any, space: Any) -> Callable[[PyTree], Float[Array, "*batch feature"]]:
    parts = parts_of(space)
    if parts is not None:
        encoders = {name: _encoder(env, part) for name, part in parts.items()}
        return lambda observation: jnp.concatenate([encode(observation[name]) for name, encode in encoders.items()], axis=-1)
    size, numbers = _size(env, space), choices(space)
    if numbers is not None and not is_multi_binary(space):
        start = _start(space)

        def one_hot(observation: Array) -> Float[Array, "*batch feature"]:
            whole = observation.astype(jnp.int32) if observation.dtype == bool else observation
            index = whole - start.astype(whole.dtype) if start.any() else whole
            if numbers.ndim == 0:
                return jax.nn.one_hot(index, size)
            index = index.reshape(*index.shape[: index.ndim - numbers.ndim], numbers.size)
            return jnp.concatenate([jax.nn.one_hot(index[..., i], n) for i, n in enumerate(numbers.ravel())], axis=-1)

        return one_hot
    rank = numbers.ndim if numbers is not None else len(space.shape)

    def flatten(observation: Array) -> Float[Array, "*batch feature"]:
        batch = observation.shape[: observation.ndim - rank]
        return jnp.reshape(observation, (*batch, size)).astype(jnp.float32)

    return flatten


def action_decoder(env: Any, params: PyTree) -> Callable[[Array], Array]:
    """A function that makes a policy's actions, with any leading axes, those that the environment takes.

    A policy's actions are one integer from 0 or a vector of them, for the components row by row; or, for a box, a vector of
    real numbers on this scale, whose result is clipped to the box:

    - where both bounds are finite, -1 is the lower one and 1 the upper one;
    - where only one is, 0 lies 1 within it: [a, inf) is a + 1 + u, and (-inf, b] is b - 1 + u;
    - where none is, numbers stay as they are.

    Boxes of integers receive the nearest integer. With both bounds, each has an equal share of [-1, 1].

    Raises:
      InputError: actions are of another kind, or there are none.
    """
    space = env.action_space(params)
    if is_box(space):
        return _box_decoder(env, space)
    numbers = choices(space)
    if numbers is None:
        raise InputError(f"{SUPPORTED_ACTIONS} are supported, but {name_of(env)} has {space}")
    start = _start(space)

    def decode(action: Array) -> Array:
        action = action.reshape(*action.shape[:-1], *numbers.shape) if numbers.ndim else action
        action = action + start.astype(action.dtype) if start.any() else action
        return action.astype(_dtype(space, action.dtype))

    return decode


def _box_decoder(env: Any, space: Any) -> Callable[[Array], Array]:
    low, high = box_bounds(space)
    xp = np if isinstance(low, np.ndarray) else jnp
    whole = _dtype(space, jnp.float32).kind in "iub"
    low, high = (xp.ceil(low), xp.floor(high)) if whole else (low, high)
    if math.prod(space.shape) == 0:
        raise InputError(f"actions of {name_of(env)} are {space}, which has no components")
    if xp is np and not ((low <= high) & (low < np.inf) & (high > -np.inf)).all():
        raise InputError(
            f"actions of {name_of(env)} are {space}, which is empty: every lower bound must be a number at most as large as "
            "the upper one"
        )
    below, above = xp.isfinite(low), xp.isfinite(high)
    least, most = xp.where(below, low, 0.0), xp.where(above, high, 0.0)
    # Halves first: the width of a box may be more than the largest number.
    center = xp.where(below & above, 0.5 * least + 0.5 * most, least + most + below - above)
    half = xp.where(below & above, 0.5 * most - 0.5 * least + 0.5 * whole, 1.0)
    low, high = _within(np.asarray(low), np.asarray(high)) if xp is np else (low, high)
    center, half = (x.astype(np.float32) for x in (center, half))
    scaled = xp is jnp or center.any() or (half != 1).any()  # else the sum would cost time and turn -0 to 0

    def decode(action: Array) -> Array:
        action = action.reshape(*action.shape[:-1], *space.shape)
        action = center + half * action if scaled else action
        action = jnp.clip(jnp.round(action) if whole else action, low, high)
        return action.astype(_dtype(space, action.dtype))

    return decode


def _within(
    low: Float[np.ndarray, "*shape"], high: Float[np.ndarray, "*shape"]
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """The bounds in float32, rounded inwards so that actions lie in the box; to the nearest where nothing would be left."""
    least, most = low.astype(np.float32), high.astype(np.float32)
    inner_least = np.where(least < low, np.nextafter(least, np.float32(np.inf)), least)
    inner_most = np.where(most > high, np.nextafter(most, np.float32(-np.inf)), most)
    exists = inner_least <= inner_most
    return np.where(exists, inner_least, least), np.where(exists, inner_most, most)


def difference(what: str, trained: Any, env_name: str, asked: Any) -> str | None:
    """In words, the first difference between the space that a policy was trained with and an environment's; None if they agree.

    Args:
      what: the name of the space.
    """
    parts, others = parts_of(trained), parts_of(asked)
    if parts is not None and others is not None and parts.keys() == others.keys():
        found = (difference(f"{what}[{name!r}]", part, env_name, others[name]) for name, part in parts.items())
        return next((words for words in found if words), None)
    one, other = _description(trained), _description(asked)
    for field, value in one.items():
        if not np.array_equal(value, other[field]):
            return f"the policy was trained with the {what} {trained}, but {env_name} has {asked}: the {field} differs"
    return None


def _description(space: Any) -> dict[str, Any]:
    """What tells a space from others: the kind first, which says what the other fields are."""
    parts, numbers = parts_of(space), choices(space)
    if parts is not None:
        return {"kind": "parts", "set of names": list(parts)}
    if numbers is not None:
        kind = "MultiDiscrete" if is_multi_discrete(space) else "MultiBinary" if is_multi_binary(space) else "Discrete"
        start, dtype = np.broadcast_to(_start(space), numbers.shape), _dtype(space, jnp.int32).name
        return {"kind": kind, "number of values": numbers, "start": start, "dtype": dtype}
    if is_box(space):
        low, high = box_bounds(space)
        dtype = _dtype(space, jnp.float32).name
        return {"kind": "Box", "shape": tuple(space.shape), "lower bound": low, "upper bound": high, "dtype": dtype}
    return {"kind": str(space)}
