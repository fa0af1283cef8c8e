"""Convolutions with fewer products (Winograd's): 3x3 kernels, stride 1, float32 or wider.

The general loop over blocks of the output is in `blocks.py`.
"""

from typing import NamedTuple

from jax import numpy as jnp
from jaxtyping import Array, Float

from spectral_dd.kernels.blocks import blocks, combinations, correlate
from spectral_dd.kernels.products import matmuls


class Transform(NamedTuple):
    """Matrices of a Winograd transform of a filter with three taps: `outputs @ ((taps @ g) * (inputs @ d))`."""

    inputs: tuple[tuple[float, ...], ...]
    taps: tuple[tuple[float, ...], ...]
    outputs: tuple[tuple[float, ...], ...]


# Four outputs from six products instead of twelve (Lavin and Gray, arXiv 1509.09308, section 4.3).
F_4_3 = Transform(
    inputs=(
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    taps=(
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    outputs=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
)

# A row of so many pixels between zeros. One pixel meets only the middle tap; two take three products instead of four.
BETWEEN_ZEROS = {
    1: Transform(inputs=((1,),), taps=((0, 1, 0),), outputs=((1,),)),
    2: Transform(
        inputs=((1, 0), (1, 1), (0, 1)),
        taps=((1, -1, 0), (0, 1, 0), (0, -1, 1)),
        outputs=((0, 1, 1), (1, 1, 0)),
    ),
}


def suits_winograd(x, kernel, stride: int) -> bool:
    """Whether the kernel is 3x3, the stride 1, and the precision high enough for sums of inputs and of taps.

    Rounded to bfloat16, these sums would put an error of 0.75 % on outputs; rounded inputs and taps alone put 0.25 %.
    """
    return kernel.shape[:2] == (3, 3) and stride == 1 and x.dtype.itemsize >= 4


def winograd(
    x: Float[Array, "channel height width example"],
    kernel: Float[Array, "rows columns channel feature"],
    stride: int = 1,
) -> Float[Array, "feature new_height new_width example"]:
    """The same as `blocks`, by F(4, 3) along the height, which halves products and patches if four divides the height.

    The backward pass keeps one and a half times the input. With random inputs, rounding errors are three times those
    of `im2col`: below 1e-6 of the output in float32. What does not suit it, and images of fewer than three rows,
    go to `blocks`.
    """
    if x.shape[1] < 3 or not suits_winograd(x, kernel, stride):
        return blocks(x, kernel, stride)
    channels, height, width, examples = x.shape
    tile = len(F_4_3.outputs)
    tiles = -(-height // tile)
    # Outputs of a tile depend on its own rows of the padded input and on the first two rows of the next tile.
    padded = jnp.pad(x, ((0, 0), (1, (tiles + 1) * tile - height - 1), (1, 1), (0, 0)))
    by_tile = padded.reshape(channels, tiles + 1, tile, width + 2, examples)
    rows = [by_tile[:, row // tile : tiles + row // tile, row % tile] for row in range(tile + 2)]
    images, kernels = combinations(F_4_3.inputs, rows), combinations(F_4_3.taps, kernel)
    return correlate(images, kernels[:, None], stride, F_4_3.outputs)[:, :height]


def tiny(
    x: Float[Array, "channel height width example"],
    kernel: Float[Array, "3 3 channel feature"],
) -> Float[Array, "feature height width example"]:
    """The same as `im2col` with stride 1, for images of at most 2x2.

    Their patches are mostly zeros of the padding. At 2x2 `im2col` multiplies 36 times for each channel, feature and
    example, 20 times by such a zero; here it is 9 times.
    """
    rows, columns = (BETWEEN_ZEROS[size] for size in x.shape[1:3])
    images = _on_both_axes(rows.inputs, columns.inputs, x.transpose(1, 2, 0, 3))
    kernels = _on_both_axes(rows.taps, columns.taps, kernel)
    matrices, inputs = (a.reshape(-1, *a.shape[2:]) for a in (kernels, images))
    products = matmuls(matrices, inputs, contract=(0, 0)).reshape(*images.shape[:2], kernel.shape[-1], x.shape[-1])
    return _on_both_axes(rows.outputs, columns.outputs, products).transpose(2, 0, 1, 3)


def _on_both_axes(rows, columns, terms):
    """`combinations` along the first and the second axis."""
    by_row = combinations(rows, terms)
    return combinations(columns, by_row.swapaxes(0, 1)).swapaxes(0, 1)
