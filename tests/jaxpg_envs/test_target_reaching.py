"""Target reaching: motion and rewards written out, the three ends, and new layouts in the random variant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpg_envs

ENV, PARAMS = jaxpg_envs.make("TargetReaching-v0")
KEY = jax.random.key(0)


def moved(position, velocity, action, params=PARAMS):
    """What one step makes of a state."""
    _, state = ENV.reset(KEY, params)
    state = state.replace(position=jnp.asarray(position, jnp.float32), velocity=jnp.asarray(velocity, jnp.float32))
    return ENV.step_env(KEY, state, jnp.asarray(action, jnp.float32), params)


def test_motion_and_reward_by_hand():
    observation, state, reward, terminated, info = moved((0.0, 0.0), (0.5, 0.95), (2.0, 1.0))
    # Accelerations are clipped to 1, speeds to 1: v = (0.6, 1), p = 0.1 v + 0.05 (v - v_old).
    np.testing.assert_allclose(state.velocity, [0.6, 1.0], rtol=1e-6)
    np.testing.assert_allclose(state.position, [0.06 + 0.005, 0.1 + 0.0025], rtol=1e-5)
    np.testing.assert_allclose(reward, 0.1 * np.hypot(0.6, 1.0), rtol=1e-6)
    assert not terminated
    assert not info["success"]
    expected = [0.065 / 5, 0.1025 / 5, 0.6, 1.0, 1.0, 1.0, (3 - 0.065) / 5, (3 - 0.1025) / 5]
    expected += [x / 5 for centre in PARAMS.centres for x in (centre[0] - 0.065, centre[1] - 0.1025)]
    np.testing.assert_allclose(observation, [*expected, 0.6, 0.6, 0.6], rtol=1e-5)


@pytest.mark.parametrize(
    ("position", "velocity", "reward"),
    [((3.0, 2.45), (0.0, 1.0), 100.0), ((-2.5, -3.15), (0.0, 1.0), -100.0), ((4.95, 0.0), (1.0, 0.0), -10.0)],
)
def test_the_three_ends(position, velocity, reward):
    _, state, measured, terminated, info = moved(position, velocity, (0.0, 0.0))
    assert float(measured) == reward
    assert terminated
    assert ENV.is_terminated(state, PARAMS)
    assert bool(info["success"]) == (reward == 100)


def test_time_limits_truncate():
    _, state = ENV.reset(KEY, PARAMS)
    step = jax.jit(ENV.step)
    for number in range(300):
        _, state, _, terminated, truncated, info = step(KEY, state, jnp.zeros(2), PARAMS)
        assert bool(truncated) == (number == 299)
        assert not terminated
    np.testing.assert_allclose(info["final_observation"][:2], [-0.9, -0.9], rtol=1e-6)
    assert int(state.time) == 0


def test_the_random_variant_draws_layouts():
    env, params = jaxpg_envs.make("RandomTargetReaching-v0")
    _, states = jax.vmap(env.reset, (0, None))(jax.random.split(KEY, 2_000), params)
    target, centres, radii = (np.asarray(x) for x in (states.target, states.centres, states.radii))
    assert ((target >= 0) & (target <= 3)).all()
    np.testing.assert_allclose(target.mean(0), 1.5, atol=0.1)
    assert np.abs(centres).max() <= 5
    np.testing.assert_allclose(centres.std(), 2.3, atol=0.1)
    assert set(np.round(radii * 50).astype(int).ravel()) == set(range(15, 30))
    assert params.obstacle_reward == -10
    fixed = jax.vmap(ENV.reset, (0, None))(jax.random.split(KEY, 2), PARAMS)[1]
    np.testing.assert_array_equal(fixed.centres[0], np.asarray(PARAMS.centres, np.float32))
    np.testing.assert_array_equal(fixed.position, np.float32([[-4.5, -4.5]] * 2))
