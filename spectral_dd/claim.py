"""The claim of arXiv 2004.13954, tested over a sweep: does the spectrum, calculated from the training set only,
indicate when the second descent of the test error starts? NumPy, SciPy and xarray only; nothing here draws.

The definitions, beside those of `indicator.py`:

- A *measure* is a curve over epochs, computed from the training set alone (`training_measures`). It *indicates* the
  epoch of its most prominent peak, or of its event: `EVENTS` has the measures that have one. A curve without a peak
  counts with the end where it is highest, an event that does not come with the last recorded epoch: to leave such
  members out would favour measures that rarely have anything to say. They are counted.
- *Lead*: log10 of the indicated epoch minus log10 of the epoch where the test error peaks, in decades; positive is
  later. Epoch 0 has no logarithm and indicates nothing.
- Intervals are at 95 %, percentiles of a bootstrap that draws seeds and takes all members of a seed along: they
  share the data, the noise and the order of examples. With a handful of seeds such intervals are too narrow rather
  than too wide.
- *p*: the share of arrangements in which the measure is at least as close to the peak of the test error (mean |lead|),
  the one observed among them. It cannot be below one over their number.
- Members that diverged are left out and counted. Random draws depend on an argument `seed` alone.
"""

import functools
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
# What `training_measures` needs for each.
NEEDS = {
    SPECTRUM: ("energy",),
    "jacobian_ratio": ("jacobian_norm", "logit_norm"),
    "optimization_variance": ("optimization_variance",),
    "noisy_fit": ("noisy_error",),
    "interpolation": ("train_error",),
}
MIN_SEEDS = 3
SIGNIFICANCE = 0.05


class Interval(NamedTuple):
    """A mean over members and its 95 % interval over seeds."""

    mean: float
    low: float
    high: float
    members: int
    seeds: int


# Measures, and when they indicate the start.


def training_measures(ds: xr.Dataset, first: int | None = None) -> xr.Dataset:
    """The measures whose variables `ds` has, (member, epoch), from the training split and training errors alone.

    `high_frequency_ratio` (`indicator.high_frequency_ratio`) and, to be compared with it: `jacobian_ratio`, mean
    jacobian_norm^2 / mean logit_norm^2 over examples; `optimization_variance`, its mean; `noisy_fit`, the error on
    relabelled examples, whose event is that it falls below one half (in practice nobody knows which those are);
    `interpolation`, the training error, whose event is `indicator.interpolation_epoch`.

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

    compute: dict[str, Callable[[], xr.DataArray]] = {
        SPECTRUM: lambda: _by_member(train("energy"), lambda energy: indicator.high_frequency_ratio(energy, first)),
        "jacobian_ratio": jacobian_ratio,
        "optimization_variance": lambda: train("optimization_variance").mean("example", dtype=np.float64),
        "noisy_fit": lambda: ds["noisy_error"],
        "interpolation": lambda: ds["train_error"],
    }
    curves = {name: compute[name]() for name, needs in NEEDS.items() if all(need in ds for need in needs)}
    return xr.Dataset(curves).drop_vars("split", errors="ignore").transpose("member", "epoch")


def _by_member(energy: xr.DataArray, function: Callable[[xr.DataArray], xr.DataArray]) -> xr.DataArray:
    """`function` of each member's energy in its own bins: `frequency` is the union over different segments."""
    results = []
    for i in range(energy.sizes["member"]):
        member = energy.isel(member=i).reset_coords(drop=True)
        own = np.flatnonzero(member.notnull().any([dim for dim in member.dims if dim != "frequency"]))
        results.append(function(member.isel(frequency=own) if own.size else member))
    return xr.concat(results, energy["member"])


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
    """Along `member`: `kind`, as `indicator.second_descent` says, or "diverged"; and what `descents` found."""
    found = indicator.descents(ds["test_error"])
    kind = indicator.second_descent(found, threshold).where(ds["diverged"] < 0, "diverged")
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
      Along `member`: `test_epoch`, where the test error peaks. All but `found` are NaN for members that diverged or
      have no second descent, or without a record of the measure.
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


def cluster_bootstrap(values: xr.DataArray, num_resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean over members and its 95 % interval; seeds are drawn with replacement, each with all its members.

    Args:
      values: (member,) with the coordinate `seed`; NaN is left out.
      seed: of the draws.

    Raises:
      ValueError: the values are of fewer than `MIN_SEEDS` seeds.
    """
    known = values.dropna("member")
    seeds, cluster = np.unique(known["seed"].values, return_inverse=True)
    if len(seeds) < MIN_SEEDS:
        raise ValueError(f"{len(seeds)} seeds with a value: a bootstrap over seeds needs at least {MIN_SEEDS}")
    sums, counts = np.bincount(cluster, known.values), np.bincount(cluster)
    weights = np.random.default_rng(seed).multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), num_resamples)
    low, high = np.quantile(weights @ sums / (weights @ counts), [0.025, 0.975])
    return Interval(float(known.mean()), float(low), float(high), known.size, len(seeds))


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


def swap_null(leads: xr.Dataset) -> np.ndarray:
    """Mean |lead| when members of the same width and setting exchange their curves: nothing but the seed differs.

    Args:
      leads: one measure of `lead`.

    Returns:
      (shift,): in each width and setting, member i (in the order of seeds) gets the curve of member i + shift,
      cyclically; as many shifts as the largest such group has members. Shift 0 is what was observed.
    """
    known = leads.isel(member=np.flatnonzero(leads["lead"].notnull())).sortby("seed")
    parts = [part for _, part in indicator.groups(known, [*indicator.setting_names(known), "width"])]
    return np.array(
        [
            _distance(
                np.concatenate([np.roll(part["measure_epoch"], -shift) for part in parts]),
                np.concatenate([part["test_epoch"] for part in parts]),
            )
            for shift in range(max((part.sizes["member"] for part in parts), default=0))
        ]
    )


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
      Counts along `measure`: `second_descent`, members with one, and `hits`, said among them; `quiet`, members
      without label noise and without any second descent, and `false_alarms`, said among them. Members that diverged
      or without a record of the measure count nowhere.
    """
    kind = second_descents(ds, threshold)["kind"]
    trained = measures.isel(epoch=np.flatnonzero(measures["epoch"] > 0))
    epochs = trained["epoch"].values

    def said(curve: np.ndarray) -> bool:
        return indicator.online_start(curve, epochs, prominence) is not None

    def starts(name: str) -> xr.DataArray:
        if name in EVENTS:
            return indicated(measures[[name]])["found"].isel(measure=0, drop=True)
        return xr.apply_ufunc(said, trained[name], input_core_dims=[["epoch"]], output_dtypes=[bool], vectorize=True)

    def count(name: str) -> xr.Dataset:
        recorded = trained[name].notnull().any("epoch")
        second_descent = kind.isin(("weak", "strong")) & recorded
        quiet = (kind == "none") & (ds["label_noise"] == 0) & recorded
        alarm = starts(name)
        members = {
            "second_descent": second_descent,
            "hits": second_descent & alarm,
            "quiet": quiet,
            "false_alarms": quiet & alarm,
        }
        return xr.Dataset(members).sum("member")

    names = [str(name) for name in measures]
    return xr.concat([count(name) for name in names], xr.DataArray(names, dims="measure", name="measure"))


def compare(leads: xr.Dataset, seed: int = 0) -> tuple[str, Interval] | None:
    """The high-frequency ratio against the best baseline: is |lead| smaller in the same members?

    The best baseline has the smallest mean |lead|. It is chosen by the members that it is then judged by, which
    favours it: "better than" withstands that, "worse than" is to be read with it in mind.

    Args:
      leads: as `lead` returns them.
      seed: of `cluster_bootstrap`.

    Returns:
      The baseline, and the interval of |lead| of the ratio minus |lead| of the baseline; None if there are no
      spectra, or no member with a second descent and both.

    Raises:
      ValueError: the members are of too few seeds, see `cluster_bootstrap`.
    """
    if SPECTRUM not in leads["measure"]:
        return None
    distance = abs(leads["lead"])
    spectrum = distance.sel(measure=SPECTRUM, drop=True)
    baselines = distance.drop_sel(measure=SPECTRUM).where(spectrum.notnull()).dropna("measure", how="all")
    if not baselines.sizes["measure"]:
        return None
    best = str(baselines["measure"].values[baselines.mean("member").argmin("measure")])
    return best, cluster_bootstrap(spectrum - baselines.sel(measure=best, drop=True), seed=seed)


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
      `negative_margin`. NaN where there are no relabelled examples and for members that diverged; the attribute
      `note` says so if that is everywhere.
    """
    scores = {name: ds[name] for name in ("jacobian_norm", "loss") if name in ds}
    if "margin" in ds:
        scores["negative_margin"] = -ds["margin"]
    if "energy" in ds:
        share = functools.partial(indicator.high_frequency_share, first=first)
        scores["high_frequency_share"] = _by_member(ds["energy"], share)
    if "relabelled" not in ds:
        note = "`relabelled` is missing: which examples have a changed label is not known"
        auc = {name: score.isel(split=0, example=0, drop=True) * np.nan for name, score in scores.items()}
        return xr.Dataset(auc, attrs={"note": note})
    is_clean = ds["relabelled"].sel(split="train", drop=True) == 0

    def auc_of(score: xr.DataArray) -> xr.DataArray:
        return xr.apply_ufunc(
            detection_auc,
            score.sel(split="noisy", drop=True),
            score.sel(split="train", drop=True).where(is_clean),
            input_core_dims=[["example"], ["example"]],
            output_dtypes=[float],
            vectorize=True,
        )

    result = xr.Dataset({name: auc_of(score) for name, score in scores.items()}).where(ds["diverged"] < 0)
    if not any(auc.notnull().any() for auc in result.values()):
        result.attrs["note"] = "no member has relabelled examples and others that they can be told from"
    return result


def memorisation_in_words(ds: xr.Dataset, first: int | None = None) -> list[str]:
    """A sentence for each measure of `memorisation`: its mean over members, where it tells best and in the end."""
    auc = memorisation(ds, first)
    if "note" in auc.attrs:
        return [f"Detection of relabelled examples: {auc.attrs['note']}."]
    sentences = []
    for name, values in auc.items():
        curve = values.mean("member").dropna("epoch")
        if not curve.size:
            continue
        epochs, means = curve["epoch"].values, curve.values
        best = np.abs(means - 0.5).argmax()
        sentences.append(
            f"{name}: tells relabelled training examples from the others with an AUC of {means[best]:.2f} at epoch "
            f"{epochs[best]}, where it is furthest from 0.5 (chance), and {means[-1]:.2f} at epoch {epochs[-1]}, in "
            f"the mean of {int(values.notnull().any('epoch').sum())} members."
        )
    return sentences


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
      seed: of `cluster_bootstrap`.

    Returns:
      What the members did, the high-frequency ratio against the best baseline, the results of each measure, and what
      could not be tested, and why.

    Raises:
      ValueError: a spectrum has no bin from `first` on, or none below it.
    """
    measures = training_measures(ds, first)
    kind = second_descents(ds, threshold)["kind"]
    leads = lead(ds, measures, prominence, threshold)
    alarms = online_alarms(ds, measures, prominence, threshold)
    sentences = [_members(kind)]
    if leads["test_epoch"].notnull().any():
        sentences.append(_comparison(leads, measures, prominence, seed))
    missing = [f"{name} (needs {', '.join(needs)})" for name, needs in NEEDS.items() if name not in measures]
    if missing:
        sentences.append(f"Not recorded and not tested: {', '.join(missing)}.")
    tested = bool(leads["test_epoch"].notnull().any())
    if not tested:
        sentences.append("No member has a second descent: what indicates its start cannot be tested.")
    correlations = rank_correlation(ds, measures, threshold)
    for name in map(str, measures) if tested else ():
        one = leads.sel(measure=name, drop=True)
        if not one["lead"].notnull().any():
            sentences.append(f"{name}: not recorded in any member with a second descent.")
            continue
        sentences += [f"{name}: {text}" for text in _timing(name, one, seed)]
        sentences += [f"{name}: {text}" for text in _against_chance(one, measures[name], prominence)]
        sentences.append(f"{name}: {_correlation(correlations.sel(measure=name, drop=True))}")
    return sentences + _online(ds, kind, alarms)


def _members(kind: xr.DataArray) -> str:
    strong, weak, none, diverged = (int((kind == k).sum()) for k in ("strong", "weak", "none", "diverged"))
    return (
        f"Of {kind.size} members, {strong} have a strong second descent of the test error, {weak} a weak one, {none} "
        f"none; {diverged} diverged and are left out."
    )


def _timing(name: str, leads: xr.Dataset, seed: int) -> list[str]:
    """What is known of the lead of one measure."""
    known = leads.isel(member=np.flatnonzero(leads["lead"].notnull()))
    what = "event" if name in EVENTS else "peak"
    members, seeds = known.sizes["member"], len(np.unique(known["seed"]))
    absent = int((~known["found"]).sum())
    texts = [f"in {members} members of {seeds} seeds; {absent} have no {what} and count with an end of the curve."]
    for values, sentence, sign in (
        (known["lead"], f"its {what} comes {{}} decades of epochs after (+) or before (-) the test error's peak", "+"),
        (abs(known["lead"]), "its distance to that peak, without sign, is {} decades", ""),
    ):
        try:
            interval = cluster_bootstrap(values, seed=seed)
            certainty = f"95 % interval {interval.low:{sign}.2f} to {interval.high:{sign}.2f}"
        except ValueError as error:
            certainty = f"no interval: {error}"
        texts.append(f"{sentence.format(f'{float(values.mean()):{sign}.2f}')} in the mean ({certainty}).")
    return texts


def _against_chance(leads: xr.Dataset, curve: xr.DataArray, prominence: float) -> list[str]:
    texts = []
    for null, changed in (
        (shift_null(leads, curve, prominence), "shifted along the recorded epochs"),
        (swap_null(leads), "exchanged between seeds"),
    ):
        p, least = p_value(null), 1 / len(null)
        closer = "is closer" if p <= SIGNIFICANCE else "is no closer"
        if least > SIGNIFICANCE:
            closer = "has too few members to tell whether it is closer"
        texts.append(f"{closer} to the peak than with its curves {changed} (p = {p:.2g}; least possible {least:.2g}).")
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
        counts = {str(k): int(v) for k, v in alarms.sel(measure=name).items()}
        if counts["second_descent"]:
            texts.append(
                f"{name}: noticed {counts['hits']} of {counts['second_descent']} second descents during training."
            )
        if counts["quiet"]:
            texts.append(
                f"{name}: a false alarm in {counts['false_alarms']} of {counts['quiet']} members without label noise "
                "and without a second descent."
            )
    clean = (ds["label_noise"] == 0) & (kind != "diverged")
    if not clean.any():
        texts.append("No member is without label noise: false alarms cannot be tested.")
    elif not (clean & (kind == "none")).any():
        texts.append("Every member without label noise has a second descent: false alarms cannot be tested.")
    return texts


def _comparison(leads: xr.Dataset, measures: xr.Dataset, prominence: float, seed: int) -> str:
    """Better takes more than a smaller distance: a bad baseline is beaten by noise whose peaks lie in the middle."""
    try:
        result = compare(leads, seed)
    except ValueError as error:
        return f"{SPECTRUM} cannot be compared with the baselines: {error}."
    if result is None:
        return f"{SPECTRUM} cannot be compared with the baselines: no member with a second descent has both."
    baseline, difference = result
    null = shift_null(leads.sel(measure=SPECTRUM, drop=True), measures[SPECTRUM], prominence)
    by_chance = p_value(null) > SIGNIFICANCE
    answer = "worse than" if difference.low > 0 else "no better than"
    if difference.high < 0:
        answer = "no better than chance, though closer than" if by_chance else "better than"
    return (
        f"{SPECTRUM} is {answer} the best baseline, {baseline}: its distance to the peak of the test error minus that "
        f"of the baseline is {difference.mean:+.2f} decades in the mean (95 % interval {difference.low:+.2f} to "
        f"{difference.high:+.2f}, {difference.members} members of {difference.seeds} seeds)."
    )
