"""Environments of jaxpg: gymnax, brax and MJX, and your own, all with gymnax's interface.

env, params = jaxpg_envs.make("brax/ant", backend="spring")
observation, state = env.reset(key, params)
observation, state, reward, terminated, truncated, info = env.step(key, state, action, params)
"""

from jaxpg_envs.auto_reset import reset_where_done
from jaxpg_envs.params import replace_params, sample_params
from jaxpg_envs.registry import (
    EnvironmentInputError,
    UnknownEnvironmentError,
    make,
    register,
    registered,
)

__all__ = [
    "EnvironmentInputError",
    "UnknownEnvironmentError",
    "make",
    "register",
    "registered",
    "replace_params",
    "reset_where_done",
    "sample_params",
]
