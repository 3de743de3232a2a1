"""Multilayer perceptrons and the heads that turn them into policies."""

import math
from collections.abc import Callable
from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.custom_batching
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"tanh": nn.tanh, "relu": nn.relu, "swish": nn.swish}


def orthogonal(gain: float) -> Callable[..., Array]:
    """Initialiser of matrices that are `gain` times a random orthogonal one.

    Under `vmap` it works on one matrix after the other: LAPACK's batched QR waits for threads of the very pool that it
    occupies, so that on a CPU several layers, or devices, can wait for each other for ever.
    """
    initializer = nn.initializers.orthogonal(gain)

    def init(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Float[Array, "input output"]:
        return jax.custom_batching.sequential_vmap(lambda key: initializer(key, shape, dtype))(key)

    return init


class MLP(nn.Module):
    """Dense layers: orthogonal with gain sqrt(2) when hidden, gain `output_gain` at the end, zero biases.

    Source of the gains: Engstrom et al. (2020), Andrychowicz et al. (2021).
    """

    hidden_sizes: tuple[int, ...]
    output_size: int
    output_gain: float
    activation: str = "tanh"

    @nn.compact
    def __call__(self, x: Float[Array, "*batch feature"]) -> Float[Array, "*batch output"]:
        for size in self.hidden_sizes:
            x = ACTIVATIONS[self.activation](nn.Dense(size, kernel_init=orthogonal(math.sqrt(2.0)))(x))
        return nn.Dense(self.output_size, kernel_init=orthogonal(self.output_gain))(x)


class CategoricalActor(nn.Module):
    """A softmax policy over `num_actions` actions, nearly uniform at the start (gain 0.01)."""

    num_actions: int
    hidden_sizes: tuple[int, ...]
    activation: str = "tanh"

    @nn.compact
    def __call__(self, x: Float[Array, "*batch feature"]) -> distrax.Categorical:
        return distrax.Categorical(logits=MLP(self.hidden_sizes, self.num_actions, 0.01, self.activation)(x))


class MultiCategoricalActor(nn.Module):
    """Independent softmax policies over `nums_actions[i]` actions for component i, nearly uniform at the start."""

    nums_actions: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    activation: str = "tanh"

    @nn.compact
    def __call__(self, x: Float[Array, "*batch feature"]) -> distrax.Independent:
        logits = MLP(self.hidden_sizes, sum(self.nums_actions), 0.01, self.activation)(x)
        parts = jnp.split(logits, np.cumsum(self.nums_actions)[:-1], axis=-1)

        def pad(part: Array) -> Array:
            missing = max(self.nums_actions) - part.shape[-1]
            # Finite, so that entropies and gradients are, and far enough below any logit to be a probability of zero.
            return jnp.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, missing)], constant_values=-1e9)

        return distrax.Independent(distrax.Categorical(logits=jnp.stack([pad(part) for part in parts], axis=-2)), 1)


class GaussianActor(nn.Module):
    """A diagonal Gaussian policy whose log standard deviation is a parameter, the same in every state."""

    action_size: int
    hidden_sizes: tuple[int, ...]
    activation: str = "tanh"

    @nn.compact
    def __call__(self, x: Float[Array, "*batch feature"]) -> distrax.MultivariateNormalDiag:
        mean = MLP(self.hidden_sizes, self.action_size, 0.01, self.activation)(x)
        log_std = self.param("log_std", nn.initializers.zeros, (self.action_size,))
        return distrax.MultivariateNormalDiag(mean, jnp.broadcast_to(jnp.exp(log_std), mean.shape))
