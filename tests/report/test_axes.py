"""Ticks, cells and bands against known answers."""

import warnings

import numpy as np
from matplotlib.figure import Figure

from spectral_dd.report.axes import draw_curve, log_axis, log_edges, percent, spread


def test_log_edges_are_geometric_means_with_symmetric_outer_cells():
    np.testing.assert_allclose(log_edges(np.array([1.0, 4.0, 64.0])), [0.5, 2, 16, 256])
    np.testing.assert_allclose(log_edges(np.array([10])), [10 / 2**0.5, 10 * 2**0.5])


def test_spread_keeps_ticks_apart_and_prefers_doublings():
    assert spread(np.array([1, 2, 3, 4, 8]), 20) == [1, 2, 3, 4, 8]
    assert spread(np.arange(1, 65), 6) == [1, 2, 4, 8, 16, 32, 64]
    assert spread(np.array([5]), 4) == [5]


def test_more_bands_are_lighter_and_equal_seeds_have_none():
    ax = Figure().subplots()
    x = np.array([1.0, 2.0])
    for bands in (1, 9):
        draw_curve(ax, x, x, x - 0.5, x + 0.5, bands, color="black")
    draw_curve(ax, x, x, x, x, 1, color="black")
    one, nine = (collection.get_alpha() for collection in ax.collections)
    assert one == 3 * nine


def test_an_error_of_zero_lies_below_a_log_axis():
    figure = Figure()
    ax = figure.subplots()
    values = np.array([0.5, 0.0, 0.1])
    draw_curve(ax, np.arange(3), values, 0 * values, values, 1, color="black")
    log_axis(ax, percent())
    figure.draw_without_rendering()
    low, high = ax.get_ylim()
    assert 0.05 < low < 0.1 and 0.5 < high < 1
    ticks = {label.get_text() for label in ax.get_yticklabels() if low <= label.get_position()[1] <= high}
    assert ticks == {"10%", "20%", "50%"}
    place = ax.transData.transform((1, 0))[1]
    assert np.isfinite(place) and place < ax.bbox.y0  # drawn as a fall out of the panel, not as a gap


def test_what_is_0_everywhere_is_drawn_without_a_logarithm():
    ax = Figure().subplots()
    draw_curve(ax, np.arange(3), np.zeros(3), np.zeros(3), np.zeros(3), 1, color="black")
    with warnings.catch_warnings(action="error"):
        log_axis(ax, percent())
    assert ax.get_yscale() == "linear"
