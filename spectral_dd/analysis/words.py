"""The numbers of this package as sentences and tables of text. Nothing is calculated here but means."""

from typing import Any

import numpy as np
import xarray as xr

from spectral_dd import cli, provenance
from spectral_dd.analysis.claim import DESCENDED, ENDED, EVENTS, NEEDS, SPECTRUM, VARIANTS, second_descents
from spectral_dd.analysis.curves import THRESHOLD, last_recorded
from spectral_dd.analysis.evidence import FOLLOWS, MIN_SEEDS, NEAR, POWER, RECORDS, SIGNIFICANCE, interval
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
    return aligned(summary_cells(table))


def aligned(cells: list[list[str]]) -> str:
    """Returns rows of text as lines with columns for the terminal."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(text.rjust(n) for text, n in zip(row, widths, strict=True)) for row in cells)


# The claim.

UNTOLD = "This sweep could not have told"
QUESTION = "Does the training set's spectrum indicate when the second descent of the test error starts?"
MEANING = (
    "Yes: over the seeds, the measure peaks when the second descent starts, that is where the test error peaks (the "
    f"95 % interval of its mean lead lies within {NEAR:g} decades, a factor of {10**NEAR:.0f} in epochs), and it "
    f"follows that peak from seed to seed more closely than any fixed epoch does (p at most {SIGNIFICANCE:g}). No: the "
    f"interval lies outside, or p is larger although the sweep finds a measure that follows the peak to {FOLLOWS:g} "
    f"decades in at least {POWER:.0%} of cases (power). Lead: + after the peak of the test error, - before; a measure "
    "without a peak counts with the end where it is highest, one without its event with the last record."
)


def answer(verdict: xr.Dataset, command: str = "") -> str:
    """The answer to `QUESTION` in one sentence, and a command that would do if the sweep could not have told.

    Args:
      verdict: what `verdict.verdict` returns.
      command: that made the sweep.
    """
    if SPECTRUM not in verdict["measure"]:
        return f"{UNTOLD}: it has no spectra. {_evaluate(command)}"
    row = verdict.sel(measure=SPECTRUM)
    if not row["members"]:
        return f"{UNTOLD}: {_nothing_tested(row, command)}"
    if row["answer"] == "yes":
        return (
            f"Yes. In {_count(int(row['members']), 'network')} of {_count(int(row['seeds']), 'seed')} the spectrum "
            f"peaks when the second descent starts ({_lead(row)}), and follows that from seed to seed more closely "
            f"than any fixed epoch does (p = {_p(row)})."
        )
    if row["answer"] == "no":
        return f"No. {_why_not(row)}"
    return f"{UNTOLD}: {_too_little(row, command)}"


def _nothing_tested(row: xr.Dataset, command: str) -> str:
    if row["untested"]:
        return (
            f"its {_count(int(row['untested']), 'network')} with a second descent have fewer than {RECORDS} spectra "
            f"around its start. {_evaluate(command)}"
        )
    if row["unfinished"]:
        return (
            f"no network has a second descent yet, {int(row['unfinished'])} are unfinished. The same command goes on."
        )
    number = int(sum(row[name] for name in (*ENDED, "diverged")))
    return (
        f"none of its {_count(number, 'network')} has a second descent, a rise and then a fall of the test error by "
        f"{100 * THRESHOLD:g} points. Larger --width, --label_noise or --epochs make one."
    )


def _why_not(row: xr.Dataset) -> str:
    members = _count(int(row["members"]), "network")
    if not row["found"]:
        return f"The spectrum has no peak in any of {members} with a second descent."
    if row["low"] > NEAR or row["high"] < -NEAR:
        return f"In {members} with a second descent the spectrum does not peak at its start ({_lead(row)})."
    return (
        f"In {members} with a second descent the spectrum does not follow its start from seed to seed: a fixed epoch "
        f"does as well (p = {_p(row)}; of measures that follow it, this sweep finds {float(row['power']):.0%})."
    )


def _too_little(row: xr.Dataset, command: str) -> str:
    seeds, needed = int(row["seeds"]), float(row["seeds_needed"])
    if seeds < MIN_SEEDS:
        more = _more_seeds(5 - seeds, command)
        return f"it has {_count(seeds, 'seed')} with a second descent, and needs {MIN_SEEDS}. {more}"
    if row["p"] <= SIGNIFICANCE:
        more = _more_seeds(max(10 - seeds, 5), command)
        return f"when the spectrum peaks is not certain enough ({_lead(row)}). {more}"
    spread = f"the starts of the second descent differ by {float(row['peak_spread']):.2f} decades between seeds"
    if np.isnan(needed):
        return f"{spread}, too little to tell what follows them from a fixed epoch."
    return (
        f"{spread}, and with {seeds} seeds a measure that follows them is found in {float(row['power']):.0%} of cases. "
        f"{_more_seeds(max(int(needed) - seeds, 1), command)}"
    )


def _lead(row: xr.Dataset) -> str:
    side = "after" if row["lead"] > 0 else "before"
    return (
        f"{abs(float(row['lead'])):.2f} decades {side} it, 95 % interval {float(row['low']):+.2f} to "
        f"{float(row['high']):+.2f}"
    )


def _p(row: xr.Dataset) -> str:
    return f"{float(row['p']):.2g}"


def _more_seeds(number: int, command: str) -> str:
    """Says how the sweep gets so many more seeds in the place that it is in."""
    flags = provenance.arguments(command)
    if not provenance.call(command):
        return f"Train it in the same directory with {number} more seeds and extend=True."
    given = dict(flags).get("seed", "0")
    have = cli.axis_values("seed", given)
    more = [seed for seed in range(number + len(have)) if seed not in have][:number]
    kept = [flag for flag in flags if flag[0] not in ("seed", "task_index", "task_count", "extend")]
    seeds = [("seed", ",".join([given, *map(str, more)])), ("extend", "")]
    return f"This would do: {provenance.shell(provenance.call(command), [*kept, *seeds])}"


def _evaluate(command: str) -> str:
    workdir = ("workdir", dict(provenance.arguments(command)).get("workdir", "DIR"))
    evaluate, indicate = (
        provenance.shell(provenance.call(command, verb) or ["spectral-dd", verb], [workdir, flag])
        for verb, flag in (("evaluate_spectrum", ("name", "all")), ("indicate", ("spectrum", "all")))
    )
    return f"This would do: {evaluate} && {indicate}"


def verdict_cells(verdict: xr.Dataset) -> list[list[str]]:
    """What `verdict.verdict` returns as text: a row of headings, then one for each measure."""
    rows = [["measure", "answer", "peaks in", "lead, decades", "p", "power", "noticed online", "false alarms"]]
    for name in map(str, verdict["measure"].values):
        row = verdict.sel(measure=name)
        number = {key: float(row[key]) for key in ("lead", "low", "high", "p", "power")}
        interval = f" ({number['low']:+.2f} to {number['high']:+.2f})" if np.isfinite(number["low"]) else ""
        counts = [
            f"{int(row[part])} of {int(row[whole])}" if row[whole] else "-"
            for part, whole in (("found", "members"), ("hits", "second_descent"), ("alarms", "no_descent"))
        ]
        rows.append(
            [
                name.replace("_", " ") + (" (event)" if name in EVENTS else ""),
                str(row["answer"].values),
                counts[0],
                f"{number['lead']:+.2f}{interval}" if np.isfinite(number["lead"]) else "-",
                f"{number['p']:.2g}" if np.isfinite(number["p"]) else "-",
                f"{number['power']:.0%}",
                *counts[1:],
            ]
        )
    return rows


def verdict_details(verdict: xr.Dataset, ds: xr.Dataset) -> list[str]:
    """What else there is to say, in plain sentences: members, the best baseline, slopes, what is not recorded, alarms.

    Args:
      verdict: what `verdict.verdict` returns of `ds`.
    """
    number = {name: int(verdict[name]) for name in (*ENDED, "diverged", "unfinished")}
    total, kind = sum(number.values()), second_descents(ds)["kind"]
    sentences = [
        f"Second descents of the test error in {_count(total, 'member')}: {number['strong']} strong, {number['weak']} "
        f"weak, {number['none']} none. Left out: {number['diverged']} diverged, {number['unfinished']} unfinished."
    ]
    sentences += _against_baselines(verdict) + _slopes(ds, kind)
    missing = [f"{name} (needs {', '.join(needs)})" for name, needs in NEEDS.items() if name not in verdict["measure"]]
    if missing:
        sentences.append(f"Not recorded, so not tested: {', '.join(missing)}.")
    for name in map(str, verdict["measure"].values):
        row = verdict.sel(measure=name)
        if row["untested"]:
            few = _count(int(row["untested"]), "member")
            sentences.append(f"{name}: not tested in {few} with fewer than {RECORDS} records around the peak.")
        if np.isfinite(row["notice_lead"]):
            when = f"{float(row['notice_lead']):+.2f} decades after (+) or before (-) the peak"
            sentences.append(f"{name}: noticed during training, in the median, {when}.")
        if row["quiet"]:
            quiet = f"{int(row['quiet_alarms'])} of {int(row['quiet'])} members without a second descent or label noise"
            sentences.append(f"{name}: false alarms in {quiet}.")
    return sentences + _untested_alarms(ds, kind)


def _against_baselines(verdict: xr.Dataset) -> list[str]:
    """The high-frequency ratio against the measure that comes nearest to the peak.

    It is chosen on the same members, which favours it: "farther" is to be read with that in mind.
    """
    rivals = verdict.isel(measure=~np.isin(verdict["measure"], (SPECTRUM, *VARIANTS)) & verdict["versus_low"].notnull())
    if not rivals.sizes["measure"]:
        return []
    row = rivals.isel(measure=int(rivals["versus"].argmax("measure")))
    low, high = float(row["versus_low"]), float(row["versus_high"])
    answer = "nearer than" if high < 0 else "farther than" if low > 0 else "not distinguishable from"
    return [
        f"Distance to the peak of the test error: {SPECTRUM} is {answer} {row['measure'].item()}, the best baseline "
        f"(chosen on the same members), ratio minus baseline {float(row['versus']):+.2f} decades (95 % interval "
        f"{low:+.2f} to {high:+.2f})."
    ]


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
    peak = float(descents["peak_epoch"].where(descents["kind"].isin(DESCENDED)).median())
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


def _mean(values: xr.DataArray) -> str:
    """Mean over seeds of values in [0, 1] with its interval, or why there is none."""
    by_seed = values.dropna("member").groupby("seed").mean().values
    mean, low, high = map(float, interval(by_seed[None]))
    certainty = f"95 % interval {max(low, 0):.2f} to {min(high, 1):.2f}"
    if len(by_seed) < MIN_SEEDS:
        certainty = f"{_count(len(by_seed), 'seed')}: no interval"
    return f"{mean:.2f} ({certainty})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
