"""What all architectures have in common: their fields, their layers, and pooling."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from spectral_dd.models.conv import Conv, Dense


class Network(nn.Module):
    """A network whose layers all scale with `width`.

    Called as `network(images, train)` with images `(example, height, width, channel)` in [0, 1] (or whatever the data
    set has); returns logits `(example, class)`. Layers compute in `dtype`; parameters, BatchNorm statistics and
    logits are of type `param_dtype`.
    """

    width: int
    num_classes: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    initializer: str = "uniform"

    # The smallest height and width of an image that leaves a pixel for every layer.
    smallest_image: ClassVar[int] = 1

    @nn.nowrap
    def conv(self, features: int, size: int = 3, stride: int = 1, use_bias: bool = False) -> Conv:
        return Conv(features, size, stride, use_bias, self.dtype, self.param_dtype, self.initializer)

    @nn.nowrap
    def norm(self, train: bool) -> nn.BatchNorm:
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )

    @nn.nowrap
    def dense(self, features: int) -> Dense:
        return Dense(features, self.dtype, self.param_dtype, self.initializer)

    @nn.nowrap
    def logits(self, x: Float[Array, "example feature"]) -> Float[Array, "example class"]:
        """The last layer."""
        return self.dense(self.num_classes)(x).astype(self.param_dtype)


def max_pool(
    x: Float[Array, "example height width channel"], size: int
) -> Float[Array, "example rows columns channel"]:
    """Maximum over `size` x `size` tiles; rows and columns that do not fill a tile are dropped."""
    n, height, width, channels = x.shape
    rows, columns = height // size, width // size
    tiles = x[:, : rows * size, : columns * size].reshape(n, rows, size, columns, size, channels)
    return tiles.max(axis=(2, 4))


class Dropout(nn.Module):
    """Dropout whose draws are channel-major: a network padded to more channels drops the same entries.

    (JAX's partitionable threefry draws the same first bits whatever the length.)
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "example channel"], train: bool) -> Float[Array, "example channel"]:
        if not train:
            return x
        # Flat, because XLA takes ten times as long to compile a draw of several dimensions. In float32, because the
        # bits of a draw depend on its type, and the default one on whether another pack is in float64.
        keep = jax.random.uniform(self.make_rng("dropout"), (x.size,), jnp.float32) >= self.rate
        return jnp.where(keep.reshape(x.shape[::-1]).T, x / (1 - self.rate), 0)
