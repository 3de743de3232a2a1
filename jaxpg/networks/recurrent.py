"""Memory: recurrent cells that turn a sequence of features into contexts."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxpg.networks.mlp import orthogonal


class Memory(nn.Module):
    """A dense layer of rectified units, then a recurrent cell of the same size, whose output is the context.

    Source: purejaxrl's recurrent PPO. The cell's recurrent weights are orthogonal, its biases zero.
    """

    cell: Literal["gru", "lstm"]
    size: int

    @nn.compact
    def __call__(
        self, carry: PyTree[Float[Array, "*batch hidden"]], features: Float[Array, "*batch feature"]
    ) -> tuple[PyTree[Float[Array, "*batch hidden"]], Float[Array, "*batch hidden"]]:
        cell = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}[self.cell]
        inputs = nn.relu(nn.Dense(self.size, kernel_init=orthogonal(2**0.5))(features))
        return cell(self.size, recurrent_kernel_init=orthogonal(1.0))(carry, inputs)

    def initial_carry(self) -> PyTree[Float[Array, " hidden"]]:
        """Of one environment at the start of an episode."""
        zeros = jnp.zeros(self.size)
        return zeros if self.cell == "gru" else (zeros, zeros)
