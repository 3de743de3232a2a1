"""Points in the open and among walls: motion and reflections by hand, and no wall that can be passed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import jaxpg_envs
from jaxpg_envs.point_omni import CLEARANCE, TRAP, reflected_motion

KEY = jax.random.key(0)
OPEN, OPEN_PARAMS = jaxpg_envs.make("PointOmni-v0")
ENV, PARAMS = jaxpg_envs.make("TrapOmni-v0")
STEP = jax.jit(ENV.step)
MOVE = jax.jit(reflected_motion)


def moved(env, params, position, velocity, action):
    _, state = env.reset(KEY, params)
    state = state.replace(position=jnp.asarray(position, jnp.float32), velocity=jnp.asarray(velocity, jnp.float32))
    return env.step_env(KEY, state, jnp.asarray(action, jnp.float32), params)


def test_motion_and_reward_by_hand():
    observation, state, reward, terminated, info = moved(OPEN, OPEN_PARAMS, (1.0, -2.0), (0.5, 1.0), (2.0, -0.5))
    # The acceleration is clipped to (1, -0.5): v = (0.6, 0.95), p = (1, -2) + 0.1 v.
    np.testing.assert_allclose(state.velocity, [0.6, 0.95], rtol=1e-6)
    np.testing.assert_allclose(state.position, [1.06, -1.905], rtol=1e-6)
    np.testing.assert_allclose(reward, 1 - 0.5 * (1 + 0.25), rtol=1e-6)
    np.testing.assert_allclose(info["descriptor"], [1.06, -1.905], rtol=1e-6)
    np.testing.assert_allclose(observation, [1.06 / 40, -1.905 / 40, 0.06, 0.095, 0.99], rtol=1e-5)
    assert not terminated


def test_the_descriptor_is_clipped_to_the_square():
    _, state, _, _, info = moved(OPEN, OPEN_PARAMS, (39.99, -50.0), (1.0, 0.0), (0.0, 0.0))
    np.testing.assert_allclose(state.position, [40.09, -50.0], rtol=1e-6)
    np.testing.assert_array_equal(info["descriptor"], [40.0, -40.0])
    low, high = OPEN.descriptor_bounds(OPEN_PARAMS.replace(half_width=3.0))
    assert (low.tolist(), high.tolist()) == ([-3.0, -3.0], [3.0, 3.0])


def test_an_episode_ends_where_its_descriptor_says():
    """Full acceleration for 100 steps: 0.01 * 100 * 101 / 2 = 50.5 in y; in x half of that, and a third against it."""

    def step(state, time):
        action = jnp.where(time < 50, jnp.array([0.5, 1.0]), jnp.array([-0.3, 1.0]))
        _, state, reward, terminated, truncated, info = OPEN.step(KEY, state, action, OPEN_PARAMS)
        return state, (reward, terminated, truncated, info["descriptor"], info["final_observation"])

    _, start = OPEN.reset(KEY, OPEN_PARAMS)
    state, (reward, terminated, truncated, descriptor, final) = jax.lax.scan(step, start, jnp.arange(100))
    velocity = np.concatenate([np.cumsum(np.full(50, 0.05)), 2.5 - np.cumsum(np.full(50, 0.03))])
    x = 0.1 * velocity.sum()
    np.testing.assert_allclose(descriptor[-1], [x, 40.0], rtol=1e-4)
    np.testing.assert_allclose(final[-1, :2], [x / 40, 50.5 / 40], rtol=1e-4)
    np.testing.assert_allclose(reward.sum(), 50 * (1 - 0.5 * 1.25) + 50 * (1 - 0.5 * 1.09), rtol=1e-5)
    np.testing.assert_array_equal(np.flatnonzero(truncated), [99])
    assert not terminated.any()
    np.testing.assert_array_equal(state.position, [0.0, 0.0])  # the next episode's


@pytest.mark.parametrize(
    ("position", "velocity", "where", "whither"),
    [
        # x = 15 + 3, mirrored at 16 - clearance, and so on.
        ((15.0, 0.0), (3.0, 0.5), (13.998, 0.5), (-3.0, 0.5)),
        ((15.0, 7.0), (3.0, 3.0), (13.998, 5.998), (-3.0, -3.0)),  # both walls of a corner
        ((15.0, 0.0), (-10.0, 0.0), (5.0, 0.0), (-10.0, 0.0)),  # out by the opening
        ((6.0, 0.0), (9.0, 0.0), (15.0, 0.0), (9.0, 0.0)),  # in by the opening
        ((6.0, 8.5), (4.0, 0.0), (10.0, 8.5), (4.0, 0.0)),  # along a wall's outside
        ((10.0, 9.0), (0.0, -3.0), (10.0, 10.002), (0.0, 3.0)),  # from outside
        ((18.0, 3.0), (-3.0, 0.0), (17.002, 3.0), (3.0, 0.0)),  # from behind
        ((7.0, 9.0), (0.0, -3.0), (7.0, 6.0), (0.0, -3.0)),  # past the end of a wall
        ((10.0, 0.0), (0.0, 30.0), (10.0, 7.999 - 15.998 + 6.003), (0.0, 30.0)),  # one wall, the other, and on
    ],
)
def test_reflections_by_hand(position, velocity, where, whither):
    position, velocity = MOVE(jnp.array(position), jnp.array(velocity), 1.0, jnp.array(TRAP))
    np.testing.assert_allclose(position, where, atol=1e-5)
    np.testing.assert_allclose(velocity, whither, atol=1e-5)


def test_a_slanted_wall_mirrors():
    # The wall x = y turns a motion along x into one along y.
    position, velocity = MOVE(jnp.array([-1.0, 0.5]), jnp.array([2.0, 0.0]), 1.0, jnp.array([[[-5.0, -5.0], [5.0, 5.0]]]))
    np.testing.assert_allclose(position, [0.5, 1.0], atol=2 * CLEARANCE)
    np.testing.assert_allclose(velocity, [0.0, 2.0], atol=1e-6)


TRIANGLE = np.array([[-1.0, -0.7], [2.0, -0.4], [0.3, 0.6]], np.float32)


@jax.jit
def bounced(position, velocity, walls):
    """Positions and velocities of 30 steps."""

    def step(carry, _):
        carry = reflected_motion(*carry, 1.0, walls)
        return carry, carry

    return jax.lax.scan(step, (position, velocity), length=30)[1]


ROOMS = {
    "triangle": np.stack([TRIANGLE, np.roll(TRIANGLE, -1, 0)], 1),
    "trap, closed": np.float32([*TRAP, ((8, 8), (8, -8))]),
}


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(list(ROOMS)),
    st.lists(st.floats(0.0625, 1.0, width=32), min_size=3, max_size=3),
    st.floats(0.0, 2.0 * np.pi),
    st.floats(-1.0, 4.0),
)
def test_a_closed_room_is_never_left(name, weights, angle, magnitude):
    """Whatever the speed, up to thousands of rooms in one step; and the speed is kept."""
    walls = ROOMS[name]
    start = np.float32(weights) / np.sum(np.float32(weights)) @ walls[:3, 0]
    velocity = 10.0**magnitude * jnp.array([np.cos(angle), np.sin(angle)])
    positions, velocities = (np.asarray(x, np.float64) for x in bounced(jnp.asarray(start), velocity, walls))
    along = walls[:, 1] - walls[:, 0]
    inward = np.stack([-along[:, 1], along[:, 0]], 1) / np.linalg.norm(along, axis=1)[:, None]
    distance = np.einsum("wd,twd->tw", inward, positions[:, None] - walls[:, 0])
    assert distance.min() > 0.5 * CLEARANCE
    speed = np.linalg.norm(velocities, axis=1)
    np.testing.assert_allclose(speed, np.linalg.norm(velocity), rtol=1e-4)


def mirrored_path(place, way):
    """Where a ray that starts in `place` ends after the length of `way`: one mirror after the other, in double precision."""
    last = None
    for _ in range(4):
        hits = []
        for wall in {*TRAP} - {last}:
            end, along = np.array(wall[0]), np.subtract(wall[1], wall[0])
            # place + part * way == end + fraction * along
            part, fraction = np.linalg.lstsq(np.stack([way, -along], 1), end - place, rcond=None)[0]
            meets = np.allclose(place + part * way, end + fraction * along)
            if meets and 0 < part < 1 and 0 <= fraction <= 1:
                hits.append((part, wall, along / np.linalg.norm(along)))
        if not hits:
            return place + way
        part, last, along = min(hits, key=lambda hit: hit[0])
        place, rest = place + part * way, (1 - part) * way
        way = 2 * (rest @ along) * along - rest
    return np.full(2, np.nan)  # more often than one step allows


@settings(deadline=None, max_examples=200)
@given(
    st.tuples(st.floats(-5.0, 25.0, width=32), st.floats(-15.0, 15.0, width=32)),
    st.tuples(st.floats(-40.0, 40.0, width=32), st.floats(-40.0, 40.0, width=32)),
)
def test_points_move_as_light_does(position, velocity):
    place, way = np.array(position), np.array(velocity)
    expected = mirrored_path(place, way)
    shifted = [mirrored_path(place + shift, way) for shift in 0.05 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])]
    assume(np.linalg.norm(shifted - expected, axis=1).max() < 0.1)  # false of NaN, and where a path meets a wall's end
    ours, _ = MOVE(jnp.array(position), jnp.array(velocity), 1.0, jnp.array(TRAP))
    np.testing.assert_allclose(ours, expected, atol=10 * CLEARANCE)


def test_the_geometry_may_differ_between_rows():
    walls = jnp.stack([PARAMS.walls, PARAMS.walls + 100.0])
    params = PARAMS.replace(walls=walls)
    axes = PARAMS.replace(max_steps_in_episode=None, half_width=None, walls=0)
    _, state = ENV.reset(KEY, PARAMS)
    state = state.replace(position=jnp.array([15.95, 0.0]), velocity=jnp.array([1.0, 0.0]))
    step = jax.jit(jax.vmap(lambda params: STEP(KEY, state, jnp.zeros(2), params)[1].velocity, (axes,)))
    np.testing.assert_array_equal(step(params), [[-1.0, 0.0], [1.0, 0.0]])
