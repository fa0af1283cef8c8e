"""Convolutions computed a block of the output at a time, so that a block's patches stay in the cache of a core.

`correlate` also serves Winograd's transforms, which sum several correlations; the transforms are in `winograd.py`.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from spectral_dd.kernels.products import matmuls, sum_type

# Bytes of a block's patches, which fit into the caches of a core. Of 512 kB a core; a quarter or four times as many
# make a step of cnn5 at most a seventh slower there.
BLOCK_BYTES = 600_000
# Patches may take at least this many times the bytes of the kernel: every block reads the kernel and adds to its
# gradient.
BLOCK_KERNELS = 4


def blocks(
    x: Float[Array, "channel height width example"],
    kernel: Float[Array, "rows columns channel feature"],
    stride: int = 1,
) -> Float[Array, "feature new_height new_width example"]:
    """The same as `convolution.im2col`, computed one block of the output at a time.

    The backward pass copies the patches again instead of reading them from memory. Reverse-mode derivatives only.
    Sums of half precision are not rounded: they are of `products.sum_type`.
    """
    return correlate(pad_by_half(x, kernel)[None], kernel[None], stride, ((1.0,),))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def correlate(
    images: Float[Array, "product channel height width example"],
    kernels: Float[Array, "product rows columns channel feature"],
    stride: int,
    to_outputs: tuple[tuple[float, ...], ...],
) -> Float[Array, "feature tile*new_height new_width example"]:
    """Weighted sums of cross-correlations without padding, computed one block of the output at a time.

    Row i * len(to_outputs) + q of the output is sum_p to_outputs[q][p] r_p[i], where r_p[i] is row i of the correlation
    of image p with kernel p, and of `products.sum_type`. Reverse-mode derivatives only.
    """
    return _correlate_forward(images, kernels, stride, to_outputs)[0]


def _correlate_forward(images, kernels, stride, to_outputs):
    features, examples, tile = kernels.shape[-1], images.shape[-1], len(to_outputs)
    block, grid = _grid(images, kernels, stride)
    matrices, contracted = _matrices(kernels), 0
    # Up to 1.6 times as fast on a CPU core; in float32 no faster with more features, but XLA would make float32 of
    # smaller types.
    if features < 16 or images.dtype.itemsize < 4:
        matrices, contracted = matrices.swapaxes(1, 2), 1
    size = math.prod(block) * examples
    # Rows a power of two apart fall into few sets of the cache, and a product then takes up to twice as long.
    unused = 16 if size % 256 == 0 else 0

    def add_block(number, carry):
        y, patches = carry
        row, column = _corner(number, block, grid)
        patches = _fill(patches, images, block, kernels, (row, column), stride)
        found = matmuls(matrices, patches, contract=(contracted, 0))
        outputs = combinations(to_outputs, found, axis=1)[..., :size]
        outputs = outputs.reshape(features, tile, *block, examples).swapaxes(1, 2)
        return lax.dynamic_update_slice(y, outputs, (0, row, 0, column, 0)), patches

    height, width = (b * g for b, g in zip(block, grid, strict=True))
    start = (
        jnp.empty((features, height, tile, width, examples), sum_type(images.dtype)),
        _no_patches(images, kernels, size + unused),
    )
    y, _ = lax.fori_loop(0, math.prod(grid), add_block, start)
    return y.reshape(features, height * tile, width, examples), (images, kernels)


def _correlate_backward(stride, to_outputs, residuals, dy):
    images, kernels = residuals
    products, _, _, channels, features = kernels.shape
    examples, tile = images.shape[-1], len(to_outputs)
    block, grid = _grid(images, kernels, stride)
    matrices = _matrices(kernels)
    dy = dy.reshape(features, -1, tile, *dy.shape[2:])
    total = sum_type(images.dtype)

    def add_block(number, carry):
        dmatrices, dimages, patches = carry
        row, column = _corner(number, block, grid)
        patches = _fill(patches, images, block, kernels, (row, column), stride)
        doutputs = lax.dynamic_slice(dy, (0, row, 0, column, 0), (features, block[0], tile, block[1], examples))
        by_place = [doutputs[:, :, q].astype(images.dtype) for q in range(tile)]
        dfound = combinations(zip(*to_outputs, strict=True), by_place).reshape(products, features, -1)
        dmatrices += matmuls(patches, dfound, contract=(1, 1))
        dpatches = matmuls(matrices, dfound, contract=(1, 0))
        for tap in range(math.prod(kernels.shape[1:3])):
            part = dpatches[:, tap * channels : (tap + 1) * channels].reshape(products, channels, *block, examples)
            between = (0, 0, stride - 1)
            part = lax.pad(part, jnp.zeros((), part.dtype), ((0, 0, 0), (0, 0, 0), between, between, (0, 0, 0)))
            start = _window_start(tap, (row, column), kernels, stride)
            there = lax.dynamic_slice(dimages, start, part.shape)
            dimages = lax.dynamic_update_slice(dimages, there + part, start)
        return dmatrices, dimages, patches

    start = (
        jnp.zeros(matrices.shape, total),
        jnp.zeros(images.shape, total),
        _no_patches(images, kernels, math.prod(block) * examples),
    )
    dmatrices, dimages, _ = lax.fori_loop(0, math.prod(grid), add_block, start)
    return dimages.astype(images.dtype), dmatrices.reshape(kernels.shape).astype(kernels.dtype)


correlate.defvjp(_correlate_forward, _correlate_backward)


def half(kernel) -> tuple[int, int]:
    """Half of a kernel's rows and columns: the padding that keeps the size of an image."""
    return kernel.shape[0] // 2, kernel.shape[1] // 2


def pad_by_half(x, kernel):
    r, c = half(kernel)
    return jnp.pad(x, ((0, 0), (r, r), (c, c), (0, 0)))


def combinations(matrix, terms, axis: int = 0):
    """Product of a constant matrix with arrays: the sums of `terms` weighted by each row, stacked along a new axis."""

    def combine(factors):
        # Term by term, since XLA would multiply by the zeros and ones of the matrix.
        chosen = [term if factor == 1 else factor * term for factor, term in zip(factors, terms, strict=True) if factor]
        return functools.reduce(jnp.add, chosen)

    return jnp.stack([combine(factors) for factors in matrix], axis)


def _matrices(kernels):
    return kernels.reshape(len(kernels), -1, kernels.shape[-1])


def _grid(images, kernels, stride) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of a block, and the numbers of blocks along both axes.

    Blocks are as large as `BLOCK_BYTES` and `BLOCK_KERNELS` allow, and divide the output.
    """
    height, width = ((images.shape[axis] - kernels.shape[axis - 1]) // stride + 1 for axis in (2, 3))
    pixel = math.prod(kernels.shape[:-1]) * images.shape[-1] * images.dtype.itemsize
    limit = max(BLOCK_BYTES, BLOCK_KERNELS * kernels.size * images.dtype.itemsize)

    def largest(size, most):
        return max((d for d in range(1, size + 1) if size % d == 0 and d <= most), default=1)

    rows = largest(height, limit // (pixel * width))
    columns = largest(width, limit // pixel) if rows == 1 else width
    return (rows, columns), (height // rows, width // columns)


def _corner(number, block, grid):
    """Row and column of the output where a block begins."""
    return number // grid[1] * block[0], number % grid[1] * block[1]


def _window_start(tap, corner, kernels, stride):
    """Start of the slice of the images that a tap is multiplied with, for the block at `corner`."""
    row, column = tap // kernels.shape[2], tap % kernels.shape[2]
    return 0, 0, corner[0] * stride + row, corner[1] * stride + column, 0


def _no_patches(images, kernels, columns):
    return jnp.zeros((len(kernels), math.prod(kernels.shape[1:-1]), columns), images.dtype)


def _fill(patches, images, block, kernels, corner, stride):
    """Overwrites `patches` with the patches of the block at `corner`."""
    products, channels, _, _, examples = images.shape
    height, width = ((n - 1) * stride + 1 for n in block)

    def copy(tap, patches):
        start = _window_start(tap, corner, kernels, stride)
        window = lax.dynamic_slice(images, start, (products, channels, height, width, examples))
        window = window[:, :, ::stride, ::stride].reshape(products, channels, -1)
        return lax.dynamic_update_slice(patches, window, (0, tap * channels, 0))

    # A loop, because XLA's CPU backend would turn nine copies in a row into nine slices that it copies afterwards.
    return lax.fori_loop(0, math.prod(kernels.shape[1:3]), copy, patches)
