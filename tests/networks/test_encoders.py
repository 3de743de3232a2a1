"""The convolution is flax's, whatever lies around the image, and networks with it have one encoder for actor and critic."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import quick_jit

from jaxpg.networks import MLP, CategoricalActor, DenseEncoder, ImageEncoder, Memory, actor_critic, recall

SHAPE = (5, 4, 3)
FEATURES = jax.random.normal(jax.random.key(0), (2, 6, 3 + 60 + 2))  # an image between other features


def test_a_convolution_beside_a_dense_layer():
    encoder = ImageEncoder(3, SHAPE)
    params = quick_jit(encoder.init)(jax.random.key(1), FEATURES)
    inputs = quick_jit(encoder.apply)(params, FEATURES)
    assert inputs.shape == (2, 6, 3 * 2 * 16 + 5)
    image = FEATURES[..., 3:63].reshape(2, 6, *SHAPE)
    filters, others = params["params"]["filters"], params["params"]["others"]
    kernel = {"params": {"kernel": filters["kernel"].reshape(3, 3, 3, 16), "bias": filters["bias"] + 0.1}}
    shifted = {"params": {**params["params"], "filters": {**filters, "bias": filters["bias"] + 0.1}}}
    convolved = nn.relu(nn.Conv(16, (3, 3), padding="VALID").apply(kernel, image)).reshape(2, 6, -1)
    np.testing.assert_allclose(encoder.apply(shifted, FEATURES)[..., :-5], convolved, rtol=1e-4, atol=1e-5)
    around = jnp.concatenate([FEATURES[..., :3], FEATURES[..., 63:]], axis=-1)
    np.testing.assert_allclose(inputs[..., -5:], around @ others["kernel"] + others["bias"], rtol=1e-4, atol=1e-5)


def test_an_image_alone_has_no_dense_layer():
    encoder = ImageEncoder(0, SHAPE)
    inputs, params = encoder.init_with_output(jax.random.key(1), FEATURES[..., :60])
    assert inputs.shape == (2, 6, 96)
    assert set(params["params"]) == {"filters"}


@pytest.mark.parametrize("memory", [None, Memory("gru", 7)])
@pytest.mark.parametrize("encoder", [DenseEncoder(9), ImageEncoder(3, SHAPE)])
def test_actor_and_critic_share_the_encoder(encoder, memory):
    network = actor_critic(CategoricalActor(4, (8,)), MLP((8,), 1, 1.0), 65, encoder, memory)
    params = quick_jit(network.init)(jax.random.key(1))
    carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (6, *x.shape)), network.initial_carry)
    starts = jnp.zeros((2, 6), bool)

    def contexts_of(params):
        return recall(network, params, carry, FEATURES, starts)

    contexts = quick_jit(contexts_of)(params)
    assert contexts.shape == (2, 6, network.context_size)
    first = network.remember(params, carry, FEATURES[0])[1]
    np.testing.assert_allclose(contexts[0], first, rtol=1e-4, atol=1e-5)
    functions = {
        "critic": lambda params: network.value(params, contexts_of(params)).sum(),
        "actor": lambda params: network.distribution(params, contexts_of(params)).logits.var(),
    }
    for function in functions.values():
        gradient = quick_jit(jax.grad(function))(params)["encoder"]
        assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))
