"""The convolution and the dense layer that the architectures share, and how their weights are drawn.

Inside a network images are channel-major, (channel, height, width, example): whatever the number of channels, the
innermost loops run over examples, so that also a network of two channels fills vector registers, and patches are copied
in long runs. A convolution is a product with a matrix of patches (im2col), of which Winograd's needs half. XLA's own
convolution keeps a non-canonical layout for its gradients inside a loop body, where its CPU backend falls to a scalar
loop; `benchmarks/conv.py` measures the alternatives inside a scanned epoch.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

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
    return jnp.tensordot(kernel.reshape(-1, kernel.shape[-1]), patches, axes=(0, 0))


def blocks(
    x: Float[Array, "channel height width example"],
    kernel: Float[Array, "rows columns channel feature"],
    stride: int = 1,
) -> Float[Array, "feature new_height new_width example"]:
    """The same as `im2col`, a block of the output after the other, so that its patches stay in the cache of a core.

    The backward pass makes the patches again instead of reading them from memory. Reverse-mode derivatives only.
    """
    return _correlate(_pad(x, kernel)[None], kernel[None], stride, ((1.0,),))


class Filter(NamedTuple):
    """How neighbouring outputs of a filter with three taps are found by few products: of sums of taps and as many sums
    of inputs. Each row has the factors of a sum."""

    from_inputs: tuple[tuple[float, ...], ...]
    from_taps: tuple[tuple[float, ...], ...]
    to_outputs: tuple[tuple[float, ...], ...]


# Four outputs by six products instead of twelve (Lavin and Gray, arXiv 1509.09308, section 4.3).
F_4_3 = Filter(
    from_inputs=(
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    from_taps=(
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    to_outputs=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
)

# Between zeros, by the number of inputs and outputs: of one input only the middle tap counts, and of two inputs the two
# outputs take three products instead of four.
BETWEEN_ZEROS = {
    1: Filter(from_inputs=((1,),), from_taps=((0, 1, 0),), to_outputs=((1,),)),
    2: Filter(
        from_inputs=((1, 0), (1, 1), (0, 1)),
        from_taps=((1, -1, 0), (0, 1, 0), (0, -1, 1)),
        to_outputs=((0, 1, 1), (1, 1, 0)),
    ),
}


def winograd(
    x: Float[Array, "channel height width example"],
    kernel: Float[Array, "rows columns channel feature"],
    stride: int = 1,
) -> Float[Array, "feature new_height new_width example"]:
    """The same as `blocks`, with Winograd's F(4, 3) along the height: half of the products and half of the patches,
    where four divides the height. The backward pass keeps one and a half times the input.

    Rounding errors of random inputs are three times those of `im2col`, below 1e-6 of the output in float32. Half
    precision, in which they would matter, other kernels and strides, and very low images are left to `blocks`.
    """
    if x.shape[1] < 3 or not _allows_fewer_products(x, kernel, stride):
        return blocks(x, kernel, stride)
    channels, height, width, examples = x.shape
    tile = len(F_4_3.to_outputs)
    tiles = -(-height // tile)
    # A tile of the output sees its own rows of the padded input and the first two of the next tile.
    padded = jnp.pad(x, ((0, 0), (1, (tiles + 1) * tile - height - 1), (1, 1), (0, 0)))
    by_tile = padded.reshape(channels, tiles + 1, tile, width + 2, examples)
    inputs = [by_tile[:, row // tile : tiles + row // tile, row % tile] for row in range(tile + 2)]
    images, kernels = _combinations(F_4_3.from_inputs, inputs), _combinations(F_4_3.from_taps, kernel)
    return _correlate(images, kernels[:, None], stride, F_4_3.to_outputs)[:, :height]


def tiny(
    x: Float[Array, "channel height width example"],
    kernel: Float[Array, "3 3 channel feature"],
) -> Float[Array, "feature height width example"]:
    """The same as `im2col` with stride 1, for images of one or two rows and columns.

    Most of their patches are zeros of the padding: with two rows and columns `im2col` takes 36 products of two
    entries for each channel and feature, 20 of them with zeros. Here they are 9. Half precision would lose some of it.
    """
    rows, columns = (BETWEEN_ZEROS[size] for size in x.shape[1:3])
    images = _on_both_axes(rows.from_inputs, columns.from_inputs, x.transpose(1, 2, 0, 3))
    kernels = _on_both_axes(rows.from_taps, columns.from_taps, kernel)
    matrices, inputs = (a.reshape(-1, *a.shape[2:]) for a in (kernels, images))
    products = _dots(matrices, inputs, contract=(1, 1)).reshape(*images.shape[:2], kernel.shape[-1], x.shape[-1])
    return _on_both_axes(rows.to_outputs, columns.to_outputs, products).transpose(2, 0, 1, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _correlate(
    images: Float[Array, "product channel height width example"],
    kernels: Float[Array, "product rows columns channel feature"],
    stride: int,
    to_outputs: tuple[tuple[float, ...], ...],
) -> Float[Array, "feature tile*new_height new_width example"]:
    """Sums of cross-correlations without padding, a block of the output after the other.

    Row `i * len(to_outputs) + q` of the output is the sum over p of `to_outputs[q][p]` times row i of image p
    correlated with kernel p.
    """
    return _correlate_forward(images, kernels, stride, to_outputs)[0]


def _correlate_forward(images, kernels, stride, to_outputs):
    features, examples, tile = kernels.shape[-1], images.shape[-1], len(to_outputs)
    block, grid = _grid(images, kernels, stride)
    matrices, contracted = _matrices(kernels), 1
    if features < 16:  # measured on a core: up to 1.6 times as fast so, with more features no faster
        matrices, contracted = matrices.swapaxes(1, 2), 2
    size = math.prod(block) * examples
    # Rows that are a power of two apart share few sets of the cache: a product takes up to twice as long with them.
    unused = 16 if size % 256 == 0 else 0

    def add_block(number, carry):
        y, patches = carry
        row, column = _corner(number, block, grid)
        patches = _fill(patches, images, block, kernels, (row, column), stride)
        found = _dots(matrices, patches, contract=(contracted, 1))
        outputs = _combinations(to_outputs, found, axis=1)[..., :size]
        outputs = outputs.reshape(features, tile, *block, examples).swapaxes(1, 2)
        return lax.dynamic_update_slice(y, outputs, (0, row, 0, column, 0)), patches

    height, width = (b * g for b, g in zip(block, grid, strict=True))
    start = (
        jnp.empty((features, height, tile, width, examples), images.dtype),
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
    # Sums over the whole batch, whatever the type of a product.
    total = jnp.promote_types(images.dtype, jnp.float32)

    def add_block(number, carry):
        dmatrices, dimages, patches = carry
        row, column = _corner(number, block, grid)
        patches = _fill(patches, images, block, kernels, (row, column), stride)
        doutputs = lax.dynamic_slice(dy, (0, row, 0, column, 0), (features, block[0], tile, block[1], examples))
        by_place = [doutputs[:, :, q] for q in range(tile)]
        dfound = _combinations(zip(*to_outputs, strict=True), by_place).reshape(products, features, -1)
        dmatrices += _dots(patches, dfound, contract=(2, 2), preferred_element_type=total)
        dpatches = _dots(matrices, dfound, contract=(2, 1))
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
        jnp.zeros_like(images),
        _no_patches(images, kernels, math.prod(block) * examples),
    )
    dmatrices, dimages, _ = lax.fori_loop(0, math.prod(grid), add_block, start)
    return dimages, dmatrices.reshape(kernels.shape).astype(kernels.dtype)


_correlate.defvjp(_correlate_forward, _correlate_backward)


def lax_conv(
    x: Float[Array, "channel height width example"],
    kernel: Float[Array, "rows columns channel feature"],
    stride: int = 1,
) -> Float[Array, "feature new_height new_width example"]:
    """The same as `im2col`, by the convolution of XLA."""
    padding = [(half, half) for half in _half(kernel)]
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("CHWN", "HWIO", "CHWN"))


def _half(kernel) -> tuple[int, int]:
    return kernel.shape[0] // 2, kernel.shape[1] // 2


def _pad(x, kernel):
    r, c = _half(kernel)
    return jnp.pad(x, ((0, 0), (r, r), (c, c), (0, 0)))


def _allows_fewer_products(x, kernel, stride) -> bool:
    """Whether a convolution is one of filters with three taps, in a precision that stands sums of taps and inputs."""
    return kernel.shape[:2] == (3, 3) and stride == 1 and x.dtype.itemsize >= 4


def _combinations(sums, terms, axis: int = 0):
    """Sums of the terms along a new axis, with the factors of each row of `sums`."""

    def combine(factors):
        # By hand, since XLA would multiply by the zeros and ones.
        chosen = [term if factor == 1 else factor * term for factor, term in zip(factors, terms, strict=True) if factor]
        return functools.reduce(jnp.add, chosen)

    return jnp.stack([combine(factors) for factors in sums], axis)


def _on_both_axes(rows, columns, terms):
    """`_combinations` along the first and the second axis."""
    by_row = _combinations(rows, terms)
    return _combinations(columns, by_row.swapaxes(0, 1)).swapaxes(0, 1)


def _matrices(kernels):
    return kernels.reshape(len(kernels), -1, kernels.shape[-1])


def _dots(a, b, contract: tuple[int, int], preferred_element_type=None):
    """Products of the matrices that share an entry of the first axis, over an axis of each."""
    dimensions = ((contract[:1], contract[1:]), ((0,), (0,)))
    return lax.dot_general(a, b, dimensions, preferred_element_type=preferred_element_type)


def _grid(images, kernels, stride) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of a block, and how many there are along both axes: the largest blocks that divide what the
    kernels find and have patches of at most `BLOCK_BYTES` or `BLOCK_KERNELS`."""
    height, width = ((images.shape[axis] - kernels.shape[axis - 1]) // stride + 1 for axis in (2, 3))
    pixel = kernels[..., 0].size * images.shape[-1] * images.dtype.itemsize
    limit = max(BLOCK_BYTES, BLOCK_KERNELS * kernels.size * images.dtype.itemsize)

    def largest(size, most):
        return max((d for d in range(1, size + 1) if size % d == 0 and d <= most), default=1)

    rows = largest(height, limit // (pixel * width))
    columns = largest(width, limit // pixel) if rows == 1 else width
    return (rows, columns), (height // rows, width // columns)


def _corner(number, block, grid):
    return number // grid[1] * block[0], number % grid[1] * block[1]


def _window_start(tap, corner, kernels, stride):
    """Where in the images the window begins that a tap of the kernels sees from the block at `corner`."""
    row, column = tap // kernels.shape[2], tap % kernels.shape[2]
    return 0, 0, corner[0] * stride + row, corner[1] * stride + column, 0


def _no_patches(images, kernels, columns):
    return jnp.zeros((len(kernels), math.prod(kernels.shape[1:-1]), columns), images.dtype)


def _fill(patches, images, block, kernels, corner, stride):
    """Overwrites `patches` with those of the block at `corner`."""
    products, channels, _, _, examples = images.shape
    height, width = ((n - 1) * stride + 1 for n in block)

    def copy(tap, patches):
        start = _window_start(tap, corner, kernels, stride)
        window = lax.dynamic_slice(images, start, (products, channels, height, width, examples))
        window = window[:, :, ::stride, ::stride].reshape(products, channels, -1)
        return lax.dynamic_update_slice(patches, window, (0, tap * channels, 0))

    # A loop on purpose: from nine copies in a row XLA's CPU backend makes slices first, and copies them then.
    return lax.fori_loop(0, math.prod(kernels.shape[1:3]), copy, patches)


# Implementations of the same function; which of them is fast depends on the backend.
CONVOLUTIONS: dict[str, Callable[..., Array]] = {
    "im2col": im2col,
    "blocks": blocks,
    "winograd": winograd,
    "lax": lax_conv,
}


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
        if max(x.shape[1:3]) <= 2 and _allows_fewer_products(x, kernel, self.stride):
            y = tiny(x, kernel)
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
