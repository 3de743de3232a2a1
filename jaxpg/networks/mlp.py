"""Multilayer perceptrons and the heads that turn them into policies."""

import math
from collections.abc import Callable
from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"tanh": nn.tanh, "relu": nn.relu, "swish": nn.swish}


def orthogonal(gain: float) -> Callable[..., Array]:
    """Initialiser of matrices that are `gain` times a random orthogonal one (Haar), orthonormal along the shorter side.

    It takes the polar factor of a Gaussian matrix, by Newton and Schulz's iteration. `flax.linen.initializers.orthogonal` calls
    LAPACK's QR instead, whose batched kernel (`vmap` over seeds) waits for threads of the very pool that it occupies: on a CPU,
    several layers on several devices wait for each other for ever.
    """

    def init(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Float[Array, "input output"]:
        x = jax.random.normal(key, (max(shape), min(shape)), dtype)
        x = x / jnp.linalg.norm(x)  # singular values in (0, 1], each of which the iteration takes to 1
        x = jax.lax.fori_loop(0, 40, lambda _, x: 1.5 * x - 0.5 * x @ (x.T @ x), x)
        return gain * (x if shape[0] >= shape[1] else x.T)

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
