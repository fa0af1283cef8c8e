"""Block-diagonal packing: under `jax.vmap`, the convolutions of several networks as one ordinary convolution.

The channels of the networks lie side by side, and kernels are blocks on the diagonal of one kernel. The zeros beside
them are multiplied too, which an accelerator does for nothing while its matrix unit is wider than the networks, and
while it waits for memory: the bytes are those of the networks. A grouped convolution, which `jax.vmap` makes of
`lax.conv_general_dilated`, multiplies no zeros, but is slow on many devices, above all in its gradients.

Zero times infinity is not a number, so a member that diverges would take its neighbours along. Its numbers are
therefore taken out before a convolution, and what comes out for it is NaN.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

# Channels that the narrowest convolution should have to fill the matrix unit of an accelerator.
FULL_CHANNELS = 64
# A network with larger numbers has diverged. Sums of products with them, and what algorithms make of images before they
# multiply, stay finite.
LARGEST = 1e15


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def packed(
    x: Float[Array, "channel height width example"],
    kernel: Float[Array, "rows columns channel feature"],
    stride: int = 1,
) -> Float[Array, "feature new_height new_width example"]:
    """The same as `convolution.im2col`. Reverse-mode derivatives only."""
    return _operations(stride)[0](x, kernel)


def _forward(x, kernel, stride):
    return packed(x, kernel, stride), (x, kernel)


def _backward(stride, residuals, dy):
    return _operations(stride)[1](*residuals, dy)


packed.defvjp(_forward, _backward)


@functools.cache
def _operations(stride: int):
    """The convolution and its pullback; with a member axis, each is one convolution."""

    def alone(x, kernel):
        return side_by_side(x[None], kernel[None], stride)[0]

    def pullback_alone(x, kernel, dy):
        return jax.vjp(alone, x, kernel)[1](dy)

    def packed_together(x, kernel):
        return side_by_side(x, kernel, stride)

    def together(x, kernel):
        return contained(packed_together, x, kernel)

    def pullback_together(x, kernel, dy):
        return contained(lambda x, kernel, dy: jax.vjp(packed_together, x, kernel)[1](dy), x, kernel, dy)

    return _batched_by(alone, together), _batched_by(pullback_alone, pullback_together)


def _batched_by(alone, together):
    """`alone`, which under vmap is `together` of arrays that all have the new axis in front."""
    operation = custom_vmap(alone)

    @operation.def_vmap
    def rule(size, is_batched, *arrays):
        stacked = [
            a if batched else jnp.broadcast_to(a, (size, *a.shape))
            for a, batched in zip(arrays, is_batched, strict=True)
        ]
        outputs = together(*stacked)
        return outputs, jax.tree.map(lambda _: True, outputs)

    return operation


def contained(f, *arrays: Float[Array, "member ..."]):
    """`f(*arrays)`, arrays `(member, ...)` too, with NaN for each member that has other than moderate numbers."""
    fine = [jnp.abs(a) < LARGEST for a in arrays]
    outputs = f(*(jnp.where(is_fine, a, 0) for is_fine, a in zip(fine, arrays, strict=True)))
    members = functools.reduce(jnp.logical_and, (is_fine.all(axis=tuple(range(1, is_fine.ndim))) for is_fine in fine))

    def only_of_those(y):
        return jnp.where(members.reshape(-1, *(1,) * (y.ndim - 1)), y, jnp.nan)

    return jax.tree.map(only_of_those, outputs)


def side_by_side(
    x: Float[Array, "member channel height width example"],
    kernel: Float[Array, "member rows columns channel feature"],
    stride: int,
) -> Float[Array, "member feature new_height new_width example"]:
    """The convolutions of several members, half a kernel of zeros around the images, as one.

    A layer of many channels too: as a grouped convolution, cuDNN would copy each member's channels out, convolve them
    alone and copy the result back. On an H200 that took a third of a step more than multiplying the zeros.
    """
    members, rows, columns, channels, features = kernel.shape
    dense = jnp.einsum("mrscf,nm->rsncmf", kernel, jnp.eye(members, dtype=kernel.dtype))
    y = lax.conv_general_dilated(
        x.reshape(-1, *x.shape[2:]),
        dense.reshape(rows, columns, members * channels, members * features),
        (stride, stride),
        [(rows // 2, rows // 2), (columns // 2, columns // 2)],
        dimension_numbers=("CHWN", "HWIO", "CHWN"),
    )
    return y.reshape(members, features, *y.shape[1:])
