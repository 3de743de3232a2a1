"""What an algorithm needs to know of an environment's spaces (gymnax's, or look-alikes)."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxpg.algorithm import InputError


def is_discrete(space: Any) -> bool:
    """Whether a space is a set {0, ..., n - 1}."""
    return hasattr(space, "n")


def is_box(space: Any) -> bool:
    """Whether a space is a box of real vectors."""
    return hasattr(space, "low") and hasattr(space, "high") and not is_discrete(space) and not is_multi_discrete(space)


def is_multi_discrete(space: Any) -> bool:
    """Whether a space is a vector of integers, component i in {0, ..., nvec[i] - 1}."""
    return hasattr(space, "nvec")


def parts_of(space: Any) -> dict[Any, Any] | None:
    """The named spaces that a dictionary space (or a tuple of spaces) is made of, in order; None for any other."""
    spaces = getattr(space, "spaces", None)
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
            f"{name} needs continuous actions, but {env.name} has {space}: choose a continuous environment "
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
    if is_multi_discrete(space):
        return int(np.sum(space.nvec))
    if is_discrete(space):
        return int(space.n)
    if is_box(space):
        return math.prod(space.shape)
    raise InputError(
        f"observations of {env.name} are {space}: Box, Discrete, MultiDiscrete and dictionaries or tuples of them are supported"
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
        f"{env.name} are {space}: choose encoder = dense"
    )


def observation_encoder(env: Any, params: PyTree) -> Callable[[PyTree], Float[Array, "*batch feature"]]:
    """A function that makes observations, with any leading axes, flat float32 vectors.

    Integers become one-hot, dictionaries and tuples are concatenated (dictionaries in the order of their sorted names).
    """
    return _encoder(env, env.observation_space(params))


def _encoder(env: Any, space: Any) -> Callable[[PyTree], Float[Array, "*batch feature"]]:
    parts = parts_of(space)
    if parts is not None:
        encoders = {name: _encoder(env, part) for name, part in parts.items()}
        return lambda observation: jnp.concatenate([encode(observation[name]) for name, encode in encoders.items()], axis=-1)
    size = _size(env, space)
    if is_multi_discrete(space):
        return lambda observation: jnp.concatenate(
            [jax.nn.one_hot(observation[..., i], n) for i, n in enumerate(space.nvec)], axis=-1
        )
    if is_discrete(space):
        return lambda observation: jax.nn.one_hot(observation, size)
    rank = len(space.shape)

    def flatten(observation: Array) -> Float[Array, "*batch feature"]:
        batch = observation.shape[: observation.ndim - rank]
        return jnp.reshape(observation, (*batch, size)).astype(jnp.float32)

    return flatten


def to_action_space(space: Any, action: Array) -> Array:
    """Shapes and clips a continuous action (or a batch of them) to the space; discrete actions stay as they are."""
    if not is_box(space):
        return action
    return jnp.clip(action.reshape(*action.shape[:-1], *space.shape), space.low, space.high)
