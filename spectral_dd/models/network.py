"""What the architectures share: the base class with their fields, and their layers.

How convolutions, norms and pools are computed is in `kernels/`.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from spectral_dd.kernels.convolution import convolve
from spectral_dd.kernels.norm import BatchNorm, Pool
from spectral_dd.kernels.products import matmul


class Network(nn.Module):
    """A network whose hidden layers all scale with `width`.

    Called as `network(images, train)` with images (example, height, width, channel); returns logits (example, class).
    Layers compute in `dtype`; parameters, BatchNorm statistics and logits are of type `param_dtype`. `convolution` is
    a key of `kernels.convolution.CONVOLUTIONS`.

    A subclass inherits the declarations below, and must set to False what is not true of it.
    """

    width: int
    num_classes: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    initializer: str = "uniform"
    convolution: str = "im2col"

    # What comes before and in the first `Conv` or `Dense` is affine, and nothing else reads the images.
    affine_first_layer: ClassVar[bool] = True
    # Its convolutions are those of `conv`, so that it matters how they are computed.
    convolutional: ClassVar[bool] = True
    # The smallest height and width of an image that leaves a pixel for every layer.
    smallest_image: ClassVar[int] = 1

    @nn.nowrap
    def conv(self, features: int, size: int = 3, stride: int = 1, use_bias: bool = False) -> "Conv":
        return Conv(features, size, stride, use_bias, self.dtype, self.param_dtype, self.initializer, self.convolution)

    @nn.nowrap
    def norm(self, train: bool, pool: Pool | None = None) -> BatchNorm:
        return BatchNorm(train, self.dtype, self.param_dtype, pool)

    @nn.nowrap
    def dense(self, features: int) -> "Dense":
        return Dense(features, self.dtype, self.param_dtype, self.initializer)

    @nn.nowrap
    def logits(self, x: Float[Array, "example feature"]) -> Float[Array, "example class"]:
        """The last layer."""
        return self.dense(self.num_classes)(x).astype(self.param_dtype)


class Conv(nn.Module):
    """A convolution with `size` x `size` kernels, zero-padded by half a kernel; see `kernels.convolution`."""

    features: int
    size: int = 3
    stride: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    initializer: str = "uniform"
    convolution: str = "im2col"

    @nn.compact
    def __call__(
        self, x: Float[Array, "channel height width example"]
    ) -> Float[Array, "feature new_height new_width example"]:
        shape = (self.size, self.size, x.shape[0], self.features)
        fan_in = math.prod(shape[:-1])
        kernel = self.param("kernel", draw_weights(self.initializer, fan_in), shape, self.param_dtype)
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.convolution)
        if self.use_bias:
            draw = draw_weights(self.initializer, fan_in, bias=True)
            bias = self.param("bias", draw, (self.features,), self.param_dtype).astype(self.dtype)
            y += bias[:, None, None, None]
        return y


class Dense(nn.Module):
    """An affine layer. What it returns is not rounded to half precision."""

    features: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    initializer: str = "uniform"

    @nn.compact
    def __call__(self, x: Float[Array, "example input"]) -> Float[Array, "example feature"]:
        fan_in = x.shape[-1]
        return nn.Dense(
            self.features,
            kernel_init=draw_weights(self.initializer, fan_in),
            bias_init=draw_weights(self.initializer, fan_in, bias=True),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            dot_general=lambda x, kernel, *_, **__: matmul(x, kernel),
        )(x)


class Dropout(nn.Module):
    """Dropout that draws channel by channel: a network padded to more channels drops the same entries as before.

    (JAX's partitionable threefry draws the same first bits whatever the length.)
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "example channel"], train: bool) -> Float[Array, "example channel"]:
        if not train:
            return x
        # Flat, because XLA takes ten times as long to compile a draw of several dimensions. In float32, because the
        # bits of a draw depend on its type, and the default type depends on whether x64 is on.
        keep = jax.random.uniform(self.make_rng("dropout"), (x.size,), jnp.float32) >= self.rate
        return jnp.where(keep.reshape(x.shape[::-1]).T, x / (1 - self.rate), 0)


def draw_weights(initializer: str, fan_in: int, *, bias: bool = False) -> Callable[..., Array]:
    """The initial values of a kernel or a bias, as a function of key, shape and type.

    Args:
      initializer: 'uniform': within +-1/sqrt(fan_in), biases too, the default of torch.nn.Conv2d and Linear, which the
        paper used. 'he_normal': normal with variance 2/fan_in (He et al., arXiv 1502.01852), biases zero.
      fan_in: number of inputs of one output.
      bias: whether it is a bias.
    """

    def draw(key, shape, dtype):
        # Drawn flat, with the same values: XLA takes ten times as long to compile a draw of several dimensions.
        size = math.prod(shape)
        match initializer:
            case "uniform":
                flat = jax.random.uniform(key, (size,), dtype, -(fan_in**-0.5), fan_in**-0.5)
            case "he_normal":
                flat = jnp.zeros(size, dtype) if bias else (2 / fan_in) ** 0.5 * jax.random.normal(key, (size,), dtype)
        return flat.reshape(shape)

    return draw


def channel_major(
    images: Float[Array, "example height width channel"],
) -> Float[Array, "channel height width example"]:
    """Images in the order of axes that `Conv` and `BatchNorm` take; why, says `kernels.convolution`."""
    return images.transpose(3, 1, 2, 0)
