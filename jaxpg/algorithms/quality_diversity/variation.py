"""Offspring from parents: by chance along lines, and by the gradient of a critic."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import Array, Float, PyTree

from jaxpg.gradient_descent import descend


def isoline(
    key: jax.Array,
    parents: PyTree[Array],
    others: PyTree[Array],
    iso_sigma: Any,
    line_sigma: Any,
) -> PyTree[Array]:
    """x1 + iso_sigma N(0, I) + line_sigma n (x2 - x1), n ~ N(0, 1) being one number per offspring.

    Source: Vassiliades and Mouret 2018, "Discovering the elite hypervolume by leveraging interspecies correlation" (arXiv
    1804.03906), equation 2.

    Args:
      parents, others: x1 and x2, leaves (offspring, ...).
    """
    leaves, structure = jax.tree.flatten(parents)
    line_key, *keys = jax.random.split(key, 1 + len(leaves))
    step = line_sigma * jax.random.normal(line_key, (len(leaves[0]),))

    def vary(key: jax.Array, x: Array, y: Array) -> Array:
        along = step.reshape(-1, *(1,) * (x.ndim - 1))
        return x + iso_sigma * jax.random.normal(key, x.shape) + along * (y - x)

    return jax.tree.map(vary, jax.tree.unflatten(structure, keys), parents, others)


def policy_gradient(
    value: Callable[[PyTree, Float[Array, "batch feature"]], Float[Array, "offspring batch"]],
    parents: PyTree[Array],
    observations: Float[Array, "step batch feature"],
    learning_rate: Any,
) -> PyTree[Array]:
    """Each parent after one step of Adam per minibatch up the mean of its action values.

    All parents see the same minibatches, as in QDax.

    Args:
      value: `(genotypes, observations) -> Q(s, pi(s))` of every genotype.
      parents: leaves (offspring, ...).
    """
    # Adam works number by number: the stack of parents is one vector to it, and each parent has its own Adam.
    optimizer = optax.adam(learning_rate)

    def ascend(carry: tuple[PyTree, PyTree], batch: Float[Array, "batch feature"]) -> tuple[tuple[PyTree, PyTree], None]:
        genotypes, optimizer_state = carry
        gradient = jax.grad(lambda genotypes: -value(genotypes, batch).mean(1).sum())(genotypes)
        return descend(optimizer, gradient, genotypes, optimizer_state), None

    (genotypes, _), _ = jax.lax.scan(ascend, (parents, optimizer.init(parents)), observations)
    return genotypes
