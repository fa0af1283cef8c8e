"""Known answers on curves made by hand, and the definition of the descents against all triples."""

import itertools

import numpy as np
import pytest
import xarray as xr

from spectral_dd import indicator

NAN = np.nan
EPOCHS = [0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20]
TRAINED = [epoch + 1 for epoch in EPOCHS]
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


def spectra(*rows):
    """(example, frequency)."""
    return xr.DataArray(np.array(rows, float), dims=("example", "frequency"))


def random_spectra(*shape, seed=0):
    values = np.random.default_rng(seed).exponential(size=shape) * np.arange(1, shape[-1] + 1) ** -2.0
    return xr.DataArray(values, dims=("epoch", "example", "frequency")[-len(shape) :])


def test_the_first_high_bin_is_a_quarter_of_the_nyquist_bin_and_never_dc():
    assert {n: indicator.first_high_bin(n) for n in (65, 17, 5, 4, 2)} == {65: 16, 17: 4, 5: 1, 4: 1, 2: 1}


def test_the_high_frequency_ratio_is_a_ratio_of_means_over_the_examples_that_there_are():
    energy = spectra([6, 2, 1, 1, 0], [2, 0, 0, 0, 8], [NAN] * 5)
    assert float(indicator.high_frequency_ratio(energy)) == pytest.approx(12 / 20)
    assert float(indicator.high_frequency_ratio(energy, first=2)) == pytest.approx(10 / 20)
    assert float(indicator.high_frequency_ratio(1000 * energy)) == pytest.approx(12 / 20)
    weighted = spectra([6, 2, 1, 1, 0], [20, 0, 0, 0, 80])
    assert float(indicator.high_frequency_ratio(weighted)) == pytest.approx(84 / 110)


def test_the_high_frequency_ratio_of_nothing_is_nan():
    assert np.isnan(indicator.high_frequency_ratio(spectra([NAN] * 5)))
    assert np.isnan(indicator.high_frequency_ratio(spectra([0.0] * 5)))


@pytest.mark.parametrize("first", [0, 5, -1])
def test_a_first_bin_that_the_spectrum_does_not_have_is_refused(first):
    for function in (indicator.high_frequency_ratio, indicator.bootstrap_error):
        with pytest.raises(ValueError, match=f"first={first}: must be a bin from 1 to 4"):
            function(spectra([1.0] * 5, [2.0] * 5), first=first)


def test_a_spectrum_of_dc_alone_has_no_high_bin():
    with pytest.raises(ValueError, match="first=1: must be a bin from 1 to 0"):
        indicator.high_frequency_ratio(spectra([1.0]))


def test_the_bootstrap_gives_the_known_standard_error_of_a_mean():
    energy = random_spectra(64, 5)
    errors = indicator.bootstrap_error(energy, num_resamples=4000)
    known = energy.std("example") / np.sqrt(64) / energy.mean("example")
    np.testing.assert_allclose(errors["relative_energy_error"], known, rtol=0.06)


def test_the_bootstrap_gives_the_spread_of_the_ratio_over_other_examples():
    energy = random_spectra(400, 64, 5)
    spread = float(indicator.high_frequency_ratio(energy).std())
    assert float(indicator.bootstrap_error(energy)["ratio_error"].mean()) == pytest.approx(spread, rel=0.1)


def test_examples_of_one_shape_leave_the_ratio_certain_but_not_the_energy():
    sizes = np.arange(1.0, 9.0)
    errors = indicator.bootstrap_error(spectra(*np.outer(sizes, [4, 3, 2, 1, 1])))
    assert float(errors["ratio_error"]) < 1e-12
    assert (errors["relative_energy_error"] > 0.1).all()


def test_the_bootstrap_of_many_curves_is_that_of_each_and_passes_over_missing_examples():
    energy = random_spectra(3, 10, 5)
    energy[1, 4] = NAN
    errors = indicator.bootstrap_error(energy)
    for i, own in enumerate([energy[0], energy[1].drop_isel(example=4), energy[2]]):
        xr.testing.assert_allclose(errors.isel(epoch=i), indicator.bootstrap_error(own))
    xr.testing.assert_identical(errors, indicator.bootstrap_error(energy))
    assert not errors.equals(indicator.bootstrap_error(energy, seed=1))


def test_one_example_has_no_standard_error():
    errors = indicator.bootstrap_error(spectra([1.0] * 5, [NAN] * 5))
    assert np.isnan(errors["ratio_error"]) and np.isnan(errors["relative_energy_error"]).all()


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
    found = indicator.descents(curve(*np.repeat(levels, 3)))
    assert indicator.second_descent(found).item() == kind


def test_kinds_of_second_descent_keep_the_dimensions():
    curves = [curve(*np.repeat(levels, 3)) for levels in ([0.9, 0.1, 0.4, 0.05], FALL_RISE_FALL[::3], [0.5] * 4)]
    kinds = indicator.second_descent(indicator.descents(xr.concat([*curves, curve(*[NAN] * 12)], "member")))
    assert kinds.dims == ("member",) and kinds.values.tolist() == ["strong", "weak", "none", "none"]


def test_the_online_detector_names_the_top_when_the_fall_has_reached_the_prominence():
    values = [4, 1, 1.9, 3, 5, 4, 2.5, 9, 1]  # a factor of 2 up from 1, and down from 5
    said = [indicator.online_start(values[:n], TRAINED[:n], prominence=1, window=1) for n in range(len(values) + 1)]
    assert said == [None] * 7 + [indicator.Start(epoch=TRAINED[4], noticed=TRAINED[6])] * 3


def test_the_online_detector_ignores_the_initialisation():
    values = [1.0, 2, 4, 3, 2, 1, 0.5]  # rises from epoch 0 on, where nothing has been learned
    assert indicator.online_start(values, range(1, 8)) is not None
    assert indicator.online_start(values[:1] + values[2:], range(6)) is None
    for first in (1e-9, 1e9, NAN):
        for values in random_curves(50):
            alone = indicator.online_start(values, TRAINED)
            assert indicator.online_start([first, *values], [0, *TRAINED]) == alone


@pytest.mark.parametrize("values", [np.arange(1, 13), np.arange(12, 0, -1), np.ones(12), [1, 1.05] * 6, [NAN] * 12])
def test_the_online_detector_says_nothing_without_a_rise_and_a_fall(values):
    assert indicator.online_start(values, TRAINED) is None


def random_curves(num=200, length=12):
    return np.exp(np.random.default_rng(0).normal(scale=0.2, size=(num, length)).cumsum(axis=1))


def test_the_online_detector_never_revises_and_sees_nothing_of_the_future():
    starts = set()
    for values in random_curves():
        online = indicator.OnlineStart()
        said = [online.update(epoch, value) for epoch, value in zip(TRAINED, values, strict=True)]
        starts.add(said[-1])
        first = next((i for i, start in enumerate(said) if start is not None), len(said))
        assert said == [None] * first + [said[-1]] * (len(said) - first)
        if first < len(said):
            assert said[-1].epoch < said[-1].noticed == TRAINED[first]
        for n in (3, 7, 11):
            assert indicator.online_start(values[:n], TRAINED[:n]) == said[n - 1]
    assert None in starts and len(starts) > 10


def test_causal_smoothing_is_the_centred_one_known_a_record_later():
    for values in random_curves():
        smoothed = indicator.smooth(curve(*values)).values[:-1]
        raw = indicator.online_start(smoothed, TRAINED[:-1], window=1)
        causal = indicator.online_start(values, TRAINED, window=3)
        assert (raw is None) == (causal is None)
        if raw is not None:
            assert causal == (raw.epoch, TRAINED[TRAINED.index(raw.noticed) + 1])


def test_the_online_detector_knows_no_scale_and_passes_over_what_has_no_logarithm():
    for values in random_curves(50):
        assert indicator.online_start(1e-6 * values, TRAINED) == indicator.online_start(values, TRAINED)
    gaps = [1, NAN, 0, 2, np.inf, -3, 4, 1]
    assert indicator.online_start(gaps, TRAINED[:8], window=1) == (TRAINED[6], TRAINED[7])


def test_a_rise_and_fall_of_exactly_the_prominence_are_noticed():
    assert indicator.online_start([0.1, 0.11, 0.1], [1, 2, 3], prominence=0.1, window=1) == (2, 3)
    assert indicator.online_start([0.1, 0.11, 0.1], [1, 2, 3], prominence=0.11, window=1) is None


def test_bad_input_of_the_online_detector_is_refused():
    for prominence in (0, -0.1):
        with pytest.raises(ValueError, match=f"prominence={prominence}: must be above 0"):
            indicator.OnlineStart(prominence)
    for window in (0, 2):
        with pytest.raises(ValueError, match=f"window={window}: must be odd"):
            indicator.OnlineStart(window=window)
    with pytest.raises(ValueError, match="epoch=2: must be after 2"):
        indicator.online_start([1.0, 2.0], [2, 2])
    with pytest.raises(ValueError):
        indicator.online_start([1.0, 2.0], [1])


def test_a_ramp_is_explained_by_its_slope_and_white_noise_hardly():
    t = np.linspace(-1, 1, 32, endpoint=False)
    noise = np.random.default_rng(0).normal(size=(500, 32))

    def share(functions):
        energy = np.abs(np.fft.rfft(functions)) ** 2
        line = np.polynomial.polynomial.polyfit(t, functions.T, 1)[1][:, None] * t
        slope_energy = 32 * np.sum((line - line.mean(axis=1, keepdims=True)) ** 2, axis=1)
        dims = ("example", "frequency")
        return float(
            indicator.slope_share(xr.DataArray(energy, dims=dims), xr.DataArray(slope_energy, dims="example"), 32)
        )

    assert share(3 + np.outer([1.0, -2.0], t)) == pytest.approx(1)
    # A line takes 1 of 32 degrees of freedom and has a fraction of that in the high bins.
    assert share(noise) < 0.01
