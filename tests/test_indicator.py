"""Known answers on curves made by hand, and the definition of the descents against all triples."""

import itertools

import numpy as np
import pytest
import xarray as xr

from spectral_dd import indicator

NAN = np.nan
EPOCHS = [0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20]
# Every level lasts three epochs, so that smoothing over three keeps it at the middle one.
FALL_RISE_FALL = np.repeat([0.9, 0.1, 0.4, 0.2], 3)


def curve(*values):
    return xr.DataArray(np.array(values, float), dims="epoch", coords={"epoch": EPOCHS[: len(values)]})


def make_sweep(members, epochs=EPOCHS):
    """A data set from (fields, test error, train error, diverged) of each member; short curves end in NaN."""
    fields, test, train, diverged = zip(*members, strict=True)
    pad = np.full(len(epochs), NAN)
    curves = {
        name: (("member", "epoch"), [np.concatenate([c, pad[len(c) :]]) for c in values])
        for name, values in (("test_error", test), ("train_error", train))
    }
    coords = {name: ("member", [f[name] for f in fields]) for name in fields[0]}
    coords |= {"parameters": ("member", [10 * f["width"] for f in fields]), "member": np.arange(len(fields))}
    return xr.Dataset({**curves, "diverged": ("member", list(diverged))}, coords={**coords, "epoch": list(epochs)})


def test_smooth_averages_neighbours_and_shortens_the_window_at_the_ends():
    smoothed = indicator.smooth(curve(0.0, 3.0, 6.0, 0.0))
    np.testing.assert_allclose(smoothed, [1.5, 3.0, 3.0, 3.0])
    np.testing.assert_array_equal(smoothed["epoch"], [0, 1, 2, 3])


def test_smooth_skips_nan_and_leaves_it_nan():
    np.testing.assert_allclose(indicator.smooth(curve(1.0, NAN, 3.0, 5.0, NAN)), [2.0, NAN, 3.0, 4.0, NAN])


def test_smooth_with_a_window_of_one_changes_nothing_and_an_even_one_is_refused():
    np.testing.assert_array_equal(indicator.smooth(curve(1.0, 2.0), window=1), [1.0, 2.0])
    np.testing.assert_allclose(indicator.smooth(curve(1.0, 3.0), window=9), [2.0, 2.0])
    with pytest.raises(ValueError, match="window=2"):
        indicator.smooth(curve(1.0, 2.0), window=2)


def test_interpolation_epoch_is_the_first_at_or_below_the_tolerance():
    errors = xr.concat([curve(0.9, 0.01, 0.2, 0.0), curve(0.9, 0.5, 0.4, NAN)], "member")
    np.testing.assert_array_equal(indicator.interpolation_epoch(errors), [1, -1])
    np.testing.assert_array_equal(indicator.interpolation_epoch(errors, tolerance=0.0), [3, -1])
    np.testing.assert_array_equal(indicator.interpolation_epoch(errors, tolerance=0.4), [1, 2])


def test_descents_of_a_constructed_curve():
    found = indicator.descents(curve(*FALL_RISE_FALL))
    expected = {
        "first_fall": 0.8, "rise": 0.3, "fall": 0.2, "before_error": 0.1, "peak_error": 0.4, "after_error": 0.2,
        "before_epoch": EPOCHS[4], "peak_epoch": EPOCHS[7], "after_epoch": EPOCHS[10],
    }  # fmt: skip
    assert {name: pytest.approx(float(found[name])) for name in found} == expected
    assert bool(indicator.is_double_descent(found))
    assert not bool(indicator.is_double_descent(found, threshold=0.25))


@pytest.mark.parametrize(
    "values",
    [np.linspace(0.9, 0.1, 12), np.linspace(0.1, 0.9, 12), np.full(12, 0.1), [0.9, 0.5, 0.1, 0.2, 0.4, 0.6], [0.5]],
    ids=["down", "up", "constant", "down then up", "one epoch"],
)
def test_a_curve_without_a_second_fall_has_no_double_descent(values):
    found = indicator.descents(curve(*values))
    assert (float(found["rise"]), float(found["fall"]), int(found["peak_epoch"])) == (0, 0, -1)
    assert np.isnan(found["peak_error"])
    assert not bool(indicator.is_double_descent(found))


def test_wiggles_below_the_threshold_are_no_double_descent():
    wiggle = np.linspace(0.5, 0.1, 12) + 0.02 * (-1) ** np.arange(12)
    assert not bool(indicator.is_double_descent(indicator.descents(curve(*wiggle))))


def test_rise_and_fall_of_exactly_the_threshold_count():
    found = indicator.descents(curve(*np.repeat([0.9, 0.07, 0.10, 0.07], 3)))
    assert bool(indicator.is_double_descent(found, threshold=0.03))


def test_a_rise_from_the_initialisation_is_no_first_descent():
    found = indicator.descents(curve(*np.repeat([0.1, 0.5, 0.2], 3)))
    assert (float(found["rise"]), int(found["peak_epoch"])) == (0, -1)
    later = indicator.descents(curve(*np.repeat([0.85, 0.9, 0.2, 0.25, 0.1], 2)))
    assert int(later["peak_epoch"]) == EPOCHS[6]


def test_a_nan_tail_changes_nothing_and_a_curve_of_nan_has_no_answer():
    whole, cut = curve(*FALL_RISE_FALL[:10]), curve(*FALL_RISE_FALL[:10], NAN, NAN)
    xr.testing.assert_equal(indicator.descents(whole), indicator.descents(cut))
    found = indicator.descents(curve(NAN, NAN))
    assert np.isnan(found["rise"]) and int(found["peak_epoch"]) == -1
    assert not bool(indicator.is_double_descent(found))


def test_descents_is_the_best_of_all_ways_to_fall_rise_and_fall():
    rng = np.random.default_rng(0)
    for _ in range(20):
        error = curve(*rng.random(9))
        smoothed = indicator.smooth(error).values
        ways = itertools.combinations_with_replacement(smoothed, 4)
        best = max(min(start - before, peak - before, peak - after) for start, before, peak, after in ways)
        found = indicator.descents(error)
        assert min(float(found[name]) for name in ("first_fall", "rise", "fall")) == pytest.approx(best)
        if best > 0:
            assert int(found["before_epoch"]) < int(found["peak_epoch"]) < int(found["after_epoch"])


def test_summary_has_the_numbers_computed_by_hand():
    falling = np.linspace(0.9, 0.3, 12)
    interpolating = np.array([0.9, 0.5, 0.0, 0.0])
    ds = make_sweep(
        [
            ({"width": 8, "seed": 0, "epochs": 20}, FALL_RISE_FALL, np.repeat(interpolating, 3), -1),
            ({"width": 8, "seed": 1, "epochs": 20}, FALL_RISE_FALL + 0.02, np.repeat(interpolating, 3) + 0.004, -1),
            ({"width": 2, "seed": 0, "epochs": 20}, falling, falling, -1),
            ({"width": 2, "seed": 1, "epochs": 20}, falling[:7], falling[:7], -1),
            ({"width": 2, "seed": 2, "epochs": 20}, falling - 0.2, falling - 0.2, 5),
        ]
    )
    table = indicator.summary(ds)
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
    assert indicator.interpolation_width(table) == 8
    assert indicator.interpolation_width(table, tolerance=0.0) is None


def test_summary_keeps_settings_apart():
    level = {0.0: 0.1, 0.2: 0.3}
    ds = make_sweep(
        [
            ({"width": w, "seed": s, "label_noise": n, "train_size": 100}, np.full(12, level[n]), np.zeros(12), -1)
            for w in (4, 2)
            for n in (0.2, 0.0)
            for s in (0, 1)
        ]
    )
    assert indicator.setting_names(ds) == ["label_noise"]
    table = indicator.summary(ds)
    rows = zip(*(table[n].values.tolist() for n in ("label_noise", "width", "members", "final_error")), strict=True)
    assert list(rows) == [(0.0, 2, 2, 0.1), (0.0, 4, 2, 0.1), (0.2, 2, 2, 0.3), (0.2, 4, 2, 0.3)]


def test_format_summary_is_aligned_and_says_over_how_many_seeds():
    ds = make_sweep(
        [
            ({"width": 8, "seed": 0}, FALL_RISE_FALL, np.zeros(12), -1),
            ({"width": 8, "seed": 1}, np.linspace(0.9, 0.2, 12), np.ones(12), -1),
            ({"width": 16, "seed": 0}, np.full(12, 0.9), np.ones(12), 3),
        ]
    )
    head, narrow, wide = indicator.format_summary(indicator.summary(ds)).splitlines()
    assert len(head) == len(narrow) == len(wide)
    assert "diverged" in head and "unfinished" not in head
    assert " ".join(narrow.split()) == "8 80 15.0 40.0 (1/2) 8 (1/2) 20.0 50.0 0 (1/2) 2 0"
    assert " ".join(wide.split()) == "16 160 - - - - - - 1 1"


def test_what_happened_to_a_member_does_not_depend_on_the_epochs_that_others_recorded():
    alone = curve(0.9, 0.10, 0.30, 0.12, 0.11, 0.10)
    beside = curve(0.9, NAN, 0.10, NAN, 0.30, NAN, 0.12, NAN, 0.11, NAN, 0.10)
    for name in ("rise", "fall"):
        assert float(indicator.descents(beside)[name]) == float(indicator.descents(alone)[name])
