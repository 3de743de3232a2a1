"""Action values: of every discrete action at once, or of one continuous action by several critics."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxpg.networks.mlp import ACTIVATIONS


def symmetric_uniform(bound: float) -> Callable[..., Array]:
    """Initialiser of numbers within ±bound."""
    initializer = nn.initializers.uniform(2 * bound)  # draws from [0, 2 bound)
    return lambda *arguments: initializer(*arguments) - bound


class Initializers(NamedTuple):
    """Of the kernels and biases of hidden layers, and of those of a critic's last layer."""

    kernel: Callable[..., Array]
    bias: Callable[..., Array]
    last_kernel: Callable[..., Array]
    last_bias: Callable[..., Array]


INITIALIZERS = {
    "lecun_normal": Initializers(*2 * (nn.initializers.lecun_normal(), nn.initializers.zeros)),
    # Kernels within ±1 / sqrt(units): rlkit takes a layer's own units for its inputs.
    "rlkit": Initializers(
        nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform"),
        nn.initializers.constant(0.1),
        symmetric_uniform(3e-3),
        symmetric_uniform(3e-3),
    ),
}


class Trunk(nn.Module):
    """Hidden layers, by default with flax's own initialisation, each normalised before its activation if `layer_norm`."""

    hidden_sizes: tuple[int, ...]
    activation: str = "relu"
    layer_norm: bool = False
    kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()
    bias_init: Callable[..., Array] = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "*batch feature"]) -> Float[Array, "*batch hidden"]:
        for size in self.hidden_sizes:
            x = nn.Dense(size, kernel_init=self.kernel_init, bias_init=self.bias_init)(x)
            x = ACTIVATIONS[self.activation](nn.LayerNorm()(x) if self.layer_norm else x)
        return x


class DiscreteActionValues(nn.Module):
    """Q(s, .), or with `num_quantiles` that many quantiles of each action's return.

    Dueling: a value of the state plus an advantage of each action, whose mean is taken off (Wang et al. 2016, arXiv
    1511.06581, equation 9).
    """

    num_actions: int
    hidden_sizes: tuple[int, ...]
    activation: str = "relu"
    layer_norm: bool = False
    dueling: bool = False
    num_quantiles: int = 0

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch feature"]
    ) -> Float[Array, "*batch action"] | Float[Array, "*batch action quantile"]:
        x = Trunk(self.hidden_sizes, self.activation, self.layer_norm)(x)
        number = max(self.num_quantiles, 1)
        values = nn.Dense(self.num_actions * number, name="actions")(x)
        values = values.reshape(*x.shape[:-1], self.num_actions, number)
        if self.dueling:
            state_value = nn.Dense(number, name="state")(x)
            values = state_value[..., None, :] + values - values.mean(-2, keepdims=True)
        return values if self.num_quantiles else values[..., 0]


class Critics(nn.Module):
    """Q_i(s, a) of `num_critics` networks that share nothing, stacked along the first axis of parameters and values."""

    num_critics: int
    hidden_sizes: tuple[int, ...]
    activation: str = "relu"
    layer_norm: bool = False
    initialization: str = "lecun_normal"

    @nn.compact
    def __call__(
        self, features: Float[Array, "*batch feature"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "critic *batch"]:
        ensemble = nn.vmap(
            Critic, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=self.num_critics
        )
        x = jnp.concatenate([features, action], axis=-1)
        return ensemble(self.hidden_sizes, self.activation, self.layer_norm, INITIALIZERS[self.initialization])(x)


class Critic(nn.Module):
    """One number."""

    hidden_sizes: tuple[int, ...]
    activation: str
    layer_norm: bool
    initializers: Initializers

    @nn.compact
    def __call__(self, x: Float[Array, "*batch feature"]) -> Float[Array, "*batch"]:
        kernel, bias, last_kernel, last_bias = self.initializers
        hidden = Trunk(self.hidden_sizes, self.activation, self.layer_norm, kernel, bias)(x)
        return nn.Dense(1, kernel_init=last_kernel, bias_init=last_bias)(hidden)[..., 0]
