"""What the device does with a member's images: scaling, the order of an epoch, augmentation.

Pure functions of one member, for use under jit, vmap and scan; NumPy's draws on the host are in `labels.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Int32, Num, PRNGKeyArray

from spectral_dd.errors import InputError

# What becomes 1.
SCALES = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


def to_unit(
    images: Num[Array, "*batch height width channel"], dtype: DTypeLike
) -> Float[Array, "*batch height width channel"]:
    """Scales integer images, uint8 or uint16, from their whole range to [0, 1]. Floating-point ones keep their values.

    Raises:
      InputError: they are of another type, whose range is not known.
    """
    if images.dtype not in SCALES and not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"images must be uint8, uint16 or floating point; they are {images.dtype}")
    return jnp.asarray(images, dtype) / SCALES.get(np.dtype(images.dtype), 1)


def epoch_order(key: PRNGKeyArray, size: ArrayLike, capacity: int) -> Int32[Array, " capacity"]:
    """Draws the order of the examples in an epoch: a permutation of 0..size-1, then size..capacity-1.

    The permutation does not depend on `capacity`, so a member has the same order alone and in a pack with larger
    training sets: the first bits that JAX's partitionable threefry draws are the same for every length.

    Args:
      size: number of examples, at most `capacity`; may be traced.
      capacity: length of the result; static.
    """
    bits = jax.random.bits(key, (capacity,), jnp.uint32)
    # The sort is stable, so an example that draws the largest number still comes before the padding.
    draws = jnp.where(jnp.arange(capacity) < size, bits, jnp.uint32(0xFFFFFFFF))
    return jnp.argsort(draws, stable=True).astype(jnp.int32)


def augment(
    key: PRNGKeyArray, images: Num[Array, "example height width channel"], shift: int, flip: bool
) -> Num[Array, "example height width channel"]:
    """Moves each image by -shift..shift pixels along both axes, zeros entering, then mirrors half of the images.

    Each example has its own draws, the same for every type of image. `shift` and `flip` are static; what is off costs
    nothing.
    """
    if not shift and not flip:
        return images
    shift_key, flip_key = jax.random.split(key)
    batch, height, width = images.shape[:3]
    rows, columns = (jnp.broadcast_to(jnp.arange(size), (batch, size)) for size in (height, width))
    if flip:
        mirrored = jax.random.randint(flip_key, (batch, 1), 0, 2, jnp.int32) == 1
        columns = jnp.where(mirrored, width - 1 - columns, columns)
    if shift:
        corners = jax.random.randint(shift_key, (batch, 2), 0, 2 * shift + 1, jnp.int32) - shift
        rows, columns = rows + corners[:, :1], columns + corners[:, 1:]
    # One gather, because the CPU backend is slow at cutting a window out of each image.
    example = jnp.arange(batch)[:, None, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    moved = images[example, rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None]]
    return jnp.where(inside[..., None], moved, 0)
