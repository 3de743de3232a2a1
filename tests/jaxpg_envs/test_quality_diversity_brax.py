"""Descriptors, rewards and the trap of the quality-diversity robots, against brax itself and against numbers by hand.

A compiled program for each kind of descriptor; of the other tasks shapes alone are computed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brax import envs
from test_conformance import quickly_compiled

import jaxpg_envs
from jaxpg_envs.quality_diversity_brax import TASKS, with_trap

LIMIT = 15
BACKENDS = ["spring", pytest.param("mjx", marks=pytest.mark.thorough)]


@pytest.fixture(scope="module")
def cheetah():
    """Two episodes of the same actions, and one of brax's own environment, which reports its contacts."""
    env, params = jaxpg_envs.make("brax/halfcheetah_uni", max_steps_in_episode=LIMIT)
    brax = envs.get_environment("halfcheetah", backend="spring", reset_noise_scale=0.0, debug=True)

    def rollouts(key):
        actions = jax.random.uniform(key, (LIMIT, env.num_actions), minval=-1.0, maxval=1.0)

        def step(state, action):
            observation, state, reward, _, truncated, info = env.step(key, state, action, params)
            return state, (observation, reward, truncated, info)

        def brax_step(state, action):
            stepped = brax.step(state.replace(metrics=dict(state.metrics)), action)
            contact = stepped.pipeline_state.contact
            return stepped, (stepped.obs, stepped.reward, contact.link_idx[1], contact.dist)

        observation, state = env.reset(key, params)
        ours = jax.lax.scan(step, state, jnp.concatenate([actions, actions]))[1]
        return observation, ours, jax.lax.scan(brax_step, brax.reset(key), actions)[1]

    key = jax.random.key(0)
    results = quickly_compiled(rollouts, key)(key)
    return brax.sys.link_names, *jax.tree.map(np.asarray, results)


def test_feet_on_the_ground_by_hand(cheetah):
    names, start, (observation, _, truncated, info), (brax_observation, _, link, distance) = cheetah
    touching = [((link == names.index(foot)) & (distance <= 0)).any(1) for foot in ("bfoot", "ffoot")]
    assert 0 < np.sum(touching) < 2 * LIMIT
    assert (touching[0] != touching[1]).any()
    fractions = np.cumsum(touching, axis=1).T / np.arange(1, LIMIT + 1)[:, None]
    # The second episode starts to count anew, and the last step of the first has the descriptor of all of it.
    np.testing.assert_allclose(info["descriptor"], np.concatenate([fractions, fractions]), rtol=1e-5)
    np.testing.assert_array_equal(np.flatnonzero(truncated), [LIMIT - 1, 2 * LIMIT - 1])
    np.testing.assert_allclose(info["final_observation"][:, -2:], info["descriptor"], rtol=1e-6)
    np.testing.assert_allclose(info["final_observation"][:LIMIT, :-2], brax_observation, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(start[-2:], [0, 0])
    np.testing.assert_array_equal(observation[LIMIT - 1], start)


def test_unidirectional_rewards_are_braxs_with_an_offset(cheetah):
    _, _, (_, reward, _, _), (_, brax_reward, _, _) = cheetah
    assert (brax_reward + 0.6 < 0).any()
    np.testing.assert_allclose(reward[:LIMIT], np.maximum(brax_reward + 0.6, 0), rtol=1e-3, atol=1e-3)


# Ants thrown through the air: into the trap's back, into its side, past it, out of the square, and one that is dropped.
STARTS = np.array([[10.0, 0.0, 0.8], [9.0, 0.8, 0.8], [10.0, 6.0, 0.8], [29.5, 0.0, 0.8], [0.0, 0.0, 0.8]])
VELOCITIES = np.array([[8.0, 0.0], [0.0, 8.0], [8.0, 0.0], [8.0, 0.0], [0.0, 0.0]])
EFFORTS = np.array([0.0, 0.0, 0.0, 0.5, 2.0])


@pytest.fixture(scope="module", params=BACKENDS)
def ants(request):
    """20 steps (a second) from each start, with actions of that size in turn positive and negative."""
    env, params = jaxpg_envs.make("brax/anttrap_omni", backend=request.param, max_steps_in_episode=20)

    def thrown(start, velocity, effort):
        _, state = env.reset_env(jax.random.key(0), params)
        pipeline = state.brax.pipeline_state
        q, qd = pipeline.q.at[:3].set(start), pipeline.qd.at[:2].set(velocity)
        state = state.replace(brax=state.brax.replace(pipeline_state=env.brax.pipeline_init(q, qd)))

        def step(state, sign):
            _, state, reward, _, truncated, info = env.step(jax.random.key(0), state, sign * effort * jnp.ones(8), params)
            return state, (reward, truncated, info)

        return jax.lax.scan(step, state, jnp.tile(jnp.array([1.0, -1.0]), 10))[1]

    arguments = tuple(jnp.asarray(x, jnp.float32) for x in (STARTS, VELOCITIES, EFFORTS))
    return jax.tree.map(np.asarray, quickly_compiled(jax.vmap(thrown), *arguments)(*arguments))


def test_the_trap_stops_an_ant(ants):
    position = ants[2]["descriptor"]
    into_back, into_side, beside = position[:3]
    assert 10.9 < into_back[:, 0].max() < 11.4  # the wall's inside is at 11.5, the torso's radius 0.25
    assert 1.9 < into_side[:, 1].max() < 2.4  # at 2.5
    assert beside[:, 0].max() > 11.8


def test_a_position_is_that_of_the_step_itself(ants):
    _, truncated, info = ants
    x_y = np.stack([info["metrics"]["x_position"], info["metrics"]["y_position"]], -1)  # brax's report
    np.testing.assert_allclose(info["descriptor"], np.clip(x_y, -30, 30), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(info["final_observation"][..., -2:], x_y / 30, rtol=1e-5, atol=1e-5)
    assert truncated[:, -1].all()
    assert not truncated[:, :-1].any()
    assert x_y[3].max() > 30 == info["descriptor"].max()


def test_omnidirectional_rewards_do_not_ask_for_a_direction(ants):
    reward, _, info = ants
    force = 0.5 * 8 * np.square(EFFORTS)[:, None]
    assert np.abs(info["metrics"]["reward_forward"]).max() > 1
    # 1 for being alive; the last ant's effort, beyond the bounds of actions, would have -11.97.
    np.testing.assert_allclose(reward, np.maximum(1 - force + 3.03, 0) + 0 * reward, rtol=1e-4, atol=1e-4)
    assert (reward[4] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_hexapod_stands_walks_and_turns(backend):
    """Told nothing; told to put three legs forward while the other three push; told the same with one side reversed."""
    env, params = jaxpg_envs.make("brax/hexapod_omni", backend=backend)
    phase = 6.0 * 0.05 * np.arange(100)[:, None] + np.pi * (np.arange(6) % 2)
    left = np.where(np.arange(6) < 3, 1.0, -1.0)  # a coxa that turns by a positive angle puts a foot on the right forward
    swing, lift = np.sin(phase), -0.8 * np.cos(phase)
    gait = lambda coxa: np.stack([coxa, lift, 0 * lift], axis=-1).reshape(-1, 18)
    actions = np.stack([np.zeros((100, 18)), gait(-left * swing), gait(swing)]).astype(np.float32)

    def walk(actions):
        def step(state, action):
            _, state, reward, terminated, _, info = env.step(jax.random.key(0), state, action, params)
            pipeline = state.brax.pipeline_state
            return state, (pipeline.x.pos[0], pipeline.x.rot[0], reward, terminated, info["descriptor"])

        return jax.lax.scan(step, env.reset(jax.random.key(0), params)[1], actions)[1]

    run = quickly_compiled(jax.vmap(walk), actions)
    position, rotation, reward, terminated, descriptor = jax.tree.map(np.asarray, run(actions))
    assert not terminated.any()
    np.testing.assert_allclose(descriptor, np.clip(position[..., :2], -2, 2), atol=1e-6)
    np.testing.assert_allclose(reward, 4.53 - 0.25 * np.square(actions).sum(-1), rtol=1e-4)
    standing, walking, turning = position
    assert np.abs(standing[:, :2]).max() < 0.01
    assert 0.11 < standing[:, 2].min() <= standing[:, 2].max() < 0.145
    assert walking[-1, 0] > 0.8
    assert np.abs(walking[-1, 1]) < 0.5 * walking[-1, 0]
    assert np.linalg.norm(turning[:, :2], axis=-1).max() < 0.2
    heading = 2 * np.arctan2(rotation[..., 3], rotation[..., 0])
    assert np.abs(np.unwrap(heading[2])).max() > 1.0 > np.abs(heading[0]).max()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_shapes_that_fit(name, backend):
    env, params = jaxpg_envs.make(f"brax/{name}", backend=backend)
    sizes = {"ant": 27, "hexapod": 47, "humanoid": 244, "halfcheetah": 17, "hopper": 11, "walker2d": 17}
    feet = {"ant_uni": 4, "halfcheetah_uni": 2, "hopper_uni": 1, "walker2d_uni": 2}
    assert params.max_steps_in_episode == (250 if name in ("ant_omni", "anttrap_omni", "hexapod_omni") else 1000)
    low, high = env.descriptor_bounds(params)
    assert low.shape == high.shape == (feet.get(name, 2),)
    observation, state = jax.eval_shape(env.reset, jax.random.key(0), params)
    assert observation.shape == (sizes[TASKS[name].robot] + len(low),)
    action = jnp.zeros(env.num_actions)
    stepped, successor, _, _, _, info = jax.eval_shape(env.step, jax.random.key(0), state, action, params)
    assert jax.tree.leaves((stepped, successor)) == jax.tree.leaves((observation, state))
    assert (info["descriptor"].shape, info["descriptor"].dtype) == (low.shape, jnp.float32)


def test_the_trap_changes_nothing_else_of_the_ant():
    plain = envs.get_environment("ant", backend="mjx")
    walled = with_trap(envs.get_environment("ant", backend="mjx"))
    assert walled.sys.link_names == plain.sys.link_names
    for field in ("timestep", "solver", "iterations", "ls_iterations", "disableflags"):
        assert getattr(walled.sys.opt, field) == getattr(plain.sys.opt, field)
    np.testing.assert_array_equal(walled.sys.body_mass, plain.sys.body_mass)
    assert walled.sys.ngeom == plain.sys.ngeom + 3


def test_other_backends_are_refused():
    with pytest.raises(
        jaxpg_envs.EnvironmentInputError, match="brax/ant_uni: unknown backend 'warp'; choose one of spring, mjx"
    ):
        jaxpg_envs.make("brax/ant_uni", backend="warp")
    with pytest.raises(jaxpg_envs.EnvironmentInputError, match="unknown argument n_frames; it takes backend, max_steps"):
        jaxpg_envs.make("brax/ant_uni", n_frames=3)
