"""The claim of arXiv 2004.13954, tested over a sweep: does the spectrum, calculated from the training set only,
indicate when the second descent of the test error starts? NumPy, SciPy and xarray only; nothing here draws.

The definitions, beside those of `indicator.py`:

- A *measure* is a curve over epochs, computed from the training set alone (`training_measures`). It *indicates* the
  epoch of its most prominent peak, or of its event: `EVENTS` has the measures that have one. A curve without a peak
  counts with the end where it is highest, an event that does not come with the last recorded epoch: to leave such
  members out would favour measures that rarely have anything to say. They are counted.
- *Lead*: log10 of the indicated epoch minus log10 of the epoch where the test error peaks, in decades; positive is
  later. Epoch 0 has no logarithm and indicates nothing.
- Means and their 95 % intervals are over seeds, Student's t of the means of the seeds (`interval_over_seeds`): the
  members of a seed share the data, the noise and the order of examples.
- *p*: the share of arrangements in which the measure is at least as close to the peak of the test error (mean |lead|
  over members), the one observed among them. It cannot be below one over their number.
- Members that diverged or are unfinished are left out and counted. Random draws depend on an argument `seed` alone.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
import xarray as xr

from spectral_dd import indicator
from spectral_dd.indicator import PROMINENCE, THRESHOLD, TOLERANCE

SPECTRUM = "high_frequency_ratio"
# Measures that have an event, and whether a value of the curve is it.
EVENTS: dict[str, Callable[[xr.DataArray], xr.DataArray]] = {
    "noisy_fit": lambda noisy_error: noisy_error < 0.5,
    "interpolation": lambda train_error: train_error <= TOLERANCE,
}
# Other ways to read the same spectrum: tested, but no baselines.
VARIANTS = ("residual_ratio",)
# What `training_measures` needs for each.
NEEDS = {
    SPECTRUM: ("energy",),
    "residual_ratio": ("energy", "residual_energy"),
    "jacobian_ratio": ("jacobian_norm", "logit_norm"),
    "optimization_variance": ("optimization_variance",),
    "noisy_fit": ("noisy_error",),
    "interpolation": ("train_error",),
}
# Kinds of members that are not left out.
ENDED = ("none", "weak", "strong")
MIN_SEEDS = 3
SIGNIFICANCE = 0.05


class Interval(NamedTuple):
    """A mean over seeds and its 95 % interval; `members` and `seeds`: those with a value."""

    mean: float
    low: float
    high: float
    members: int
    seeds: int


# Measures, and when they indicate the start.


def training_measures(ds: xr.Dataset, first: int | None = None) -> xr.Dataset:
    """The measures whose variables `ds` has, (member, epoch), from the training split and training errors alone.

    `high_frequency_ratio` (`indicator.high_frequency_ratio`); its variant `residual_ratio`, the `residual_energy` from
    `first` on (windowed, what a straight line leaves) over the whole `energy` of the same examples, DC included; and,
    to be compared with them: `jacobian_ratio`, mean jacobian_norm^2 / mean logit_norm^2 over examples;
    `optimization_variance`, its mean; `noisy_fit`, the error on relabelled examples, whose event is that it falls below
    one half (in practice nobody knows which those are); `interpolation`, the training error, whose event is
    `indicator.interpolation_epoch`.

    Errors may be recorded more often than spectra. For all measures to have the same chances, those of a member are NaN
    where its high-frequency ratio is, unless it has none at all.

    Args:
      ds: a data set as `load_results` returns it.
      first: the first high bin, by default `indicator.first_high_bin` of each member's spectrum.

    Raises:
      ValueError: a spectrum has no bin from `first` on, or none below it.
    """

    def train(name: str) -> xr.DataArray:
        return ds[name].sel(split="train")

    def mean_square(name: str) -> xr.DataArray:
        return (train(name).astype(np.float64) ** 2).mean("example")

    def jacobian_ratio() -> xr.DataArray:
        size = mean_square("logit_norm")
        return mean_square("jacobian_norm") / size.where(size > 0)

    def spectrum(function: Callable[[xr.Dataset], xr.DataArray], name: str) -> xr.DataArray:
        return _by_member(ds[list(NEEDS[name])].sel(split="train"), function)

    def residual_ratio(member: xr.Dataset) -> xr.DataArray:
        energy, residual = xr.broadcast(member["energy"], member["residual_energy"])
        both = energy.notnull() & residual.notnull()
        whole = energy.where(both).mean("example", dtype=np.float64).sum("frequency", skipna=False)
        k0 = indicator.first_high_bin(energy.sizes["frequency"]) if first is None else first
        high = residual.where(both).mean("example", dtype=np.float64).isel(frequency=slice(k0, None))
        return high.sum("frequency", skipna=False) / whole.where(whole > 0)

    compute: dict[str, Callable[[], xr.DataArray]] = {
        SPECTRUM: lambda: spectrum(lambda member: indicator.high_frequency_ratio(member["energy"], first), SPECTRUM),
        "residual_ratio": lambda: spectrum(residual_ratio, "residual_ratio"),
        "jacobian_ratio": jacobian_ratio,
        "optimization_variance": lambda: train("optimization_variance").mean("example", dtype=np.float64),
        "noisy_fit": lambda: ds["noisy_error"],
        "interpolation": lambda: ds["train_error"],
    }
    curves = {name: compute[name]() for name, needs in NEEDS.items() if all(need in ds for need in needs)}
    measures = xr.Dataset(curves).drop_vars("split", errors="ignore").transpose("member", "epoch")
    if SPECTRUM not in measures:
        return measures
    recorded = measures[SPECTRUM].notnull()
    return measures.where(recorded | ~recorded.any("epoch"))


def _by_member(spectra: xr.Dataset, function: Callable[[xr.Dataset], xr.DataArray]) -> xr.DataArray:
    """`function` of each member's spectra in the bins of its own `energy`; `frequency` is the union over members."""
    results = []
    for i in range(spectra.sizes["member"]):
        member = spectra.isel(member=i).reset_coords(drop=True)
        own = np.flatnonzero(member["energy"].notnull().any([d for d in member["energy"].dims if d != "frequency"]))
        results.append(function(member.isel(frequency=own) if own.size else member))
    return xr.concat(results, spectra["member"])


def indicated(measures: xr.Dataset, prominence: float = PROMINENCE) -> xr.Dataset:
    """When each measure indicates the start of the second descent.

    The most prominent peak of a curve, smoothed with `indicator.smooth`, on a log scale: the point whose smaller one
    of rise (from the lowest point before) and fall (to the lowest after) is the largest, the earliest if several are;
    none if that is below log(1 + `prominence`). Values that are not positive and finite are passed over.

    Args:
      measures: as `training_measures` returns them; those in `EVENTS` have an event in the place of the peak.

    Returns:
      Dimensions (measure, member): `epoch`, NaN where nothing was recorded after epoch 0; `found`, whether there is a
      peak or event: otherwise `epoch` is the end where the curve is highest, or the last where an event stays out.
    """

    def indicate(name: str, curve: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
        trained = curve.isel(epoch=np.flatnonzero(curve["epoch"] > 0))
        find: Callable[..., tuple[float, bool]]
        if name in EVENTS:
            find, values = _event, EVENTS[name](trained).where(trained.notnull()).astype(np.float64)
        else:
            smoothed = indicator.smooth(trained.where((trained > 0) & np.isfinite(trained)))
            find, values = functools.partial(_peak, prominence=prominence), xr.apply_ufunc(np.log, smoothed)
        return xr.apply_ufunc(
            find,
            values,
            values["epoch"],
            input_core_dims=[["epoch"], ["epoch"]],
            output_core_dims=[[], []],
            output_dtypes=[float, bool],
            vectorize=True,
        )

    results = {str(name): indicate(str(name), curve) for name, curve in measures.items()}
    return xr.Dataset(
        {
            variable: xr.Dataset({name: result[i] for name, result in results.items()}).to_dataarray("measure")
            for i, variable in enumerate(("epoch", "found"))
        }
    )


def _peak(level: np.ndarray, epochs: np.ndarray, prominence: float) -> tuple[float, bool]:
    """Epoch of the most prominent peak of one curve, (epoch,), or of its highest end; whether it is a peak."""
    own = np.flatnonzero(~np.isnan(level))
    if not own.size:
        return np.nan, False
    level = level[own]
    rise = level - np.minimum.accumulate(level)
    fall = level - np.minimum.accumulate(level[::-1])[::-1]
    size = np.minimum(rise, fall).round(9)  # a peak of exactly the prominence counts
    found = size.max() >= np.log1p(prominence).round(9)
    ends = own[[0, -1]]
    return float(epochs[own[size.argmax()] if found else ends[level[[0, -1]].argmax()]]), bool(found)


def _event(is_event: np.ndarray, epochs: np.ndarray) -> tuple[float, bool]:
    """First epoch where `is_event` (epoch,) is 1, or the last where it is 0 (not NaN); whether it came."""
    own = np.flatnonzero(~np.isnan(is_event))
    if not own.size:
        return np.nan, False
    found = is_event[own].any()
    return float(epochs[own[is_event[own].argmax() if found else -1]]), bool(found)


def second_descents(ds: xr.Dataset, threshold: float = THRESHOLD) -> xr.Dataset:
    """Along `member`: `kind`, as `indicator.second_descent` says, or "diverged" or "unfinished"; what `descents` found.

    Unfinished is what `indicator.statistics` calls so: the second descent may be still to come.
    """
    found = indicator.descents(ds["test_error"])
    kind = indicator.second_descent(found, threshold).where(~indicator.statistics(ds)["unfinished"], "unfinished")
    kind = kind.where(ds["diverged"] < 0, "diverged")
    return found.assign(kind=kind)


def lead(
    ds: xr.Dataset, measures: xr.Dataset, prominence: float = PROMINENCE, threshold: float = THRESHOLD
) -> xr.Dataset:
    """How long after the test error's peak each measure indicates one, in members with a second descent.

    Args:
      ds: a data set as `load_results` returns it.
      measures: as `training_measures` returns them.

    Returns:
      Dimensions (measure, member): `lead`, in decades, positive: later; `measure_epoch`; `found`, see `indicated`.
      Along `member`: `test_epoch`, where the test error peaks. All but `found` are NaN for members that are
      left out or have no second descent, or without a record of the measure.
    """
    descents = second_descents(ds, threshold)
    peaks = descents["kind"].isin(("weak", "strong"))
    test_epoch = descents["peak_epoch"].where(peaks)
    when = indicated(measures, prominence)
    measure_epoch = when["epoch"].where(peaks)
    variables = {
        "lead": np.log10(measure_epoch) - np.log10(test_epoch),
        "measure_epoch": measure_epoch,
        "found": when["found"],
        "test_epoch": test_epoch,
    }
    return xr.Dataset(variables, coords=ds["diverged"].coords)


# Statistics over members.


def seed_means(values: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Seeds with a value, and the mean over the members of each.

    Args:
      values: (member,) with the coordinate `seed`; NaN is left out.
    """
    known = values.dropna("member")
    seeds, cluster = np.unique(known["seed"].values, return_inverse=True)
    return seeds, np.bincount(cluster, known.values) / np.bincount(cluster)


def interval_over_seeds(values: xr.DataArray) -> Interval:
    """Mean over seeds of the seed's mean over members, and its 95 % interval: Student's t, n - 1 degrees for n seeds.

    Not a cluster bootstrap over seeds, because that needs more of them. The percentiles of one hold the mean of
    normal draws in 68 % of cases at 3 seeds, 84 % at 5, 90 % at 10. A studentised one keeps its level from 5 seeds on,
    but has no bounds at 3, nor at 5 in four of ten cases if the leads spread by about one step between recorded epochs:
    too many resamples are of equal seeds. Where all seeds agree exactly, the interval of Student's t has no width.

    Args:
      values: (member,) with the coordinate `seed`; NaN is left out.

    Raises:
      ValueError: the values are of fewer than `MIN_SEEDS` seeds.
    """
    seeds, means = seed_means(values)
    if len(seeds) < MIN_SEEDS:
        raise ValueError(f"{_count(len(seeds), 'seed')} with a value, an interval needs {MIN_SEEDS}")
    mean = means.mean()
    half = scipy.stats.t.ppf(0.975, len(seeds) - 1) * means.std(ddof=1) / np.sqrt(len(seeds))
    return Interval(float(mean), float(mean - half), float(mean + half), int(values.count()), len(seeds))


def rank_correlation(ds: xr.Dataset, measures: xr.Dataset, threshold: float = THRESHOLD) -> xr.DataArray:
    """Spearman's rank correlation of each measure with the test error within a member, after its first minimum.

    Args:
      ds: a data set as `load_results` returns it.
      measures: as `training_measures` returns them.

    Returns:
      (measure, member), over the recorded epochs after the first minimum of the test error; NaN without a second
      descent, with fewer than three epochs, or if either is constant there.
    """
    descents = second_descents(ds, threshold)
    after = (ds["epoch"] > descents["before_epoch"]) & descents["kind"].isin(("weak", "strong"))
    return xr.apply_ufunc(
        _spearman,
        measures.to_dataarray("measure"),
        ds["test_error"].where(after),
        input_core_dims=[["epoch"], ["epoch"]],
        output_dtypes=[float],
        vectorize=True,
    )


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(scipy.stats.spearmanr(x, y).statistic)


def mean_by_width(values: xr.DataArray) -> list[tuple[dict[str, Any], float]]:
    """Means over the members of one width and setting, not over widths: (width and setting, mean), NaN left out.

    Args:
      values: (member,) with the coordinates of `load_results`.
    """
    ds = values.to_dataset(name="value")
    parts = indicator.groups(ds, [*indicator.setting_names(ds), "width"])
    means = [(key, float(part["value"].mean())) for key, part in parts]
    return [(key, mean) for key, mean in means if not np.isnan(mean)]


def swap_null(leads: xr.Dataset, seed: int = 0) -> np.ndarray:
    """Mean |lead| when the seeds exchange their curves, each with those of all its members, within width and setting.

    A permutation of the seeds is one of all widths and settings at once, because the members of a seed are alike. So
    only widths and settings count in which all seeds of `leads` have a lead: anywhere else a permutation would move
    a curve to a seed that has no place for it. There may be none.

    Args:
      leads: one measure of `lead`.
      seed: of the draws.

    Returns:
      (arrangement,): all permutations of at most 5 seeds, else 2000, drawn but for the first. The first is what was
      observed, in the widths and settings that count. Empty if there are none.
    """
    known = leads.isel(member=np.flatnonzero(leads["lead"].notnull())).sortby("seed")
    seeds = np.unique(known["seed"])
    parts = [part for _, part in indicator.groups(known, [*indicator.setting_names(known), "width"])]
    parts = [part for part in parts if np.array_equal(part["seed"], seeds)]
    if not parts:
        return np.zeros(0)
    if len(seeds) <= 5:
        orders = list(itertools.permutations(range(len(seeds))))
    else:
        rng = np.random.default_rng(seed)
        orders = [tuple(range(len(seeds))), *(tuple(rng.permutation(len(seeds))) for _ in range(1999))]
    measure, test = (np.array([part[name].values for part in parts]) for name in ("measure_epoch", "test_epoch"))
    return np.array([_distance(measure[:, order], test) for order in orders])


def shift_null(leads: xr.Dataset, curve: xr.DataArray, prominence: float = PROMINENCE) -> np.ndarray:
    """Mean |lead| when all curves are shifted circularly along their recorded epochs (after epoch 0).

    Peaks are looked for anew in each shifted curve, because the most prominent one of any curve tends to lie in its
    middle, as that of the test error does. Of a measure in `EVENTS` the event itself is moved by as many records: the
    jump where the ends of a curve meet would be one.

    Args:
      leads: one measure of `lead`.
      curve: (member, epoch), the same of `training_measures`, with its name.
      prominence: as in `lead`.

    Returns:
      (shift,): as many as the longest curve has records. Shift 0 is what was observed.
    """
    members = np.flatnonzero(leads["lead"].notnull())
    known = leads.isel(member=members)
    trained = curve.isel(member=members, epoch=np.flatnonzero(curve["epoch"] > 0)).transpose("member", "epoch")
    own = [np.flatnonzero(row) for row in trained.notnull().values]
    shifts = range(max(map(len, own), default=0))
    if not shifts:
        return np.zeros(0)
    epochs = trained["epoch"].values
    if curve.name in EVENTS:
        places = [np.searchsorted(epochs[i], e) for i, e in zip(own, known["measure_epoch"].values, strict=True)]
        moved = [[epochs[i[(p + shift) % len(i)]] for i, p in zip(own, places, strict=True)] for shift in shifts]
        shifted = np.array(moved, float)
    else:
        # Without the members' coordinates: `Config` has a field `shift`.
        curves = trained.reset_coords(drop=True).expand_dims(shift=len(shifts)).copy()
        for shift, rows in zip(shifts, curves.values, strict=True):
            for row, i in zip(rows, own, strict=True):
                row[i] = np.roll(row[i], shift)
        found = indicated(curves.to_dataset(name="measure"), prominence)
        shifted = found["epoch"].isel(measure=0).transpose("shift", "member").values
    return np.array([_distance(row, known["test_epoch"].values) for row in shifted])


def _distance(measure_epoch: np.ndarray, test_epoch: np.ndarray) -> float:
    # Rounded, because the order of the sum must not decide whether an arrangement is as good as another.
    return float(np.abs(np.log10(measure_epoch) - np.log10(test_epoch)).mean().round(9))


def p_value(null: np.ndarray) -> float:
    """Share of arrangements at least as close as the first, which was observed; NaN if there are none."""
    return float((null <= null[0]).mean()) if null.size else np.nan


def online_alarms(
    ds: xr.Dataset, measures: xr.Dataset, prominence: float = PROMINENCE, threshold: float = THRESHOLD
) -> xr.Dataset:
    """In how many members `indicator.OnlineStart` (or the event) says that the second descent started.

    Args:
      ds: a data set as `load_results` returns it.
      measures: as `training_measures` returns them.

    Returns:
      Along `measure`, counts: `second_descent`, members with one, and `hits`, those among them in which the start that
      is said lies between (not at) the first minimum of the test error and the end of its second descent; `no_descent`,
      members without one, and `alarms`, said among them; `quiet` and `quiet_alarms`, the same without label noise.
      `notice_lead`: median over hits of log10 of the epoch of the notice minus log10 of that of the test error's peak;
      NaN for events, and without hits. Members left out or without a record of the measure count nowhere.
    """
    descents = second_descents(ds, threshold)
    kind, epochs = descents["kind"], measures["epoch"].values

    def said(curve: np.ndarray) -> tuple[float, float]:
        return indicator.online_start(curve, epochs, prominence) or (np.nan, np.nan)

    def starts(name: str) -> tuple[xr.DataArray, xr.DataArray]:
        if name in EVENTS:
            event = indicated(measures[[name]]).isel(measure=0, drop=True)
            return event["epoch"].where(event["found"]), xr.full_like(event["epoch"], np.nan)
        return xr.apply_ufunc(
            said,
            measures[name],
            input_core_dims=[["epoch"]],
            output_core_dims=[[], []],
            output_dtypes=[float, float],
            vectorize=True,
        )

    def count(name: str) -> xr.Dataset:
        recorded = measures[name].isel(epoch=np.flatnonzero(epochs > 0)).notnull().any("epoch")
        second_descent = kind.isin(("weak", "strong")) & recorded
        no_descent = (kind == "none") & recorded
        quiet = no_descent & (ds["label_noise"] == 0)
        start, noticed = starts(name)
        hits = second_descent & (start > descents["before_epoch"]) & (start < descents["after_epoch"])
        members = {
            "second_descent": second_descent,
            "hits": hits,
            "no_descent": no_descent,
            "alarms": no_descent & start.notnull(),
            "quiet": quiet,
            "quiet_alarms": quiet & start.notnull(),
        }
        notice_lead = xr.apply_ufunc(np.log10, (noticed / descents["peak_epoch"]).where(hits)).median("member")
        return xr.Dataset(members).sum("member").assign(notice_lead=notice_lead)

    names = [str(name) for name in measures]
    return xr.concat([count(name) for name in names], xr.DataArray(names, dims="measure", name="measure"))


def compare(leads: xr.Dataset) -> tuple[str, Interval] | None:
    """The high-frequency ratio against the best baseline: is |lead| smaller in the same members?

    The best baseline has the smallest mean |lead| over seeds; `VARIANTS` of the ratio are none. It is chosen by the
    members that it is then judged by, which favours it: "better than" withstands that, "worse than" is to be read with
    it in mind.

    Args:
      leads: as `lead` returns them.

    Returns:
      The baseline, and the interval of |lead| of the ratio minus |lead| of the baseline; None if there are no
      spectra, or no member with a second descent and both.

    Raises:
      ValueError: the members are of too few seeds, see `interval_over_seeds`.
    """
    if SPECTRUM not in leads["measure"]:
        return None
    distance = abs(leads["lead"])
    spectrum = distance.sel(measure=SPECTRUM, drop=True)
    baselines = distance.isel(measure=~np.isin(distance["measure"], (SPECTRUM, *VARIANTS)))
    baselines = baselines.where(spectrum.notnull()).dropna("measure", how="all")
    if not baselines.sizes["measure"]:
        return None
    best = min(baselines["measure"].values, key=lambda name: seed_means(baselines.sel(measure=name))[1].mean())
    return str(best), interval_over_seeds(spectrum - baselines.sel(measure=best, drop=True))


# Memorisation.


def detection_auc(scores_relabelled: np.ndarray, scores_clean: np.ndarray) -> float:
    """Probability that a relabelled example scores higher than a clean one, ties counting half (Mann-Whitney).

    The area under the ROC curve of telling them apart by the score. NaN is left out.

    Args:
      scores_relabelled: (example,).
      scores_clean: (example,), another number of them maybe.

    Returns:
      AUC in [0, 1]; NaN if either has no score.
    """
    relabelled = scores_relabelled[~np.isnan(scores_relabelled)]
    clean = scores_clean[~np.isnan(scores_clean)]
    if not len(relabelled) or not len(clean):
        return np.nan
    ranks = scipy.stats.rankdata(np.concatenate([relabelled, clean]))[: len(relabelled)]
    wins = ranks.sum() - len(relabelled) * (len(relabelled) + 1) / 2
    return float(wins / (len(relabelled) * len(clean)))


def memorisation(ds: xr.Dataset, first: int | None = None) -> xr.Dataset:
    """How well what is measured around single examples tells the relabelled ones from the others.

    Args:
      ds: a data set as `load_results` returns it, with `relabelled` (member, split, example), with or without epoch:
        which examples have a label that noise changed.
      first: as in `training_measures`.

    Returns:
      `detection_auc` (member, epoch) of the noisy split against those of the train split that are not relabelled, for
      those that `ds` has of `high_frequency_share` (of the energy around an example), `jacobian_norm`, `loss` and
      `negative_margin`. In members with `spectrum_augment`, which augments the train split alone, of those of the train
      split that are relabelled against those that are not: the augmentation must not tell them apart. NaN where there
      are no relabelled examples and for members that diverged; the attribute `note` says so if that is everywhere.
    """
    scores = {name: ds[name] for name in ("jacobian_norm", "loss") if name in ds}
    if "margin" in ds:
        scores["negative_margin"] = -ds["margin"]
    if "energy" in ds:
        scores["high_frequency_share"] = _by_member(
            ds[["energy"]], lambda member: indicator.high_frequency_share(member["energy"], first)
        )
    if "relabelled" not in ds:
        note = "`relabelled` is missing: which examples have a changed label is not known"
        auc = {name: score.isel(split=0, example=0, drop=True) * np.nan for name, score in scores.items()}
        return xr.Dataset(auc, attrs={"note": note})
    label_changed = ds["relabelled"].sel(split="train", drop=True)
    augmented = ds["spectrum_augment"] if "spectrum_augment" in ds.coords else xr.zeros_like(ds["diverged"])

    def auc_of(score: xr.DataArray) -> xr.DataArray:
        train, noisy = score.sel(split="train", drop=True), score.sel(split="noisy", drop=True)
        return xr.apply_ufunc(
            detection_auc,
            xr.where(augmented.astype(bool), train.where(label_changed == 1), noisy),
            train.where(label_changed == 0),
            input_core_dims=[["example"], ["example"]],
            output_dtypes=[float],
            vectorize=True,
        )

    result = xr.Dataset({name: auc_of(score) for name, score in scores.items()}).where(ds["diverged"] < 0)
    if not any(auc.notnull().any() for auc in result.values()):
        result.attrs["note"] = "no member has relabelled examples and others that they can be told from"
    return result


def memorisation_in_words(ds: xr.Dataset, first: int | None = None, threshold: float = THRESHOLD) -> list[str]:
    """A heading, and a line for each measure of `memorisation`: its mean where the test error peaks, and in the end.

    Both places are fixed beforehand: the recorded epoch of the measure that is nearest (in log epochs) to the median
    peak of the test error of members with a second descent, if there are any; and each member's last. Means over seeds,
    of members that neither diverged nor are unfinished.
    """
    descents = second_descents(ds, threshold)
    auc = memorisation(ds, first)
    if "note" in auc.attrs:
        return [f"Detection of relabelled examples: {auc.attrs['note']}."]
    peak = float(descents["peak_epoch"].where(descents["kind"].isin(("weak", "strong"))).median())
    at_peak = "" if np.isnan(peak) else f"; median peak of the test error: epoch {peak:g}"
    lines = [f"AUC (chance: 0.5) of relabelled against other training examples{at_peak}."]
    for name, values in auc.where(descents["kind"].isin(ENDED)).items():
        curve = values.isel(epoch=np.flatnonzero(values["epoch"] > 0)).dropna("epoch", how="all")
        if not curve.size:
            continue
        last = indicator.last_recorded(curve)
        places = [f"{_mean_in_words(last)} in the end"]
        if at_peak:
            at = curve.isel(epoch=int(abs(np.log(curve["epoch"]) - np.log(peak)).argmin("epoch")))
            places.insert(0, f"{_mean_in_words(at)} at epoch {int(at['epoch'])}")
        lines.append(f"{name}: {', '.join(places)}; {_count(int(last.count()), 'member')}.")
    return lines if len(lines) > 1 else []


# The answer.


def verdict(
    ds: xr.Dataset,
    first: int | None = None,
    prominence: float = PROMINENCE,
    threshold: float = THRESHOLD,
    seed: int = 0,
) -> list[str]:
    """Does a measure of the training set indicate when the second descent starts? In plain sentences.

    Args:
      ds: a data set as `load_results` returns it.
      first: as in `training_measures`.
      prominence: as in `indicated` and `indicator.OnlineStart`.
      threshold: as in `indicator.is_double_descent`.
      seed: of `swap_null`.

    Returns:
      The high-frequency ratio against the best baseline, or why that cannot be tested; what the members did; how far
      the spectra are those of straight lines; what is not recorded; the results of each measure; false alarms.

    Raises:
      ValueError: a spectrum has no bin from `first` on, or none below it.
    """
    measures = training_measures(ds, first)
    kind = second_descents(ds, threshold)["kind"]
    leads = lead(ds, measures, prominence, threshold)
    tested = bool(leads["test_epoch"].notnull().any())
    if tested:
        sentences = [_comparison(leads, measures, prominence)]
    else:
        sentences = ["No member has a second descent: what indicates its start cannot be tested."]
    sentences += [_members(kind), *_slopes(ds, kind)]
    missing = [f"{name} (needs {', '.join(needs)})" for name, needs in NEEDS.items() if name not in measures]
    if missing:
        sentences.append(f"Not recorded and not tested: {', '.join(missing)}.")
    correlations = rank_correlation(ds, measures, threshold)
    for name in map(str, measures) if tested else ():
        one = leads.sel(measure=name, drop=True)
        if not one["lead"].notnull().any():
            sentences.append(f"{name}: not recorded in any member with a second descent.")
            continue
        sentences += [f"{name}: {text}" for text in _timing(name, one)]
        sentences += [f"{name}: {text}" for text in _against_chance(one, measures[name], prominence, seed)]
        sentences.append(f"{name}: {_correlation(correlations.sel(measure=name, drop=True))}")
    return sentences + _online(ds, kind, online_alarms(ds, measures, prominence, threshold))


def _comparison(leads: xr.Dataset, measures: xr.Dataset, prominence: float) -> str:
    """Better takes more than a smaller distance: a bad baseline is beaten by noise whose peaks lie in the middle."""
    try:
        result = compare(leads)
    except ValueError as error:
        return f"{SPECTRUM} cannot be compared with the baselines: {error}."
    if result is None:
        return f"{SPECTRUM} cannot be compared with the baselines: no member with a second descent has both."
    baseline, difference = result
    null = shift_null(leads.sel(measure=SPECTRUM, drop=True), measures[SPECTRUM], prominence)
    answer = "worse than" if difference.low > 0 else "not distinguishable from"
    if difference.high < 0 and 1 / len(null) > SIGNIFICANCE:
        answer = "not to be told from chance (too few recorded epochs), though closer than"
    elif difference.high < 0:
        answer = "better than" if p_value(null) <= SIGNIFICANCE else "no better than chance, though closer than"
    return (
        f"{SPECTRUM} is {answer} {baseline}, the best baseline (chosen on the same members): its distance to the test "
        f"error's peak minus that of the baseline is {difference.mean:+.2f} decades (95 % interval "
        f"{difference.low:+.2f} to {difference.high:+.2f}, {difference.members} members of {difference.seeds} seeds)."
    )


def _members(kind: xr.DataArray) -> str:
    number = {k: int((kind == k).sum()) for k in (*ENDED, "diverged", "unfinished")}
    return (
        f"Second descents of the test error in {_count(kind.size, 'member')}: {number['strong']} strong, "
        f"{number['weak']} weak, {number['none']} none; left out: {number['diverged']} diverged, "
        f"{number['unfinished']} unfinished."
    )


def _slopes(ds: xr.Dataset, kind: xr.DataArray) -> list[str]:
    """How many raw spectra are those of straight lines, see `indicator.slope_share` (from its default bin on)."""
    if "slope_share" not in ds:
        return []
    share = ds["slope_share"].sel(split="train").where(kind.isin(ENDED))
    share = share.isel(epoch=np.flatnonzero(ds["epoch"] > 0))
    number = int(share.count())
    if not number:
        return []
    dominated = int((share > indicator.SLOPE_DOMINATED).sum()) / number
    return [
        f"The slope dominates {dominated:.0%} of {number} training spectra: the raw ratio of those is the slope "
        "against the mean output."
    ]


def _mean_in_words(values: xr.DataArray, sign: str = "", unit: str = "") -> str:
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


def _timing(name: str, leads: xr.Dataset) -> list[str]:
    """What is known of the lead of one measure."""
    known = leads.isel(member=np.flatnonzero(leads["lead"].notnull()))
    what = "event" if name in EVENTS else "peak"
    members, seeds = known.sizes["member"], len(np.unique(known["seed"]))
    absent = int((~known["found"]).sum())
    return [
        f"{_count(members, 'member')} of {_count(seeds, 'seed')}; "
        f"{absent} without {what} count with an end of the curve.",
        f"{what} after (+) the test error's peak by {_mean_in_words(known['lead'], '+', ' decades')}.",
        f"distance to that peak, without sign, {_mean_in_words(abs(known['lead']), unit=' decades')}.",
    ]


def _against_chance(leads: xr.Dataset, curve: xr.DataArray, prominence: float, seed: int) -> list[str]:
    texts = []
    for null, changed, too_few in (
        (shift_null(leads, curve, prominence), "shifted in epoch", "recorded epochs"),
        (swap_null(leads, seed), "exchanged between seeds", "seeds"),
    ):
        if not null.size:
            texts.append(f"too few {too_few} in one width to tell it from its curves {changed}.")
            continue
        p, least = p_value(null), 1 / len(null)
        answer = f"is {'closer' if p <= SIGNIFICANCE else 'no closer'} to the peak than its curves {changed}"
        if least > SIGNIFICANCE:
            answer = f"too few {too_few} to tell it from its curves {changed}"
        texts.append(f"{answer} (p = {p:.2g}, least {least:.2g}).")
    return texts


def _correlation(correlation: xr.DataArray) -> str:
    means = mean_by_width(correlation)
    if not means:
        return "no rank correlation with the test error: too few epochs after its first minimum, or constant."

    def where(key: dict[str, Any]) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {indicator.show(value)}" for name, value in key.items())

    parts = [f"{mean:+.2f} at {where(key)}" for key, mean in means]
    return f"rank correlation with the test error after its first minimum {'; '.join(parts)}."


def _online(ds: xr.Dataset, kind: xr.DataArray, alarms: xr.Dataset) -> list[str]:
    texts = []
    for name in alarms["measure"].values:
        row = alarms.sel(measure=name)
        hits, second_descent, alarm, no_descent, quiet_alarms, quiet = (
            int(row[k]) for k in ("hits", "second_descent", "alarms", "no_descent", "quiet_alarms", "quiet")
        )
        if second_descent:
            median = float(row["notice_lead"])
            when = "" if np.isnan(median) else f", after (+) the peak by {median:+.2f} decades (median)"
            texts.append(f"{name}: noticed {hits} of {second_descent} second descents in training{when}.")
        if no_descent:
            noiseless = f" ({quiet_alarms} of {quiet} without label noise)" if quiet else ""
            texts.append(f"{name}: alarms in {alarm} of {no_descent} members without a second descent{noiseless}.")
    ended = kind.isin(ENDED)
    without_noise = ended & (ds["label_noise"] == 0)
    if ended.any() and not (kind == "none").any():
        texts.append("Every member has a second descent: false alarms cannot be tested.")
    elif ended.any() and not without_noise.any():
        texts.append("No member is without label noise: false alarms there cannot be tested.")
    elif ended.any() and not (without_noise & (kind == "none")).any():
        texts.append("Every member without label noise has a second descent: false alarms there cannot be tested.")
    return texts
