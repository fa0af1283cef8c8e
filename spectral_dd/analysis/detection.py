"""What the values of single examples tell, in NumPy, so that a record is reduced to it where it is written: how well
relabelled training examples are told from the others, and how certain the mean energy is.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from spectral_dd.spectrum import high_frequency_share

# What relabelled examples are told by, in the order of the dimension `score`.
SCORES = (
    "high_frequency_share",
    "jacobian_norm",
    "loss",
    "loss_curvature",
    "negative_margin",
    "negative_area_under_margin",
)


def detection_auc(relabelled: Float[np.ndarray, "relabelled"], clean: Float[np.ndarray, "clean"]) -> float:
    """Probability that a relabelled example scores higher than a clean one, ties counting half (Mann-Whitney).

    The area under the ROC curve of telling them apart by the score. NaN is left out.

    Returns:
      AUC in [0, 1]; NaN if either has no score.
    """
    relabelled, clean = relabelled[~np.isnan(relabelled)], np.sort(clean[~np.isnan(clean)])
    if not len(relabelled) or not len(clean):
        return np.nan
    below, not_above = (np.searchsorted(clean, relabelled, side) for side in ("left", "right"))
    return float((below.sum() + not_above.sum()) / (2 * len(relabelled) * len(clean)))


def detection(
    results: Mapping[str, np.ndarray], area_under_margin: np.ndarray | None, train: int, noisy: int
) -> Float[np.ndarray, "member which score"]:
    """`detection_auc` of each score at one epoch, NaN for those that are not there.

    Args:
      results: of a record, (member, split, example) and, of energies, (..., frequency). Some were measured at the first
        examples only. `relabelled`: 1: the label trained on is wrong; 0: it is right.
      area_under_margin: (member, split, example), if there is one.
      train, noisy: places of these splits.

    Returns:
      Which: the noisy split, or the relabelled examples of the train split, against the others of the train split.
    """
    scores = {name: results[name] for name in ("jacobian_norm", "loss", "loss_curvature") if name in results}
    if "energy" in results:
        scores["high_frequency_share"] = high_frequency_share(results["energy"])
    if "margin" in results:
        scores["negative_margin"] = -results["margin"]
    if area_under_margin is not None:
        scores["negative_area_under_margin"] = -area_under_margin
    relabelled = results["relabelled"][:, train]
    found = np.full((len(relabelled), 2, len(SCORES)), np.nan, np.float32)
    for name, values in scores.items():
        for member, changed in enumerate(relabelled[:, : values.shape[2]]):
            of_train, of_noisy = values[member, train], values[member, noisy]
            for which, others in enumerate((of_noisy, of_train[changed == 1])):
                found[member, which, SCORES.index(name)] = detection_auc(others, of_train[changed == 0])
    return found


def mean_so_far(
    values: Float[np.ndarray, "epoch ..."], epochs: Float[np.ndarray, "epoch"]
) -> Float[np.ndarray, "epoch ..."]:
    """Means over the epochs up to each, by trapezoids between those recorded; the first one is the value itself."""
    widths = np.diff(epochs).reshape(-1, *[1] * (values.ndim - 1))
    area = np.cumsum(widths * (values[1:] + values[:-1]) / 2, axis=0)
    return np.concatenate([values[:1], area / np.cumsum(widths, axis=0)])


def energy_error(energy: Float[np.ndarray, "... example frequency"]) -> Float[np.ndarray, "..."]:
    """Relative standard error of the mean over examples of the whole energy, all bins together.

    Examples that are NaN are passed over; fewer than two give NaN, and so does no energy.
    """
    whole = energy.sum(axis=-1, dtype=np.float64)
    number = (~np.isnan(whole)).sum(axis=-1)
    mean = np.nansum(whole, axis=-1) / np.where(number, number, np.nan)
    variance = np.nansum((whole - mean[..., None]) ** 2, axis=-1) / np.where(number > 1, number - 1, np.nan)
    return np.sqrt(variance / np.maximum(number, 1)) / np.where(mean > 0, mean, np.nan)
