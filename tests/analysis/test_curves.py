"""Known answers on curves made by hand, and the definition of the descents against all triples."""

import itertools

import numpy as np
import pytest
import xarray as xr
from by_hand import FALL_RISE_FALL, FEW_EPOCHS, NAN, curve, sweep_of_errors

from spectral_dd.analysis import curves


def test_smooth_averages_neighbours_and_shortens_the_window_at_the_ends():
    smoothed = curves.smooth(curve(0.0, 3.0, 6.0, 0.0))
    np.testing.assert_allclose(smoothed, [1.5, 3.0, 3.0, 3.0])
    np.testing.assert_array_equal(smoothed["epoch"], [0, 1, 2, 3])


def test_smooth_skips_nan_and_leaves_it_nan():
    np.testing.assert_allclose(curves.smooth(curve(1.0, NAN, 3.0, 5.0, NAN)), [2.0, NAN, 3.0, 4.0, NAN])


def test_smooth_of_fewer_epochs_than_the_window():
    np.testing.assert_array_equal(curves.smooth(curve(5.0)), [5.0])
    np.testing.assert_array_equal(curves.smooth(curve(1.0, NAN, 3.0)), [2.0, NAN, 2.0])
    assert np.isnan(curves.smooth(curve(NAN, NAN))).all()


def test_smooth_keeps_what_is_small_after_what_is_large():
    np.testing.assert_allclose(curves.smooth(curve(1e9, 1e-9, 1e-9, 1e-9))[2:], 1e-9, rtol=1e-12)


def test_interpolation_epoch_is_the_first_at_or_below_the_tolerance():
    t = curves.TOLERANCE
    errors = [curve(0.9, t, 0.2, 0.0), curve(0.9, 1.001 * t, 0.2, 0.0), curve(0.9, 0.5, 0.4, NAN)]
    np.testing.assert_array_equal(curves.interpolation_epoch(xr.concat(errors, "member")), [1, 3, -1])


def test_descents_of_a_constructed_curve():
    found = curves.descents(curve(*FALL_RISE_FALL))
    expected = {
        "first_fall": 0.8, "rise": 0.3, "fall": 0.2, "before_error": 0.1, "peak_error": 0.4, "after_error": 0.2,
        "before_epoch": FEW_EPOCHS[4], "peak_epoch": FEW_EPOCHS[7], "after_epoch": FEW_EPOCHS[10],
    }  # fmt: skip
    assert {name: pytest.approx(float(found[name])) for name in found} == expected
    assert bool(curves.is_double_descent(found))


@pytest.mark.parametrize(
    "values",
    [np.linspace(0.9, 0.1, 12), np.linspace(0.1, 0.9, 12), np.full(12, 0.1), [0.9, 0.5, 0.1, 0.2, 0.4, 0.6], [0.5]],
    ids=["down", "up", "constant", "down then up", "one epoch"],
)
def test_a_curve_without_a_second_fall_has_no_double_descent(values):
    found = curves.descents(curve(*values))
    assert (float(found["rise"]), float(found["fall"]), int(found["peak_epoch"])) == (0, 0, -1)
    assert np.isnan(found["peak_error"])
    assert not bool(curves.is_double_descent(found))


def test_wiggles_below_the_threshold_are_no_double_descent():
    wiggle = np.linspace(0.5, 0.1, 12) + 0.02 * (-1) ** np.arange(12)
    assert not bool(curves.is_double_descent(curves.descents(curve(*wiggle))))


def test_rise_and_fall_of_exactly_the_threshold_count():
    for missing, counts in ((0, True), (1e-6, False)):
        low, high = 0.07, 0.07 + curves.THRESHOLD - missing
        found = curves.descents(curve(*np.repeat([0.9, low, high, low], 3)))
        assert bool(curves.is_double_descent(found)) == counts


def test_a_rise_from_the_initialisation_is_no_first_descent():
    found = curves.descents(curve(*np.repeat([0.1, 0.5, 0.2], 3)))
    assert (float(found["rise"]), int(found["peak_epoch"])) == (0, -1)
    later = curves.descents(curve(*np.repeat([0.85, 0.9, 0.2, 0.25, 0.1], 2)))
    assert int(later["peak_epoch"]) == FEW_EPOCHS[6]


def test_a_nan_tail_changes_nothing_and_a_curve_of_nan_has_no_answer():
    whole, cut = curve(*FALL_RISE_FALL[:10]), curve(*FALL_RISE_FALL[:10], NAN, NAN)
    xr.testing.assert_equal(curves.descents(whole), curves.descents(cut))
    found = curves.descents(curve(NAN, NAN))
    assert np.isnan(found["rise"]) and int(found["peak_epoch"]) == -1
    assert not bool(curves.is_double_descent(found))


def test_descents_is_the_best_of_all_ways_to_fall_rise_and_fall():
    rng = np.random.default_rng(0)
    for _ in range(20):
        error = curve(*rng.random(9))
        smoothed = curves.smooth(error).values
        ways = itertools.combinations_with_replacement(smoothed, 4)
        best = max(min(start - before, peak - before, peak - after) for start, before, peak, after in ways)
        found = curves.descents(error)
        assert min(float(found[name]) for name in ("first_fall", "rise", "fall")) == pytest.approx(best)
        if best > 0:
            assert int(found["before_epoch"]) < int(found["peak_epoch"]) < int(found["after_epoch"])


def test_summary_has_the_numbers_computed_by_hand():
    falling = np.linspace(0.9, 0.3, 12)
    interpolating = np.array([0.9, 0.5, 0.0, 0.0])
    ds = sweep_of_errors(
        [
            ({"width": 8, "seed": 0, "epochs": 20}, FALL_RISE_FALL, np.repeat(interpolating, 3), -1),
            ({"width": 8, "seed": 1, "epochs": 20}, FALL_RISE_FALL + 0.02, np.repeat(interpolating, 3) + 0.004, -1),
            ({"width": 2, "seed": 0, "epochs": 20}, falling, falling, -1),
            ({"width": 2, "seed": 1, "epochs": 20}, falling[:7], falling[:7], -1),
            ({"width": 2, "seed": 2, "epochs": 20}, falling - 0.2, falling - 0.2, 5),
        ]
    )
    table = curves.summary(ds)
    np.testing.assert_array_equal(table["width"], [2, 8])
    np.testing.assert_array_equal(table["parameters"], [20, 80])
    final = (falling[-1] + falling[6]) / 2
    np.testing.assert_allclose(table["final_error"], [final, 0.21])
    np.testing.assert_allclose(table["best_error"], [final, 0.11])
    np.testing.assert_allclose(table["final_train_error"], [final, 0.002])
    np.testing.assert_allclose(table["peak_error"], [NAN, 0.41])
    np.testing.assert_allclose(table["peak_epoch"], [NAN, 8])
    np.testing.assert_allclose(table["interpolation_epoch"], [NAN, 6])
    counts = {"members": [3, 2], "diverged": [1, 0], "unfinished": [1, 0], "double_descent": [0, 2]}
    assert {name: table[name].values.tolist() for name in counts} == counts
    assert curves.interpolation_width(table) == 8
    assert curves.interpolation_width(table.isel(row=[0])) is None


def test_summary_keeps_settings_apart():
    level = {0.0: 0.1, 0.2: 0.3}
    ds = sweep_of_errors(
        [
            ({"width": w, "seed": s, "label_noise": n, "train_size": 100}, np.full(12, level[n]), np.zeros(12), -1)
            for w in (4, 2)
            for n in (0.2, 0.0)
            for s in (0, 1)
        ]
    )
    assert curves.setting_names(ds) == ["label_noise"]
    table = curves.summary(ds)
    rows = zip(*(table[n].values.tolist() for n in ("label_noise", "width", "members", "final_error")), strict=True)
    assert list(rows) == [(0.0, 2, 2, 0.1), (0.0, 4, 2, 0.1), (0.2, 2, 2, 0.3), (0.2, 4, 2, 0.3)]


def test_what_happened_to_a_member_does_not_depend_on_the_epochs_that_others_recorded():
    alone = curve(0.9, 0.10, 0.30, 0.12, 0.11, 0.10)
    beside = curve(0.9, NAN, 0.10, NAN, 0.30, NAN, 0.12, NAN, 0.11, NAN, 0.10)
    for name in ("rise", "fall"):
        assert float(curves.descents(beside)[name]) == float(curves.descents(alone)[name])


@pytest.mark.parametrize(
    ("levels", "kind"),
    [
        ([0.9, 0.1, 0.4, 0.2], "weak"),
        ([0.9, 0.1, 0.4, 0.1], "weak"),
        ([0.9, 0.1, 0.4, 0.05], "strong"),
        ([0.9, 0.1, 0.12, 0.05], "none"),
        ([0.9, 0.5, 0.2, 0.1], "none"),
    ],
)
def test_a_second_descent_is_strong_if_it_falls_below_the_first_minimum(levels, kind):
    found = curves.descents(curve(*np.repeat(levels, 3)))
    assert curves.second_descent(found).item() == kind


def test_kinds_of_second_descent_keep_the_dimensions():
    rows = [curve(*np.repeat(levels, 3)) for levels in ([0.9, 0.1, 0.4, 0.05], FALL_RISE_FALL[::3], [0.5] * 4)]
    kinds = curves.second_descent(curves.descents(xr.concat([*rows, curve(*[NAN] * 12)], "member")))
    assert kinds.dims == ("member",) and kinds.values.tolist() == ["strong", "weak", "none", "none"]
