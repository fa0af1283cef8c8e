"""The claim of arXiv 2004.13954, tested over a sweep: does the spectrum, calculated from the training set only,
indicate when the second descent of the test error starts? Numbers only; the sentences are in `words.py`.

The definitions, beside those of `curves.py`, `frequency.py` and `online.py`:

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
- Members that diverged or are unfinished are left out and counted. The same data give the same random draws.

Below, `ds` is a data set as `load_results` returns it, `measures` what `training_measures` returns, `leads` what `lead`
returns.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.signal
import scipy.stats
import xarray as xr

from spectral_dd.analysis.curves import TOLERANCE, descents, groups, second_descent, setting_names, smooth, statistics
from spectral_dd.analysis.frequency import by_member, first_high_bin, high_frequency_ratio
from spectral_dd.analysis.online import PROMINENCE, online_start

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


def training_measures(ds: xr.Dataset, first: int | None = None) -> xr.Dataset:
    """The measures whose variables `ds` has, (member, epoch), from the training split and training errors alone.

    `high_frequency_ratio` (`frequency.high_frequency_ratio`); its variant `residual_ratio`, the `residual_energy` from
    `first` on (windowed, what a straight line leaves) over the whole `energy` of the same examples, DC included; and,
    to be compared with them: `jacobian_ratio`, mean jacobian_norm^2 / mean logit_norm^2 over examples;
    `optimization_variance`, its mean; `noisy_fit`, the error on relabelled examples, whose event is that it falls below
    one half (in practice nobody knows which those are); `interpolation`, the training error, whose event is
    `curves.interpolation_epoch`.

    Errors may be recorded more often than spectra. For all measures to have the same chances, those of a member are NaN
    where its high-frequency ratio is, unless it has none at all.

    Args:
      first: the first high bin, by default `frequency.first_high_bin` of each member's spectrum.

    Raises:
      ValueError: a spectrum has no bin from `first` on, or none below it.
    """
    compute: dict[str, Callable[[xr.Dataset], xr.DataArray]] = {
        SPECTRUM: lambda train: by_member(train, lambda member: high_frequency_ratio(member["energy"], first)),
        "residual_ratio": lambda train: by_member(train, lambda member: _residual_ratio(member, first)),
        "jacobian_ratio": _jacobian_ratio,
        "optimization_variance": lambda train: train["optimization_variance"].mean("example", dtype=np.float64),
        "noisy_fit": lambda train: train["noisy_error"],
        "interpolation": lambda train: train["train_error"],
    }
    train = ds.sel(split="train", drop=True) if "split" in ds.dims else ds
    recorded = {name: needs for name, needs in NEEDS.items() if all(need in ds for need in needs)}
    curves = {name: compute[name](train[list(needs)]) for name, needs in recorded.items()}
    measures = xr.Dataset(curves).transpose("member", "epoch")
    if SPECTRUM not in measures:
        return measures
    has_spectrum = measures[SPECTRUM].notnull()
    return measures.where(has_spectrum | ~has_spectrum.any("epoch"))


def _residual_ratio(member: xr.Dataset, first: int | None) -> xr.DataArray:
    energy, residual = xr.broadcast(member["energy"], member["residual_energy"])
    both = energy.notnull() & residual.notnull()
    whole = energy.where(both).mean("example", dtype=np.float64).sum("frequency", skipna=False)
    first = first_high_bin(energy.sizes["frequency"]) if first is None else first
    high = residual.where(both).mean("example", dtype=np.float64).isel(frequency=slice(first, None))
    return high.sum("frequency", skipna=False) / whole.where(whole > 0)


def _jacobian_ratio(train: xr.Dataset) -> xr.DataArray:
    mean_square = (train.astype(np.float64) ** 2).mean("example")
    return mean_square["jacobian_norm"] / mean_square["logit_norm"].where(mean_square["logit_norm"] > 0)


def indicated(measures: xr.Dataset) -> xr.Dataset:
    """When each measure indicates the start of the second descent.

    The most prominent peak of a curve, smoothed with `curves.smooth`, on a log scale: the point whose smaller one
    of rise (from the lowest point before) and fall (to the lowest after) is the largest, the earliest if several are;
    none if that is below log(1 + `PROMINENCE`). Values that are not positive and finite are passed over.
    Measures in `EVENTS` have an event in the place of the peak.

    Returns:
      Dimensions (measure, member): `epoch`, NaN where nothing was recorded after epoch 0; `found`, whether there is a
      peak or event: otherwise `epoch` is the end where the curve is highest, or the last where an event stays out.
    """
    epoch, found = {}, {}
    for name, curve in measures.isel(epoch=np.flatnonzero(measures["epoch"] > 0)).items():
        if name in EVENTS:
            values = EVENTS[str(name)](curve).where(curve.notnull()).astype(np.float64)
        else:
            values = xr.apply_ufunc(np.log, smooth(curve.where((curve > 0) & np.isfinite(curve))))
        when = functools.partial(_when, _event if name in EVENTS else _peak)
        epoch[name], found[name] = _of_curves(when, values, curve["epoch"], of=(float, bool))
    variables = {"epoch": xr.Dataset(epoch), "found": xr.Dataset(found)}
    return xr.Dataset({name: values.to_dataarray("measure") for name, values in variables.items()})


def _of_curves(function: Callable, *curves: xr.DataArray, of: tuple[type, ...]) -> Any:
    """`function` of each curve (epoch,), which returns numbers of the types `of`."""
    return xr.apply_ufunc(
        function,
        *curves,
        input_core_dims=[["epoch"]] * len(curves),
        output_core_dims=[[]] * len(of),
        output_dtypes=list(of),
        vectorize=True,
    )


def _when(find: Callable[[np.ndarray], tuple[int, bool]], values: np.ndarray, epochs: np.ndarray) -> tuple[float, bool]:
    """Epoch of the place that `find` finds in what is recorded, and whether it is what was looked for."""
    own = ~np.isnan(values)
    if not own.any():
        return np.nan, False
    place, found = find(values[own])
    return float(epochs[own][place]), bool(found)


def _peak(level: np.ndarray) -> tuple[int, bool]:
    """Place of the most prominent peak, or of the highest end; whether it is a peak."""
    # SciPy's prominence reaches only to the next higher point. That of the most prominent peak is the same.
    # Rounded, because equal levels differ in the last bits; a peak of exactly the prominence counts.
    _, peaks = scipy.signal.find_peaks(level.round(12), prominence=0, plateau_size=1)
    size = peaks["prominences"].round(9)
    found = bool(size.max(initial=0) >= np.log1p(PROMINENCE).round(9))
    return (peaks["left_edges"][np.argmax(size)] if found else -int(level[-1] > level[0])), found


def _event(is_event: np.ndarray) -> tuple[int, bool]:
    """Place of the first 1, or of the last 0 if all are 0; whether it is a 1."""
    found = bool(is_event.any())
    return (int(np.argmax(is_event)) if found else -1), found


def second_descents(ds: xr.Dataset) -> xr.Dataset:
    """Along `member`: `kind`, as `curves.second_descent` says, or "diverged" or "unfinished"; what `descents` found.

    Unfinished is what `curves.statistics` calls so: the second descent may be still to come.
    """
    found = descents(ds["test_error"])
    kind = second_descent(found).where(~statistics(ds)["unfinished"], "unfinished")
    return found.assign(kind=kind.where(ds["diverged"] < 0, "diverged"))


def lead(ds: xr.Dataset, measures: xr.Dataset) -> xr.Dataset:
    """How long after the test error's peak each measure indicates one, in members with a second descent.

    Returns:
      Dimensions (measure, member): `lead`, in decades, positive: later; `measure_epoch`; `found`, see `indicated`.
      Along `member`: `test_epoch`, where the test error peaks. All but `found` are NaN for members that are
      left out or have no second descent, or without a record of the measure.
    """
    found = second_descents(ds)
    peaks = found["kind"].isin(("weak", "strong"))
    test_epoch = found["peak_epoch"].where(peaks)
    when = indicated(measures)
    measure_epoch = when["epoch"].where(peaks)
    variables = {
        "lead": np.log10(measure_epoch) - np.log10(test_epoch),
        "measure_epoch": measure_epoch,
        "found": when["found"],
        "test_epoch": test_epoch,
    }
    return xr.Dataset(variables, coords=ds["diverged"].coords)


def seed_means(values: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Seeds with a value, and the mean of each, of `values` (member,) with the coordinate `seed`. NaN is left out."""
    known = values.dropna("member")
    seeds, cluster = np.unique(known["seed"].values, return_inverse=True)
    return seeds, np.bincount(cluster, known.values) / np.bincount(cluster)


def interval_over_seeds(values: xr.DataArray) -> Interval:
    """Mean over seeds of the seed's mean over members, and its 95 % interval: Student's t, n - 1 degrees for n seeds.

    Not a cluster bootstrap over seeds, because that needs more of them. The percentiles of one hold the mean of
    normal draws in 68 % of cases at 3 seeds, 84 % at 5, 90 % at 10. A studentised one keeps its level from 5 seeds on,
    but has no bounds at 3, nor at 5 in four of ten cases if the leads spread by about one step between recorded epochs:
    too many resamples are of equal seeds. Where all seeds agree exactly, the interval of Student's t has no width.

    Raises:
      ValueError: `values`, as in `seed_means`, are of fewer than `MIN_SEEDS` seeds.
    """
    seeds, means = seed_means(values)
    if len(seeds) < MIN_SEEDS:
        raise ValueError(f"an interval needs {MIN_SEEDS} seeds with a value, not {len(seeds)}")
    mean = means.mean()
    # `ttest_1samp` gives the same, but warns where seeds agree.
    half = scipy.stats.t.ppf(0.975, len(seeds) - 1) * means.std(ddof=1) / np.sqrt(len(seeds))
    return Interval(float(mean), float(mean - half), float(mean + half), int(values.count()), len(seeds))


def rank_correlation(ds: xr.Dataset, measures: xr.Dataset) -> xr.DataArray:
    """Spearman's rank correlation of each measure with the test error within a member, after its first minimum.

    Returns:
      (measure, member), over the recorded epochs after the first minimum of the test error; NaN without a second
      descent, with fewer than three epochs, or if either is constant there.
    """
    found = second_descents(ds)
    after = (ds["epoch"] > found["before_epoch"]) & found["kind"].isin(("weak", "strong"))
    return _of_curves(_spearman, measures.to_dataarray("measure"), ds["test_error"].where(after), of=(float,))


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(scipy.stats.spearmanr(x, y).statistic)


def swap_null(leads: xr.Dataset) -> np.ndarray:
    """Mean |lead| of one measure when the seeds exchange their curves, of all their members, within width and setting.

    A permutation of the seeds is one of all widths and settings at once, because the members of a seed are alike. So
    only widths and settings count in which all seeds of `leads` have a lead: anywhere else a permutation would move
    a curve to a seed that has no place for it. There may be none.

    Returns:
      (arrangement,): all permutations of at most 5 seeds, else 2000, drawn but for the first. The first is what was
      observed, in the widths and settings that count. Empty if there are none.
    """
    known = leads.isel(member=np.flatnonzero(leads["lead"].notnull())).sortby("seed")
    seeds = np.unique(known["seed"])
    parts = [part for _, part in groups(known, [*setting_names(known), "width"])]
    parts = [part for part in parts if np.array_equal(part["seed"], seeds)]
    if not parts:
        return np.zeros(0)
    if len(seeds) <= 5:
        orders = list(itertools.permutations(range(len(seeds))))
    else:
        rng = np.random.default_rng(0)
        orders = [tuple(range(len(seeds))), *(tuple(rng.permutation(len(seeds))) for _ in range(1999))]
    measure, test = (np.array([part[name].values for part in parts]) for name in ("measure_epoch", "test_epoch"))
    return np.array([_distance(measure[:, order], test) for order in orders])


def shift_null(leads: xr.Dataset, curve: xr.DataArray) -> np.ndarray:
    """Mean |lead| when all curves are shifted circularly along their recorded epochs (after epoch 0).

    Peaks are looked for anew in each shifted curve, because the most prominent one of any curve tends to lie in its
    middle, as that of the test error does. Of a measure in `EVENTS` the event itself is moved by as many records: the
    jump where the ends of a curve meet would be one.

    Args:
      leads: one measure of `lead`.
      curve: (member, epoch), the same of `training_measures`, with its name.

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
        found = indicated(curves.to_dataset(name="measure"))
        shifted = found["epoch"].isel(measure=0).transpose("shift", "member").values
    return np.array([_distance(row, known["test_epoch"].values) for row in shifted])


def _distance(measure_epoch: np.ndarray, test_epoch: np.ndarray) -> float:
    # Rounded, because the order of the sum must not decide whether an arrangement is as good as another.
    return float(np.abs(np.log10(measure_epoch) - np.log10(test_epoch)).mean().round(9))


def p_value(null: np.ndarray) -> float:
    """Share of arrangements at least as close as the first, which was observed; NaN if there are none."""
    return float((null <= null[0]).mean()) if null.size else np.nan


def online_alarms(ds: xr.Dataset, measures: xr.Dataset) -> xr.Dataset:
    """In how many members `online.OnlineStart` (or the event) says that the second descent started.

    Returns:
      Along `measure`, counts: `second_descent`, members with one, and `hits`, those among them in which the start that
      is said lies between (not at) the first minimum of the test error and the end of its second descent; `no_descent`,
      members without one, and `alarms`, said among them; `quiet` and `quiet_alarms`, the same without label noise.
      `notice_lead`: median over hits of log10 of the epoch of the notice minus log10 of that of the test error's peak;
      NaN for events, and without hits. Members left out or without a record of the measure count nowhere.
    """
    found = second_descents(ds)
    kind = found["kind"]

    def count(curve: xr.DataArray) -> xr.Dataset:
        recorded = curve.isel(epoch=np.flatnonzero(curve["epoch"] > 0)).notnull().any("epoch")
        descent = kind.isin(("weak", "strong")) & recorded
        no_descent = (kind == "none") & recorded
        quiet = no_descent & (ds["label_noise"] == 0)
        start, noticed = _said(curve)
        hits = descent & (start > found["before_epoch"]) & (start < found["after_epoch"])
        members = {
            "second_descent": descent,
            "hits": hits,
            "no_descent": no_descent,
            "alarms": no_descent & start.notnull(),
            "quiet": quiet,
            "quiet_alarms": quiet & start.notnull(),
        }
        notice_lead = xr.apply_ufunc(np.log10, (noticed / found["peak_epoch"]).where(hits)).median("member")
        return xr.Dataset(members).sum("member").assign(notice_lead=notice_lead)

    names = [str(name) for name in measures]
    return xr.concat([count(measures[name]) for name in names], xr.DataArray(names, dims="measure", name="measure"))


def _said(curve: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Start and epoch of the notice, (member,), NaN: none. Nobody notices an event."""
    if curve.name in EVENTS:
        event = indicated(curve.to_dataset()).isel(measure=0, drop=True)
        return event["epoch"].where(event["found"]), xr.full_like(event["epoch"], np.nan)
    epochs = curve["epoch"].values
    return _of_curves(lambda values: online_start(values, epochs) or (np.nan, np.nan), curve, of=(float, float))


def compare(leads: xr.Dataset) -> tuple[str, Interval] | None:
    """The high-frequency ratio against the best baseline: is |lead| smaller in the same members?

    The best baseline has the smallest mean |lead| over seeds; `VARIANTS` of the ratio are none. It is chosen by the
    members that it is then judged by, which favours it: "better than" withstands that, "worse than" is to be read with
    it in mind.

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
