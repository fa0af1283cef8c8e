"""The convolution, as a matrix product and by XLA, and the table of all ways to compute it.

Images are channel-major, (channel, height, width, example), whatever the network: the innermost loops then run over
examples, which fill vector registers even with two channels, and patches are copied in long runs. XLA's own convolution
keeps another layout for its gradients inside a loop, where its CPU backend falls back to a scalar loop.
`benchmarks/conv.py` compares the ways inside a scanned epoch.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from spectral_dd.kernels.blocks import blocks, half, pad_by_half
from spectral_dd.kernels.packed import packed
from spectral_dd.kernels.winograd import suits_winograd, tiny, winograd


def im2col(
    x: Float[Array, "channel height width example"],
    kernel: Float[Array, "rows columns channel feature"],
    stride: int = 1,
) -> Float[Array, "feature new_height new_width example"]:
    """Cross-correlation at every `stride`-th pixel, with odd kernels and half a kernel of zeros around the images.

    One product with a matrix of all patches of the batch, which autodiff keeps for the backward pass.
    """
    rows, columns = kernel.shape[:2]
    height, width = x.shape[1:3]
    padded = pad_by_half(x, kernel)
    patches = jnp.concatenate(
        [
            padded[:, i : i + height : stride, j : j + width : stride]
            for i in range(rows)
            for j in range(columns)
        ],
        axis=0,
    )  # fmt: skip
    return jnp.tensordot(kernel.reshape(-1, kernel.shape[-1]), patches, axes=(0, 0))


def lax_conv(
    x: Float[Array, "channel height width example"],
    kernel: Float[Array, "rows columns channel feature"],
    stride: int = 1,
) -> Float[Array, "feature new_height new_width example"]:
    """The same as `im2col`, by XLA's convolution."""
    padding = [(size, size) for size in half(kernel)]
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("CHWN", "HWIO", "CHWN"))


# They compute the same. Which is fastest depends on the device and on the shapes.
CONVOLUTIONS: dict[str, Callable[..., Array]] = {
    "im2col": im2col,
    "blocks": blocks,
    "winograd": winograd,
    "lax": lax_conv,
    "packed": packed,
}


def convolve(
    x: Float[Array, "channel height width example"],
    kernel: Float[Array, "rows columns channel feature"],
    stride: int,
    convolution: str,
) -> Float[Array, "feature new_height new_width example"]:
    """The function of `CONVOLUTIONS` with that name, or `tiny` for images of at most 2x2 that it suits."""
    if max(x.shape[1:3]) <= 2 and suits_winograd(x, kernel, stride):
        return tiny(x, kernel)
    return CONVOLUTIONS[convolution](x, kernel, stride)
