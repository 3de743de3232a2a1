"""What an algorithm needs to know of an environment's spaces (gymnax's `Discrete` and `Box`, or look-alikes)."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxpg.algorithm import InputError


def is_discrete(space: Any) -> bool:
    """Whether a space is a set {0, ..., n - 1}."""
    return hasattr(space, "n")


def is_box(space: Any) -> bool:
    """Whether a space is a box of real vectors."""
    return hasattr(space, "low") and hasattr(space, "high") and not is_discrete(space)


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
    """Length of an encoded observation."""
    space = env.observation_space(params)
    if is_discrete(space):
        return int(space.n)
    if is_box(space):
        return math.prod(space.shape)
    raise InputError(f"observations of {env.name} are {space}: only Discrete and Box observations are supported")


def observation_encoder(env: Any, params: PyTree) -> Callable[[Array], Float[Array, "*batch feature"]]:
    """A function that makes observations, with any leading axes, flat float32 vectors: one-hot if discrete."""
    space = env.observation_space(params)
    size = observation_size(env, params)
    if is_discrete(space):
        return lambda observation: jax.nn.one_hot(observation, size)
    rank = len(space.shape)

    def flatten(observation: Array) -> Float[Array, "*batch feature"]:
        batch = observation.shape[: observation.ndim - rank]
        return jnp.reshape(observation, (*batch, size)).astype(jnp.float32)

    return flatten


def to_action_space(space: Any, action: Array) -> Array:
    """Shapes and clips a continuous action (or a batch of them) to the space; a discrete action stays as it is."""
    if is_discrete(space):
        return action
    return jnp.clip(action.reshape(*action.shape[:-1], *space.shape), space.low, space.high)
