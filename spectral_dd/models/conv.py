"""The convolution and the dense layer that the architectures share, and how their weights are drawn.

Inside a network images are channel-major, (channel, height, width, example): whatever the number of channels, the
innermost loops run over examples, so that also a network of two channels fills vector registers, and patches are copied
in long runs. A convolution is one matrix product with patches (im2col). XLA's own convolution keeps a non-canonical
layout for its gradients inside a loop body, where its CPU backend falls to a scalar loop; `benchmarks/conv.py` measures
the alternatives inside a scanned epoch.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
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


# Bytes of a block's patches that stay in the caches of a core beside what they are made of.
BLOCK_BYTES = 600_000
# Patches of a block may be so many times as large as the kernel, whose gradient is read and written for every block.
BLOCK_KERNELS = 4


def im2col(
    x: Float[Array, "channel height width example"],
    kernel: Float[Array, "rows columns channel feature"],
    stride: int = 1,
) -> Float[Array, "feature new_height new_width example"]:
    """Cross-correlation with odd kernels, padded by half a kernel of zeros on every side, every `stride`-th pixel.

    One product with the patches of the whole batch, which autodiff keeps for the backward pass.
    """
    rows, columns = kernel.shape[:2]
    height, width = x.shape[1:3]
    padded = _pad(x, kernel)
    patches = jnp.concatenate(
        [
            padded[:, i : i + height : stride, j : j + width : stride]
            for i in range(rows)
            for j in range(columns)
        ],
        axis=0,
    )  # fmt: skip
    return _dot(_matrix(kernel), patches, contract=(0, 0))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def blocks(
    x: Float[Array, "channel height width example"],
    kernel: Float[Array, "rows columns channel feature"],
    stride: int = 1,
) -> Float[Array, "feature new_height new_width example"]:
    """The same as `im2col`, a block of the output after the other, so that its patches stay in the cache of a core.

    The backward pass makes the patches again instead of reading them from memory. Reverse-mode derivatives only.
    """
    return _blocks_forward(x, kernel, stride)[0]


def _blocks_forward(x, kernel, stride):
    padded = _pad(x, kernel)
    block, grid = _grid(padded, kernel, stride)
    features, examples = kernel.shape[-1], x.shape[-1]
    matrix = _matrix(kernel)
    columns = math.prod(block) * examples
    # Rows that are a power of two apart share few sets of the cache: a product takes up to twice as long with them.
    unused = 16 if columns % 256 == 0 else 0

    def add_block(number, carry):
        y, patches = carry
        corner = _corner(number, block, grid)
        patches = _fill(patches, padded, block, kernel, corner, stride)
        product = _dot(matrix, patches, contract=(0, 0))[:, :columns]
        return lax.dynamic_update_slice(y, product.reshape(features, *block, examples), (0, *corner, 0)), patches

    size = [b * g for b, g in zip(block, grid, strict=True)]
    start = jnp.empty((features, *size, examples), x.dtype), _no_patches(padded, kernel, columns + unused)
    return lax.fori_loop(0, math.prod(grid), add_block, start)[0], (padded, kernel)


def _blocks_backward(stride, residuals, dy):
    padded, kernel = residuals
    channels, examples = padded.shape[0], padded.shape[-1]
    block, grid = _grid(padded, kernel, stride)
    matrix = _matrix(kernel)
    # Sums over the whole batch, whatever the type of a product.
    total = jnp.promote_types(padded.dtype, jnp.float32)

    def add_block(number, carry):
        dmatrix, dpadded, patches = carry
        corner = _corner(number, block, grid)
        dblock = lax.dynamic_slice(dy, (0, *corner, 0), (dy.shape[0], *block, examples)).reshape(dy.shape[0], -1)
        patches = _fill(patches, padded, block, kernel, corner, stride)
        dmatrix += lax.dot_general(patches, dblock, (((1,), (1,)), ((), ())), preferred_element_type=total)
        dpatches = _dot(matrix, dblock, contract=(1, 0))
        for tap in range(math.prod(kernel.shape[:2])):
            part = dpatches[tap * channels : (tap + 1) * channels].reshape(channels, *block, examples)
            between = (0, 0, stride - 1)
            part = lax.pad(part, jnp.zeros((), part.dtype), ((0, 0, 0), between, between, (0, 0, 0)))
            start = _window_start(tap, corner, kernel, stride)
            there = lax.dynamic_slice(dpadded, start, part.shape)
            dpadded = lax.dynamic_update_slice(dpadded, there + part, start)
        return dmatrix, dpadded, patches

    start = (
        jnp.zeros(matrix.shape, total),
        jnp.zeros_like(padded),
        _no_patches(padded, kernel, math.prod(block) * examples),
    )
    dmatrix, dpadded, _ = lax.fori_loop(0, math.prod(grid), add_block, start)
    r, c = _half(kernel)
    dx = dpadded[:, r : padded.shape[1] - r, c : padded.shape[2] - c]
    return dx, dmatrix.reshape(kernel.shape).astype(kernel.dtype)


blocks.defvjp(_blocks_forward, _blocks_backward)


def lax_conv(
    x: Float[Array, "channel height width example"],
    kernel: Float[Array, "rows columns channel feature"],
    stride: int = 1,
) -> Float[Array, "feature new_height new_width example"]:
    """The same as `im2col`, by the convolution of XLA."""
    padding = [(half, half) for half in _half(kernel)]
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("CHWN", "HWIO", "CHWN"))


def dense(
    x: Float[Array, "channel height width example"],
    kernel: Float[Array, "rows columns channel feature"],
) -> Float[Array, "feature height width example"]:
    """The same as `im2col` with stride 1, by one matrix from all entries of an image to all entries of the output.

    Most of a patch is zeros of the padding where images are smaller than kernels; here they take no part.
    """
    height, width, examples = x.shape[1:]
    features = kernel.shape[-1]
    # The kernel shifted to each pixel of the output, and cut off where it leaves the image.
    r, c = _half(kernel)
    padded = jnp.pad(kernel, ((height, height), (width, width), (0, 0), (0, 0)))
    shifted = [padded[height + r - p :, width + c - q :][:height, :width] for p in range(height) for q in range(width)]
    matrix = jnp.stack(shifted, axis=3).transpose(2, 0, 1, 4, 3).reshape(x.size // examples, -1)
    product = _dot(matrix, x.reshape(-1, examples), contract=(0, 0))
    return product.reshape(features, height, width, examples)


def _half(kernel) -> tuple[int, int]:
    return kernel.shape[0] // 2, kernel.shape[1] // 2


def _pad(x, kernel):
    r, c = _half(kernel)
    return jnp.pad(x, ((0, 0), (r, r), (c, c), (0, 0)))


def _matrix(kernel):
    return kernel.reshape(-1, kernel.shape[-1])


def _dot(a, b, contract: tuple[int, int]):
    """Product of a matrix and an array over the axis `contract[0]` of one and `contract[1]` of the other."""
    return lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())))


def _grid(padded, kernel, stride) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of a block of the output, and how many there are along both axes: the largest blocks that
    divide it and have patches of at most `BLOCK_BYTES` or `BLOCK_KERNELS`."""
    height, width = ((padded.shape[axis] - kernel.shape[axis - 1]) // stride + 1 for axis in (1, 2))
    pixel = math.prod(kernel.shape[:-1]) * padded.shape[-1] * padded.dtype.itemsize
    limit = max(BLOCK_BYTES, BLOCK_KERNELS * kernel.size * padded.dtype.itemsize)

    def largest(size, most):
        return max((d for d in range(1, size + 1) if size % d == 0 and d <= most), default=1)

    rows = largest(height, limit // (pixel * width))
    columns = largest(width, limit // pixel) if rows == 1 else width
    return (rows, columns), (height // rows, width // columns)


def _corner(number, block, grid):
    return number // grid[1] * block[0], number % grid[1] * block[1]


def _window_start(tap, corner, kernel, stride):
    """Where in the padded input the window begins that a tap of the kernel sees from the block at `corner`."""
    row, column = tap // kernel.shape[1], tap % kernel.shape[1]
    return 0, corner[0] * stride + row, corner[1] * stride + column, 0


def _no_patches(padded, kernel, columns):
    return jnp.zeros((math.prod(kernel.shape[:-1]), columns), padded.dtype)


def _fill(patches, padded, block, kernel, corner, stride):
    """Overwrites `patches` with those of the block of the output at `corner`."""
    channels, examples = padded.shape[0], padded.shape[-1]
    height, width = ((n - 1) * stride + 1 for n in block)

    def copy(tap, patches):
        start = _window_start(tap, corner, kernel, stride)
        window = lax.dynamic_slice(padded, start, (channels, height, width, examples))[:, ::stride, ::stride]
        return lax.dynamic_update_slice(patches, window.reshape(channels, -1), (tap * channels, 0))

    # A loop on purpose: from nine copies in a row XLA's CPU backend makes slices first, and copies them then.
    return lax.fori_loop(0, math.prod(kernel.shape[:2]), copy, patches)


# Implementations of the same function; which of them is fast depends on the backend.
CONVOLUTIONS: dict[str, Callable[..., Array]] = {"im2col": im2col, "blocks": blocks, "lax": lax_conv}


class Conv(nn.Module):
    """A convolution with `size` x `size` kernels; see `im2col`."""

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
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        # With fewer pixels than taps, the matrix from all to all is the smaller one.
        if self.stride == 1 and math.prod(x.shape[1:3]) < self.size**2:
            y = dense(x, kernel)
        else:
            y = CONVOLUTIONS[self.convolution](x, kernel, self.stride)
        if self.use_bias:
            draw = draw_weights(self.initializer, fan_in, bias=True)
            bias = self.param("bias", draw, (self.features,), self.param_dtype).astype(self.dtype)
            y += bias[:, None, None, None]
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
