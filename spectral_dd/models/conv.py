"""The convolution and the dense layer that the architectures share, and how their weights are drawn.

A convolution is written as nine shifted slices and one matrix product (im2col). XLA's own convolution keeps
a non-canonical layout for its gradients inside a loop body, and there its CPU backend falls to a scalar loop:
`benchmarks/conv.py` measures both inside a scanned epoch. The product is also what `vmap` over kernels turns
into a batched product rather than a grouped convolution.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.nn import initializers
from jaxtyping import Array, Float

# Bounds of +-1/sqrt(fan_in): the default of the framework that the paper used (torch.nn.Conv2d and Linear).
kernel_init = initializers.variance_scaling(1 / 3, "fan_in", "uniform")


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
        kernel = self.param("kernel", kernel_init, (3, 3, x.shape[-1], self.features), self.dtype)
        return conv2d(x, kernel)


class Dense(nn.Module):
    """Affine layer; weights and biases are drawn uniformly within +-1/sqrt(fan_in)."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "example input"]) -> Float[Array, "example feature"]:
        bound = x.shape[-1] ** -0.5

        def bias_init(key, shape, dtype):
            return initializers.uniform(2 * bound)(key, shape, dtype) - jnp.asarray(bound, dtype)

        return nn.Dense(
            self.features, kernel_init=kernel_init, bias_init=bias_init, dtype=self.dtype, param_dtype=self.dtype
        )(x)
