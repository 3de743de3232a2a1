"""The planar arm: postures whose tip and spread are known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxpg_envs

KEY = jax.random.key(0)
ENV, PARAMS = jaxpg_envs.make("PlanarArm-v0", num_joints=2)
STEP = jax.jit(ENV.step)


def posture(angles, env=ENV, step=STEP):
    _, state = env.reset(KEY, PARAMS)
    return step(KEY, state, jnp.asarray(angles, jnp.float32), PARAMS)


@pytest.mark.parametrize(
    ("angles", "tip", "deviation"),
    [
        ((0.0, 0.0), (1.0, 0.5), 0.0),  # stretched along x
        ((0.5, 0.0), (0.5, 1.0), 0.125),  # up; 0.25 and 0 turns
        ((0.5, 0.5), (0.25, 0.75), 0.0),  # up, then left
        ((0.0, 1.0), (0.5, 0.5), 0.25),  # folded back
        ((-1.0, 1.0), (0.25 + 0.25, 0.5), 0.5),  # left, then back to the right: the least even posture
        ((0.5, 3.0), (0.5, 0.5), 0.125),  # clipped: up, folded back; 0.25 and 0.5 turns
    ],
)
def test_postures_by_hand(angles, tip, deviation):
    observation, state, reward, terminated, truncated, info = posture(angles)
    np.testing.assert_allclose(info["descriptor"], tip, atol=1e-6)
    np.testing.assert_allclose(reward, 0.5 - deviation, atol=1e-6)
    assert terminated
    assert truncated
    assert int(state.time) == 0
    np.testing.assert_array_equal(observation, [1.0])


def test_the_number_of_joints():
    env, params = jaxpg_envs.make("PlanarArm-v0")
    assert env.action_space(params).shape == (8,)
    with pytest.raises(jaxpg_envs.EnvironmentInputError, match=r"num_joints=0; it must lie in \[1, 1000\]"):
        jaxpg_envs.make("PlanarArm-v0", num_joints=0)
    with pytest.raises(jaxpg_envs.EnvironmentInputError, match=r"unknown argument joints; .*it takes num_joints"):
        jaxpg_envs.make("PlanarArm-v0", joints=3)


LONG, _ = jaxpg_envs.make("PlanarArm-v0", num_joints=5)
LONG_STEP = jax.jit(LONG.step)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-2.0, 2.0, width=32), min_size=5, max_size=5))
def test_fitness_and_descriptor_stay_in_bounds(angles):
    _, _, reward, _, _, info = posture(angles, LONG, LONG_STEP)
    low, high = LONG.descriptor_bounds(PARAMS)
    assert 0 <= reward <= 0.5
    assert ((info["descriptor"] >= low) & (info["descriptor"] <= high)).all()
    turns = np.clip(angles, -1, 1) / 2
    np.testing.assert_allclose(reward, 0.5 - np.std(turns), atol=1e-6)
    directions = np.cumsum(2 * np.pi * turns)
    tip = 0.5 + np.array([np.cos(directions).sum(), np.sin(directions).sum()]) / 10
    np.testing.assert_allclose(info["descriptor"], tip, atol=1e-5)


def test_the_slope_at_an_even_posture_is_finite():
    slope = jax.grad(lambda angles: posture(angles)[2])(jnp.array([0.3, 0.3]))
    assert np.isfinite(slope).all()
