"""The measures of the training set that the claim of arXiv 2004.13954 is about, and what an online detector says of
them. Whether one indicates when the second descent starts is in `verdict.py`.

A *measure* is a curve over epochs, computed from the training set alone (`training_measures`). Some have an *event*
(`EVENTS`), of the others the peak counts.

Below, `ds` is a data set as `load_results` returns it, `measures` what `training_measures` returns.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr

from spectral_dd.analysis.curves import TOLERANCE, descents, second_descent, unfinished
from spectral_dd.analysis.frequency import by_bins, high_frequency_ratio
from spectral_dd.analysis.online import online_starts
from spectral_dd.spectrum import first_high_bin

SPECTRUM = "high_frequency_ratio"
# Measures that have an event: they fall to this level.
EVENTS = {"noisy_fit": 0.5, "interpolation": TOLERANCE}
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
# Kinds of members with a second descent, and all that are not left out.
DESCENDED = ("weak", "strong")
ENDED = ("none", *DESCENDED)


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
      first: the first high bin, by default `spectrum.first_high_bin` of each member's spectrum.

    Raises:
      ValueError: a spectrum has no bin from `first` on, or none below it.
    """
    compute: dict[str, Callable[[xr.Dataset], xr.DataArray]] = {
        SPECTRUM: lambda train: by_bins(train, lambda member: high_frequency_ratio(member["energy"], first)),
        "residual_ratio": lambda train: by_bins(train, lambda member: _residual_ratio(member, first)),
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


def second_descents(ds: xr.Dataset) -> xr.Dataset:
    """Along `member`: `kind`, as `curves.second_descent` says, or "diverged" or "unfinished"; what `descents` found.

    Unfinished is what `curves.unfinished` calls so: the second descent may be still to come.
    """
    found = descents(ds["test_error"])
    kind = second_descent(found).where(~unfinished(ds), "unfinished")
    return found.assign(kind=kind.where(ds["diverged"] < 0, "diverged"))


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
        descent = kind.isin(DESCENDED) & recorded
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
    epochs = curve["epoch"].values
    if curve.name in EVENTS:
        came = (curve <= EVENTS[str(curve.name)]) & (curve["epoch"] > 0)
        start = xr.where(came.any("epoch"), came["epoch"][came.argmax("epoch")].drop_vars("epoch"), np.nan)
        return start, xr.full_like(start, np.nan)
    said = online_starts(curve.transpose("member", "epoch").values, epochs).astype(float)
    start, noticed = (xr.DataArray(one, dims="member", coords=curve["member"].coords) for one in said.T)
    return start.where(start >= 0), noticed.where(noticed >= 0)
