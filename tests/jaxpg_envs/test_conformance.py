"""Every registered environment keeps the contract of gymnax's interface.

One compiled program per environment, a rollout of random actions, and everything is concluded from its numbers: the
same keys under two time limits show what a time limit may change, and a rollout that starts with the key of an
automatic reset shows what that reset should have given.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpg_envs

STEPS = 40
LIMIT = 3
NO_LIMIT = 10_000

# XLA's fusion emitters are three quarters of the time that rigid-body physics takes to compile.
QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
if jax.default_backend() == "cpu":
    QUICK_COMPILE["xla_cpu_use_fusion_emitters"] = False


class Step(NamedTuple):
    observation: Any
    state: Any
    reward: Any
    terminated: Any
    truncated: Any
    final_observation: Any
    discount: Any
    in_space: Any


def rollout(env, start_key, step_keys, params):
    """(observation, state) at the start, then one `Step` with leading axis `STEPS`."""
    space = env.observation_space(params)
    start = env.reset(start_key, params)

    def step(state, key):
        action = env.action_space(params).sample(jax.random.fold_in(key, 1))
        observation, state, reward, terminated, truncated, info = env.step(key, state, action, params)
        assert set(info) >= {"terminated", "truncated", "final_observation", "discount"}
        in_space = space.contains(observation) & space.contains(info["final_observation"])
        record = Step(observation, state, reward, terminated, truncated, info["final_observation"], info["discount"], in_space)
        return state, record

    return start, jax.lax.scan(step, start[1], step_keys)[1]
