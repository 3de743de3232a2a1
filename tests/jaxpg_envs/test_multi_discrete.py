"""Spaces of our own: what they draw, what they hold, what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

from jaxpg_envs.spaces import Dict, MultiDiscrete


def test_multi_discrete_draws_every_vector_equally_often():
    space = MultiDiscrete([2, 3])
    assert (space.shape, space.dtype, space.nvec.tolist(), repr(space)) == ((2,), jnp.int32, [2, 3], "MultiDiscrete([2, 3])")
    draws = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 6000))
    assert draws.dtype == jnp.int32
    assert jax.vmap(space.contains)(draws).all()
    vectors, counts = np.unique(np.asarray(draws), axis=0, return_counts=True)
    assert vectors.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    np.testing.assert_allclose(counts, 1000, atol=4 * np.sqrt(6000 * 5 / 36))  # four standard deviations


def test_multi_discrete_contains():
    space = MultiDiscrete([2, 3])
    inside = [bool(space.contains(jnp.array(x))) for x in ([1, 2], [2, 0], [0, 3], [-1, 0])]
    assert inside == [True, False, False, False]


@pytest.mark.parametrize("nvec", [[2, 0], [[2, 3]], [2.0, 3.0], 3])
def test_multi_discrete_refuses(nvec):
    with pytest.raises(ValueError, match="vector of positive integers, not"):
        MultiDiscrete(np.array(nvec))


def test_dict_holds_dictionaries():
    space = Dict({"a": spaces.Discrete(2), "b": Dict({"c": spaces.Box(0.0, 1.0, (2,))})})
    draw = space.sample(jax.random.key(0))
    assert type(draw) is dict
    assert jax.tree.structure(draw) == jax.tree.structure({"a": 0, "b": {"c": 0}})
    assert space.contains(draw)
    assert not space.contains(draw | {"a": jnp.int32(2)})
    assert not space.contains(draw | {"b": {"c": jnp.array([0.0, 2.0])}})
