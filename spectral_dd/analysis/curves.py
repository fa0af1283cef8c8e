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

from spectral_dd.analysis.alike import alike
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
    return [(values, ds.isel({dim: places})) for values, places in group_places(ds, names, dim)]


def group_places(ds: xr.Dataset, names: Sequence[str], dim: str = "member") -> list[tuple[dict[str, Any], list[int]]]:
    """`groups` with the places of the members along `dim`."""
    found: dict[tuple[Any, ...], list[int]] = {}
    keys = zip(*(ds[name].values.tolist() for name in names), strict=True) if names else [()] * ds.sizes[dim]
    for place, key in enumerate(keys):
        found.setdefault(key, []).append(place)
    return [(dict(zip(names, key, strict=True)), found[key]) for key in sorted(found)]


def group_numbers(groups: Sequence[tuple[Any, list[int]]]) -> np.ndarray:
    """The number, in `group_places`, of the group that each place is in."""
    numbers = np.empty(sum(len(places) for _, places in groups), int)
    for number, (_, places) in enumerate(groups):
        numbers[places] = number
    return numbers


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

    ordered = curve.transpose(..., "epoch")
    values = ordered.values.reshape(-1, ordered.sizes["epoch"]).astype(np.float64)
    smoothed, own = np.full(values.shape, np.nan), ~np.isnan(values)

    # Not pandas' `rolling`: its running sum loses what is small after what is large, and measures span many decades.
    def window_sum(values: np.ndarray) -> np.ndarray:
        padded = np.pad(values, [(0, 0), (WINDOW // 2, WINDOW // 2)])
        return np.sum([padded[:, i : i + values.shape[1]] for i in range(WINDOW)], axis=0)

    for curves, records in alike(own):
        rows = np.ix_(curves, records)
        smoothed[rows] = window_sum(values[rows]) / window_sum(np.ones((1, len(records))))
    return ordered.copy(data=smoothed.reshape(ordered.shape)).transpose(*curve.dims)


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
    ordered = smoothed.transpose(..., "epoch")
    flat = ordered.values.reshape(-1, ordered.sizes["epoch"])
    some = range(0, max(1, len(flat)), _AT_ONCE)
    values = np.concatenate([_descents(flat[i : i + _AT_ONCE], ordered["epoch"].values) for i in some])
    of_curves = ordered.isel(epoch=0, drop=True)
    columns = zip(names, values.T.reshape(-1, *of_curves.shape), strict=True)
    found = {name: of_curves.copy(data=column) for name, column in columns}
    return xr.Dataset({name: v.astype(int) if name.endswith("_epoch") else v for name, v in found.items()})


# Curves, whose pairs of epochs are compared.
_AT_ONCE = 256


def _descents(error: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    """`descents` of curves (curve, epoch): (curve, name)."""
    curve, place = np.arange(len(error)), np.arange(len(epochs))
    start = np.fmax.accumulate(error, axis=1)
    after = np.fmin.accumulate(error[:, ::-1], axis=1)[:, ::-1]
    # By best before and peak.
    falls_and_rises = np.minimum((start - error)[:, :, None], error[:, None] - error[:, :, None])
    falls_and_rises = np.triu(np.nan_to_num(falls_and_rises))
    smallest = np.minimum(falls_and_rises.max(axis=1), np.nan_to_num(error - after))
    peak = smallest.argmax(axis=1)
    before = falls_and_rises[curve, :, peak].argmax(axis=1)
    last = np.where((place >= peak[:, None]) & ~np.isnan(error), error, np.inf).argmin(axis=1)
    at = {"before": error[curve, before], "peak": error[curve, peak], "last": error[curve, last]}
    sizes = [start[curve, before] - at["before"], at["peak"] - at["before"], at["peak"] - at["last"]]
    found = np.stack([*sizes, *at.values(), epochs[before], epochs[peak], epochs[last]], axis=1)
    found[smallest[curve, peak] <= 0] = [0.0] * 3 + [np.nan] * 3 + [-1] * 3
    found[np.isnan(error).all(axis=1)] = [np.nan] * 6 + [-1] * 3
    return found


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
            "unfinished": unfinished(ds),
        },
        coords=ds["diverged"].coords,
    )


def unfinished(ds: xr.Dataset) -> xr.DataArray:
    """Returns (member,): it neither diverged nor has its last epoch."""
    last_epoch = ds["epoch"].where(ds["test_error"].notnull(), -1).max("epoch")
    wanted = ds["epochs"] if "epochs" in ds.coords else ds["epoch"].max()
    return (ds["diverged"] < 0) & (last_epoch < wanted)


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
    names = [*setting_names(ds), "width"]
    rows = group_places(found, names)
    row = group_numbers(rows)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(row, values, len(rows))

    table: dict[str, Any] = {"parameters": ds["parameters"].values[[places[0] for _, places in rows]]}
    for name in ("best_error", "final_error", "final_train_error", "interpolation_epoch", "peak_error", "peak_epoch"):
        values, there = found[name].values, found[name].notnull().values
        with np.errstate(invalid="ignore"):
            table[name] = total(np.where(there, values, 0)) / total(there)
    for name in ("members", "interpolating", "double_descent", "diverged", "unfinished"):
        table[name] = total(found[name].values).astype(int)
    coordinates = {name: ("row", np.array([values[name] for values, _ in rows])) for name in names}
    return xr.Dataset({name: ("row", values) for name, values in table.items()}, coordinates)


def interpolation_width(table: xr.Dataset) -> int | None:
    """Returns the interpolation threshold in width: the smallest whose mean final training error is <= `TOLERANCE`.

    Args:
      table: `summary` of one setting (members that differ in width and seed alone).

    Returns:
      The width, or None if no width interpolates.
    """
    widths = table["width"].values[table["final_train_error"].values <= TOLERANCE]
    return int(widths.min()) if widths.size else None
