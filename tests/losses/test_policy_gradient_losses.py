"""Policy-gradient losses: numbers written out, rlax as oracle, gradients of every argument."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from jax.test_util import check_grads

from jaxpg.losses.policy_gradient import (
    approximate_kl,
    clip_fraction,
    clipped_surrogate,
    entropy_loss,
    kl_penalized_surrogate,
    policy_gradient_loss,
)

# Ratios below, inside and above [0.8, 1.2], each with both signs of the advantage.
RATIOS = jnp.array([0.5, 0.5, 1.1, 1.1, 2.0, 2.0])
ADVANTAGES = jnp.array([3.0, -3.0, 3.0, -3.0, 3.0, -3.0])
BEHAVIOUR = jnp.log(jnp.array([0.2, 0.3, 0.4, 0.3, 0.2, 0.1]))
LOG_PROB = BEHAVIOUR + jnp.log(RATIOS)


@pytest.fixture(scope="module")
def batch():
    """Logits, actions and advantages of 64 states with 4 actions."""
    rng = np.random.default_rng(0)
    logits, behaviour_logits = rng.normal(size=(2, 64, 4)).astype(np.float32)
    actions, advantages = rng.integers(4, size=64), rng.normal(size=64).astype(np.float32)
    return tuple(map(jnp.asarray, (logits, behaviour_logits, actions, advantages)))


def log_prob_of(logits, actions):
    return jnp.take_along_axis(jax.nn.log_softmax(logits), actions[:, None], 1)[:, 0]


def test_policy_gradient_loss_by_hand():
    log_prob, advantages = jnp.array([[-1.0, -2.0]]), jnp.array([[3.0, -0.5]])
    loss, gradients = jax.value_and_grad(policy_gradient_loss, (0, 1))(log_prob, advantages)
    np.testing.assert_allclose(loss, (3.0 - 1.0) / 2)
    np.testing.assert_allclose(gradients[0], [[-1.5, 0.25]])
    np.testing.assert_allclose(gradients[1], [[0.5, 1.0]])  # meta-gradients pass through the advantages


def test_clipped_surrogate_by_hand():
    loss = clipped_surrogate(LOG_PROB, BEHAVIOUR, ADVANTAGES, 0.2)
    # per action min(ratio * A, clipped * A): the pessimistic one of the two
    objective = [0.5 * 3, 0.8 * -3, 1.1 * 3, 1.1 * -3, 1.2 * 3, 2.0 * -3]
    np.testing.assert_allclose(loss, -np.mean(objective), rtol=1e-6)
    # Each alone: their mean is the same with all ratios upside down.
    alone = jax.vmap(lambda *arrays: clipped_surrogate(*arrays, 0.2))(LOG_PROB, BEHAVIOUR, ADVANTAGES)
    np.testing.assert_allclose(alone, -np.array(objective), rtol=1e-6)


def test_clipped_surrogate_has_no_gradient_where_it_clips_and_only_there():
    gradient = jax.jit(jax.grad(clipped_surrogate))(LOG_PROB, BEHAVIOUR, ADVANTAGES, 0.2)
    expected = -RATIOS * ADVANTAGES / 6
    clipped = np.array([False, True, False, False, True, False])
    np.testing.assert_array_equal(gradient[clipped], 0)
    np.testing.assert_allclose(gradient[~clipped], expected[~clipped], rtol=1e-5)


def test_kl_penalized_surrogate_by_hand():
    loss, gradient = jax.jit(jax.value_and_grad(kl_penalized_surrogate))(LOG_PROB, BEHAVIOUR, ADVANTAGES, 0.7)
    kl = (2 * (-0.5 - np.log(0.5)) + 2 * (0.1 - np.log(1.1)) + 2 * (1 - np.log(2))) / 6
    np.testing.assert_allclose(loss, 0.0 + 0.7 * kl, rtol=1e-5)  # the advantages cancel in pairs
    np.testing.assert_allclose(gradient, (-RATIOS * ADVANTAGES + 0.7 * (RATIOS - 1)) / 6, rtol=1e-5)


def test_clip_fraction_by_hand():
    np.testing.assert_allclose(clip_fraction(LOG_PROB, BEHAVIOUR, 0.2), 4 / 6)
    np.testing.assert_allclose(clip_fraction(LOG_PROB, BEHAVIOUR, 0.6), 2 / 6)
    np.testing.assert_allclose(clip_fraction(LOG_PROB, BEHAVIOUR, 0.05), 1.0)
    assert clip_fraction(LOG_PROB, BEHAVIOUR, 0.2).dtype == jnp.float32


def test_entropy_loss_by_hand():
    loss, gradient = jax.value_and_grad(entropy_loss)(jnp.array([[0.5, 1.0], [0.0, 0.5]]))
    np.testing.assert_allclose(loss, -0.5)
    np.testing.assert_allclose(gradient, -0.25)


@pytest.mark.filterwarnings("ignore:Rlax softmax")
def test_losses_and_gradients_equal_rlax(batch):
    logits, behaviour_logits, actions, advantages = batch
    behaviour = log_prob_of(behaviour_logits, actions)
    ones = jnp.ones(64)
    pairs = [
        (
            lambda x: policy_gradient_loss(log_prob_of(x, actions), advantages),
            lambda x: rlax.policy_gradient_loss(x, actions, advantages, ones),
        ),
        (
            lambda x: clipped_surrogate(log_prob_of(x, actions), behaviour, advantages, 0.3),
            lambda x: rlax.clipped_surrogate_pg_loss(jnp.exp(log_prob_of(x, actions) - behaviour), advantages, 0.3),
        ),
        (
            lambda x: entropy_loss(-jnp.sum(jax.nn.softmax(x) * jax.nn.log_softmax(x), -1)),
            lambda x: rlax.entropy_loss(x, ones),
        ),
    ]
    for ours, theirs in pairs:
        value, gradient = jax.jit(jax.value_and_grad(ours))(logits)
        expected_value, expected_gradient = jax.jit(jax.value_and_grad(theirs))(logits)
        np.testing.assert_allclose(value, expected_value, rtol=1e-5)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-7)


def test_meta_gradients_reach_advantages_and_behaviour():
    for function in (clipped_surrogate, kl_penalized_surrogate):
        of_arrays = lambda *x, function=function: function(*map(jnp.asarray, x))  # finite differences are numpy's
        check_grads(of_arrays, (LOG_PROB, BEHAVIOUR, ADVANTAGES, 0.2), 1, ["rev"], rtol=2e-2)
    of_behaviour = jax.grad(approximate_kl, 1)(LOG_PROB, BEHAVIOUR)
    np.testing.assert_allclose(of_behaviour, -jax.grad(approximate_kl)(LOG_PROB, BEHAVIOUR))


def test_at_a_ratio_of_one_every_surrogate_is_the_policy_gradient(batch):
    logits, _, actions, advantages = batch
    behaviour = log_prob_of(logits, actions)

    def gradient(loss, *arguments):
        return jax.jit(jax.grad(lambda x: loss(log_prob_of(x, actions), *arguments)))(logits)

    expected = gradient(policy_gradient_loss, advantages)
    for surrogate in (clipped_surrogate, kl_penalized_surrogate):
        np.testing.assert_allclose(gradient(surrogate, behaviour, advantages, 0.2), expected, atol=1e-7)
    assert approximate_kl(behaviour, behaviour) == 0
    assert clip_fraction(behaviour, behaviour, 0.01) == 0


def test_approximate_kl_and_its_gradient_are_unbiased():
    """The expectation over the behaviour's actions, summed exactly, is KL(behaviour || pi)."""
    logits, behaviour_logits = jnp.array([0.3, -1.0, 0.5]), jnp.array([-0.2, 0.4, 0.9])
    behaviour = jax.nn.log_softmax(behaviour_logits)

    def exact(logits):
        return jnp.sum(jnp.exp(behaviour) * (behaviour - jax.nn.log_softmax(logits)))

    def expected(logits):
        per_action = jax.vmap(approximate_kl)(jax.nn.log_softmax(logits), behaviour)
        return jnp.sum(jnp.exp(behaviour) * per_action)

    (value, gradient), (exact_value, exact_gradient) = (
        jax.jit(jax.value_and_grad(function))(logits) for function in (expected, exact)
    )
    np.testing.assert_allclose(value, exact_value, rtol=1e-5)
    np.testing.assert_allclose(gradient, exact_gradient, rtol=1e-4)


def test_approximate_kl_keeps_its_digits_near_zero():
    shift = 1e-3  # KL estimate: shift^2 / 2 to leading order; exp(shift) - 1 in float32 would be off by 10 %
    kl = approximate_kl(jnp.full(8, shift), jnp.zeros(8))
    np.testing.assert_allclose(kl, np.expm1(shift) - shift, rtol=1e-3)


def test_coefficients_may_be_traced():
    epsilons = jnp.array([0.2, 0.6])
    for function in (clipped_surrogate, kl_penalized_surrogate):
        swept = jax.jit(jax.vmap(function, (None, None, None, 0)))(LOG_PROB, BEHAVIOUR, ADVANTAGES, epsilons)
        apart = [function(LOG_PROB, BEHAVIOUR, ADVANTAGES, float(e)) for e in epsilons]
        np.testing.assert_allclose(swept, apart, rtol=1e-5)


@pytest.mark.parametrize(
    ("function", "arrays", "scalars"),
    [
        (policy_gradient_loss, 2, ()),
        (clipped_surrogate, 3, (0.2,)),
        (kl_penalized_surrogate, 3, (0.2,)),
        (approximate_kl, 2, ()),
        (clip_fraction, 2, (0.2,)),
    ],
)
def test_nothing_is_broadcast(function, arrays, scalars):
    function = inspect.unwrap(function)  # its own check, not that of the tests' import hook
    for i in range(arrays):
        shapes = [(4, 1) if i == j else (4,) for j in range(arrays)]
        with pytest.raises(Exception, match=r"log_prob.*one common shape|type-check"):
            jax.eval_shape(lambda *x: function(*x, *scalars), *map(jnp.zeros, shapes))
