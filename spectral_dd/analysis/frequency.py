"""Recorded spectra -> shares of power, and how certain they are. How spectra are measured is in `spectrum.py`.

The *high-frequency ratio* is the share of the power, summed over bins, in those from `first_high_bin` on, DC in the
sum; the power of a bin is the mean over examples (`high_frequency_ratio`).
"""

import functools
from collections.abc import Callable

import numpy as np
import xarray as xr

from spectral_dd import spectrum
from spectral_dd.analysis.alike import alike
from spectral_dd.spectrum import first_high_bin, slope_spectrum

# Share of the raw high-frequency power beyond which it says nothing but the slope.
SLOPE_DOMINATED = 0.9

# Share of the residual energy of a bin beyond which it says too much about rounding: it moves a mean by this share.
NOISE_DOMINATED = 0.1


def high_frequency_share(power: xr.DataArray, first: int | None = None) -> xr.DataArray:
    """Returns (...): sum_{k >= first} P_k / sum_k P_k of P (..., frequency), DC in the lower sum; NaN if that is 0.

    Args:
      power: (..., frequency), bins 0 .. N/2 of a real FFT.
      first: by default `first_high_bin`.

    Raises:
      ValueError: there is no bin from `first` on, or none below it.
    """
    share = functools.partial(spectrum.high_frequency_share, first=first)
    return xr.apply_ufunc(share, power, input_core_dims=[["frequency"]], dask="allowed")


def over_examples(values: xr.DataArray, dtype: type[np.floating] = np.float64) -> xr.DataArray:
    """The mean over examples (..., example, ...); NaN is passed over."""
    if values.sizes["example"] == 1:  # as of thousands of networks
        return values.isel(example=0, drop=True).astype(dtype)
    return values.mean("example", dtype=dtype)


def high_frequency_ratio(energy: xr.DataArray, first: int | None = None) -> xr.DataArray:
    """`high_frequency_share` of the mean over examples: a ratio of means, in which large outputs count more.

    Args:
      energy: (..., example, frequency), bins 0 .. N/2 of a real FFT. Examples that are NaN are passed over.
      first: by default `first_high_bin`.

    Returns:
      (...), float64; NaN where there are no examples or their power is 0.

    Raises:
      ValueError: there is no bin from `first` on, or none below it.
    """
    return high_frequency_share(over_examples(energy), first).rename("high_frequency_ratio")


def slope_share(energy: xr.DataArray, slope_energy: xr.DataArray, num_points: int) -> xr.DataArray:
    """How much of the high-frequency power a straight line with the measured slope has: its leakage.

    The DFT takes the segment as periodic, so a function linear along it has power in every bin (see
    `spectrum.slope_spectrum`). Above `SLOPE_DOMINATED`, the raw spectrum shows the slope and nothing else.

    Args:
      energy: (..., example, frequency), bins 0 .. N/2.
      slope_energy: (..., example), see `spectrum.LineSpectra`.
      num_points: N.

    Returns:
      (...): from `first_high_bin` on; above 1 where the line and what else there is cancel.
    """
    first = first_high_bin(energy.sizes["frequency"])
    of_line = float(slope_spectrum(num_points)[first:].sum()) * over_examples(slope_energy)
    high = over_examples(energy).isel(frequency=slice(first, None)).sum("frequency", skipna=False)
    return (of_line / high.where(high > 0)).rename("slope_share")


def noise_share(residual_energy: xr.DataArray, noise_energy: xr.DataArray) -> xr.DataArray:
    """How much of the residual energy is rounding, in each bin: the mean over examples of one over that of the other.

    Above `NOISE_DOMINATED` a bin says little of the function. Rounding is white and a spectrum falls, so that the high
    bins are the first, above all of scarcely trained networks in float32.

    Args:
      residual_energy: (..., example, frequency).
      noise_energy: (..., example), see `measures.rounding_energy`, of some of the examples.

    Returns:
      (..., frequency); above 1 by chance, where there is nothing but rounding.
    """
    residual = over_examples(residual_energy)
    return (over_examples(noise_energy) / residual.where(residual > 0)).rename("noise_share")


def by_bins(spectra: xr.Dataset, function: Callable[[xr.Dataset], xr.DataArray]) -> xr.DataArray:
    """`function` of each member's spectra in the bins of its own `energy`; `frequency` is the union over members."""
    there = spectra["energy"].notnull()
    there = there.any([dim for dim in there.dims if dim not in ("member", "frequency")])
    own = there.transpose("member", "frequency").values
    places, results = [], []
    for members, bins in alike(own):
        places.append(members)
        frequency = bins if len(bins) else slice(None)
        results.append(function(spectra.isel(member=members, frequency=frequency).reset_coords(drop=True)))
    order = np.argsort(np.concatenate(places))
    return xr.concat(results, "member").isel(member=order).assign_coords(member=spectra["member"].values)
