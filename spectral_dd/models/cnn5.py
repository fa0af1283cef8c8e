"""The five-layer convolutional network of Nakkiran et al., "Deep Double Descent" (arXiv 1912.02292)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from spectral_dd.models.conv import Conv, Dense


def max_pool(
    x: Float[Array, "example height width channel"], size: int
) -> Float[Array, "example rows columns channel"]:
    """Maximum over `size` x `size` tiles; rows and columns that do not fill a tile are dropped."""
    n, height, width, channels = x.shape
    rows, columns = height // size, width // size
    tiles = x[:, : rows * size, : columns * size].reshape(n, rows, size, columns, size, channels)
    return tiles.max(axis=(2, 4))


class CNN5(nn.Module):
    """Four times convolution, BatchNorm, ReLU, max-pool with [k, 2k, 4k, 8k] channels, then a dense layer.

    The pools are 1, 2, 2 and all that remains: the paper's 8 at 32x32. Images must be at least 4x4.
    """

    width: int
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "example height width channel"], train: bool
    ) -> Float[Array, "example class"]:
        x = images
        for factor, pool in ((1, 1), (2, 2), (4, 2), (8, None)):
            x = Conv(factor * self.width, self.dtype)(x)
            x = nn.BatchNorm(
                use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype, param_dtype=self.dtype
            )(x)
            x = nn.relu(x)
            x = x.max(axis=(1, 2)) if pool is None else max_pool(x, pool)
        return Dense(self.num_classes, self.dtype)(x)
