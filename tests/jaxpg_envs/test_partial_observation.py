"""Some components of an observation; the contract itself is in `test_conformance.py`."""

import jax
import jax.numpy as jnp
import pytest
from checks import assert_same, quick_jit

import jaxpg_envs
from jaxpg_envs import EnvironmentInputError
from jaxpg_envs.partial_observation import PartialObservation


def test_stateless_cartpole_shows_position_and_angle():
    env, params = jaxpg_envs.make("StatelessCartPole-v1")
    whole, _ = jaxpg_envs.make("CartPole-v1")
    params = params.replace(max_steps_in_episode=7)

    @quick_jit
    def rollout(key):
        def step(states, key):
            partly, wholly = (e.step(key, s, 1, params) for e, s in zip((env, whole), states, strict=True))
            return (partly[1], wholly[1]), (partly, wholly)

        _, state = env.reset(key, params)
        return jax.lax.scan(step, (state, state), jax.random.split(key, 30))[1]

    (seen, *partly, info), (observation, *wholly, whole_info) = rollout(jax.random.key(0))
    assert wholly[3].sum() >= 4  # truncations
    assert_same(seen, observation[:, jnp.array([0, 2])])
    assert_same(info.pop("final_observation"), whole_info.pop("final_observation")[:, jnp.array([0, 2])])
    assert_same((partly, info), (wholly, whole_info))
    assert env.name == "StatelessCartPole-v1"
    assert_same(env.observation_space(params).high, whole.observation_space(params).high[jnp.array([0, 2])])


def test_gradients_pass_if_the_environment_lets_them():
    env = PartialObservation(jaxpg_envs.make("Pendulum-v1")[0], (2,))
    assert env.name == "Pendulum-v1"

    def velocity(env, torque):
        _, state = env.reset(jax.random.key(0))
        return env.step_env(jax.random.key(0), state, torque, env.default_params)[0][0]

    assert jax.grad(lambda torque: velocity(env, torque))(0.5) == 0
    slope = jax.grad(lambda torque: velocity(env.with_transition_gradients(), torque))(0.5)
    assert slope == pytest.approx(3 * 0.05)  # 3 / (m l^2) * dt


@pytest.mark.parametrize("components", [(), (4,), (0, -1)])
def test_components_that_are_not_there(components):
    env, _ = jaxpg_envs.make("CartPole-v1")
    with pytest.raises(EnvironmentInputError, match=r"CartPole-v1: components=.*choose one or more of 0 to 3"):
        PartialObservation(env, components)
