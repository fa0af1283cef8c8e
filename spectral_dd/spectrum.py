"""Line spectra: the frequency content of a function along segments through examples.

Knows one function and imports jax (and NumPy) alone. The formula, for a function f with outputs f_c, an example x and a
direction v of norm 1 (Zhang, Xiong, Wu, arXiv 2004.13954):

    t_n = -h + 2 h n / N,    n = 0..N-1
    F_c[k] = sum_n f_c(x + t_n v) exp(-2 pi i k n / N),    k = 0..N/2

Bin k is k / (2 h) cycles per unit of L2 distance.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key


def offsets(num_points: int, half_width: float) -> Float[Array, " point"]:
    """t_n, the points on a segment as L2 distances from its example."""
    return -half_width + 2 * half_width * jnp.arange(num_points) / num_points


def frequencies(num_points: int, half_width: float) -> np.ndarray:
    """Cycles per unit of L2 distance of the bins 0..N/2."""
    return np.arange(num_points // 2 + 1) / (2 * half_width)


def random_directions(
    key: Key[Array, ""], num: int, x: Float[Array, "example *shape"]
) -> Float[Array, "example direction *shape"]:
    """Standard normal draws scaled to L2 norm 1, `num` for each example.

    The draws of an example depend on the key and on its place alone, not on how many examples there are.
    """

    def draw(i):
        # Drawn flat: XLA takes ten times as long to compile a draw of several dimensions.
        size = num * math.prod(x.shape[1:])
        v = jax.random.normal(jax.random.fold_in(key, i), (size,), x.dtype).reshape(num, *x.shape[1:])
        return v / jnp.sqrt(jnp.sum(v**2, axis=tuple(range(1, v.ndim)), keepdims=True))

    return jax.vmap(draw)(jnp.arange(x.shape[0]))


def line_spectra(
    f: Callable[[Float[Array, "batch *shape"]], Float[Array, "batch class"]],
    x: Float[Array, "example *shape"],
    v: Float[Array, "example direction *shape"],
    *,
    num_points: int,
    half_width: float,
    max_batch: int = 256,
) -> tuple[Float[Array, "example frequency"], Float[Array, "example frequency"]]:
    """Energy and amplitude spectra of `f` around each example.

    Args:
      f: maps a batch of inputs to outputs, each input independently of the others.
      x: examples.
      v: directions of norm 1.
      num_points: N.
      half_width: h.
      max_batch: bounds the memory: `f` is called on so many inputs at most, but on no fewer than N.

    Returns:
      energy, the mean over classes and directions of |F|^2, and amplitude, the same of |F|.
    """
    directions = v.shape[1]
    t = offsets(num_points, half_width).astype(x.dtype).reshape(num_points, *(1,) * (x.ndim - 1))

    def spectra(segments):
        points = jax.vmap(lambda x, v: x + t * v)(*segments)
        outputs = f(points.reshape(-1, *points.shape[2:])).reshape(*points.shape[:2], -1)
        magnitude = jnp.abs(jnp.fft.rfft(outputs, axis=1))  # segment, frequency, class
        return jnp.mean(magnitude**2, axis=-1), jnp.mean(magnitude, axis=-1)

    segments = (jnp.repeat(x, directions, axis=0), v.reshape(-1, *x.shape[1:]))
    energy, amplitude = in_chunks(spectra, segments, max(1, max_batch // num_points))
    per_example = (x.shape[0], directions, num_points // 2 + 1)
    return energy.reshape(per_example).mean(axis=1), amplitude.reshape(per_example).mean(axis=1)


def in_chunks(f, xs, size: int):
    """Applies the batched `f` to at most `size` rows of the tree `xs` at a time, one after another."""
    rows = jax.tree.leaves(xs)[0].shape[0]
    size = min(size, rows)
    chunks = -(-rows // size)
    padded = jax.tree.map(lambda a: jnp.pad(a, ((0, chunks * size - rows), *((0, 0),) * (a.ndim - 1))), xs)
    stacked = jax.tree.map(lambda a: a.reshape(chunks, size, *a.shape[1:]), padded)
    return jax.tree.map(lambda a: a.reshape(chunks * size, *a.shape[2:])[:rows], lax.map(f, stacked))
