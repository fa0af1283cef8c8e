"""What a network says on planes through three test examples: does one of another seed agree, and in how many regions.

After Somepalli et al., arXiv 2203.08124. Where the planes are is in `probe.planes` and `measures.plane_points`.
"""

import math

import numpy as np
import xarray as xr

from spectral_dd.analysis.curves import groups, varying


def reproducibility(ds: xr.Dataset) -> xr.DataArray:
    """How far networks that differ in nothing but the seed say the same.

    Args:
      ds: with `plane_label` (member, epoch, plane, point) and the fields of `Config` along `member`.

    Returns:
      (member, epoch): the share of all points of all planes at which the member and another of its setting and width
      have the same label, mean over these others that have labels at the epoch; NaN where there is none.
    """
    labels = ds["plane_label"].transpose("member", "epoch", "plane", "point").values
    result = np.full(labels.shape[:2], np.nan)
    same_but_seed = [name for name in varying(ds) if name != "seed"]
    places = xr.Dataset(coords=ds.coords).assign(place=("member", np.arange(ds.sizes["member"])))
    for _, members in groups(places, same_but_seed):
        of_group = members["place"].values
        for place in of_group:
            others = labels[of_group[of_group != place]]
            agreement = np.where(np.isnan(others) | np.isnan(labels[place]), np.nan, others == labels[place])
            whole = agreement.mean(axis=(2, 3))  # NaN if one point of a plane has no label
            number, total = (~np.isnan(whole)).sum(axis=0), np.nansum(whole, axis=0)
            result[place] = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return xr.DataArray(result, dims=("member", "epoch"), name="reproducibility")


def plane_regions(plane_label: xr.DataArray) -> xr.DataArray:
    """The number of connected regions of one label, the mean over planes: the fragmentation score of the paper.

    Neighbours are up to eight points around, as in the paper's code.

    Args:
      plane_label: (..., plane, point), the points of a square grid, row by row.

    Returns:
      (...), NaN where a label is.
    """
    import scipy.ndimage  # here, because it takes a while, and thousands of networks are read without their planes

    side = math.isqrt(plane_label.sizes["point"])
    labels = plane_label.values.reshape(-1, side, side)
    number = np.zeros(len(labels))
    touching = np.zeros((3, 3, 3))
    touching[1] = 1  # within a plane
    for label in np.unique(labels[~np.isnan(labels)]):
        found, _ = scipy.ndimage.label(labels == label, touching)
        _, first = np.unique(found, return_index=True)
        planes = np.unravel_index(first, found.shape)[0]
        number += np.bincount(planes[found.flat[first] > 0], minlength=len(labels))
    number[np.isnan(labels).any(axis=(1, 2))] = np.nan
    regions = plane_label.isel(point=0, drop=True).copy(data=number.reshape(plane_label.shape[:-1]))
    return regions.mean("plane", skipna=False).rename("plane_regions")
