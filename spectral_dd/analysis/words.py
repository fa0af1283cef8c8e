"""The numbers of this package as sentences and tables of text. Nothing is calculated here but means."""

from typing import Any

import numpy as np
import xarray as xr

from spectral_dd.analysis.claim import (
    ENDED,
    EVENTS,
    MIN_SEEDS,
    NEEDS,
    SIGNIFICANCE,
    SPECTRUM,
    compare,
    interval_over_seeds,
    lead,
    online_alarms,
    p_value,
    rank_correlation,
    second_descents,
    seed_means,
    shift_null,
    swap_null,
    training_measures,
)
from spectral_dd.analysis.curves import groups, last_recorded, setting_names
from spectral_dd.analysis.frequency import SLOPE_DOMINATED
from spectral_dd.analysis.memorisation import memorisation


def show(value: Any) -> str:
    """Returns the value of a `Config` field as text."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe(values: dict[str, Any]) -> str:
    """Returns a setting as text: 'label noise 0.1, train size 4000'."""
    return ", ".join(f"{name.replace('_', ' ')} {show(value)}" for name, value in values.items())


# The table.


def summary_cells(table: xr.Dataset) -> list[list[str]]:
    """Returns `curves.summary` as text: a row of headings, then the rows. Errors in per cent.

    '-' stands for what did not happen; '82 (1/3)' for what happened to one of three members, at epoch 82.
    """
    fields = [str(name) for name in table.coords if table[name].dims == ("row",)]
    columns = [[name.replace("_", " "), *map(show, table[name].values.tolist())] for name in fields]
    columns.append(["parameters", *(f"{n:,}" for n in table["parameters"].values)])
    everyone = table["members"] - table["diverged"]
    for heading, name, number, count in (
        ("best %", "best_error", "{:.1%}", everyone),
        ("peak %", "peak_error", "{:.1%}", table["double_descent"]),
        ("peak epoch", "peak_epoch", "{:.0f}", table["double_descent"]),
        ("final %", "final_error", "{:.1%}", everyone),
        ("final train %", "final_train_error", "{:.1%}", everyone),
        ("interpolation epoch", "interpolation_epoch", "{:.0f}", table["interpolating"]),
    ):
        cells = [heading]
        for value, n, of in zip(table[name].values, count.values, everyone.values, strict=True):
            share = f" ({n}/{of})" if n < of else ""
            cells.append("-" if np.isnan(value) else number.format(value).rstrip("%") + share)
        columns.append(cells)
    for name in ("members", "diverged", "unfinished"):
        if name == "members" or table[name].any():
            columns.append([name, *map(str, table[name].values)])
    return [list(row) for row in zip(*columns, strict=True)]


def format_summary(table: xr.Dataset) -> str:
    """Returns `curves.summary` as aligned lines for the terminal."""
    cells = summary_cells(table)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(text.rjust(n) for text, n in zip(row, widths, strict=True)) for row in cells)


# The claim.


def verdict(ds: xr.Dataset, first: int | None = None) -> list[str]:
    """Does a measure of the training set indicate when the second descent starts? In plain sentences.

    Args:
      ds: a data set as `load_results` returns it.
      first: the first high bin, as in `claim.training_measures`.

    Returns:
      The high-frequency ratio against the best baseline, or why that cannot be tested; what the members did; how far
      the spectra are those of straight lines; what is not recorded; the results of each measure; false alarms.

    Raises:
      ValueError: a spectrum has no bin from `first` on, or none below it.
    """
    measures = training_measures(ds, first)
    kind = second_descents(ds)["kind"]
    leads = lead(ds, measures)
    tested = bool(leads["test_epoch"].notnull().any())
    if tested:
        sentences = [_comparison(leads, measures)]
    else:
        sentences = ["No member has a second descent, so what indicates its start cannot be tested."]
    sentences += [_members(kind), *_slopes(ds, kind)]
    missing = [f"{name} (needs {', '.join(needs)})" for name, needs in NEEDS.items() if name not in measures]
    if missing:
        sentences.append(f"Not recorded, so not tested: {', '.join(missing)}.")
    correlations = rank_correlation(ds, measures)
    for name in map(str, measures) if tested else ():
        one = leads.sel(measure=name, drop=True)
        if not one["lead"].notnull().any():
            sentences.append(f"{name}: not recorded in any member with a second descent.")
            continue
        sentences += [f"{name}: {text}" for text in _timing(name, one)]
        sentences += [f"{name}: {text}" for text in _against_chance(one, measures[name])]
        sentences.append(f"{name}: {_correlation(correlations.sel(measure=name, drop=True))}")
    return sentences + _online(online_alarms(ds, measures)) + _untested_alarms(ds, kind)


def _comparison(leads: xr.Dataset, measures: xr.Dataset) -> str:
    """Better takes more than a smaller distance: a bad baseline is beaten by noise whose peaks lie in the middle."""
    try:
        result = compare(leads)
    except ValueError as error:
        return f"{SPECTRUM} cannot be compared with the baselines: {error}."
    if result is None:
        return f"{SPECTRUM} cannot be compared with the baselines: no member with a second descent has both."
    baseline, difference = result
    null = shift_null(leads.sel(measure=SPECTRUM, drop=True), measures[SPECTRUM])
    answer = "worse than" if difference.low > 0 else "not distinguishable from"
    if difference.high < 0 and 1 / len(null) > SIGNIFICANCE:
        answer = "not distinguishable from chance (too few recorded epochs), although closer than"
    elif difference.high < 0:
        answer = "better than" if p_value(null) <= SIGNIFICANCE else "no better than chance, although closer than"
    return (
        f"{SPECTRUM} is {answer} {baseline}, the best baseline (chosen on the same members). Distance to the peak of "
        f"the test error, ratio minus baseline: {difference.mean:+.2f} decades (95 % interval {difference.low:+.2f} "
        f"to {difference.high:+.2f}; {_count(difference.members, 'member')}, {_count(difference.seeds, 'seed')})."
    )


def _members(kind: xr.DataArray) -> str:
    number = {k: int((kind == k).sum()) for k in (*ENDED, "diverged", "unfinished")}
    return (
        f"Second descents of the test error in {_count(kind.size, 'member')}: {number['strong']} strong, "
        f"{number['weak']} weak, {number['none']} none. Left out: {number['diverged']} diverged, "
        f"{number['unfinished']} unfinished."
    )


def _slopes(ds: xr.Dataset, kind: xr.DataArray) -> list[str]:
    """How many raw spectra are those of straight lines, see `frequency.slope_share`."""
    if "slope_share" not in ds:
        return []
    share = ds["slope_share"].sel(split="train").where(kind.isin(ENDED))
    share = share.isel(epoch=np.flatnonzero(ds["epoch"] > 0))
    number = int(share.count())
    if not number:
        return []
    dominated = int((share > SLOPE_DOMINATED).sum()) / number
    return [
        f"The slope dominates {dominated:.0%} of {number} training spectra: their raw ratio is the slope against the "
        "mean output."
    ]


def _timing(name: str, leads: xr.Dataset) -> list[str]:
    """What is known of the lead of one measure."""
    known = leads.isel(member=np.flatnonzero(leads["lead"].notnull()))
    what, instead = ("event", "last epoch") if name in EVENTS else ("peak", "higher end of the curve")
    members, seeds = known.sizes["member"], len(np.unique(known["seed"]))
    absent = int((~known["found"]).sum())
    return [
        f"{_count(members, 'member')} of {_count(seeds, 'seed')}; {absent} without {what} count with the {instead}.",
        f"{what} after (+) or before (-) the peak of the test error by {_mean(known['lead'], '+', ' decades')}.",
        f"distance to that peak in either direction: {_mean(abs(known['lead']), unit=' decades')}.",
    ]


def _against_chance(leads: xr.Dataset, curve: xr.DataArray) -> list[str]:
    texts = []
    for null, changed, too_few in (
        (shift_null(leads, curve), "shifted in epoch", "recorded epochs"),
        (swap_null(leads), "exchanged between seeds", "seeds"),
    ):
        if not null.size:
            texts.append(f"too few {too_few} at one width to compare it with its curves {changed}.")
            continue
        p, least = p_value(null), 1 / len(null)
        answer = f"{'closer' if p <= SIGNIFICANCE else 'no closer'} to the peak than its curves {changed}"
        if least > SIGNIFICANCE:
            answer = f"too few {too_few} to tell it from its curves {changed}"
        texts.append(f"{answer} (p = {p:.2g}, least possible {least:.2g}).")
    return texts


def _correlation(correlation: xr.DataArray) -> str:
    means = mean_by_width(correlation)
    if not means:
        return "no rank correlation with the test error: too few epochs after its first minimum, or a constant curve."
    parts = [f"{mean:+.2f} at {describe(key)}" for key, mean in means]
    return f"rank correlation with the test error after its first minimum: {'; '.join(parts)}."


def mean_by_width(values: xr.DataArray) -> list[tuple[dict[str, Any], float]]:
    """Means over the members of one width and setting, not over widths: (width and setting, mean), NaN left out.

    Args:
      values: (member,) with the coordinates of `load_results`.
    """
    ds = values.to_dataset(name="value")
    parts = groups(ds, [*setting_names(ds), "width"])
    means = [(key, float(part["value"].mean())) for key, part in parts]
    return [(key, mean) for key, mean in means if not np.isnan(mean)]


def _online(alarms: xr.Dataset) -> list[str]:
    """What would have been said during training, from `claim.online_alarms`."""
    texts = []
    for name in alarms["measure"].values:
        row = alarms.sel(measure=name)
        if row["second_descent"]:
            median = float(row["notice_lead"])
            when = "" if np.isnan(median) else f", in the median {median:+.2f} decades after (+) or before (-) the peak"
            noticed = f"{int(row['hits'])} of {int(row['second_descent'])} second descents"
            texts.append(f"{name}: noticed {noticed} during training{when}.")
        if row["no_descent"]:
            quiet = f" ({int(row['quiet_alarms'])} of {int(row['quiet'])} without label noise)" if row["quiet"] else ""
            false = f"{int(row['alarms'])} of {int(row['no_descent'])} members without a second descent"
            texts.append(f"{name}: false alarms in {false}{quiet}.")
    return texts


def _untested_alarms(ds: xr.Dataset, kind: xr.DataArray) -> list[str]:
    ended = kind.isin(ENDED)
    without_noise = ended & (ds["label_noise"] == 0)
    if not ended.any():
        return []
    if not (kind == "none").any():
        return ["Every member has a second descent: false alarms cannot be tested."]
    if not without_noise.any():
        return ["No member is without label noise: false alarms there cannot be tested."]
    if not (without_noise & (kind == "none")).any():
        return ["Every member without label noise has a second descent: false alarms there cannot be tested."]
    return []


# Memorisation.


def memorisation_in_words(ds: xr.Dataset, first: int | None = None) -> list[str]:
    """A heading, and a line for each measure of `memorisation`: its mean where the test error peaks, and at the end.

    Both places are fixed beforehand: the recorded epoch of the measure that is nearest (in log epochs) to the median
    peak of the test error of members with a second descent, if there are any; and each member's last. Means over seeds,
    of members that neither diverged nor are unfinished.
    """
    descents = second_descents(ds)
    auc = memorisation(ds, first)
    if "note" in auc.attrs:
        return [f"Detection of relabelled examples: {auc.attrs['note']}."]
    peak = float(descents["peak_epoch"].where(descents["kind"].isin(("weak", "strong"))).median())
    at_peak = "" if np.isnan(peak) else f" The median peak of the test error is at epoch {peak:g}."
    lines = [f"AUC (chance: 0.5) of telling relabelled training examples from the others.{at_peak}"]
    for name, values in auc.where(descents["kind"].isin(ENDED)).items():
        curve = values.isel(epoch=np.flatnonzero(values["epoch"] > 0)).dropna("epoch", how="all")
        if not curve.size:
            continue
        last = last_recorded(curve)
        places = [f"{_mean(last)} at the end"]
        if at_peak:
            at = curve.isel(epoch=int(abs(np.log(curve["epoch"]) - np.log(peak)).argmin("epoch")))
            places.insert(0, f"{_mean(at)} at epoch {int(at['epoch'])}")
        lines.append(f"{name}: {', '.join(places)}; {_count(int(last.count()), 'member')}.")
    return lines if len(lines) > 1 else []


# Parts of sentences.


def _mean(values: xr.DataArray, sign: str = "", unit: str = "") -> str:
    """Mean over seeds with its interval, or why there is none."""
    seeds, means = seed_means(values)
    if len(seeds) < MIN_SEEDS:
        certainty = f"{_count(len(seeds), 'seed')}: no interval"
    else:
        interval = interval_over_seeds(values)
        certainty = f"95 % interval {interval.low:{sign}.2f} to {interval.high:{sign}.2f}"
    return f"{means.mean():{sign}.2f}{unit} ({certainty})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
