"""Where curves over epochs peak or cross a level, to a fraction of a record. NumPy only; places are log10 of the epoch.

Curves that are compared are smoothed with one kernel, on one scale of log epochs: a Gaussian whose width follows the
records of the curve that has fewer of them. So the same curve, recorded more rarely, peaks at the same place: smoothing
each curve over its own neighbouring records would move the rarer one.

Smoothing still draws a peak towards its flatter side, in proportion to the width for a bend as for a corner. Two widths
show it: `refined` goes back to none.
"""

import functools

import numpy as np
from jaxtyping import Bool, Float

# Of the scale, in decades: a twentieth of the usual distance of records.
STEP = 0.005
# Width (standard deviation) of the kernel, in gaps between records: a Gaussian of 0.6 gaps is sampled to 0.1 %.
WIDTH_IN_GAPS = 0.6
# Its least, in decades: a little more than that of a mean over three records, ten of them a decade.
WIDTH = 0.1
# The wider kernel has so many times that width.
WIDER = 1.5
# How far off a peak is at most, in gaps, for want of records; benchmarks/verdict.py measures it.
PRECISION = 0.1
# Of the shift by smoothing, `refined` leaves at most so much times the cube of the gap in decades: of peaks that rise
# or fall within two gaps; from the same benchmark.
LEFT = 15.0


def gaps(records: Float[np.ndarray, "record"]) -> Float[np.ndarray, "record"]:
    """Returns the larger distance of each record to its neighbours."""
    between = np.diff(records)
    return np.maximum(np.append(between, between[-1]), np.insert(between, 0, between[0]))


def widths(
    places: Float[np.ndarray, "place"], scale_of: Float[np.ndarray, "scale_record"]
) -> Float[np.ndarray, "place"]:
    """Returns the width of the kernel at each place, in decades."""
    return np.maximum(WIDTH, WIDTH_IN_GAPS * np.interp(places, scale_of, gaps(scale_of)))


def smoothed(
    curves: Float[np.ndarray, "curve record"],
    records: Float[np.ndarray, "record"],
    scale_of: Float[np.ndarray, "scale_record"],
    wider: float = 1.0,
) -> tuple[Float[np.ndarray, "place"], Float[np.ndarray, "curve place"]]:
    """Local linear regression on log epochs, on the scale of the records `scale_of`.

    At each place a straight line is fitted, with Gaussian weights of `widths`: unlike a weighted mean, it is not drawn
    towards where more records are.

    Args:
      curves: values at `records`.
      records: log10 epochs, increasing; at least two.
      scale_of: log10 epochs of the curve with fewer records; the scale goes from its first to its last.
      wider: factor of the widths.

    Returns:
      The places, `STEP` apart, and the curves there.
    """
    places, weights = _weights(tuple(records), tuple(scale_of), wider)
    return places, curves @ weights.T


@functools.lru_cache(64)
def _weights(records: tuple[float, ...], scale_of: tuple[float, ...], wider: float) -> tuple[np.ndarray, np.ndarray]:
    have, scale = np.array(records), np.array(scale_of)
    places = np.append(np.arange(scale[0], scale[-1] - STEP / 2, STEP), scale[-1])
    width = wider * widths(places, scale)
    distance = places[:, None] - have
    kernel = np.exp(-0.5 * (distance / width[:, None]) ** 2)
    zeroth, first, second = ((kernel * distance**i).sum(axis=1, keepdims=True) for i in range(3))
    return places, kernel * (second - distance * first) / (zeroth * second - first**2)


def prominent_peak(
    places: Float[np.ndarray, "place"], levels: Float[np.ndarray, "curve place"], prominence: float
) -> tuple[Float[np.ndarray, "curve"], Bool[np.ndarray, "curve"]]:
    """Where each curve has its most prominent peak.

    The place whose smaller one of rise (from the lowest place before) and fall (to the lowest after) is the largest,
    the earliest if several are. If that is below `prominence`, there is none, and the end where the curve is higher
    counts, the first if both are alike.

    Returns:
      The places, and whether there is a peak.
    """
    # Rounded, because equal levels differ in the last bits.
    levels = levels.round(12)
    rise = levels - np.minimum.accumulate(levels, axis=1)
    fall = levels - np.minimum.accumulate(levels[:, ::-1], axis=1)[:, ::-1]
    size = np.minimum(rise, fall)
    found = size.max(axis=1).round(9) >= round(prominence, 9)
    end = np.where(levels[:, -1] > levels[:, 0], len(places) - 1, 0)
    return places[np.where(found, size.argmax(axis=1), end)], found


def nearby_peak(
    places: Float[np.ndarray, "place"],
    levels: Float[np.ndarray, "curve place"],
    near: Float[np.ndarray, "curve"],
    within: Float[np.ndarray, "curve"],
) -> Float[np.ndarray, "curve"]:
    """Where each curve is highest, not farther than `within` from the place `near`, which the scale must hold."""
    close = abs(places - near[:, None]) <= within[:, None]
    return places[np.where(close, levels, -np.inf).argmax(axis=1)]


def refined(
    curves: Float[np.ndarray, "curve record"],
    records: Float[np.ndarray, "record"],
    scale_of: Float[np.ndarray, "scale_record"],
    place: Float[np.ndarray, "curve"],
) -> tuple[Float[np.ndarray, "curve"], Float[np.ndarray, "curve"]]:
    """Where a peak lies without smoothing, and with the wider kernel.

    The first is on the straight line through the places of both kernels over their widths, at width 0. It is right for
    a corner and for two parabolas that meet; it scatters more.

    Args:
      curves, records, scale_of: as in `smoothed`.
      place: of the peak with the kernel itself.
    """
    places, levels = smoothed(curves, records, scale_of, WIDER)
    wider = nearby_peak(places, levels, place, WIDER * widths(place, scale_of))
    return place - (wider - place) / (WIDER - 1), wider


def crossing(
    curves: Float[np.ndarray, "curve record"], records: Float[np.ndarray, "record"], level: float
) -> tuple[Float[np.ndarray, "curve"], Bool[np.ndarray, "curve"]]:
    """When each curve has first fallen to `level`: in the middle of the gap between two records, known to the gap.

    Returns:
      The places, the last record if it does not, and whether it does.
    """
    below = curves <= level
    found, first = below.any(axis=1), below.argmax(axis=1)
    middle = (records[np.maximum(first - 1, 0)] + records[first]) / 2
    return np.where(found, middle, records[-1]), found
