"""Known answers on sweeps made by hand, and laws of the statistics: perfect, shifted and random measures."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from by_hand import EPOCHS, NAN, NO_DESCENT, error_with_peak, falls_to_zero, make_sweep, planted, tent

from spectral_dd.analysis import claim
from spectral_dd.analysis.claim import SPECTRUM
from spectral_dd.analysis.curves import smooth
from spectral_dd.analysis.online import PROMINENCE, online_start


def leads_of(ds):
    return claim.lead(ds, claim.training_measures(ds))


def test_the_ratio_is_computed_from_the_training_split():
    ds = planted()
    measures = claim.training_measures(ds)
    assert list(measures) == [SPECTRUM, "noisy_fit", "interpolation"]
    assert measures[SPECTRUM].dims == ("member", "epoch")
    ratio = ds["energy"].isel(split=0, example=0, frequency=slice(1, None)).sum("frequency")
    np.testing.assert_allclose(measures[SPECTRUM], ratio)
    np.testing.assert_allclose(claim.training_measures(ds, first=4)[SPECTRUM], 0.1 * ratio)
    with pytest.raises(ValueError, match="first=5: must be a bin from 1 to 4"):
        claim.training_measures(ds, first=5)


def test_baselines_are_means_over_the_training_examples_that_there_are():
    ds = planted(seeds=1)
    dims, shape = ("member", "epoch", "split", "example"), (2, len(EPOCHS), 3, 3)
    values = np.full(shape, 100.0)
    values[:, :, 0] = [1, 3, NAN]
    ds = ds.assign(jacobian_norm=(dims, 2 * values), logit_norm=(dims, values), optimization_variance=(dims, values))
    measures = claim.training_measures(ds)
    assert (measures["jacobian_ratio"] == 4).all()
    assert (measures["optimization_variance"] == 2).all()
    ds["jacobian_norm"][:] = [3, 1, NAN]
    ds["logit_norm"][:] = [1, 2, NAN]
    assert (claim.training_measures(ds)["jacobian_ratio"] == 2).all()


def test_each_member_is_measured_in_its_own_bins():
    ds = planted(seeds=1)
    alone = claim.training_measures(ds)[SPECTRUM]
    wider = ds.assign_coords(frequency=np.arange(5)).reindex(frequency=np.arange(9))
    wider["energy"][1] = NAN
    wider["energy"][1, :, :, :, ::2] = ds["energy"][1].values
    np.testing.assert_allclose(claim.training_measures(wider)[SPECTRUM], alone)
    wider = wider.assign(residual_energy=wider["energy"].copy())
    np.testing.assert_allclose(claim.training_measures(wider)["residual_ratio"], alone)
    wider["energy"][1] = NAN
    measured = claim.training_measures(wider)[SPECTRUM]
    assert measured[1].isnull().all() and measured[0].notnull().all()


def test_the_residual_ratio_is_what_a_line_leaves_over_the_whole_energy_of_the_same_examples():
    ds = planted(seeds=1)
    energy = np.array([[6, 1, 1, 1, 1], [20, 0, 0, 0, 0], [NAN] * 5])
    residual = np.array([[9, 9, 2, 1, 1], [NAN] * 5, [5] * 5])  # only the first example has both
    ds["energy"][:, :, 0] = energy
    assert "residual_ratio" not in claim.training_measures(ds)
    ds["residual_energy"] = xr.zeros_like(ds["energy"]) + 3
    ds["residual_energy"][:, :, 0] = residual
    np.testing.assert_allclose(claim.training_measures(ds)["residual_ratio"], 13 / 10)
    np.testing.assert_allclose(claim.training_measures(ds, first=2)["residual_ratio"], 4 / 10)


def test_all_measures_of_a_member_have_the_epochs_of_its_spectra():
    ds = planted(seeds=1)
    ds["energy"][0, 1::2] = NAN
    ds["energy"][1] = NAN
    measures = claim.training_measures(ds)
    for name in (SPECTRUM, "interpolation", "noisy_fit"):
        np.testing.assert_array_equal(measures[name][0].isnull(), np.arange(len(EPOCHS)) % 2 == 1)
    np.testing.assert_array_equal(measures["interpolation"][1], ds["train_error"][1])
    assert claim.indicated(measures)["epoch"].sel(measure="interpolation")[0].item() in EPOCHS[::2]


def test_indicated_peaks_and_events_of_curves_made_by_hand():
    curves = {
        "peak": tent(2),
        "smaller peak first": np.maximum(0.2 * tent(0.5), tent(3)),
        "rises": NO_DESCENT[::-1],
        "falls": NO_DESCENT,
        "too flat a peak": 1 + tent(2) / 5,
        "nothing": NAN * EPOCHS,
        "negative": -tent(2),
    }
    measures = xr.Dataset({"ratio": (("member", "epoch"), list(curves.values()))}, coords={"epoch": EPOCHS})
    when = claim.indicated(measures).isel(measure=0)
    np.testing.assert_array_equal(when["epoch"], [100, 1000, 10000, 1, 10000, NAN, NAN])
    assert when["found"].values.tolist() == [True, True, False, False, False, False, False]

    events = [falls_to_zero(2), falls_to_zero(2) * 0.4 + 0.4, np.ones(len(EPOCHS)), NAN * EPOCHS]
    measures = xr.Dataset({"noisy_fit": (("member", "epoch"), events)}, coords={"epoch": EPOCHS})
    when = claim.indicated(measures).isel(measure=0)
    np.testing.assert_array_equal(when["epoch"], [100, 100, 10000, NAN])
    assert when["found"].values.tolist() == [True, True, False, False]


def test_the_most_prominent_peak_is_the_first_of_the_best_of_all_points():
    rng = np.random.default_rng(0)
    values = np.exp(np.log1p(PROMINENCE) * rng.integers(0, 6, (300, 14)))  # with plateaus and equal peaks
    measures = xr.Dataset({"ratio": (("member", "epoch"), values)}, coords={"epoch": np.arange(1, 15)})
    when = claim.indicated(measures).isel(measure=0)
    assert 100 < when["found"].sum() < 300
    for level, epoch, found in zip(
        np.log(smooth(measures["ratio"]).values), when["epoch"].values, when["found"].values, strict=True
    ):
        sizes = [min(x - level[: i + 1].min(), x - level[i:].min()) for i, x in enumerate(level)]
        assert found == (max(sizes) >= np.log1p(PROMINENCE) - 1e-9)
        if found:
            assert epoch == 1 + np.argmax(np.array(sizes) >= max(sizes) - 1e-9)


def test_epoch_0_indicates_nothing():
    measures = xr.Dataset(
        {name: ("epoch", [0.0, 1.0, 1.0, 1.0]) for name in ("noisy_fit", "interpolation")}
        | {"ratio": ("epoch", [9.0, 3.0, 2.0, 1.0])},
        coords={"epoch": [0, 1, 2, 3]},
    ).expand_dims(member=1)
    when = claim.indicated(measures)
    assert when["epoch"].isel(member=0).values.tolist() == [3, 3, 1]
    assert not when["found"].any()


def test_a_measure_equal_to_the_test_error_has_lead_0_and_correlation_1():
    ds = make_sweep(
        [
            {"width": 8, "seed": seed, "test_error": error, "ratio": error}
            for seed, error in enumerate([error_with_peak(p, end) for p in (1.7, 2.5) for end in (0.05, 0.2)])
        ]
    )
    measures = claim.training_measures(ds)
    leads = claim.lead(ds, measures).sel(measure=SPECTRUM)
    assert leads["lead"].values.tolist() == [0] * 4
    assert leads["found"].all()
    np.testing.assert_allclose(claim.rank_correlation(ds, measures).sel(measure=SPECTRUM), 1)


def test_the_lead_of_an_event_is_positive_when_it_comes_later():
    ds = planted(baseline=0.5)
    events = leads_of(ds).sel(measure="interpolation")
    np.testing.assert_allclose(events["lead"], 0.5, atol=0.11)
    np.testing.assert_allclose(leads_of(planted(baseline=-0.5)).sel(measure="interpolation")["lead"], -0.5, atol=0.11)


def test_members_without_second_descent_or_diverged_have_no_lead():
    rows = [{"width": 8, "seed": s, "test_error": error_with_peak(2), "ratio": tent(2)} for s in range(3)]
    ds = make_sweep([rows[0], rows[1] | {"diverged": 100}, rows[2] | {"test_error": NO_DESCENT}])
    leads = leads_of(ds)
    assert leads["lead"].notnull().any("measure").values.tolist() == [True, False, False]
    assert claim.second_descents(ds)["kind"].values.tolist() == ["strong", "diverged", "none"]
    assert np.isnan(leads_of(ds.assign(test_error=0.05 * ds["test_error"]))["lead"]).all()  # rises by 1.5 points


def test_unfinished_members_are_left_out():
    ds = planted(seeds=2)
    whole = ds["test_error"].copy()
    ds["test_error"] = whole.where((ds["member"] > 0) | (ds["epoch"] < EPOCHS[-1]))
    assert claim.second_descents(ds)["kind"].values.tolist() == ["unfinished", "strong", "strong", "strong"]
    assert leads_of(ds)["lead"].sel(measure=SPECTRUM).notnull().values.tolist() == [False, True, True, True]
    assert claim.online_alarms(ds, claim.training_measures(ds))["second_descent"].sel(measure=SPECTRUM) == 3


@pytest.mark.parametrize("shift", [-0.4, 0.0, 0.3])
def test_a_planted_shift_is_found_inside_the_interval(shift):
    leads = leads_of(planted(shift)).sel(measure=SPECTRUM)
    interval = claim.interval_over_seeds(leads["lead"])
    assert interval.low <= shift <= interval.high
    assert interval.high - interval.low < 0.15
    assert (interval.members, interval.seeds) == (12, 6)


def values_by_seed(values, copies=1):
    values = np.asarray(values, float)
    seeds = np.tile(np.arange(len(values)), copies)
    return xr.DataArray(np.tile(values, copies), dims="member", coords={"seed": ("member", seeds)})


def test_copies_of_a_member_within_a_seed_add_no_certainty():
    once = values_by_seed(np.random.default_rng(0).normal(size=7))
    many = values_by_seed(once.values, copies=9)
    assert claim.interval_over_seeds(many)[:3] == pytest.approx(claim.interval_over_seeds(once)[:3])


def test_the_interval_is_that_of_a_t_test():
    values = values_by_seed(np.random.default_rng(0).normal(size=7))
    interval, known = claim.interval_over_seeds(values), scipy.stats.ttest_1samp(values.values, 0).confidence_interval()
    assert (interval.low, interval.high) == pytest.approx((known.low, known.high))
    assert interval.low < interval.mean < interval.high


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_holds_the_mean_in_95_percent_of_cases(seeds):
    """Seeds with several members that are alike, and noise of their own."""
    rng, cases = np.random.default_rng(seeds), 2000
    values = rng.normal(size=(cases, seeds, 1)) + 0.5 * rng.normal(size=(cases, seeds, 4))
    member = {"seed": ("member", np.repeat(np.arange(seeds), 4))}
    intervals = [
        claim.interval_over_seeds(xr.DataArray(row.reshape(-1), dims="member", coords=member)) for row in values
    ]
    assert np.mean([i.low <= 0 <= i.high for i in intervals]) == pytest.approx(0.95, abs=0.015)  # 3 standard errors


def test_seeds_weigh_alike_and_nan_is_left_out():
    values = xr.DataArray([1, 2, 3, NAN, 4, 6], dims="member", coords={"seed": ("member", [0, 0, 0, 3, 1, 2])})
    interval = claim.interval_over_seeds(values)
    assert (interval.mean, interval.members, interval.seeds) == (4, 5, 3)
    assert interval.high - 4 == pytest.approx(4 - interval.low) == pytest.approx(4.303 * 2 / np.sqrt(3), rel=1e-3)


def test_an_interval_needs_three_seeds():
    with pytest.raises(ValueError, match="an interval needs 3 seeds with a value, not 2"):
        claim.interval_over_seeds(values_by_seed([1.0, 2.0, NAN], copies=3))


def test_rank_correlation_starts_after_the_first_minimum_and_skips_constants():
    error = error_with_peak(2)
    minimum = 10**1.2
    ratio = np.where(minimum < EPOCHS, error, 0.9 - error)  # falls while the test error does only after its minimum
    rows = [{"width": 8, "seed": s, "test_error": error, "ratio": r} for s, r in enumerate([ratio, 0 * ratio + 0.2])]
    ds = make_sweep(rows)
    correlation = claim.rank_correlation(ds, claim.training_measures(ds)).sel(measure=SPECTRUM)
    assert correlation.values == pytest.approx([1, NAN], nan_ok=True)


def make_leads(measure_log, test_log, seeds, widths):
    variables = {"measure_epoch": 10.0 ** np.array(measure_log), "test_epoch": 10.0 ** np.array(test_log)}
    ds = xr.Dataset({name: ("member", values) for name, values in variables.items()})
    ds = ds.assign(lead=np.log10(ds["measure_epoch"]) - np.log10(ds["test_epoch"]))
    return ds.assign_coords(seed=("member", seeds), width=("member", widths))


def test_swapping_between_seeds_by_hand():
    """At both widths, 0 and 2 exchange, and so on: the distances are those of the permutation at both."""
    leads = make_leads([3, 1, 2, 1, 1, 2], [3, 1, 2, 1, 1, 2], seeds=[2, 0, 1, 0, 1, 2], widths=[8, 8, 8, 16, 16, 16])
    null = claim.swap_null(leads)
    # (0 1 2), (0 2 1), (1 0 2), (1 2 0), (2 0 1), (2 1 0): sums of |difference| at width 8 + at width 16
    np.testing.assert_allclose(null * 6, [0, 2 + 2, 2 + 0, 4 + 2, 4 + 2, 4 + 2])
    assert claim.p_value(null) == pytest.approx(1 / 6)


def test_only_widths_that_all_seeds_have_are_swapped():
    complete = make_leads([3, 1, 2], [3, 1, 2], seeds=[2, 0, 1], widths=[8] * 3)
    more = make_leads([3, 1, 2, 9], [3, 1, 2, 0], seeds=[2, 0, 1, 0], widths=[8, 8, 8, 16])
    np.testing.assert_array_equal(claim.swap_null(more), claim.swap_null(complete))
    assert claim.swap_null(make_leads([1, 2], [1, 2], seeds=[0, 1], widths=[8, 16])).size == 0


def test_many_seeds_are_swapped_at_random_and_5_in_all_ways():
    assert claim.swap_null(make_leads(np.arange(5), np.arange(5), np.arange(5), [8] * 5)).shape == (120,)
    leads = make_leads(np.arange(7), np.arange(7), np.arange(7), [8] * 7)
    null = claim.swap_null(leads)
    assert null.shape == (2000,) and null[0] == 0 and claim.p_value(null) < 0.003
    np.testing.assert_array_equal(null, claim.swap_null(leads))


def test_widths_that_are_alike_add_no_certainty_to_the_swap():
    """Seeds are permuted as a whole: copies of a member at other widths leave p as it is."""
    rng = np.random.default_rng(0)
    measure, test = rng.normal(size=(2, 4))
    once = claim.swap_null(make_leads(measure, test, range(4), [8] * 4))
    copies = claim.swap_null(make_leads(np.tile(measure, 5), np.tile(test, 5), [*range(4)] * 5, np.repeat(range(5), 4)))
    np.testing.assert_allclose(once, copies)


def test_swapping_identical_curves_changes_nothing():
    rows = [
        {"width": width, "seed": seed, "test_error": error_with_peak(1.9 + 0.1 * seed), "ratio": tent(peak)}
        for width, peak in ((8, 1.8), (16, 2.4))
        for seed in range(4)
    ]
    leads = leads_of(make_sweep(rows)).sel(measure=SPECTRUM)
    null = claim.swap_null(leads)
    assert null.shape == (24,) and (null == null[0]).all() and null[0] > 0
    assert claim.p_value(null) == 1


def test_seeds_are_not_swapped_between_settings():
    leads = make_leads([1, 3, 1, 3], [1, 3, 1, 3], seeds=[0, 0, 1, 1], widths=[8] * 4)
    leads = leads.assign_coords(label_noise=("member", [0.1, 0.2, 0.1, 0.2]))
    assert claim.swap_null(leads).tolist() == [0, 0]


def test_an_event_is_shifted_along_the_records_by_hand():
    leads = make_leads([1, 2], [1, 2], seeds=[0, 1], widths=[8, 8])
    epochs = {"epoch": [0, 1, 10, 100]}
    curve = xr.DataArray(np.ones((2, 4)), dims=("member", "epoch"), coords=epochs, name="interpolation")
    null = claim.shift_null(leads, curve)
    np.testing.assert_allclose(null, [0, 1.5, 1])
    assert claim.p_value(null) == pytest.approx(1 / 3)
    curve[1, 1] = NAN  # member 1 has records at 10 and 100 alone
    np.testing.assert_allclose(claim.shift_null(leads, curve), [0, 1, 0.5])


def test_a_peak_is_shifted_along_the_records_by_hand():
    spike = np.array([9, 1, 1, 1, 5, 9, 5, 1, 1, 1.0])  # after epoch 0
    coords = {"epoch": [0, *(10 ** np.arange(9))]}
    curve = xr.DataArray([spike, spike], dims=("member", "epoch"), coords=coords, name="ratio")
    leads = make_leads([4, 4], [4, 5], seeds=[0, 1], widths=[8, 8])
    null = claim.shift_null(leads, curve)
    assert null.shape == (9,)
    np.testing.assert_allclose(null[[0, 1, 2, -2, -1]], [0.5, 0.5, 1.5, 2.5, 1.5])


def shift_p(ds):
    measures, leads = claim.training_measures(ds), leads_of(ds).sel(measure=SPECTRUM)
    return claim.p_value(claim.shift_null(leads, measures[SPECTRUM]))


def test_a_measure_that_knows_the_peak_beats_every_shift_and_a_random_one_does_not():
    assert shift_p(planted()) == pytest.approx(1 / (len(EPOCHS) - 1))
    rng = np.random.default_rng(0)
    noise = [shift_p(planted(seeds=3, measure=lambda _: rng.uniform(0.1, 0.5, len(EPOCHS)))) for _ in range(30)]
    assert 0.35 < np.mean(noise) < 0.65


def test_online_alarms_are_counted_by_hand():
    quiet = {"width": 8, "label_noise": 0.0, "test_error": NO_DESCENT}
    descent = {"width": 8, "label_noise": 0.15, "test_error": error_with_peak(2)}
    ds = make_sweep(
        [
            quiet | {"seed": 0, "ratio": tent(2), "interpolates": 2},
            quiet | {"seed": 1, "ratio": NO_DESCENT[::-1]},
            quiet | {"seed": 2, "ratio": tent(2), "diverged": 5},
            quiet | {"seed": 3, "ratio": tent(2), "label_noise": 0.1},
            descent | {"seed": 0, "ratio": tent(2), "interpolates": 2, "memorises": 2},
            descent | {"seed": 1, "ratio": NO_DESCENT, "interpolates": 9, "memorises": 9},
            descent | {"seed": 2, "ratio": tent(1), "interpolates": 3.5, "memorises": 1},  # too early or too late
        ]
    )
    counts = claim.online_alarms(ds, claim.training_measures(ds))
    names = ["second_descent", "hits", "no_descent", "alarms", "quiet", "quiet_alarms"]
    table = {str(name): [int(counts[c].sel(measure=name)) for c in names] for name in counts["measure"].values}
    assert list(counts) == [*names, "notice_lead"]
    expected = {SPECTRUM: [3, 1, 3, 2, 2, 1], "noisy_fit": [3, 1, 1, 0, 0, 0], "interpolation": [3, 1, 3, 1, 2, 1]}
    assert table == expected
    noticed = online_start(tent(2), EPOCHS).noticed
    np.testing.assert_allclose(counts["notice_lead"], [np.log10(noticed) - 2, NAN, NAN])


def make_two_leads(spectrum, baseline, seeds):
    values = {SPECTRUM: spectrum, "interpolation": baseline}
    lead = xr.Dataset({name: ("member", v) for name, v in values.items()}).to_dataarray("measure")
    return xr.Dataset({"lead": lead}, coords={"seed": ("member", seeds)})


def test_compare_takes_the_best_baseline_on_the_same_members():
    lead = xr.DataArray(
        [[0.1, -0.2, 0.3, NAN], [0.5, 0.5, -0.5, 0], [0.2, -0.2, 0.2, 9]],
        dims=("measure", "member"),
        coords={"measure": [SPECTRUM, "noisy_fit", "interpolation"], "seed": ("member", [0, 1, 2, 3])},
    )
    best, difference = claim.compare(xr.Dataset({"lead": lead}))
    assert best == "interpolation"
    assert (difference.mean, difference.members) == (pytest.approx(0), 3)
    assert claim.compare(xr.Dataset({"lead": lead.sel(measure=["noisy_fit", "interpolation"])})) is None
    assert claim.compare(xr.Dataset({"lead": lead.sel(measure=[SPECTRUM])})) is None
    variant = xr.zeros_like(lead[:1]).assign_coords(measure=["residual_ratio"])
    assert claim.compare(xr.Dataset({"lead": xr.concat([lead, variant], "measure")}))[0] == "interpolation"


def test_one_random_measure_is_seldom_better_than_another():
    rng, better = np.random.default_rng(0), 0
    for _ in range(60):
        _, difference = claim.compare(make_two_leads(*rng.normal(size=(2, 24)), seeds=np.repeat(np.arange(8), 3)))
        better += difference.high < 0
    assert better <= 6  # 1.5 if the interval were exact
