"""Other measures of one function, per example: sensitivity, curvature, linear regions, margin, variance of an update.

Knows one function and imports jax (and the jax-only helpers of `spectrum` and `units`) alone. What belongs to the
spectrum itself is in `spectrum.py`. Distances are L2 distances in input space; outputs are in the units of `f`, e.g.
logits.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from spectral_dd.spectrum import flat_segments, in_chunks, mean_over_directions, offsets, points_on_segments, windows
from spectral_dd.units import Function, choices


def output_products(
    f: Function, x: Float[Array, "example *shape"], *, max_batch: int = 256
) -> tuple[Float[Array, "example class"], Float[Array, "example class class"]]:
    """The outputs at each example, and products of their derivatives by the input, exact.

        G[c, d] = sum_i (d f_c / d x_i) (d f_d / d x_i)

    Args:
      f: maps a batch of inputs to outputs, each input independently of the others.
      x: examples.
      max_batch: bounds the memory: `f` runs forwards and backwards on so many inputs at most, but on no fewer than
        there are classes.

    Returns:
      the outputs and G, from which `jacobian_norm` and `loss_curvature` follow.
    """
    num_classes = jax.eval_shape(f, x).shape[1]

    def products(x):
        outputs, pullback = jax.vjp(f, x)
        # No output depends on another input: one cotangent for the whole batch gives row c of every Jacobian.
        one_hot = jnp.eye(num_classes, dtype=outputs.dtype)[:, None]
        (rows,) = jax.vmap(pullback)(jnp.broadcast_to(one_hot, (num_classes, *outputs.shape)))
        rows = rows.reshape(num_classes, len(x), -1)
        return outputs, jnp.einsum("cni,dni->ncd", rows, rows)

    return in_chunks(products, x, max_batch // num_classes)


def jacobian_norm(products: Float[Array, "example class class"]) -> Float[Array, " example"]:
    """Frobenius norm of the Jacobian of the outputs with respect to the input of each example.

        sqrt(sum_{c,i} (d f_c / d x_i)^2)

    A sensitivity measure of Novak et al., arXiv 1802.08760 (there of the softmax).

    Args:
      products: G of `output_products`.

    Returns:
      the norm, in outputs per unit of L2 distance.
    """
    return jnp.sqrt(jnp.trace(products, axis1=1, axis2=2))


def loss_curvature(
    logits: Float[Array, "example class"], products: Float[Array, "example class class"]
) -> Float[Array, " example"]:
    """Frobenius norm of the Hessian H of the cross-entropy with respect to the input of each example.

        sqrt(tr(H^2)) = sqrt(tr(S G S G)),    S = diag(p) - p p^T,    p = softmax(f)

    tr(H^2) is the curvature by which Garg, Ravikumar, Roy (arXiv 2307.05831) find memorised examples; they estimate it
    by differences of gradients in random directions. Here it is exact where the logits are linear around the example,
    as those of a ReLU network are. Of another network it is the Gauss-Newton part of H. It depends on no label.

    Args:
      logits: at each example.
      products: G of `output_products`.

    Returns:
      the norm, in nats per squared unit of L2 distance.
    """
    p = jax.nn.softmax(logits)
    # S by its entries beside the diagonal, because 1 - p of a confident network is 0 in float32.
    others = -p[:, :, None] * p[:, None, :] * (1 - jnp.eye(p.shape[1], dtype=p.dtype))[None]
    diagonal = -jnp.sum(others, axis=2)
    h = others @ products + diagonal[:, :, None] * products  # S G
    return jnp.sqrt(jnp.maximum(jnp.einsum("ncd,ndc->n", h, h), 0))


class Kinks(NamedTuple):
    """What the units of a piecewise linear function choose around each example; NaN where an output is not finite."""

    linear_regions: Float[Array, " example"]  # that a segment crosses, mean over directions
    local_complexity: Float[Array, " example"]  # ReLUs whose boundary meets a neighbourhood


def kinks(
    f: Function,
    x: Float[Array, "example *shape"],
    v: Float[Array, "example direction *shape"],
    u: Float[Array, "axis input"],
    *,
    num_points: int,
    half_width: float,
    radius: float,
    max_batch: int = 256,
) -> Kinks:
    """How a piecewise linear `f` is put together around each example.

    `linear_regions` is 1 + the number of kinks of the segment {x + t v: -h <= t < h}: of changes between neighbouring
    points t_n = `spectrum.offsets(N, h)` in what a unit chooses (`units.choices`), of units that the outputs depend on
    at one of the two. However many units change between the same two points, each counts. What is missed is a unit that
    changes and changes back between them, so it is a lower bound that the points hardly limit. (A smooth function has
    no units, and 1 region.) Transitions of activation patterns along a trajectory: Novak et al., arXiv 1802.08760.

    `local_complexity` is the number of ReLUs whose boundary meets the hull of x +- r u_p: that are active at some of
    these points and inactive at others, which is exact for the first layer, and an approximation behind it. Humayun,
    Balestriero, Baraniuk, arXiv 2402.15555 (in their code 40 points and r = 0.005).

    Both in one pass, because the program that follows units takes longer to compile than to run.

    Args:
      f: maps a batch of inputs to outputs, each input independently of the others.
      x: examples.
      v: directions of norm 1.
      u: orthonormal directions, the same for all examples.
      num_points: N.
      half_width: h.
      radius: r, an L2 distance.
      max_batch: bounds the memory: `f` is called on so many inputs at most, but on no fewer than N and the points of
        a hull.
    """
    t = offsets(num_points, half_width)
    steps = radius * jnp.concatenate([u, -u])
    corners = steps.reshape(1, -1, *x.shape[1:])

    def on_segments(segments):
        x, v = segments
        points = jnp.concatenate([points_on_segments(x, v, t), x[:, None] + corners], axis=1)
        outputs, found = choices(f, points.reshape(-1, *x.shape[1:]))
        kinks, crossed = jnp.zeros((2, len(x)), jnp.int32)
        for units in found:
            choice, live = (a.reshape(*points.shape[:2], -1) for a in (units.choice, units.live))
            before, after = slice(num_points - 1), slice(1, num_points)
            changed = (choice[:, after] != choice[:, before]) & (live[:, after] | live[:, before])
            kinks += jnp.sum(changed, axis=(1, 2), dtype=jnp.int32)
            if units.is_relu:
                active = choice[:, num_points:]
                crossed += jnp.sum(active.any(axis=1) & ~active.all(axis=1), axis=1, dtype=jnp.int32)
        # A comparison with NaN is false: a diverged network would pass for a linear one.
        finite = jnp.isfinite(outputs).reshape(*points.shape[:2], -1).all(axis=2)
        return Kinks(
            jnp.where(finite[:, :num_points].all(axis=1), 1 + kinks, jnp.nan),
            jnp.where(finite[:, num_points:].all(axis=1), crossed, jnp.nan),
        )

    found = in_chunks(on_segments, flat_segments(x, v), max_batch // (num_points + len(steps)))
    return mean_over_directions(found, v.shape[1])


def orthonormal_directions(key: Key[Array, ""], num: int, size: int, dtype: Any) -> Float[Array, "axis input"]:
    """Random orthonormal vectors: `num` of them, or as many as there are inputs if these are fewer."""
    return jnp.linalg.qr(jax.random.normal(key, (size * min(num, size),), dtype).reshape(size, -1))[0].T


def plane_segments(
    corners: Float[Array, "plane 3 *shape"], num: int, *, num_points: int, half_width: float
) -> tuple[Float[Array, "plane line part *shape"], Float[Array, "plane line part *shape"]]:
    """A grid of num x num points on the plane through three inputs, as in the public code of Somepalli et al., arXiv
    2203.08124, cut into segments.

    It lies over the rectangle that the three inputs span, one side along the line through the first two, and a tenth of
    its size more on each side.

    Returns:
      x and v of segments, v of any norm. The points x + t_n v with t_n = `spectrum.offsets(N, h)`, part after part, are
      a line of the grid, and some more where N does not divide `num`.
    """
    steps, parts = np.linspace(-0.1, 1.1, num), -(-num // num_points)
    per_point = (steps[1] - steps[0]) / (2 * half_width / num_points)
    # At t = 0 of each part, in heights of the triangle.
    middle = steps[0] + (steps[1] - steps[0]) * num_points * np.arange(parts) + per_point * half_width

    def segments(x):
        a, b = x[1] - x[0], x[2] - x[0]
        length = jnp.linalg.norm(a)
        along = jnp.dot(a, b) / length
        height = b - along * a / length
        first = jnp.stack([jnp.zeros_like(length), length, along])
        start, end = first.min(), first.max()
        lines = x[:1] + jnp.outer(start + (end - start) * jnp.asarray(steps, x.dtype), a / length)
        starts = lines[:, None] + jnp.outer(jnp.asarray(middle, x.dtype), height)[None]
        return starts, jnp.broadcast_to(per_point * height, starts.shape)

    x, v = jax.vmap(segments)(corners.reshape(*corners.shape[:2], -1))
    shape = (*x.shape[:3], *corners.shape[2:])
    return x.reshape(shape), v.reshape(shape)


def shift_of_nearby(num_points: int, half_width: float) -> float:
    """How far points lie from those of a segment that `rounding_energy` compares them with: a twentieth of their
    distance."""
    return 0.05 * 2 * half_width / num_points


def rounding_energy(outputs: Float[Array, "example 2 point class"], window: str) -> Float[Array, " example"]:
    """How much of the energy of a bin of the residual spectrum is rounding, on average over the upper half of the bins.

        mean_{k > N/4, c} |W_c[k]|^2 / 2,    W the windowed DFT of what a straight line leaves of row 2 - row 1

    The function hardly differs between points that are so near (of the energy of bin k about (pi k / (10 N))^2 / 2 is
    left, at most 1.2 %), while the roundings on the way to the outputs do. It is a lower bound where outputs change by
    less than their own rounding from point to point, as those of an untrained network may: there, rounding is no white
    noise, and more than this.

    Args:
      outputs: at the points of a segment, and of the same shifted by `shift_of_nearby` along itself.
      window: as of the residual.

    Returns:
      the energy, in squared outputs.
    """
    num_points = outputs.shape[2]
    tapers = jnp.asarray(windows(window, num_points), outputs.dtype)
    difference = outputs[:, 1] - outputs[:, 0]
    # Without a straight line, like the residual.
    orthonormal, _ = np.linalg.qr(np.vander(np.linspace(-1, 1, num_points), 2, increasing=True))
    line = jnp.asarray(orthonormal, outputs.dtype)
    difference -= jnp.einsum("np,mp,emc->enc", line, line, difference)
    tapered = jnp.fft.rfft(tapers[None, :, :, None] * difference[:, None], axis=2)
    return jnp.mean(jnp.abs(tapered[:, :, num_points // 4 + 1 :]) ** 2, axis=(1, 2, 3)) / 2


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


def distance(parameters: Any, others: Any) -> Float[Array, ""]:
    """L2 distance between all parameters of a network and others, as a rule its initial ones.

    Distance from initialisation: e.g. Nagarajan and Kolter, arXiv 1901.01672.
    """
    squares = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), parameters, others)
    return jnp.sqrt(sum(jax.tree.leaves(squares)))
