"""The quantities of the figures against hand-written loops, what the figures hold, and where they put it."""

import functools
import itertools

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from small_sweep import EPOCHS, NAN, NUM_FREQUENCIES, make_sweep

from spectral_dd.analysis.memorisation import memorisation
from spectral_dd.report.axes import STYLE, log_edges
from spectral_dd.report.figures import pictures
from spectral_dd.report.picture import shown_widths
from spectral_dd.report.spectrum_figures import _draw_heat_map, log_ratio

SWEEPS = {
    "several widths and seeds": {"widths": (2, 4), "seeds": (0, 1, 2)},
    "one width": {"widths": (8,)},
    "settings of several widths": {"seeds": (0,), "noises": (0.1, 0.2)},
    "settings of one width": {"widths": (4,), "noises": (0.0, 0.2)},
}


@functools.cache
def drawn(sweep):
    """The figures of one of `SWEEPS`, by name, laid out; seed s has s points more test error than seed 0."""
    ds = make_sweep(**SWEEPS[sweep])
    ds = ds.assign(test_error=ds.test_error + 0.01 * ds.seed)
    with matplotlib.rc_context(STYLE):
        result = {picture.name: picture for picture in pictures(ds)}
        for picture in result.values():
            picture.figure.draw_without_rendering()
    return ds, result


def test_log_ratio_is_the_hand_written_loop():
    energy = make_sweep().energy.sel(split="noisy").isel(member=slice(0, 2))
    values = energy.values
    expected = np.empty((len(EPOCHS), NUM_FREQUENCIES))
    for e in range(len(EPOCHS)):
        power = np.zeros(NUM_FREQUENCIES)
        for member in range(2):
            for example in range(4):  # the others are NaN
                power += values[member, e, example] / 8
        expected[e] = np.log10(power / power.sum())
    result = log_ratio(energy)
    assert result.dims == ("epoch", "frequency")
    np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_log_ratio_of_amplitudes_is_relative_to_dc():
    amplitude = make_sweep().amplitude.sel(split="train")
    mean = amplitude.values.mean(axis=(0, 2))
    expected = np.log10(mean / mean[:, :1])
    np.testing.assert_allclose(log_ratio(amplitude, "amplitude"), expected, rtol=1e-12)


def test_log_ratio_is_nan_without_a_spectrum_and_where_the_power_is_zero():
    power = xr.DataArray([[1.0, 9.0, 0.0], [0.0, 0.0, 0.0], [NAN, NAN, NAN]], dims=("epoch", "frequency"))
    expected = [[-1, np.log10(0.9), NAN], [NAN] * 3, [NAN] * 3]
    np.testing.assert_allclose(log_ratio(power), expected)


def test_heat_map_cells_lie_around_their_epochs_and_frequencies():
    ax = Figure().subplots()
    ratio = log_ratio(make_sweep().energy.sel(split="test", epoch=EPOCHS[1:]))
    mesh = _draw_heat_map(ax, ratio, Normalize(-4, 0))
    corners = mesh.get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], log_edges(EPOCHS[1:]))
    np.testing.assert_allclose(corners[:, 0, 1], [0, *(2 * np.arange(NUM_FREQUENCIES) + 1)])
    np.testing.assert_allclose(mesh.get_array().reshape(NUM_FREQUENCIES, -1), ratio.T)


def test_shown_widths():
    assert shown_widths([4, 1, 2, 2], 2) == [1, 2, 4]
    assert shown_widths([1, 2, 4, 8, 16, 32, 64], 8) == [1, 8, 32, 64]
    assert shown_widths([1, 2, 4, 8, 16, 32, 64], None) == [1, 4, 16, 64]
    assert shown_widths([1, 2, 4, 8, 16, 32, 64], 1) == [1, 4, 16, 64]


@pytest.mark.parametrize("sweep", SWEEPS)
def test_headings_and_legends_overlap_nothing(sweep):
    for name, figure, _ in drawn(sweep)[1].values():
        labels = [artist.get_window_extent() for artist in (*figure.texts, *figure.legends)]
        for one in labels:
            assert min(one.x0, one.y0) >= 0 and one.x1 <= figure.bbox.x1 and one.y1 <= figure.bbox.y1, name
        others = [ax.get_tightbbox() for ax in figure.axes]
        for one, other in [*itertools.combinations(labels, 2), *itertools.product(labels, others)]:
            assert not one.overlaps(other), name


@pytest.mark.parametrize(
    ("sweep", "name", "heading"),
    [
        ("several widths and seeds", "error_over_epochs", []),
        ("several widths and seeds", "memorisation", []),
        ("one width", "error_over_epochs", ["width 8"]),
        ("one width", "memorisation", []),  # its only panel says the width
        ("settings of one width", "error_over_epochs-label-noise-0", ["label noise 0, width 4"]),
        ("settings of one width", "memorisation-label-noise-0.2", ["label noise 0.2"]),
        ("settings of several widths", "spectrum-label-noise-0.1", ["label noise 0.1"]),
    ],
)
def test_the_heading_names_the_setting_and_a_single_width(sweep, name, heading):
    assert [text.get_text() for text in drawn(sweep)[1][name].figure.texts] == heading


def test_curves_are_means_and_bands_reach_from_the_smallest_to_the_largest_seed():
    ds, figures = drawn("several widths and seeds")
    ax = figures["error_over_epochs"].figure.axes[0]
    assert len(ax.lines) == len(ax.collections) == 2
    for width, line, band in zip((2, 4), ax.lines, ax.collections, strict=True):
        seeds = ds.test_error.isel(member=np.flatnonzero(ds.width == width)).sel(epoch=EPOCHS[1:])
        np.testing.assert_array_equal(line.get_xdata(), EPOCHS[1:])
        np.testing.assert_allclose(line.get_ydata(), seeds.mean("member"))
        np.testing.assert_allclose(edges(band), [seeds.min("member"), seeds.max("member")])
    assert "mean over 3 seeds (band: smallest to largest)" in figures["error_over_epochs"].caption


def test_the_share_of_the_mean_spectrum_lies_in_the_band_of_the_seeds_shares():
    ax = drawn("several widths and seeds")[1]["high_frequency"].figure.axes[0]
    for line, band in zip(ax.lines, ax.collections, strict=True):
        low, high = edges(band)
        assert (low < line.get_ydata()).all() and (line.get_ydata() < high).all()


def test_the_spread_of_many_seeds_is_drawn_over_epochs():
    seeds = make_sweep(widths=(4,), seeds=range(30))
    seeds = seeds.assign(test_error=seeds.test_error + 0.01 * seeds.seed)
    auc = memorisation(seeds)["high_frequency_share"].sel(epoch=EPOCHS[1:])
    with matplotlib.rc_context(STYLE):
        figures = {picture.name: picture for picture in pictures(seeds)}
    for name in ("error_over_epochs", "memorisation"):
        ax = figures[name].figure.axes[0]
        (low, high), line = edges(ax.collections[0]), ax.lines[0].get_ydata()
        assert len(ax.collections) == len([line for line in ax.lines if len(line.get_xdata()) > 2])
        assert (low <= line).all() and (line <= high).all()
        assert "mean over 30 seeds (band: 5th to 95th percentile)" in figures[name].caption
    np.testing.assert_allclose(low, auc.quantile(0.05, "member"))
    np.testing.assert_allclose(high, auc.quantile(0.95, "member"))


def test_a_single_seed_has_no_band():
    figures = drawn("settings of several widths")[1]
    assert not any(ax.collections for ax in figures["error_over_epochs-label-noise-0.1"].figure.axes[:2])
    assert "a single seed" in figures["error_over_epochs-label-noise-0.1"].caption


def test_a_curve_goes_on_with_the_members_that_have_the_epoch():
    ds = make_sweep(widths=(4,)).drop_dims("example")
    ds = ds.assign(test_error=(ds.test_error + 0.1 * ds.seed).where((ds.seed == 0) | (ds.epoch < 6)))
    (_, figure, _) = list(pictures(ds))[1]
    (line,), (band,) = figure.axes[0].lines, figure.axes[0].collections
    np.testing.assert_allclose(line.get_ydata(), ds.test_error.mean("member")[1:])
    np.testing.assert_allclose(edges(band), [ds.test_error.min("member")[1:], ds.test_error.max("member")[1:]])


def edges(band):
    """Lower and upper edge, (2, epoch), of a band without gaps."""
    vertices = band.get_paths()[0].vertices
    return [[f(vertices[vertices[:, 0] == x, 1]) for x in np.unique(vertices[:, 0])] for f in (np.min, np.max)]


def test_settings_with_different_segments_keep_their_own_frequencies():
    short = make_sweep(widths=(4,), seeds=(0,)).assign_coords(spectrum_half_width=("member", [0.25]))
    long = make_sweep(widths=(4,), seeds=(0,)).assign_coords(spectrum_half_width=("member", [0.3]))
    long = long.assign_coords(frequency=np.arange(NUM_FREQUENCIES) / 0.6)
    both = xr.concat([short, long], "member", join="outer")
    assert both.sizes["frequency"] > NUM_FREQUENCIES
    captions = [p.caption for p in pictures(both) if p.name.startswith("high_frequency")]
    assert ["k >= 4 (8 cycles" in captions[0], "k >= 4 (6.66667 cycles" in captions[1]] == [True, True]


def test_without_spectra_the_errors_are_drawn():
    ds = make_sweep(widths=(4,))
    absent, empty, silent = ds.drop_dims("example"), ds.isel(example=slice(0)), ds.assign(energy=0 * ds.energy)
    for variant in (absent, empty, silent):
        assert [p.name for p in pictures(variant)] == ["error_against_width", "error_over_epochs"]


def test_of_many_settings_there_is_an_overview_and_some_are_drawn():
    noises = np.round(np.linspace(0, 0.45, 10), 2)
    ds = make_sweep(widths=(2, 4), seeds=(0,), noises=noises).drop_dims("example")
    ds = ds.assign(test_error=ds.test_error + 0.1 * ds.label_noise + 0.001 * ds.width)
    with matplotlib.rc_context(STYLE):
        figures = {picture.name: picture for picture in pictures(ds)}
    detailed = [f"error_over_epochs-label-noise-{noise:g}" for noise in noises[[0, 2, 4, 5, 7, 9]]]
    assert list(figures) == ["overview", "error_against_width", *detailed]
    final = figures["overview"].figure.axes[0]
    np.testing.assert_allclose(final.images[0].get_array(), ds.test_error[:, -1].values.reshape(2, 10).T)
    assert [text.get_text() for text in final.get_yticklabels()] == [f"label noise {noise:g}" for noise in noises]
    assert [text.get_text() for text in final.get_xticklabels()] == ["2", "4"]
    assert "All 10 settings, a row each" in figures["overview"].caption
