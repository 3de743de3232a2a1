"""What the contract in `test_conformance.py` does not say: gradients, and brax's own rewards and starts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_conformance import quickly_compiled

import jaxpg_envs


@pytest.fixture(scope="module")
def one_step():
    """A step from one start with three actions: by brax itself, by us, and the slope of the pole's velocity."""
    env, params = jaxpg_envs.make("brax/inverted_pendulum", backend="spring")
    differentiable = env.with_transition_gradients()
    key = jax.random.key(0)

    def pole_velocity(env, state, action):
        observation, _, reward, *_ = env.step(key, state, action, params)
        return observation[3], (observation, reward)

    def step(action):
        observation, state = env.reset(key, params)
        (_, ours), cut = jax.value_and_grad(partial(pole_velocity, env, state), has_aux=True)(action)
        slope = jax.grad(partial(pole_velocity, differentiable, state), has_aux=True)(action)[0]
        theirs = env.brax.step(state.brax, action)
        return (observation, *ours), (env.brax.reset(key).obs, theirs.obs, jnp.float32(theirs.reward)), cut, slope

    actions = jnp.array([[0.2], [0.3], [0.4]])
    return quickly_compiled(jax.vmap(step), actions)(actions)


def test_the_physics_is_brax(one_step):
    ours, theirs, _, _ = one_step
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), ours, theirs)


def test_gradients_stop_at_the_state_unless_asked_for(one_step):
    (_, observation, _), _, cut, slope = one_step
    assert (cut == 0).all()
    difference = (observation[2, 3] - observation[0, 3]) / 0.2
    assert abs(difference) > 1e-3
    np.testing.assert_allclose(slope[1, 0], difference, rtol=0.05)


def test_mjx_has_no_gradient():
    env, _ = jaxpg_envs.make("mjx/inverted_pendulum")
    with pytest.raises(ValueError, match="does not support transition gradients"):
        env.with_transition_gradients()


def test_a_step_leaves_the_state_it_is_given_alone():
    env, params = jaxpg_envs.make("brax/hopper", backend="spring")  # brax writes into this one's `metrics`

    def step(state):
        before = dict(state.brax.metrics)
        env.step_env(jax.random.key(0), state, jnp.zeros(3), params)
        assert all(state.brax.metrics[name] is value for name, value in before.items())

    jax.eval_shape(step, jax.eval_shape(env.reset, jax.random.key(0), params)[1])
