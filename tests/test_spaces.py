"""Observations as vectors, actions as the environment wants them."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Box, Cycle, Discrete, Walk
from gymnax.environments import spaces as gymnax

from jaxpg.algorithm import InputError
from jaxpg.spaces import (
    is_box,
    is_discrete,
    locate_image,
    observation_encoder,
    observation_size,
    require_box_actions,
    to_action_space,
)


def observing(space):
    return SimpleNamespace(name="Env", observation_space=lambda params: space)


@pytest.mark.parametrize("discrete", [Discrete(4), gymnax.Discrete(4)])
@pytest.mark.parametrize("box", [Box(0, 1, (2,)), gymnax.Box(0, 1, (2,))])
def test_kinds_of_spaces(discrete, box):
    assert (is_discrete(discrete), is_box(discrete)) == (True, False)
    assert (is_discrete(box), is_box(box)) == (False, True)
    for other in (gymnax.Dict({"a": box}), gymnax.Tuple((box, discrete))):
        assert not is_discrete(other)
        assert not is_box(other)
    with pytest.raises(InputError, match=r"observations of Env are .*object.*Box, Discrete.*are supported"):
        observation_size(observing(object), None)


def test_dictionaries_and_tuples_are_concatenated():
    """In the order of the names, whatever that of the dictionary; nested as deep as one likes."""
    box, discrete, multi = Box(0, 1, (2, 2)), Discrete(3), SimpleNamespace(nvec=(2, 3))
    env = observing(gymnax.Dict({"b": box, "a": gymnax.Tuple((discrete, multi)), "c": Box(0, 1, ())}))
    assert observation_size(env, None) == 3 + 5 + 4 + 1
    observation = {
        "c": jnp.full(2, 9.0),
        "b": jnp.arange(8.0).reshape(2, 2, 2),
        "a": (jnp.array([2, 0]), jnp.array([[1, 2], [0, 1]])),
    }
    features = observation_encoder(env, None)(observation)
    expected = [[0, 0, 1, 0, 1, 0, 0, 1, 0, 1, 2, 3, 9], [1, 0, 0, 1, 0, 0, 1, 0, 4, 5, 6, 7, 9]]
    np.testing.assert_array_equal(features, np.array(expected, np.float32))


def test_an_image_is_found_among_the_encoded_features():
    image = Box(0, 1, (5, 4, 3))
    for space, offset in ((image, 0), (gymnax.Dict({"image": image, "compass": Discrete(4), "ink": Box(0, 1, (2,))}), 4)):
        env = observing(space)
        assert locate_image("ppo", env, None) == (offset, (5, 4, 3))
        pixels = jnp.arange(60.0).reshape(5, 4, 3)
        whole = {"image": pixels, "compass": jnp.int32(1), "ink": jnp.ones(2)}
        features = observation_encoder(env, None)(pixels if space is image else whole)
        np.testing.assert_array_equal(features[offset : offset + 60].reshape(5, 4, 3), pixels)


@pytest.mark.parametrize("space", [Discrete(4), Box(0, 1, (5, 4)), Box(0, 1, (2, 9, 1)), gymnax.Dict({"a": Box(0, 1, (9,))})])
def test_what_has_no_image_cannot_be_convolved(space):
    with pytest.raises(InputError, match=r"ppo: .*at least 3 x 3 pixels, but observations of Env .*choose encoder = dense"):
        locate_image("ppo", observing(space), None)


def test_discrete_actions_stay_as_they_are():
    actions = jnp.array([[1, 2], [0, 7]])
    for space in (Discrete(8), SimpleNamespace(nvec=(2, 8))):
        np.testing.assert_array_equal(to_action_space(space, actions), actions)


@pytest.mark.parametrize("axes", [(), (3,), (5, 3)])
def test_discrete_observations_are_one_hot(axes):
    observation = jax.random.randint(jax.random.key(0), axes, 0, 4)
    features = observation_encoder(observing(Discrete(4)), None)(observation)
    np.testing.assert_array_equal(features, np.eye(4, dtype=np.float32)[np.asarray(observation)])
    assert features.dtype == jnp.float32


@pytest.mark.parametrize("axes", [(), (3,), (5, 3)])
@pytest.mark.parametrize("shape", [(), (4,), (2, 2, 3)])
def test_boxes_are_flattened(shape, axes):
    env = observing(Box(0, 255, shape))
    observation = np.arange(np.prod(axes + shape), dtype=np.uint8).reshape(axes + shape)
    features = observation_encoder(env, None)(jnp.asarray(observation))
    size = observation_size(env, None)
    assert size == int(np.prod(shape))
    assert features.dtype == jnp.float32
    np.testing.assert_array_equal(features, observation.reshape(*axes, size))


def test_actions_are_shaped_and_clipped():
    actions = jnp.array([[-9.0, 0.1, 0.2, 9.0], [0.0, -0.3, 0.4, -0.5]])
    space = Box(jnp.array([[-1.0, -2.0], [-3.0, -4.0]]), 0.3, (2, 2))
    expected = [[[-1.0, 0.1], [0.2, 0.3]], [[0.0, -0.3], [0.3, -0.5]]]
    np.testing.assert_allclose(to_action_space(space, actions), expected)
    np.testing.assert_allclose(to_action_space(space, actions[0]), expected[0])
    np.testing.assert_allclose(to_action_space(Box(-1.0, 1.0, ()), actions[0, 3:]), 1.0)  # one number, no axis
    np.testing.assert_array_equal(to_action_space(Discrete(20), jnp.arange(8)), np.arange(8))


def test_box_actions_are_required():
    walk, cycle = Walk(3), Cycle()
    assert require_box_actions("x", walk, walk.params()).shape == (3,)
    with pytest.raises(InputError, match=r"x needs continuous actions, but Cycle has Discrete\(n=3"):
        require_box_actions("x", cycle, cycle.params([1.0, 2.0], 3))
