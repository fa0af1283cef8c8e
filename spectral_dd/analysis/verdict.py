"""The claim of arXiv 2004.13954, tested over a sweep: does the spectrum, calculated from the training set only,
indicate when the second descent of the test error starts? Numbers only; the sentences are in `words.py`, what yes and
no mean in `evidence.py`.
"""

import functools
from typing import Any

import numpy as np
import xarray as xr

from spectral_dd.analysis.claim import (
    DESCENDED,
    ENDED,
    EVENTS,
    SPECTRUM,
    online_alarms,
    second_descents,
    training_measures,
)
from spectral_dd.analysis.curves import group_numbers, group_places, setting_names
from spectral_dd.analysis.evidence import FOLLOWS, MIN_SEEDS, POWER, Located, interval, judge, locate, power

MOST_SEEDS = 50
# Variables of `verdict`: unit and meaning.
MEANING = {
    "answer": ("", "does the measure indicate when the second descent starts?"),
    "lead": ("decades", "mean lead over seeds; positive: after the peak of the test error"),
    "low": ("decades", "lower end of the 95 % interval of the lead"),
    "high": ("decades", "upper end of the 95 % interval of the lead"),
    "q": ("1", "variance of the lead within cells, over that of the test error's peak"),
    "p": ("1", "that the measure knows nothing of the member, two-sided"),
    "power": ("1", "how often this sweep finds a measure that follows the peak"),
    "peak_spread": ("decades", "standard deviation over seeds of the test error's peak"),
    "seeds": ("seeds", "tested in the cell with the most"),
    "cells": ("cells", "width and setting, with at least two seeds tested"),
    "seeds_needed": ("seeds", "that give enough power, if their peaks spread as these"),
    "members": ("members", "tested"),
    "found": ("members", "tested, where the measure has a peak or its event"),
    "untested": ("members", "with a second descent, but too few records of the measure around it"),
    "versus": (
        "decades",
        "distance of the high-frequency ratio from the test error's peak, minus that of this measure",
    ),
    "versus_low": ("decades", "lower end of its 95 % interval"),
    "versus_high": ("decades", "upper end of its 95 % interval"),
    "strong": ("members", "whose second descent ends below the first minimum"),
    "weak": ("members", "whose second descent ends above the first minimum"),
    "none": ("members", "without a second descent"),
    "diverged": ("members", "left out, because they diverged"),
    "unfinished": ("members", "left out, because they are unfinished"),
    "second_descent": ("members", "with a second descent and the measure"),
    "hits": ("members", "whose second descent the online detector noticed"),
    "no_descent": ("members", "without a second descent, with the measure"),
    "alarms": ("members", "of these, in which the online detector noticed one"),
    "quiet": ("members", "without a second descent and without label noise, with the measure"),
    "quiet_alarms": ("members", "of these, in which the online detector noticed one"),
    "notice_lead": ("decades", "median of the notice after the test error's peak"),
}


def leads(ds: xr.Dataset, measures: xr.Dataset) -> xr.Dataset:
    """`locate` for the members and measures of a sweep.

    Args:
      ds: a data set as `load_results` returns it.
      measures: what `training_measures` returns of it.

    Returns:
      The fields of `Located`, (measure, member). Epoch 0 has no logarithm and indicates nothing; values of a measure
      with a peak that are not positive and finite are passed over.
    """
    found = second_descents(ds)
    peak = found["peak_epoch"].where(found["kind"].isin(DESCENDED))
    # A field of the members has the name of the dimension here.
    coordinates = ds["diverged"].drop_vars("measure", errors="ignore").coords
    columns = zip(*(_leads(ds["test_error"], curve, np.log10(peak.values)) for curve in measures.values()), strict=True)
    fields = {
        name: (("measure", "member"), np.stack(rows)) for name, rows in zip(Located._fields, columns, strict=True)
    }
    return xr.Dataset(fields, {"measure": [str(name) for name in measures]}).assign_coords(coordinates)


def _leads(test_error: xr.DataArray, curve: xr.DataArray, peak: np.ndarray) -> Located:
    level = EVENTS.get(str(curve.name))
    places = np.log10(np.maximum(curve["epoch"].values, 0.1))
    values, error = (np.asarray(x.transpose("member", "epoch").values, float) for x in (curve, test_error))
    own, own_error = np.isfinite(values) & (places >= 0), ~np.isnan(error) & (places >= 0)
    if level is None:
        own &= values > 0
    result = Located(*(np.full(len(peak), np.nan) for _ in Located._fields))
    # Members with the same records, at once.
    patterns = np.concatenate([own, own_error], axis=1)
    for pattern in np.unique(patterns[(own.sum(axis=1) > 1) & ~np.isnan(peak)], axis=0):
        rows = (patterns == pattern).all(axis=1) & ~np.isnan(peak)
        at, at_error = np.split(pattern, 2)
        located = locate(values[rows][:, at], places[at], error[rows][:, at_error], places[at_error], peak[rows], level)
        for whole, part in zip(result, located, strict=True):
            whole[rows] = part
    return result._replace(found=result.found == 1)


def verdict(ds: xr.Dataset, first: int | None = None) -> xr.Dataset:
    """Does a measure of the training set indicate when the second descent of the test error starts?

    Args:
      ds: a data set as `load_results` returns it.
      first: the first high bin, as in `claim.training_measures`.

    Returns:
      Along `measure` (the claim's is `high_frequency_ratio`): `answer`, "yes", "no" or "could not have told", as the
      first lines of this module define it, and what it rests on: `lead` with its interval `low` to `high`, decades,
      positive: after the peak of the test error; `p`; `power`; `q`; `members` tested, those with a peak or event among
      them (`found`), `untested` with too few records; `seeds` and `cells`; `peak_spread` of the test error; `versus`
      with its interval; `seeds_needed`; and the counts of `claim.online_alarms`. Scalars: the numbers of members by
      kind: `strong`, `weak`, `none`, `diverged`, `unfinished`. The attribute `long_name` of each says what it is.

    Raises:
      ValueError: a spectrum has no bin from `first` on, or none below it.
    """
    measures = training_measures(ds, first)
    kind = second_descents(ds)["kind"]
    located = leads(ds, measures)
    judged = judge(Located(**by_cell(located)))
    members = located["test_place"].notnull().sum("member")
    variables: dict[str, Any] = {name: ("measure", values) for name, values in (judged | _versus(located)).items()}
    variables |= {
        "seeds_needed": ("measure", _seeds_needed(judged["peak_spread"], judged["cells"])),
        "members": members,
        "found": located["found"].sum("member"),
        "untested": int(kind.isin(DESCENDED).sum()) - members,
        **{name: int((kind == name).sum()) for name in (*ENDED, "diverged", "unfinished")},
    }
    result = xr.Dataset(variables, {"measure": located["measure"]}).merge(online_alarms(ds, measures))
    for name, variable in result.data_vars.items():
        unit, long_name = MEANING[str(name)]
        variable.attrs = {"units": unit, "long_name": long_name}
    return result


def by_cell(located: xr.Dataset) -> dict[str, np.ndarray]:
    """Variables (measure, member) as arrays (measure, cell, seed), NaN or False where there is no member."""
    located = located.drop_vars("measure")
    cells = group_places(located, [*setting_names(located), "width"])
    cell = group_numbers(cells)
    seeds, column = np.unique(located["seed"], return_inverse=True)
    arrays = {}
    for name, values in located.data_vars.items():
        empty = np.zeros if values.dtype == bool else functools.partial(np.full, fill_value=np.nan)
        array = empty((located.sizes["measure"], len(cells), len(seeds)))
        array[:, cell, column] = values.transpose("measure", "member").values
        arrays[str(name)] = array
    return arrays


def _versus(located: xr.Dataset) -> dict[str, np.ndarray]:
    """How much farther from the test error's peak the spectrum indicates than each measure, in the same members."""
    names = ("versus", "versus_low", "versus_high")
    if SPECTRUM not in located["measure"]:
        return dict.fromkeys(names, np.full(located.sizes["measure"], np.nan))
    distance = abs(located["measure_place"] - located["test_place"])
    farther = (distance.sel(measure=SPECTRUM, drop=True) - distance).to_dataset(name="farther")
    variance = (located["variance"].sel(measure=SPECTRUM, drop=True) + located["variance"]).to_dataset(name="variance")
    return dict(zip(names, interval(by_cell(farther)["farther"], by_cell(variance)["variance"]), strict=True))


def _seeds_needed(peak_spread: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """How many seeds give the power `POWER`, if their peaks spread as these; NaN: more than `MOST_SEEDS`."""
    seeds = np.arange(MIN_SEEDS, MOST_SEEDS + 1)
    chance = power(peak_spread[:, None] ** 2, seeds, (seeds - 1) * np.maximum(cells, 1)[:, None], np.array(FOLLOWS))
    enough = chance >= POWER
    return np.where(enough.any(axis=1), seeds[enough.argmax(axis=1)], np.nan)
