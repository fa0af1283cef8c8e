"""The convolution and the dense layer that the architectures share, and how their weights are drawn.

A convolution is written as nine shifted slices and one matrix product (im2col). XLA's own convolution keeps
a non-canonical layout for its gradients inside a loop body, and there its CPU backend falls to a scalar loop:
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


def uniform_init(fan_in: int) -> Callable[..., Array]:
    """Draws within +-1/sqrt(fan_in): the default of the framework that the paper used, for weights and biases
    (torch.nn.Conv2d and Linear)."""

    def draw(key, shape, dtype):
        # Drawn flat, with the same values: XLA takes ten times as long to compile a draw of several dimensions.
        bound = fan_in**-0.5
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return draw


def conv2d(
    x: Float[Array, "example height width channel"], kernel: Float[Array, "rows columns channel feature"]
) -> Float[Array, "example height width feature"]:
    """Cross-correlation with stride 1 and zero padding that keeps height and width ("SAME", odd kernels)."""
    rows, columns, channels, features = kernel.shape
    height, width = x.shape[1:3]
    r, c = rows // 2, columns // 2
    padded = jnp.pad(x, ((0, 0), (r, r), (c, c), (0, 0)))
    patches = jnp.concatenate(
        [padded[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)], axis=-1
    )
    return patches @ kernel.reshape(rows * columns * channels, features)


class Conv(nn.Module):
    """3x3 convolution without bias (a BatchNorm follows it)."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "example height width channel"]) -> Float[Array, "example height width feature"]:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", uniform_init(math.prod(shape[:-1])), shape, self.dtype)
        return conv2d(x, kernel)


class Dense(nn.Module):
    """Affine layer; weights and biases are drawn uniformly within +-1/sqrt(fan_in)."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "example input"]) -> Float[Array, "example feature"]:
        init = uniform_init(x.shape[-1])
        return nn.Dense(self.features, kernel_init=init, bias_init=init, dtype=self.dtype, param_dtype=self.dtype)(x)
