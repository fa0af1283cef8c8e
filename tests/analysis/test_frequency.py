"""Known answers on spectra made by hand."""

import numpy as np
import pytest
import xarray as xr

from spectral_dd.analysis import detection, frequency
from spectral_dd.spectrum import first_high_bin

NAN = np.nan


def spectra(*rows):
    """(example, frequency)."""
    return xr.DataArray(np.array(rows, float), dims=("example", "frequency"))


def test_the_first_high_bin_is_a_quarter_of_the_nyquist_bin_and_never_dc():
    assert {n: first_high_bin(n) for n in (65, 17, 5, 4, 2)} == {65: 16, 17: 4, 5: 1, 4: 1, 2: 1}


def test_the_high_frequency_ratio_is_a_ratio_of_means_over_the_examples_that_there_are():
    energy = spectra([6, 2, 1, 1, 0], [2, 0, 0, 0, 8], [NAN] * 5)
    assert float(frequency.high_frequency_ratio(energy)) == pytest.approx(12 / 20)
    assert float(frequency.high_frequency_ratio(energy, first=2)) == pytest.approx(10 / 20)
    assert float(frequency.high_frequency_ratio(1000 * energy)) == pytest.approx(12 / 20)
    weighted = spectra([6, 2, 1, 1, 0], [20, 0, 0, 0, 80])
    assert float(frequency.high_frequency_ratio(weighted)) == pytest.approx(84 / 110)


def test_the_high_frequency_ratio_of_nothing_is_nan():
    assert np.isnan(frequency.high_frequency_ratio(spectra([NAN] * 5)))
    assert np.isnan(frequency.high_frequency_ratio(spectra([0.0] * 5)))


@pytest.mark.parametrize("first", [0, 5, -1])
def test_a_first_bin_that_the_spectrum_does_not_have_is_refused(first):
    with pytest.raises(ValueError, match=f"first={first}: must be a bin from 1 to 4"):
        frequency.high_frequency_ratio(spectra([1.0] * 5, [2.0] * 5), first=first)


def test_a_spectrum_of_dc_alone_has_no_high_bin():
    with pytest.raises(ValueError, match="first=1: must be a bin from 1 to 0"):
        frequency.high_frequency_ratio(spectra([1.0]))


def test_the_energy_error_is_the_standard_error_of_the_mean_over_the_examples_that_there_are():
    energy = spectra([1, 1, 2], [3, 2, 1], [NAN] * 3)  # 4 and 6 in all: mean 5, standard error 1
    assert float(detection.energy_error(energy.values)) == pytest.approx(1 / 5)
    assert float(detection.energy_error(1000 * energy.values)) == pytest.approx(1 / 5)
    assert np.isnan(detection.energy_error(spectra([1.0] * 5, [NAN] * 5).values))


def test_the_energy_error_is_how_far_the_mean_of_other_examples_lies():
    values = np.random.default_rng(0).exponential(size=(400, 64, 5)) * np.arange(1, 6) ** -2.0
    energy = xr.DataArray(values, dims=("draw", "example", "frequency"))
    means = energy.mean("example").sum("frequency")
    assert float(detection.energy_error(energy.values).mean()) == pytest.approx(
        float(means.std() / means.mean()), rel=0.1
    )


def test_a_ramp_is_explained_by_its_slope_and_white_noise_hardly():
    t = np.linspace(-1, 1, 32, endpoint=False)
    noise = np.random.default_rng(0).normal(size=(500, 32))

    def share(functions):
        energy = np.abs(np.fft.rfft(functions)) ** 2
        line = np.polynomial.polynomial.polyfit(t, functions.T, 1)[1][:, None] * t
        slope_energy = 32 * np.sum((line - line.mean(axis=1, keepdims=True)) ** 2, axis=1)
        dims = ("example", "frequency")
        energy, slope_energy = xr.DataArray(energy, dims=dims), xr.DataArray(slope_energy, dims="example")
        return float(frequency.slope_share(energy, slope_energy, 32))

    assert share(3 + np.outer([1.0, -2.0], t)) == pytest.approx(1)
    # A line takes 1 of 32 degrees of freedom and has a fraction of that in the high bins.
    assert share(noise) < 0.01


def test_share_of_rounding_is_of_the_mean_residual_of_each_bin():
    residual = spectra([100, 40, 2, 0], [300, 0, 0, 0], [NAN] * 4)
    noise = xr.DataArray([1.0, 3, NAN], dims="example")  # measured at some of the examples
    share = frequency.noise_share(residual, noise)
    np.testing.assert_allclose(share, [0.01, 0.1, 2, NAN])
