"""What reads observations before a memory, or before actor and critic if there is none."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxpg.networks.mlp import orthogonal


class DenseEncoder(nn.Module):
    """A dense layer of rectified units. Source: purejaxrl's recurrent PPO."""

    output_size: int

    @nn.compact
    def __call__(self, features: Float[Array, "*batch feature"]) -> Float[Array, "*batch output"]:
        return nn.relu(nn.Dense(self.output_size, kernel_init=orthogonal(math.sqrt(2.0)))(features))


class ImageEncoder(nn.Module):
    """A convolution of 16 rectified filters of 3 x 3 over an image, and a dense layer of 5 units for all other features.

    Source: the student of DRED, after that of MiniGrid's agents in Meta's DCD.

    Attributes:
      offset: of the image among the features.
      shape: height, width and channels of the image, at least 3 x 3.
    """

    offset: int
    shape: tuple[int, int, int]
    window: int = 3
    num_filters: int = 16
    num_units: int = 5

    @nn.compact
    def __call__(self, features: Float[Array, "*batch feature"]) -> Float[Array, "*batch output"]:
        end = self.offset + math.prod(self.shape)
        image = features[..., self.offset : end].reshape(*features.shape[:-1], *self.shape)
        # Windows times a matrix: one product also for the networks of many seeds, whose convolutions would be grouped.
        height, width = (side - self.window + 1 for side in self.shape[:2])
        shifts = [(row, column) for row in range(self.window) for column in range(self.window)]
        windows = [image[..., row : row + height, column : column + width, :] for row, column in shifts]
        convolved = self._dense(self.num_filters, "filters")(jnp.concatenate(windows, axis=-1))
        parts = [nn.relu(convolved).reshape(*features.shape[:-1], height * width * self.num_filters)]
        if features.shape[-1] > math.prod(self.shape):
            others = jnp.concatenate([features[..., : self.offset], features[..., end:]], axis=-1)
            parts.append(self._dense(self.num_units, "others")(others))
        return jnp.concatenate(parts, axis=-1)

    def _dense(self, size: int, name: str) -> Any:
        return nn.Dense(size, kernel_init=orthogonal(math.sqrt(2.0)), name=name)
