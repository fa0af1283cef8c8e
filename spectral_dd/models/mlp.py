"""Multilayer perceptron with two hidden layers."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from spectral_dd.models.conv import Dense


class MLP(nn.Module):
    """Input, `width` units, `width` units, classes; ReLU."""

    width: int
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "example height width channel"], train: bool
    ) -> Float[Array, "example class"]:
        x = images.reshape(images.shape[0], -1)
        for _ in range(2):
            x = nn.relu(Dense(self.width, self.dtype)(x))
        return Dense(self.num_classes, self.dtype)(x)
