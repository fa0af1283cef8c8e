"""The convolution and the dense layer that the architectures share, and how their weights are drawn.

A convolution is written as shifted slices and one matrix product (im2col). XLA's own convolution keeps a
non-canonical layout for its gradients inside a loop body, and there its CPU backend falls to a scalar loop:
`benchmarks/conv.py` measures both inside a scanned epoch. The product is also what `vmap` over kernels turns
into a batched product rather than a grouped convolution.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def draw_weights(initializer: str, fan_in: int, *, bias: bool = False) -> Callable[..., Array]:
    """How a kernel or a bias starts.

    Args:
      initializer: 'uniform': within +-1/sqrt(fan_in), biases too, the default of the framework that the paper used
        (torch.nn.Conv2d and Linear). 'he_normal': normal with variance 2/fan_in (He et al., arXiv 1502.01852),
        biases zero.
      fan_in: inputs of one output.
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


def conv2d(
    x: Float[Array, "example height width channel"],
    kernel: Float[Array, "rows columns channel feature"],
    stride: int = 1,
) -> Float[Array, "example new_height new_width feature"]:
    """Cross-correlation with odd kernels, padded by half a kernel of zeros on every side, every `stride`-th pixel."""
    rows, columns, channels, features = kernel.shape
    height, width = x.shape[1:3]
    r, c = rows // 2, columns // 2
    padded = jnp.pad(x, ((0, 0), (r, r), (c, c), (0, 0)))
    patches = jnp.concatenate(
        [
            padded[:, i : i + height : stride, j : j + width : stride]
            for i in range(rows)
            for j in range(columns)
        ],
        axis=-1,
    )  # fmt: skip
    return patches @ kernel.reshape(rows * columns * channels, features)


class Conv(nn.Module):
    """`conv2d` with `size` x `size` kernels."""

    features: int
    size: int = 3
    stride: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    initializer: str = "uniform"

    @nn.compact
    def __call__(
        self, x: Float[Array, "example height width channel"]
    ) -> Float[Array, "example new_height new_width feature"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        fan_in = math.prod(shape[:-1])
        kernel = self.param("kernel", draw_weights(self.initializer, fan_in), shape, self.param_dtype)
        y = conv2d(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
        if self.use_bias:
            draw = draw_weights(self.initializer, fan_in, bias=True)
            y += self.param("bias", draw, (self.features,), self.param_dtype).astype(self.dtype)
        return y


class Dense(nn.Module):
    """Affine layer."""

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
        )(x)
