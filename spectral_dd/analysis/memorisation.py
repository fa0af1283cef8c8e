"""How well measures around single examples tell relabelled training examples from the others."""

import numpy as np
import xarray as xr

from spectral_dd.analysis.alike import alike
from spectral_dd.analysis.detection import SCORES, detection_auc, mean_so_far
from spectral_dd.analysis.frequency import by_bins, high_frequency_share


def area_under_margin(margin: xr.DataArray) -> xr.DataArray:
    """The mean of the margin over the epochs so far: low for examples whose label the others contradict.

    The area under the margin of Pleiss et al., arXiv 2001.10528, who average over all epochs up to one. Margins are
    recorded more rarely later on, so that each counts for the epochs around it, by trapezoids. Theirs are of batches
    during training, these of evaluation.

    Args:
      margin: (..., epoch, ...), with the dimension `member`; each member has its own recorded epochs.

    Returns:
      As `margin`: NaN at epochs where it is; the margin itself at a member's first epoch.
    """
    ordered = margin.transpose("member", "epoch", ...)
    values, epochs = ordered.values.astype(np.float64), ordered["epoch"].values
    own = ~np.isnan(values).all(axis=tuple(range(2, values.ndim)))
    mean = np.full(values.shape, np.nan)
    for members, records in alike(own):
        if len(records):
            rows = np.ix_(members, records)
            mean[rows] = mean_so_far(values[rows].swapaxes(0, 1), epochs[records]).swapaxes(0, 1)
    found = ordered.copy(data=mean.astype(margin.dtype))
    return found.transpose(*margin.dims).rename("area_under_margin")


def memorisation(ds: xr.Dataset, first: int | None = None) -> xr.Dataset:
    """`detection_auc` of what was measured around single examples.

    Args:
      ds: a data set as `load_results` returns it: with `detection`, which is this, or with `relabelled` (member, split,
        example), with or without epoch: which examples have a label that noise changed.
      first: the first high bin, as in `claim.training_measures`; another one than by default needs the examples.

    Returns:
      (member, epoch), those that `ds` has of `high_frequency_share` (of the energy around an example), `jacobian_norm`,
      `loss`, `loss_curvature`, `negative_margin` and `negative_area_under_margin`: the noisy split against the examples
      of the train split that are not relabelled.
      Members with `spectrum_augment`, which augments the train split alone: relabelled examples of the train split
      against the others of it, because the augmentation must not tell them apart. NaN where there are no relabelled
      examples and for members that diverged; the attribute `note` says so if that is everywhere.
    """
    if "detection" in ds and (first is None or "relabelled" not in ds):
        of_default = ds["detection"] if first is None else ds["detection"].drop_sel(score="high_frequency_share")
        return _with_note(of_default.dropna("score", how="all").to_dataset("score"))
    scores = {name: ds[name] for name in ("jacobian_norm", "loss", "loss_curvature") if name in ds}
    scores |= {f"negative_{name}": -ds[name] for name in ("margin", "area_under_margin") if name in ds}
    if "energy" in ds:
        scores["high_frequency_share"] = by_bins(ds[["energy"]], lambda own: high_frequency_share(own["energy"], first))
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

    return _with_note(xr.Dataset({name: auc_of(score) for name, score in scores.items()}).where(ds["diverged"] < 0))


def _with_note(auc: xr.Dataset) -> xr.Dataset:
    if not any(values.notnull().any() for values in auc.values()):
        auc.attrs["note"] = "no member has relabelled examples and others that they can be told from"
    return auc


def detection(ds: xr.Dataset) -> xr.DataArray:
    """`memorisation` as one array, (member, epoch, score), NaN for scores that were not measured."""
    auc = memorisation(ds)
    nothing = xr.full_like(ds["test_error"], np.nan)
    every = [auc.get(name, nothing).transpose("member", "epoch").drop_attrs() for name in SCORES]
    both = xr.concat(every, xr.DataArray(list(SCORES), dims="score", name="score")).transpose(
        "member", "epoch", "score"
    )
    return both.astype(np.float32)
