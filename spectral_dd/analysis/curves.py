"""Error curves -> interpolation, double descent, statistics over seeds. Spectra are in `frequency.py`.

The definitions, used by the table and every figure of the report:

- *Error* is a share in [0, 1]; a *point* is 0.01. "Final" is the last recorded epoch of a member, "best" the
  lowest recorded value.
- A network *interpolates* when its error on the training set, with the labels trained on, is at most
  `TOLERANCE`. The *interpolation threshold* in width is the smallest width that does so in the end.
- *Double descent* over epochs: the smoothed test error falls, rises and falls again, each time by at least
  `THRESHOLD` (`descents`). The second descent starts at the peak between them.
- That second descent is *strong* if the error after the peak falls below the first minimum, *weak* if it stays
  at or above it (`second_descent`).
- Statistics are means over the members that differ in nothing but seeds. Members that diverged are counted
  but not averaged: what they computed before says nothing about how they would have ended.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from spectral_dd.analysis.online import WINDOW
from spectral_dd.config import FIELDS

# One wrong example in a hundred. Exactly zero would miss networks that memorised everything: at a constant
# learning rate single examples keep flipping. It lies far below any label noise worth studying, so that a
# network which only learned the clean examples does not count. (The definition of Nakkiran et al., arXiv
# 1912.02292, has the same free constant; they use 0.1 with up to 20 % noise.)
TOLERANCE = 0.01

# Three points: above the wiggles between neighbouring recorded epochs, below the double descents of the literature.
THRESHOLD = 0.03


def varying(ds: xr.Dataset) -> list[str]:
    """Returns the `Config` fields in which the members differ, in the order of `Config`; `sweep` first, if they do."""
    return [
        name for name in ("sweep", *FIELDS) if name in ds.coords and len(set(ds[name].values.reshape(-1).tolist())) > 1
    ]


def groups(ds: xr.Dataset, names: Sequence[str], dim: str = "member") -> list[tuple[dict[str, Any], xr.Dataset]]:
    """Splits the members by the values of the coordinates `names` along `dim`.

    Returns (values by name, the members that have them) for each combination that occurs, sorted; all members
    as one group where `names` is empty; nothing where there are no members.
    """
    keys = list(zip(*(ds[name].values.tolist() for name in names), strict=True)) if names else [()] * ds.sizes[dim]
    return [
        (dict(zip(names, key, strict=True)), ds.isel({dim: [i for i, k in enumerate(keys) if k == key]}))
        for key in sorted(set(keys))
    ]


def setting_names(ds: xr.Dataset) -> list[str]:
    """Returns what varies beside width and seeds (label noise, size of the training set ...).

    Members that agree on all of it are of one *setting*; widths are compared within a setting.
    """
    return [name for name in varying(ds) if name != "width" and not name.endswith("seed")]


def smooth(curve: xr.DataArray) -> xr.DataArray:
    """Centred moving average over `WINDOW` neighbouring recorded epochs.

    Recorded epochs are log-spaced, so the window is one in log epochs. It is shorter at the ends. Neighbours are
    those that the curve itself has: NaN, such as an epoch that only other members recorded, is passed over and
    remains NaN.

    Args:
      curve: (..., epoch).
    """

    # Not pandas' `rolling`: its running sum loses what is small after what is large, and measures span many decades.
    def window_sum(values: np.ndarray) -> np.ndarray:
        return np.convolve(values, np.ones(WINDOW))[WINDOW // 2 : -(WINDOW // 2)]

    def smooth_one(values: np.ndarray) -> np.ndarray:
        smoothed, own = np.full(len(values), np.nan), ~np.isnan(values)
        if own.any():
            smoothed[own] = window_sum(values[own]) / window_sum(np.ones(own.sum()))
        return smoothed

    return xr.apply_ufunc(smooth_one, curve, input_core_dims=[["epoch"]], output_core_dims=[["epoch"]], vectorize=True)


def interpolation_epoch(train_error: xr.DataArray) -> xr.DataArray:
    """Returns (...): the first recorded epoch at which the training error is at most `TOLERANCE`; -1: never.

    Args:
      train_error: (..., epoch), in [0, 1], with the labels trained on.
    """
    reached = train_error <= TOLERANCE
    ever = reached.any("epoch")
    first = train_error["epoch"].values[reached.argmax("epoch")]
    return ever.copy(data=np.where(ever, first, -1)).rename("interpolation_epoch")


def descents(test_error: xr.DataArray) -> xr.Dataset:
    """Finds the fall, rise and second fall of each curve, smoothed with `smooth`.

    Of all (start, best before, peak, best after) in this order it takes those that maximise the smallest of the
    three differences between neighbours, the earliest if several do. A curve that does not fall, rise and fall has
    first_fall = rise = fall = 0 and nothing else: errors NaN, epochs -1.

    Args:
      test_error: (..., epoch), in [0, 1]; NaN is skipped.

    Returns:
      Variables of dimensions (...): `first_fall` = start - best before, `rise` = peak - best before, `fall` =
      peak - best after (NaN where the whole curve is); `before_error`, `peak_error`, `after_error`;
      `before_epoch`, `peak_epoch`, `after_epoch`.
    """
    # Rounded, because means of equal numbers differ in the last bits: a constant curve must have no peak.
    smoothed = smooth(test_error.astype(np.float64)).round(12)
    sizes = ("first_fall", "rise", "fall")
    names = (*sizes, "before_error", "peak_error", "after_error", "before_epoch", "peak_epoch", "after_epoch")
    values = xr.apply_ufunc(
        _descents,
        smoothed,
        smoothed["epoch"],
        input_core_dims=[["epoch"], ["epoch"]],
        output_core_dims=[[]] * len(names),
        vectorize=True,
    )
    return xr.Dataset(dict(zip(names, values, strict=True)))


def _descents(error: np.ndarray, epochs: np.ndarray) -> tuple[Any, ...]:
    """`descents` of one curve, (epoch,)."""
    if np.isnan(error).all():
        return (np.nan,) * 6 + (-1,) * 3
    start = np.fmax.accumulate(error)
    after = np.fmin.accumulate(error[::-1])[::-1]
    falls_and_rises = np.minimum((start - error)[:, None], error - error[:, None])  # by best before and peak
    falls_and_rises = np.triu(np.nan_to_num(falls_and_rises))
    smallest = np.minimum(falls_and_rises.max(axis=0), np.nan_to_num(error - after))
    peak = int(smallest.argmax())
    if smallest[peak] <= 0:
        return (0.0,) * 3 + (np.nan,) * 3 + (-1,) * 3
    before, last = int(falls_and_rises[:, peak].argmax()), peak + int(np.nanargmin(error[peak:]))
    first_fall, rise, fall = start[before] - error[before], error[peak] - error[before], error[peak] - error[last]
    return (
        *(first_fall, rise, fall),
        *(error[before], error[peak], error[last]),
        *(epochs[before], epochs[peak], epochs[last]),
    )


def is_double_descent(found: xr.Dataset) -> xr.DataArray:
    """Returns (...) bool: both falls and the rise, as `descents` found them, are at least `THRESHOLD`."""
    # A difference such as 0.10 - 0.07 lies below 0.03 in floating point.
    smallest = found[["first_fall", "rise", "fall"]].to_array().min("variable")
    return smallest.round(9) >= THRESHOLD


def second_descent(found: xr.Dataset) -> xr.DataArray:
    """Returns (...) of "none", "weak" and "strong": the kind of the second descent that `descents` found.

    none: no double descent (`is_double_descent`); strong: the error after the peak falls below the first minimum;
    weak: it does not.
    """
    below = (found["before_error"] - found["after_error"]).round(9) > 0
    return xr.where(below, "strong", "weak").where(is_double_descent(found), "none").rename("second_descent")


def measured(values: xr.DataArray, dim: str) -> np.ndarray:
    """Returns the places along `dim` where anything is recorded (not NaN)."""
    return np.flatnonzero(values.notnull().any([d for d in values.dims if d != dim]))


def last_recorded(curve: xr.DataArray) -> xr.DataArray:
    """Returns (...): the last value of each curve (..., epoch) that is not NaN, or NaN."""
    return curve.isel(epoch=curve.notnull().cumsum("epoch").argmax("epoch")).drop_vars("epoch")


def statistics(ds: xr.Dataset) -> xr.Dataset:
    """What happened to each member.

    Args:
      ds: a data set as `load_results` returns it.

    Returns:
      Variables along `member`: `best_error`, `final_error` of the test set and `final_train_error`;
      `interpolation_epoch` (NaN: never); `double_descent`; `peak_error`, `peak_epoch` (NaN without double descent);
      `diverged`; `unfinished`, true if it neither diverged nor has its last epoch. Errors and epochs are NaN for
      members that diverged.
    """
    diverged = ds["diverged"] >= 0
    found = descents(ds["test_error"])
    double_descent = is_double_descent(found) & ~diverged
    reached = interpolation_epoch(ds["train_error"])
    last_epoch = ds["epoch"].where(ds["test_error"].notnull(), -1).max("epoch")
    wanted = ds["epochs"] if "epochs" in ds.coords else ds["epoch"].max()
    return xr.Dataset(
        {
            "best_error": ds["test_error"].min("epoch").where(~diverged),
            "peak_error": found["peak_error"].where(double_descent),
            "peak_epoch": found["peak_epoch"].where(double_descent),
            "final_error": last_recorded(ds["test_error"]).where(~diverged),
            "final_train_error": last_recorded(ds["train_error"]).where(~diverged),
            "interpolation_epoch": reached.where((reached >= 0) & ~diverged),
            "double_descent": double_descent,
            "diverged": diverged,
            "unfinished": ~diverged & (last_epoch < wanted),
        },
        coords=ds["diverged"].coords,
    )


def summary(ds: xr.Dataset) -> xr.Dataset:
    """Means over seeds: a row for each width, within each setting where other fields vary as well.

    Args:
      ds: a data set as `load_results` returns it.

    Returns:
      Dimension `row`; coordinates `width` and each other field that varies (not `seed`). Variables: `parameters`;
      the means over members of `best_error`, `final_error`, `final_train_error`; of `interpolation_epoch` over the
      members that interpolate, of `peak_error` and `peak_epoch` over those with double descent (NaN: none); the
      numbers of `members` and, among them, of `interpolating`, `double_descent`, `diverged`, `unfinished`.
    """
    found = statistics(ds)
    found["interpolating"] = found["interpolation_epoch"].notnull()
    found["members"] = xr.ones_like(found["diverged"], int)
    counts = ["members", "interpolating", "double_descent", "diverged", "unfinished"]
    rows = [
        members.mean("member")
        .assign(members[counts].sum("member"))
        .assign(parameters=members["parameters"].values[0])
        .assign_coords(values)
        for values, members in groups(found, [*setting_names(ds), "width"])
    ]
    return xr.concat(rows, "row", coords="all")


def interpolation_width(table: xr.Dataset) -> int | None:
    """Returns the interpolation threshold in width: the smallest whose mean final training error is <= `TOLERANCE`.

    Args:
      table: `summary` of one setting (members that differ in width and seed alone).

    Returns:
      The width, or None if no width interpolates.
    """
    widths = table["width"].values[table["final_train_error"].values <= TOLERANCE]
    return int(widths.min()) if widths.size else None
