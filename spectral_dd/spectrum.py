"""Line spectra: the frequency content of a function along segments through examples.

Knows one function and imports jax (and NumPy) alone. The formula, for a function f with outputs f_c, an example x and a
direction v of norm 1 (Zhang, Xiong, Wu, arXiv 2004.13954):

    t_n = -h + 2 h n / N,    n = 0..N-1
    F_c[k] = sum_n f_c(x + t_n v) exp(-2 pi i k n / N),    k = 0..N/2

Bin k is k / (2 h) cycles per unit of L2 distance. The transform is not normalised: |F_c[k]|^2 grows as N^2, so energies
of different numbers of points compare after division by N^2 (`power` in the results).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

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


def high_frequency_share(
    power: Float[np.ndarray, "... frequency"], first: int | None = None
) -> Float[np.ndarray, "..."]:
    """sum_{k >= first} P_k / sum_k P_k, with DC in the lower sum; NaN if that is 0.

    Args:
      power: bins 0 .. N/2 of a real FFT.
      first: by default `first_high_bin`.

    Raises:
      ValueError: there is no bin from `first` on, or none below it.
    """
    last = power.shape[-1] - 1
    first = first_high_bin(last + 1) if first is None else first
    if not 1 <= first <= last:
        raise ValueError(f"first={first}: must be a bin from 1 to {last}, the last of this spectrum")
    whole = power.sum(axis=-1)
    return power[..., first:].sum(axis=-1) / np.where(whole > 0, whole, np.nan)


def first_high_bin(num_bins: int) -> int:
    """Returns k0 = max(1, (num_bins - 1) // 4), the first *high* bin of 0 .. num_bins - 1: a quarter of the Nyquist."""
    return max(1, (num_bins - 1) // 4)


def random_directions(
    key: Key[Array, ""], num: int, x: Float[Array, "example *shape"]
) -> Float[Array, "example direction *shape"]:
    """Standard normal draws scaled to L2 norm 1, `num` for each example.

    The draws of an example depend on the key and on its place alone, not on how many examples there are.
    """

    def draw(i):
        # Drawn flat: XLA takes ten times as long to compile a draw of several dimensions.
        size = num * math.prod(x.shape[1:])
        return jax.random.normal(jax.random.fold_in(key, i), (size,), x.dtype).reshape(num, *x.shape[1:])

    return _unit(jax.vmap(draw)(jnp.arange(x.shape[0])))


def adversarial_directions(
    f: Callable[[Float[Array, "batch *shape"]], Float[Array, "batch class"]], x: Float[Array, "example *shape"]
) -> Float[Array, "example 1 *shape"]:
    """The gradient of the cross-entropy at the predicted class, scaled to norm 1; NaN where it vanishes.

    The cross-entropy of class c has the gradient (1 - p_c) grad(log sum_{j != c} exp f_j - f_c). The factor, which
    underflows for a confident network, is left out.
    """

    def loss(x):
        logits = f(x)
        predicted = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=bool)
        others = jax.nn.logsumexp(jnp.where(predicted, -jnp.inf, logits), axis=-1)
        return jnp.sum(others - jnp.sum(jnp.where(predicted, logits, 0), axis=-1))

    return _unit(jax.grad(loss)(x)[:, None])


def directions_towards(
    x: Float[Array, "example *shape"], targets: Float[Array, "example direction *shape"]
) -> Float[Array, "example direction *shape"]:
    """From each example towards others, scaled to norm 1; NaN where both are the same."""
    return _unit(targets - x[:, None])


def _unit(v: Float[Array, "example direction *shape"]) -> Float[Array, "example direction *shape"]:
    return v / jnp.sqrt(jnp.sum(v**2, axis=tuple(range(2, v.ndim)), keepdims=True))


class LineSpectra(NamedTuple):
    """Means over classes and directions. With the sums over all N bins, by Parseval's law,
    sum |F|^2 = N sum_n f^2 = |F[0]|^2 + slope_energy + (the sum over the residual without a window)."""

    energy: Float[Array, "example frequency"]  # |F|^2
    amplitude: Float[Array, "example frequency"]  # |F|
    residual_energy: Float[Array, "example frequency"]  # |F|^2 of what a straight line leaves, windowed
    slope_energy: Float[Array, " example"]  # summed over all N bins: of the straight line without its mean
    curvature_energy: Float[Array, " example"]  # the same of the parabola in what the line leaves
    # How often the class of the largest output changes from point to point: the fragmentation of arXiv 2203.08124 along
    # a line, where it counts regions of a plane. NaN where an output is not finite.
    label_changes: Float[Array, " example"]


def windows(kind: str, num_points: int) -> np.ndarray:
    """Window functions `(taper, point)`, each of mean square 1: white noise keeps its energy in every bin.

    Args:
      kind: 'none', 'hann' (periodic), or 'sine': the first four sine tapers, orthogonal to each other, whose spectra
        are averaged (Riedel and Sidorenko, IEEE Trans. Signal Processing 43, 1995).
      num_points: N.
    """
    n = np.arange(num_points)
    match kind:
        case "none":
            return np.ones((1, num_points))
        case "hann":
            return np.sqrt(2 / 3) * (1 - np.cos(2 * np.pi * n / num_points))[None]
        case "sine":
            tapers = np.sin(np.pi * np.outer(np.arange(1, 5), n + 1) / (num_points + 1))
            return np.sqrt(2 * num_points / (num_points + 1)) * tapers
    raise ValueError(f"kind={kind!r}: must be none, hann or sine")


def slope_spectrum(num_points: int) -> np.ndarray:
    """|F[k]|^2, k = 0..N/2, of a straight line whose mean is 0 and whose `slope_energy` is 1: the line seen as periodic
    is a sawtooth, 3 / ((N^2 - 1) sin^2(pi k / N))."""
    k = np.arange(1, num_points // 2 + 1)
    return np.concatenate([[0], 3 / ((num_points**2 - 1) * np.sin(np.pi * k / num_points) ** 2)])


def line_spectra(
    f: Callable[[Float[Array, "batch *shape"]], Float[Array, "batch class"]],
    x: Float[Array, "example *shape"],
    v: Float[Array, "example direction *shape"],
    *,
    num_points: int,
    half_width: float,
    window: str = "none",
    max_batch: int = 256,
) -> LineSpectra:
    """Spectra of `f` around each example.

    Args:
      f: maps a batch of inputs to outputs, each input independently of the others.
      x: examples.
      v: directions of norm 1.
      num_points: N.
      half_width: h.
      window: of the residual, see `windows`.
      max_batch: bounds the memory: `f` is called on so many inputs at most, but on no fewer than N.
    """

    t = offsets(num_points, half_width)

    def sample(segments):
        x, v = segments
        return by_segment(f, points_on_segments(x, v, t))

    outputs = in_chunks(sample, flat_segments(x, v), max_batch // num_points)
    return spectra_of(outputs.reshape(*v.shape[:2], *outputs.shape[1:]), window, max_batch // num_points)


def spectra_of(outputs: Float[Array, "example direction point class"], window: str, max_segments: int) -> LineSpectra:
    """The spectra of a function with these outputs along its segments; so many of them at a time at most."""
    num_points = outputs.shape[2]
    # Constant, straight line and parabola, orthonormal on the points.
    orthonormal, _ = np.linalg.qr(np.vander(np.linspace(-1, 1, num_points), 3, increasing=True))
    polynomials = jnp.asarray(orthonormal, outputs.dtype)
    tapers = jnp.asarray(windows(window, num_points), outputs.dtype)

    def spectra(outputs):
        magnitude = jnp.abs(jnp.fft.rfft(outputs, axis=1))  # segment, frequency, class
        coefficients = jnp.einsum("np,snc->spc", polynomials, outputs)
        residual = outputs - jnp.einsum("np,spc->snc", polynomials[:, :2], coefficients[:, :2])
        tapered = jnp.fft.rfft(tapers[None, :, :, None] * residual[:, None], axis=2)
        _, line, parabola = jnp.moveaxis(num_points * jnp.mean(coefficients**2, axis=-1), 1, 0)
        label = jnp.argmax(outputs, axis=-1)
        changes = jnp.sum(label[:, 1:] != label[:, :-1], axis=1).astype(outputs.dtype)
        return LineSpectra(
            energy=jnp.mean(magnitude**2, axis=-1),
            amplitude=jnp.mean(magnitude, axis=-1),
            residual_energy=jnp.mean(jnp.abs(tapered) ** 2, axis=(1, 3)),
            slope_energy=line,
            curvature_energy=parabola,
            label_changes=jnp.where(jnp.isfinite(outputs).all(axis=(1, 2)), changes, jnp.nan),
        )

    flat = outputs.reshape(-1, *outputs.shape[2:])
    return mean_over_directions(in_chunks(spectra, flat, max_segments), outputs.shape[1])


def points_on_segments(
    x: Float[Array, "segment *shape"], v: Float[Array, "segment *shape"], t: Float[Array, " point"]
) -> Float[Array, "segment point *shape"]:
    """x + t v, for each segment and each t."""
    return x[:, None] + t.astype(x.dtype).reshape(1, -1, *(1,) * (x.ndim - 1)) * v[:, None]


def by_segment(f: Callable[..., Array], *points: Float[Array, "segment point *shape"]) -> Array:
    """Applies the batched `f` to all points of all segments: [segment, point, class]."""
    outputs = f(*(p.reshape(-1, *p.shape[2:]) for p in points))
    return outputs.reshape(*points[0].shape[:2], -1)


def flat_segments(
    x: Float[Array, "example *shape"], v: Float[Array, "example direction *shape"]
) -> tuple[Float[Array, "segment *shape"], Float[Array, "segment *shape"]]:
    """The example and the direction of each segment, those of an example one after another."""
    return jnp.repeat(x, v.shape[1], axis=0), v.reshape(-1, *x.shape[1:])


def mean_over_directions(tree: Any, num_directions: int) -> Any:
    """From leaves (segment, ...), in the order of `flat_segments`, to leaves (example, ...)."""
    return jax.tree.map(lambda a: a.reshape(-1, num_directions, *a.shape[1:]).mean(axis=1), tree)


def in_chunks(f, xs, size: int):
    """Applies the batched `f` to at most `size` rows (at least one) of the tree `xs` at a time, one after another."""
    rows = jax.tree.leaves(xs)[0].shape[0]
    size = max(1, min(size, rows))
    chunks = -(-rows // size)
    padded = jax.tree.map(lambda a: jnp.pad(a, ((0, chunks * size - rows), *((0, 0),) * (a.ndim - 1))), xs)
    stacked = jax.tree.map(lambda a: a.reshape(chunks, size, *a.shape[1:]), padded)
    return jax.tree.map(lambda a: a.reshape(chunks * size, *a.shape[2:])[:rows], lax.map(f, stacked))
