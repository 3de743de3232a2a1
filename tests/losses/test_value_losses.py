"""Value losses: numbers written out, gradients of every argument, degenerate variances."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpg.losses.value import clipped_value_loss, explained_variance, value_loss


def test_value_loss_by_hand():
    values, targets = jnp.array([[1.0, 2.0]]), jnp.array([[4.0, 1.0]])
    loss, gradients = jax.jit(jax.value_and_grad(value_loss, (0, 1)))(values, targets)
    np.testing.assert_allclose(loss, 0.5 * (9 + 1) / 2)
    np.testing.assert_allclose(gradients[0], [[-3 / 2, 1 / 2]])
    np.testing.assert_allclose(gradients[1], [[3 / 2, -1 / 2]])


def test_clipped_value_loss_by_hand():
    # moved little; too far towards the target; past it; away from it; down towards it; down and away
    behaviour = jnp.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    values = jnp.array([1.1, 2.0, 2.0, 2.0, 0.0, 0.0])
    targets = jnp.array([2.0, 3.0, 1.5, 0.0, -1.0, 3.0])
    errors = [-0.9, 1.2 - 3.0, 2.0 - 1.5, 2.0 - 0.0, 0.8 + 1.0, 0.0 - 3.0]
    slopes = [-0.9, 0.0, 0.5, 2.0, 0.0, -3.0]
    arguments = (values, behaviour, targets, 0.2)
    loss, gradients = jax.jit(jax.value_and_grad(clipped_value_loss, (0, 1, 2)))(*arguments)
    np.testing.assert_allclose(loss, 0.5 * np.mean(np.square(errors)), rtol=1e-6)
    np.testing.assert_allclose(gradients[0], np.array(slopes) / 6, rtol=1e-5)
    np.testing.assert_allclose(gradients[1], np.array([0.0, -1.8, 0.0, 0.0, 1.8, 0.0]) / 6, rtol=1e-5)
    np.testing.assert_allclose(gradients[2], -np.array(errors) / 6, rtol=1e-5)


def test_clipped_value_loss_bounds_the_plain_one_and_meets_it():
    rng = np.random.default_rng(0)
    values, behaviour, targets = map(jnp.asarray, rng.normal(size=(3, 50)).astype(np.float32))
    plain = value_loss(values, targets)
    assert clipped_value_loss(values, behaviour, targets, 0.1) > plain
    np.testing.assert_allclose(clipped_value_loss(values, behaviour, targets, 100.0), plain, rtol=1e-6)
    np.testing.assert_allclose(clipped_value_loss(values, values, targets, 0.1), plain, rtol=1e-6)
    swept = jax.vmap(clipped_value_loss, (None, None, None, 0))(values, behaviour, targets, jnp.array([0.1, 9.0]))
    np.testing.assert_allclose(swept[1], plain, rtol=1e-6)


def test_explained_variance_by_hand():
    targets = jnp.array([[1.0, 2.0], [3.0, 4.0]])  # variance 1.25
    np.testing.assert_allclose(explained_variance(targets + 7.0, targets), 1.0)
    np.testing.assert_allclose(explained_variance(jnp.full((2, 2), 7.0), targets), 0.0)
    np.testing.assert_allclose(explained_variance(-targets, targets), -3.0)
    residual = jnp.array([[0.5, -0.5], [0.5, -0.5]])  # variance 0.25
    np.testing.assert_allclose(explained_variance(targets - residual, targets), 1 - 0.25 / 1.25)


@pytest.mark.parametrize("constant", [0.0, 0.1, -123.456, 1e-30])
def test_explained_variance_of_constant_targets_is_zero(constant):
    targets = jnp.full(100, constant)
    values = jnp.linspace(-1.0, 1.0, 100)
    assert explained_variance(values, targets) == 0
    assert explained_variance(targets, targets) == 0
    assert jax.jit(explained_variance)(values, targets.at[0].add(1e-30)) == 0  # a variance that underflows


@pytest.mark.parametrize(
    ("function", "arrays", "scalars"),
    [(value_loss, 2, ()), (clipped_value_loss, 3, (0.2,)), (explained_variance, 2, ())],
)
def test_nothing_is_broadcast(function, arrays, scalars):
    function = inspect.unwrap(function)  # its own check, not that of the tests' import hook
    for i in range(arrays):
        shapes = [(4, 1) if i == j else (4,) for j in range(arrays)]
        with pytest.raises(AssertionError, match=r"values.*targets.*one common shape"):
            jax.eval_shape(lambda *x: function(*x, *scalars), *map(jnp.zeros, shapes))
