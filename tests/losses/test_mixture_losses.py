"""Losses of mixture-of-experts policies: numbers written out, closed forms, and the minimiser PMOE claims."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxpg.losses.mixture import frequency_routing_loss, mixture_log_prob, select_best

ACTION_VALUES = jnp.array([[1.0, 3.0, 2.0], [0.0, -1.0, -2.0]])  # the experts 1 and 0 win


def test_frequency_routing_loss_by_hand():
    probs = jnp.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
    loss, gradients = jax.jit(jax.value_and_grad(frequency_routing_loss, (0, 1)))(probs, ACTION_VALUES)
    np.testing.assert_allclose(loss, (0.04 + 0.25 + 0.09) / 6, rtol=1e-6)
    np.testing.assert_allclose(gradients[0], np.array([[0.4, -1.0, 0.6], [0, 0, 0]]) / 6, atol=1e-7)
    np.testing.assert_array_equal(gradients[1], 0)


def test_frequency_routing_gradient_in_logits_is_the_closed_form():
    """(2 / K) * J_softmax(w)^T (w - onehot) for one state, J = diag(w) - w w^T."""
    logits = jnp.array([0.3, -0.2, 1.1])
    w, winner = np.asarray(jax.nn.softmax(logits)), np.array([0.0, 1.0, 0.0])
    gradient = jax.jit(jax.grad(lambda z: frequency_routing_loss(jax.nn.softmax(z), ACTION_VALUES[0])))(logits)
    np.testing.assert_allclose(gradient, 2 / 3 * (np.diag(w) - np.outer(w, w)) @ (w - winner), rtol=1e-5)


def test_frequency_routing_is_stationary_at_the_frequencies_of_winning():
    winners = np.array([0, 0, 1, 2, 2, 2, 2, 1])
    action_values = jnp.asarray(np.eye(4)[winners] * 5.0 - 3.0, jnp.float32)
    frequencies = np.array([2, 2, 4, 0], np.float32) / 8

    @jax.jit
    def loss(w):
        return frequency_routing_loss(jnp.broadcast_to(w, (8, 4)), action_values)

    np.testing.assert_allclose(jax.grad(loss)(frequencies), 0, atol=1e-7)
    for shift in np.array([[0.1, -0.1, 0, 0], [0, 0, -0.05, 0.05]], np.float32):
        assert loss(frequencies + shift) > loss(frequencies)
    np.testing.assert_allclose(loss(frequencies), np.mean(frequencies * (1 - frequencies)), rtol=1e-6)


def test_trained_routing_finds_the_frequencies_of_winning():
    """One state, four Gaussian experts, Q(a) = -(a - 0.5)^2, fresh draws at every step."""
    means, scale = jnp.array([-1.0, -0.3, 0.4, 1.0]), 0.3

    def action_values(key, draws):
        actions = means + scale * jax.random.normal(key, (draws, 4))
        return -jnp.square(actions - 0.5)

    def step(carry, key):
        logits, state = carry

        def loss(z):
            return frequency_routing_loss(jnp.broadcast_to(jax.nn.softmax(z), (64, 4)), action_values(key, 64))

        updates, state = optimizer.update(jax.grad(loss)(logits), state)
        return (optax.apply_updates(logits, updates), state), None

    optimizer = optax.adam(1e-2)
    start = (jnp.zeros(4), optimizer.init(jnp.zeros(4)))
    (logits, _), _ = jax.lax.scan(step, start, jax.random.split(jax.random.key(0), 2000))
    best = jnp.argmax(action_values(jax.random.key(1), 100_000), 1)
    frequencies = jnp.bincount(best, length=4) / best.size
    np.testing.assert_allclose(jax.nn.softmax(logits), frequencies, atol=0.03)
    assert frequencies.max() - frequencies.min() > 0.5


def test_select_best_takes_the_winners():
    actions = jnp.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    indices = jnp.array([[10, 11, 12], [20, 21, 22]])
    action, value, index = select_best(ACTION_VALUES, actions, ACTION_VALUES, indices)
    np.testing.assert_array_equal(action, [actions[0, 1], actions[1, 0]])
    np.testing.assert_array_equal(value, [3.0, 0.0])
    np.testing.assert_array_equal(index, [11, 20])
    assert index.dtype == indices.dtype


def test_select_best_passes_gradients_to_the_winners_only():
    def total(action_values, log_probs):
        log_prob, value = select_best(action_values, log_probs, action_values)
        return jnp.sum(2.0 * log_prob - value)

    by_value, by_log_prob = jax.jit(jax.grad(total, (0, 1)))(ACTION_VALUES, jnp.ones((2, 3)))
    winners = np.array([[0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(by_log_prob, 2 * winners)
    np.testing.assert_array_equal(by_value, -winners)


def test_select_best_without_and_with_many_batch_axes():
    (single,) = select_best(ACTION_VALUES[0], jnp.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(single, [2.0, 3.0])
    values = jax.random.normal(jax.random.key(0), (4, 5, 3))
    (best,) = select_best(values, values)
    np.testing.assert_array_equal(best, values.max(-1))
    (mapped,) = jax.jit(jax.vmap(select_best))(values, values)
    np.testing.assert_array_equal(mapped, best)


def test_one_expert_is_no_mixture():
    values, x = jnp.array([[4.0], [5.0]]), jnp.array([[1.0], [2.0]])
    assert frequency_routing_loss(jnp.ones((2, 1)), values) == 0
    np.testing.assert_array_equal(select_best(values, x)[0], x[:, 0])
    np.testing.assert_array_equal(mixture_log_prob(jnp.zeros((2, 1)), x), x[:, 0])


def test_mixture_log_prob_by_hand():
    weights, densities = jnp.array([[0.25, 0.75], [1.0, 0.0]]), jnp.array([[0.4, 0.8], [0.3, 0.9]])
    log_prob = mixture_log_prob(jnp.log(weights), jnp.log(densities))
    np.testing.assert_allclose(jnp.exp(log_prob), [0.25 * 0.4 + 0.75 * 0.8, 0.3], rtol=1e-6)


def test_mixture_log_prob_of_an_unlikely_action_does_not_underflow():
    log_weights, components = jnp.log(jnp.array([0.5, 0.5])), jnp.array([-1000.0, -1001.0])
    log_prob, gradient = jax.jit(jax.value_and_grad(mixture_log_prob, 1))(log_weights, components)
    np.testing.assert_allclose(log_prob, -1000 + np.log(0.5 + 0.5 * np.exp(-1)), rtol=1e-6)
    np.testing.assert_allclose(gradient, jax.nn.softmax(components), rtol=1e-4)  # who is responsible for the action
    switched_off = jnp.array([0.0, -jnp.inf])
    gradients = jax.jit(jax.grad(mixture_log_prob, (0, 1)))(switched_off, components)
    np.testing.assert_array_equal(gradients, [[1, 0], [1, 0]])


def test_mismatched_shapes_are_refused():
    # the functions' own checks, not those of the tests' import hook
    for function in map(inspect.unwrap, (frequency_routing_loss, mixture_log_prob)):
        with pytest.raises(AssertionError, match="one common shape"):
            jax.eval_shape(function, jnp.zeros((4, 3)), jnp.zeros((1, 3)))
    with pytest.raises(AssertionError, match="shape"):
        jax.eval_shape(inspect.unwrap(select_best), jnp.zeros((4, 3)), jnp.zeros((4, 2, 3)))
