"""Spaces that gymnax lacks, with the interface of its own."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Int, PRNGKeyArray


class MultiDiscrete(spaces.Space):
    """Vectors of integers, component i in {0, ..., nvec[i] - 1}.

    Attributes:
        nvec: number of values of each component, a numpy array.
        shape: `(len(nvec),)`.
        dtype: int32.
    """

    def __init__(self, nvec: Sequence[int] | np.ndarray) -> None:
        """A space of integer vectors.

        Raises:
            ValueError: `nvec` is not a vector of positive integers.
        """
        self.nvec = np.asarray(nvec)
        if self.nvec.ndim != 1 or not np.issubdtype(self.nvec.dtype, np.integer) or (self.nvec < 1).any():
            raise ValueError(f"nvec must be a vector of positive integers, not {nvec!r}")
        self.shape = self.nvec.shape
        self.dtype = jnp.int32

    def __repr__(self) -> str:
        return f"MultiDiscrete({self.nvec.tolist()})"

    def sample(self, key: PRNGKeyArray) -> Int[Array, " component"]:
        """A vector drawn uniformly."""
        return jax.random.randint(key, self.shape, 0, self.nvec, self.dtype)

    def contains(self, x: Int[Array, " component"]) -> Bool[Array, ""]:
        """Whether every component is in its range."""
        return jnp.all((x >= 0) & (x < self.nvec))


class Dict(spaces.Dict):
    """gymnax's `Dict` for observations that are dictionaries: gymnax looks for attributes."""

    def sample(self, key: PRNGKeyArray) -> dict[str, Any]:
        """A dictionary of values, each drawn from its space."""
        return dict(super().sample(key))

    def contains(self, x: dict[str, Any]) -> Bool[Array, ""]:
        """Whether every value is in its space."""
        return jnp.all(jnp.array([space.contains(x[name]) for name, space in self.spaces.items()]))
