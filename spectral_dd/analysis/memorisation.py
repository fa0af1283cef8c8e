"""How well measures around single examples tell relabelled training examples from the others."""

import numpy as np
import scipy.integrate
import scipy.stats
import xarray as xr

from spectral_dd.analysis.curves import measured
from spectral_dd.analysis.frequency import by_member, high_frequency_share


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
    # The method is that of the p-value, which is not used: the default is slow for few examples.
    wins = scipy.stats.mannwhitneyu(relabelled, clean, method="asymptotic").statistic
    return float(wins / (len(relabelled) * len(clean)))


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
    mean = margin.astype(np.float64).copy(data=np.full(margin.shape, np.nan))
    for i in range(margin.sizes["member"]):
        own = margin.isel(member=i)
        own = own.isel(epoch=measured(own, "epoch")).astype(np.float64)
        if own.sizes["epoch"] > 1:
            axis, epochs = own.get_axis_num("epoch"), own["epoch"]
            area = own.copy(data=scipy.integrate.cumulative_trapezoid(own.values, epochs, axis=axis, initial=0))
            passed = epochs - epochs[0]
            own = xr.where(passed > 0, area / passed.where(passed > 0), own)
        mean.loc[{"member": mean["member"][i], "epoch": own["epoch"]}] = own.transpose(*mean.isel(member=i).dims)
    return mean.astype(margin.dtype).rename("area_under_margin")


def memorisation(ds: xr.Dataset, first: int | None = None) -> xr.Dataset:
    """`detection_auc` of what was measured around single examples.

    Args:
      ds: a data set as `load_results` returns it, with `relabelled` (member, split, example), with or without epoch:
        which examples have a label that noise changed.
      first: the first high bin, as in `claim.training_measures`.

    Returns:
      (member, epoch), those that `ds` has of `high_frequency_share` (of the energy around an example), `jacobian_norm`,
      `loss`, `loss_curvature`, `negative_margin` and `negative_area_under_margin`: the noisy split against the examples
      of the train split that are not relabelled.
      Members with `spectrum_augment`, which augments the train split alone: relabelled examples of the train split
      against the others of it, because the augmentation must not tell them apart. NaN where there are no relabelled
      examples and for members that diverged; the attribute `note` says so if that is everywhere.
    """
    scores = {name: ds[name] for name in ("jacobian_norm", "loss", "loss_curvature") if name in ds}
    scores |= {f"negative_{name}": -ds[name] for name in ("margin", "area_under_margin") if name in ds}
    if "energy" in ds:
        scores["high_frequency_share"] = by_member(
            ds[["energy"]], lambda member: high_frequency_share(member["energy"], first)
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
