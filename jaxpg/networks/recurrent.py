"""Memory: recurrent cells that turn a sequence of inputs into contexts."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxpg.networks.mlp import orthogonal


class Memory(nn.Module):
    """A recurrent cell, whose output is the context. Its recurrent weights are orthogonal, its biases zero."""

    cell: Literal["gru", "lstm"]
    size: int

    @nn.compact
    def __call__(
        self, carry: PyTree[Float[Array, "*batch hidden"]], inputs: Float[Array, "*batch input"]
    ) -> tuple[PyTree[Float[Array, "*batch hidden"]], Float[Array, "*batch hidden"]]:
        cell = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}[self.cell]
        return cell(self.size, recurrent_kernel_init=orthogonal(1.0))(carry, inputs)

    def initial_carry(self) -> PyTree[Float[Array, " hidden"]]:
        """Of one environment at the start of an episode."""
        zeros = jnp.zeros(self.size)
        return zeros if self.cell == "gru" else (zeros, zeros)
