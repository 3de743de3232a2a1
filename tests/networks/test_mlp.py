"""Initialisation and heads of the multilayer perceptrons."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import quick_jit

from jaxpg.networks import MLP, CategoricalActor, GaussianActor

KEY = jax.random.key(0)


def test_layers_are_orthogonal_with_their_gains():
    params = quick_jit(MLP((6, 4), 3, 0.01).init)(KEY, jnp.zeros(5))["params"]
    for name, shape, gain in (("Dense_0", (5, 6), np.sqrt(2)), ("Dense_1", (6, 4), np.sqrt(2)), ("Dense_2", (4, 3), 0.01)):
        kernel = np.asarray(params[name]["kernel"])
        assert kernel.shape == shape
        gram = kernel @ kernel.T if shape[0] < shape[1] else kernel.T @ kernel
        np.testing.assert_allclose(gram, gain**2 * np.eye(min(shape)), rtol=1e-4, atol=1e-5 * gain**2)
        np.testing.assert_array_equal(params[name]["bias"], 0)


@pytest.mark.parametrize(
    ("activation", "function"),
    [("tanh", np.tanh), ("relu", lambda x: np.maximum(x, 0)), ("swish", lambda x: x / (1 + np.exp(-x)))],
)
def test_forward_pass_by_hand(activation, function):
    params = {
        "Dense_0": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5, 0.0])},
        "Dense_1": {"kernel": jnp.array([[3.0], [1.0]]), "bias": jnp.array([-1.0])},
    }
    x = np.linspace(-2, 2, 6).reshape(2, 3, 1)
    hidden = function(x * [1.0, -2.0] + [0.5, 0.0])
    y = MLP((2,), 1, 1.0, activation).apply({"params": params}, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(y, hidden @ [[3.0], [1.0]] - 1.0, rtol=1e-5, atol=1e-6)


def test_no_hidden_layer_is_a_linear_map():
    network = MLP((), 1, 1.0)
    params = quick_jit(network.init)(KEY, jnp.zeros(3))
    of = lambda x: network.apply(params, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(of([1.0, 2.0, 3.0]) + of([4.0, 0.0, -1.0]), of([5.0, 2.0, 2.0]), rtol=1e-5)


def test_softmax_policy_starts_nearly_uniform():
    actor = CategoricalActor(4, (8,))
    x = jax.random.normal(KEY, (2, 5, 3))
    probs = quick_jit(lambda key: actor.apply(actor.init(key, x[0, 0]), x).probs)(KEY)
    assert probs.shape == (2, 5, 4)
    np.testing.assert_allclose(probs, 0.25, atol=0.01)
    assert np.ptp(probs) > 0


def test_gaussian_policy_by_hand():
    actor = GaussianActor(2, (8,))
    x = jax.random.normal(KEY, (3, 5))
    params = quick_jit(actor.init)(KEY, x[0])
    np.testing.assert_array_equal(params["params"]["log_std"], 0)
    params["params"]["log_std"] = jnp.log(jnp.array([0.5, 2.0]))

    @quick_jit
    def parts(params):
        policy = actor.apply(params, x)
        return policy.mean(), policy.stddev(), policy.log_prob(jnp.ones((3, 2)))

    mean, std, log_prob = parts(params)
    assert np.abs(mean).max() < 0.05
    np.testing.assert_allclose(std, np.broadcast_to([0.5, 2.0], (3, 2)), rtol=1e-6)
    expected = -0.5 * ((1.0 - np.asarray(mean)) / [0.5, 2.0]) ** 2 - np.log([0.5, 2.0]) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(log_prob, expected.sum(-1), rtol=1e-5)
