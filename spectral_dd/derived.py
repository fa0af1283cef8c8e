"""What follows from what is recorded: the rows `records.DERIVED`, computed of a data set that has the others."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from spectral_dd.analysis import detection, frequency, memorisation, online, planes
from spectral_dd.config import Config
from spectral_dd.records import VARIABLES
from spectral_dd.spectrum import frequencies

# What `of_energies` needs.
ENERGIES = ("energy", "slope_energy", "residual_energy", "noise_energy")
# Bytes of energies, so that not all is held twice.
_AT_ONCE = 2**22


def of_energies(ds: xr.Dataset, configs: Sequence[Config]) -> dict[str, Any]:
    """What follows from the energies, some members of the same bins at a time."""
    alike: dict[tuple[int, float], list[int]] = {}
    for member, config in enumerate(configs):
        alike.setdefault((config.spectrum.points, config.spectrum.half_width), []).append(member)
    names = [name for name in ENERGIES if name in ds]
    without_fields, epochs = ds[names].reset_coords(drop=True), ds["epoch"].values
    starts, at_once = np.full((len(configs), 2), -1), max(1, _AT_ONCE * len(configs) // ds["energy"].nbytes)
    arrays: dict[str, np.ndarray] = {}
    for (points, half_width), members in alike.items():
        own = np.isin(ds["frequency"], frequencies(points, half_width))
        for some in (members[i : i + at_once] for i in range(0, len(members), at_once)):
            part = without_fields.isel(member=some)
            energy = part["energy"].isel(frequency=own)
            found = {
                "power": frequency.over_examples(part["energy"], np.float32) / points**2,
                "slope_share": frequency.slope_share(energy, part["slope_energy"], points),
            }
            if "noise_energy" in ds:
                found["noise_share"] = frequency.noise_share(part["residual_energy"], part["noise_energy"])
            for name, values in found.items():
                whole = np.empty((len(configs), *values.shape[1:]), values.dtype)
                arrays.setdefault(name, whole)[some] = values.transpose(*VARIABLES[name].dims)
            ratios = frequency.high_frequency_ratio(energy.sel(split="train"))
            starts[some] = online.online_starts(ratios.values, epochs)
    derived = {name: (VARIABLES[name].dims, array) for name, array in arrays.items()}
    derived["slope_dominated"] = (VARIABLES["slope_share"].dims, arrays["slope_share"] > frequency.SLOPE_DOMINATED)
    if "noise_share" in arrays:
        dominated = arrays["noise_share"] > frequency.NOISE_DOMINATED
        derived["noise_dominated"] = (VARIABLES["noise_share"].dims, dominated)
    return derived | {"indicated_start": ("member", starts[:, 0]), "indicated_noticed": ("member", starts[:, 1])}


def of_measures(ds: xr.Dataset) -> dict[str, xr.DataArray]:
    """What follows from the measures beside the spectra, of those that are there."""
    found: dict[str, xr.DataArray] = {}
    if "margin" in ds:  # of the same examples at all epochs
        same = ds["margin"].where(~ds["spectrum_resample"])
        found["area_under_margin"] = memorisation.area_under_margin(same)
    if "plane_label" in ds:
        found["reproducibility"] = planes.reproducibility(ds)
        found["plane_regions"] = planes.plane_regions(ds["plane_label"])
    return found


def of_examples(ds: xr.Dataset) -> dict[str, xr.DataArray]:
    """`summary.REDUCED`, from the examples themselves."""

    def error(own: xr.Dataset) -> xr.DataArray:
        dims = [["example", "frequency"]]
        return xr.apply_ufunc(detection.energy_error, own["energy"], input_core_dims=dims)

    found = {"energy_error": frequency.by_bins(ds[["energy"]], error)}
    return found | ({"detection": memorisation.detection(ds)} if "relabelled" in ds else {})


def of_averages(ds: xr.Dataset, error: np.ndarray, auc: np.ndarray) -> dict[str, Any]:
    """The same from what the summaries of packs have of them, (member, epoch, ...)."""
    found = {"energy_error": (("member", "epoch", "split"), error)}
    if auc.ndim == 2:  # nothing is known of the labels
        return found
    chosen = np.where(ds["spectrum_augment"].values[:, None, None], auc[:, :, 1], auc[:, :, 0]).astype(np.float32)
    own = xr.DataArray(chosen, dims=("member", "epoch", "score"), coords={"score": list(detection.SCORES)})
    other_examples = ds["spectrum_resample"] & (own["score"] == "negative_area_under_margin")
    return found | {"detection": own.where((ds["diverged"] < 0) & ~other_examples)}
