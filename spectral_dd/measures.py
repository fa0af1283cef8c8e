"""Other measures of one function, per example: sensitivity, linear regions, margin, variance of an update.

Knows one function and imports jax (and the jax-only helpers of `spectrum`) alone. What belongs to the spectrum itself
is in `spectrum.py`. Distances are L2 distances in input space; outputs are in the units of `f`, e.g. logits.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from spectral_dd.spectrum import by_segment, in_chunks, mean_over_directions, offsets, points_on_segments

# Each input independently of the others: a network in evaluation mode.
Function = Callable[[Float[Array, "batch *shape"]], Float[Array, "batch class"]]

# Relative change of a derivative that is no more than rounding.
_SAME_REGION = 1e-4


def jacobian_norm(f: Function, x: Float[Array, "example *shape"], *, max_batch: int = 256) -> Float[Array, " example"]:
    """Frobenius norm of the Jacobian of the outputs with respect to the input of each example, exact.

        sqrt(sum_{c,i} (d f_c / d x_i)^2)

    A sensitivity measure of Novak et al., arXiv 1802.08760 (there of the softmax).

    Args:
      f: maps a batch of inputs to outputs, each input independently of the others.
      x: examples.
      max_batch: bounds the memory: `f` runs forwards and backwards on so many inputs at most.

    Returns:
      the norm, in outputs per unit of L2 distance.
    """

    def squared_norm(x):
        outputs, pullback = jax.vjp(f, x)

        # No output depends on another input: one cotangent for the whole batch gives row c of every Jacobian.
        def squared_row(one_hot):
            (row,) = pullback(jnp.broadcast_to(one_hot, outputs.shape))
            return jnp.sum(row**2, axis=tuple(range(1, row.ndim)))

        # One class after another, so that no more than max_batch inputs go backwards at once.
        return jnp.sum(lax.map(squared_row, jnp.eye(outputs.shape[1], dtype=outputs.dtype)), axis=0)

    return jnp.sqrt(in_chunks(squared_norm, x, max_batch))


def linear_regions(
    f: Function,
    x: Float[Array, "example *shape"],
    v: Float[Array, "example direction *shape"],
    *,
    num_points: int,
    half_width: float,
    max_batch: int = 256,
) -> Float[Array, " example"]:
    """Number of linear regions of a piecewise linear `f` that the segment {x + t v: -h <= t < h} crosses.

        s_n = J(x + t_n v) v,    t_n = `spectrum.offsets(N, h)`
        1 + #{n: |s_{n+1} - s_n| > 1e-4 max(|s_n|, |s_{n+1}|)},    L2 norms over classes

    The derivative along the segment is exact and constant inside of a region, so 1e-4 only has to exceed rounding.
    Where it is zero on both sides nothing is counted; where it is zero on one side the change is.

    A lower bound: kinks between the same two points count once, so the number is at most N, and a kink that leaves the
    derivative along v as it was is not seen. (A point that lies exactly on a kink is the exception: it can have a
    derivative of its own there, and be counted as a region.) Transitions along a trajectory: Novak et al.,
    arXiv 1802.08760.

    Args:
      f: maps a batch of inputs to outputs, each input independently of the others.
      x: examples.
      v: directions of norm 1.
      num_points: N.
      half_width: h.
      max_batch: bounds the memory: `f` is called on so many inputs at most, but on no fewer than N.

    Returns:
      the mean over directions; NaN where a derivative is not finite.
    """
    t = offsets(num_points, half_width)

    def regions(x, v):
        points = points_on_segments(x, v, t)
        tangents = jnp.broadcast_to(v[:, None], points.shape)
        slopes = by_segment(lambda points, v: jax.jvp(f, (points,), (v,))[1], points, tangents)
        size = jnp.linalg.norm(slopes, axis=-1)
        change = jnp.linalg.norm(slopes[:, 1:] - slopes[:, :-1], axis=-1)
        count = 1 + jnp.sum(change > _SAME_REGION * jnp.maximum(size[:, 1:], size[:, :-1]), axis=1)
        # A comparison with NaN is false: a diverged network would pass for a linear one.
        return jnp.where(jnp.isfinite(size).all(axis=1), count, jnp.nan)

    return mean_over_directions(regions, x, v, max_batch // num_points)


def optimization_variance(logits: Float[Array, "update *example class"]) -> Float[Array, " *example"]:
    """How far one training step of different batches drives the outputs apart.

        OV(x) = mean_b |f_b(x) - mean_b' f_b'(x)|^2 / mean_b |f_b(x)|^2

    The indicator of the test error of Zhang, Wu, Xiong, Dai, arXiv 2106.01714; it needs no labels of test examples.

    A step is as large as the optimiser's, so OV falls with a rate that falls.

    Args:
      logits: f_b(x), outputs after one update with batch b from the same parameters.

    Returns:
      OV, without unit, from 0 (all updates agree) to 1 (their outputs cancel); NaN where all logits are 0.
    """
    variance = jnp.sum(jnp.var(logits, axis=0), axis=-1)
    return variance / jnp.mean(jnp.sum(logits**2, axis=-1), axis=0)


def margin(logits: Float[Array, "example class"], labels: Int[Array, " example"]) -> Float[Array, " example"]:
    """Logit of the label minus the largest other logit: f_y(x) - max_{c != y} f_c(x); positive where correct."""
    is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    others = jnp.where(is_label, -jnp.inf, logits)
    return jnp.where(is_label, logits, -jnp.inf).max(axis=-1) - others.max(axis=-1)
