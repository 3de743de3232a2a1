"""Actor and critic are separate functions of one tree of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import quick_jit

from jaxpg.networks import categorical_actor_critic, gaussian_actor_critic

NETWORKS = {
    "categorical": (categorical_actor_critic(3, 4, (8,), "tanh"), ()),
    "gaussian": (gaussian_actor_critic(3, 2, (8,), "relu"), (2,)),
}


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
    action = jnp.ones(event) if event else 0
    log_prob = lambda params: network.distribution(params, features).log_prob(action)
    for function, own, other in ((value, "critic", "actor"), (log_prob, "actor", "critic")):
        gradient = quick_jit(jax.grad(function))(params)
        assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient[own]))
        assert not any(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient[other]))
