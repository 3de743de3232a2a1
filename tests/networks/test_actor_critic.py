"""Actor and critic are separate functions of one tree of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import quick_jit

from jaxpg.networks import (
    MLP,
    CategoricalActor,
    DenseEncoder,
    GaussianActor,
    Memory,
    MultiCategoricalActor,
    actor_critic,
    recall,
)

ACTORS = {
    "categorical": (CategoricalActor(4, (8,)), ()),
    "gaussian": (GaussianActor(2, (8,), "relu"), (2,)),
    "multi-categorical": (MultiCategoricalActor((4, 2, 3), (8,)), (3,)),
}
NETWORKS = {name: (actor_critic(actor, MLP((8,), 1, 1.0), 3), event) for name, (actor, event) in ACTORS.items()}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("axes", [(), (1,), (5, 2)])
def test_shapes_with_any_leading_axes(name, axes):
    network, event = NETWORKS[name]

    def apply(key, features):
        params = network.init(key)
        distribution = network.distribution(params, features)
        return network.value(params, features), distribution.sample(seed=key)

    values, actions = jax.eval_shape(apply, jax.random.key(0), jnp.zeros((*axes, 3)))
    assert values.shape == axes
    assert actions.shape == (*axes, *event)


@pytest.mark.parametrize("name", NETWORKS)
def test_actor_and_critic_share_nothing(name):
    network, event = NETWORKS[name]
    features = jnp.array([0.3, -0.2, 1.0])
    params = quick_jit(network.init)(jax.random.key(0))
    value = lambda params: network.value(params, features)
    action = jnp.zeros(event) if name == "gaussian" else jnp.zeros(event, int)
    log_prob = lambda params: network.distribution(params, features).log_prob(action)
    for function, own, other in ((value, "critic", "actor"), (log_prob, "actor", "critic")):
        gradient = quick_jit(jax.grad(function))(params)
        assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient[own]))
        assert not any(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient[other]))


def test_components_of_a_multi_categorical_are_independent():
    """Probabilities over all 24 joint actions, the padding of the shorter components excluded, are a product that sums to 1."""
    actor = ACTORS["multi-categorical"][0]
    features = jnp.array([0.3, -0.2, 1.0])
    params = quick_jit(actor.init)(jax.random.key(0), features)
    params = jax.tree.map(lambda x: 100.0 * x, params)  # far from uniform
    actions = jnp.stack(jnp.meshgrid(*map(jnp.arange, (4, 2, 3)), indexing="ij"), axis=-1)

    def of(params):
        distribution = actor.apply(params, features)
        log_probs = jax.vmap(jax.vmap(jax.vmap(distribution.log_prob)))(actions)
        return (
            log_probs,
            distribution.entropy(),
            distribution.mode(),
            distribution.sample(seed=jax.random.key(1), sample_shape=1000),
        )

    log_probs, entropy, mode, samples = quick_jit(of)(params)
    probs = np.exp(np.asarray(log_probs, np.float64))
    assert probs.max() > 0.1
    np.testing.assert_allclose(probs.sum(), 1.0, rtol=1e-5)
    parts = [probs.sum(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    np.testing.assert_allclose(probs, np.einsum("i,j,k->ijk", *parts), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(entropy, -(probs * np.log(probs)).sum(), rtol=1e-4)
    np.testing.assert_array_equal(mode, np.unravel_index(probs.argmax(), probs.shape))
    assert (np.asarray(samples).max(axis=0) < [4, 2, 3]).all()
    np.testing.assert_allclose(np.bincount(np.asarray(samples)[:, 0], minlength=4) / 1000, parts[0], atol=0.06)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_recalling_is_remembering_step_by_step(cell):
    """Along 6 steps of 2 environments, of which one starts anew at step 3: as if its past had never been."""
    network = actor_critic(CategoricalActor(4, (8,)), MLP((8,), 1, 1.0), 3, DenseEncoder(7), Memory(cell, 5))
    features = jax.random.normal(jax.random.key(0), (6, 2, 3))
    starts = jnp.zeros((6, 2), bool).at[3, 1].set(True)
    params = quick_jit(network.init)(jax.random.key(1))
    step = quick_jit(network.remember)

    def run(carry, features):
        contexts = []
        for x in features:
            carry, context = step(params, carry, x)
            contexts.append(context)
        return carry, jnp.stack(contexts)

    fresh = network.initial_carry
    carry, _ = run(fresh, jnp.ones((4, 3)))  # some past
    carries = jax.tree.map(lambda x: jnp.stack([x, x]), carry)
    contexts = quick_jit(lambda *x: recall(network, *x))(params, carries, features, starts)
    np.testing.assert_allclose(contexts[:, 0], run(carry, features[:, 0])[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(contexts[:3, 1], run(carry, features[:3, 1])[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(contexts[3:, 1], run(fresh, features[3:, 1])[1], rtol=1e-5, atol=1e-6)
    assert not np.allclose(contexts[3:, 1], run(carry, features[3:, 1])[1], atol=1e-3)
    assert contexts.shape == (6, 2, network.context_size)


def test_without_a_memory_contexts_are_the_features():
    network, _ = NETWORKS["gaussian"]
    features = jnp.ones((6, 2, 3))
    assert recall(network, {}, (), features, jnp.zeros((6, 2), bool)) is features
    assert network.initial_carry == ()
