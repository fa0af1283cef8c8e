"""Does one measure indicate when the second descent of the test error starts? The statistics, in NumPy; a whole sweep
is taken apart in `verdict.py`.

The definitions, beside those of `peaks.py`:

- The second descent *starts* where the test error peaks. A measure *indicates* the epoch of its most prominent peak, of
  at least `PROMINENCE`, or of its event. Without one, the end where it is highest counts, or the last record: to leave
  such members out would favour measures that rarely have anything to say. They are counted.
- *Lead*: log10 of the indicated epoch minus log10 of that where the test error peaks, in decades; positive is later.
- A member is *tested* if it has a second descent and `RECORDS` records of the measure, on both sides of the peak, at
  most `AROUND` decades from it. Members that diverged or are unfinished are not.
- Members of one width and setting are a *cell*. The seeds of a cell see other data, noise and initial weights, and so
  peak at other epochs. What knows the member must follow that; what always peaks at one epoch does not.
- *q* = sum of (lead - its mean in the cell)^2 / sum of (peak of the test error - its mean in the cell)^2, over tested
  members. A measure that follows the peak has q near 0, one fixed epoch has q = 1.
- *p*: at most how often a measure that knows nothing of the member has so small a q (`p_value`).
- *Interval*: of the mean lead, 95 %, over seeds (`interval`).
- *Power*: how often this sweep would find a measure that follows the peak to `FOLLOWS` decades (`power`).

The *answer* for a measure is yes if p is at most `SIGNIFICANCE` and the interval lies within `NEAR` decades of 0: it
peaks when the second descent starts, and follows that from seed to seed. It is no if the interval lies outside, or
if p is larger although the power is at least `POWER`. Otherwise the sweep could not have told.
"""

from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float

from spectral_dd.analysis import peaks
from spectral_dd.analysis.online import PROMINENCE

RECORDS, AROUND = 3, 0.5
MIN_SEEDS = 3
SIGNIFICANCE = 0.05
NEAR = 0.3
FOLLOWS = 0.04
POWER = 0.8
# The log of a test error of 0; a tenth of a point.
LEAST_ERROR = 1e-3


class Located(NamedTuple):
    """Where a measure and the test error peak in each of some curves (curve,), log10 epochs. NaN: not tested.

    `measure_place` and `test_place` are without what smoothing does to them; `measure_smoothed` and `test_smoothed`
    with it: they scatter less, and a shift that all curves share does not change how one follows the other. `found`:
    the measure has a peak or event; `variance` of their difference for want of records; `gap`: the larger one between
    records at the peak.
    """

    measure_place: np.ndarray
    test_place: np.ndarray
    measure_smoothed: np.ndarray
    test_smoothed: np.ndarray
    found: np.ndarray
    variance: np.ndarray
    gap: np.ndarray


def locate(
    measure: Float[np.ndarray, "curve record"],
    records: Float[np.ndarray, "record"],
    error: Float[np.ndarray, "curve error_record"],
    error_records: Float[np.ndarray, "error_record"],
    peak: Float[np.ndarray, "curve"],
    level: float | None = None,
) -> Located:
    """Locates the peaks of a measure and of the test error on one scale, see `peaks.py`.

    Args:
      measure: positive.
      records, error_records: log10 epochs at which measure and test error are recorded.
      peak: log10 of the recorded epoch near which the test error peaks; NaN: it does not.
      level: of an event: the measure falls to it.
    """
    near = abs(records - peak[:, None]) <= AROUND
    before, after = near & (records <= peak[:, None]), near & (records >= peak[:, None])
    tested = (near.sum(axis=1) >= RECORDS) & before.any(axis=1) & after.any(axis=1)
    if not tested.any():
        nothing = np.full(len(peak), np.nan)
        return Located(nothing, nothing, nothing, nothing, tested, nothing, nothing)
    gap = np.interp(peak, records, peaks.gaps(records))
    log_error = np.log(np.maximum(error, LEAST_ERROR))
    within = np.maximum(gap, 2 * peaks.WIDTH)
    test = peaks.nearby_peak(*peaks.smoothed(log_error, error_records, records), peak, within)
    test, test_smoothed = peaks.refined(log_error, error_records, records, test)
    # Uniform errors: of a peak within a part of a gap, of an event within the gap.
    of_peak, of_event = (peaks.PRECISION * gap) ** 2 / 3, gap**2 / 12
    if level is None:
        place, found = peaks.prominent_peak(*peaks.smoothed(np.log(measure), records, records), np.log1p(PROMINENCE))
        when, smoothed = (
            np.where(found, refined, place) for refined in peaks.refined(np.log(measure), records, records, place)
        )
    else:
        when, found = peaks.crossing(measure, records, level)
        smoothed = when
    variance = of_peak + (of_peak if level is None else of_event)
    numbers = (np.where(tested, x, np.nan) for x in (when, test, smoothed, test_smoothed, variance, gap))
    when, test, smoothed, test_smoothed, variance, gap = numbers
    return Located(when, test, smoothed, test_smoothed, found & tested, variance, gap)


def p_value(q: Float[np.ndarray, "..."], seeds: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Two-sided p of q, for a measure that is independent of the test error.

    Both peaks are taken as normal over the seeds of one cell, with unknown variances. Then q <= q0 is that one
    quadratic form is smaller than another; diagonalised, that F with n - 1 and n - 1 degrees of freedom is at most
    (1 - s) / (1 + s), s = sqrt(1 - q0), at the variance of the measure that makes it the most likely: 1 - q0 times
    that of the test error. It is Pitman and Morgan's test that leads vary less than the peaks, taken at its worst. It
    holds at 3 seeds, where exchanging seeds has 6 arrangements and no p below 1/6. Several cells are taken as one,
    because the members of a seed may be alike: if they are not, p is too large.

    Args:
      seeds: of the largest cell, n; below `MIN_SEEDS`, p is NaN.
    """
    s = np.sqrt(np.maximum(1 - q, 0))
    n = np.where(seeds >= MIN_SEEDS, seeds, np.nan)
    return np.where(np.isnan(q), np.nan, np.minimum(2 * scipy.special.fdtr(n - 1, n - 1, (1 - s) / (1 + s)), 1))


def largest_q(seeds: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Returns the q whose `p_value` is `SIGNIFICANCE`; NaN below `MIN_SEEDS`."""
    n = np.where(seeds >= MIN_SEEDS, seeds, np.nan)
    ratio = scipy.special.fdtri(n - 1, n - 1, SIGNIFICANCE / 2)
    return 1 - ((1 - ratio) / (1 + ratio)) ** 2


def power(
    variance: Float[np.ndarray, "..."],
    seeds: Float[np.ndarray, "..."],
    freedom: Float[np.ndarray, "..."],
    follows: Float[np.ndarray, "..."],
) -> Float[np.ndarray, "..."]:
    """How often p is at most `SIGNIFICANCE` for a measure whose lead has the standard deviation `follows`.

    Args:
      variance: of the peaks of the test error within a cell, decades^2.
      seeds: of the largest cell.
      freedom: members less cells.

    Returns:
      In [0, 1]; 0 below `MIN_SEEDS`.
    """
    return np.nan_to_num(scipy.special.chdtr(freedom, largest_q(seeds) * freedom * variance / follows**2))


def interval(
    values: Float[np.ndarray, "... cell seed"],
    variance: Float[np.ndarray, "... cell seed"] | float = 0.0,
    bias: Float[np.ndarray, "..."] | float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds of the mean of each over cells, and its 95 % interval: Student's t, n - 1 degrees for n seeds.

    Args:
      values: NaN is left out.
      variance: of a value for want of records. That of the seeds, which shows it as well, counts as no less: seeds that
        agree exactly leave a width.
      bias: that all values may share.

    Returns:
      Mean, low, high (...); low and high are NaN with fewer than `MIN_SEEDS` seeds.
    """
    means, known = _mean(values, axis=-2), ~np.isnan(values)
    seeds = known.any(axis=-2).sum(axis=-1)
    mean = _mean(means, axis=-1)
    n = np.where(seeds >= MIN_SEEDS, seeds, np.nan)
    between = np.nansum((means - mean[..., None]) ** 2, axis=-1) / (n - 1)
    least = np.where(known, variance, 0).sum(axis=(-2, -1)) / np.maximum(known.sum(axis=(-2, -1)), 1)
    half = np.hypot(scipy.special.stdtrit(n - 1, 0.975) * np.sqrt(np.maximum(between, least) / n), bias)
    return mean, mean - half, mean + half


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is not NaN; NaN if nothing is."""
    number = (~np.isnan(values)).sum(axis=axis)
    return np.nansum(values, axis=axis) / np.where(number, number, np.nan)


def judge(located: Located) -> dict[str, np.ndarray]:
    """The statistics of the definitions above, and the answer.

    Args:
      located: arrays (..., cell, seed).

    Returns:
      Arrays (...): `lead`, `low`, `high`, `q`, `p`, `power`, `peak_spread` (standard deviation of the test error's peak
      in a cell), `seeds` of the largest cell, `cells` with at least two, `answer`.
    """
    lead, variance, test = located.measure_place - located.test_place, located.variance, located.test_smoothed
    smoothed = located.measure_smoothed - test
    count = (~np.isnan(lead)).sum(axis=-1)
    seeds, cells = count.max(axis=-1), (count > 1).sum(axis=-1)
    freedom = np.maximum(count - 1, 0).sum(axis=-1)
    left = np.minimum(peaks.LEFT * located.gap**3, 1) * (smoothed - lead)
    mean, low, high = interval(lead, variance, abs(interval(left)[0]))
    around, around_test = (np.nansum((x - _mean(x, -1)[..., None]) ** 2, axis=(-2, -1)) for x in (smoothed, test))
    q = around / np.where(around_test > 0, around_test, np.nan)
    p = p_value(q, seeds)
    peak_variance = around_test / np.where(freedom, freedom, np.nan)
    members = np.maximum(count.sum(axis=-1), 1)
    follows = np.sqrt(FOLLOWS**2 + np.nansum(variance, axis=(-2, -1)) / members)
    chance = power(peak_variance, seeds, freedom, follows)
    yes = (p <= SIGNIFICANCE) & (low >= -NEAR) & (high <= NEAR)
    no = (low > NEAR) | (high < -NEAR) | ((p > SIGNIFICANCE) & (chance >= POWER))
    return {
        "lead": mean,
        "low": low,
        "high": high,
        "q": q,
        "p": p,
        "power": chance,
        "peak_spread": np.sqrt(peak_variance),
        "seeds": seeds,
        "cells": cells,
        "answer": np.select([yes, no], ["yes", "no"], "could not have told"),
    }
