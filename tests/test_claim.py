"""Known answers on sweeps made by hand, and laws of the statistics: perfect, shifted and random measures."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from spectral_dd import claim, indicator

NAN = np.nan
EPOCHS = np.array([0, *sorted({round(10 ** (i / 10)) for i in range(41)})])
SPECTRUM = claim.SPECTRUM


def log_curve(*points):
    """Linear in log10(epoch) between the points (log10(epoch), value)."""
    return np.interp(np.log10(np.maximum(EPOCHS, 0.1)), *zip(*points, strict=True))


def error_with_peak(log_epoch, end=0.05):
    """Falls to 0.1, rises to 0.4 and falls to `end`, as steeply as it rose: smoothing leaves the peak in its place."""
    fall = 0.8 * (0.4 - end) / 0.3
    return log_curve((log_epoch - 2, 0.9), (log_epoch - 0.8, 0.1), (log_epoch, 0.4), (log_epoch + fall, end))


def tent(log_epoch):
    return log_curve((log_epoch - 1.2, 0.01), (log_epoch, 0.3), (log_epoch + 1.2, 0.02))


def falls_to_zero(log_epoch):
    return np.where(round(10**log_epoch) > EPOCHS, 1.0, 0.0)


NO_DESCENT = log_curve((0, 0.9), (4, 0.1))


def make_sweep(members, **variables):
    """A data set as `load_results` returns it.

    `members` are dictionaries of width, seed, label_noise (15 %), diverged (-1) and curves: test_error, ratio (of high
    frequencies on the training split), interpolates and memorises (log10 of the epoch).
    """
    rows = [{"label_noise": 0.15, "diverged": -1, "interpolates": 9, "memorises": 9} | m for m in members]
    ratio = np.array([m["ratio"] for m in rows])[..., None]
    spectrum = np.concatenate([1 - ratio, ratio * [0.4, 0.3, 0.2, 0.1]], axis=-1)
    energy = np.full((len(rows), len(EPOCHS), 3, 3, 5), 7.0)  # of the other splits: must not be looked at
    energy[:, :, 0] = np.stack([spectrum, 3 * spectrum, NAN * spectrum], axis=2)
    curves = {
        "test_error": [m["test_error"] for m in rows],
        "train_error": [falls_to_zero(m["interpolates"]) for m in rows],
        "noisy_error": [falls_to_zero(m["memorises"]) * (1 if m["label_noise"] else NAN) for m in rows],
    }
    return xr.Dataset(
        {name: (("member", "epoch"), values) for name, values in curves.items()}
        | {
            "diverged": ("member", [m["diverged"] for m in rows]),
            "energy": (("member", "epoch", "split", "example", "frequency"), energy),
        }
        | variables,
        coords={name: ("member", [m[name] for m in rows]) for name in ("width", "seed", "label_noise")}
        | {"shift": ("member", [1] * len(rows))}  # of the augmentation, as a `Config` has it
        | {"member": np.arange(len(rows)), "epoch": EPOCHS, "split": ["train", "noisy", "test"]},
    )


def planted(shift=0.0, baseline=1.0, seeds=6, widths=(8, 16), jitter=0.05, measure=tent):
    """Test error peaks at random epochs; the ratio peaks `shift` and interpolation comes `baseline` decades later."""
    rng = np.random.default_rng(1)
    members = []
    for seed in range(seeds):
        for width in widths:
            peak, about = rng.uniform(1.8, 2.2), rng.normal(scale=jitter)
            fields = {"width": width, "seed": seed, "interpolates": peak + baseline}
            members.append(fields | {"test_error": error_with_peak(peak), "ratio": measure(peak + shift + about)})
    return make_sweep(members)


def leads_of(ds, **options):
    return claim.lead(ds, claim.training_measures(ds), **options)


# Measures.


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


def test_epoch_0_indicates_nothing():
    measures = xr.Dataset(
        {name: ("epoch", [0.0, 1.0, 1.0, 1.0]) for name in ("noisy_fit", "interpolation")}
        | {"ratio": ("epoch", [9.0, 3.0, 2.0, 1.0])},
        coords={"epoch": [0, 1, 2, 3]},
    ).expand_dims(member=1)
    when = claim.indicated(measures)
    assert when["epoch"].isel(member=0).values.tolist() == [3, 3, 1]
    assert not when["found"].any()


# Leads.


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
    assert np.isnan(leads_of(ds, threshold=0.5)["lead"]).all()


def test_unfinished_members_are_left_out():
    ds = planted(seeds=2)
    whole = ds["test_error"].copy()
    ds["test_error"] = whole.where((ds["member"] > 0) | (ds["epoch"] < EPOCHS[-1]))
    assert claim.second_descents(ds)["kind"].values.tolist() == ["unfinished", "strong", "strong", "strong"]
    assert leads_of(ds)["lead"].sel(measure=SPECTRUM).notnull().values.tolist() == [False, True, True, True]
    assert claim.online_alarms(ds, claim.training_measures(ds))["second_descent"].sel(measure=SPECTRUM) == 3
    assert "left out: 0 diverged, 1 unfinished" in answer(ds)


@pytest.mark.parametrize("shift", [-0.4, 0.0, 0.3])
def test_a_planted_shift_is_found_inside_the_interval(shift):
    leads = leads_of(planted(shift)).sel(measure=SPECTRUM)
    interval = claim.interval_over_seeds(leads["lead"])
    assert interval.low <= shift <= interval.high
    assert interval.high - interval.low < 0.15
    assert (interval.members, interval.seeds) == (12, 6)


# Intervals over seeds.


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
    with pytest.raises(ValueError, match="2 seeds with a value, an interval needs 3"):
        claim.interval_over_seeds(values_by_seed([1.0, 2.0, NAN], copies=3))


# Correlations.


def test_rank_correlations_are_averaged_within_a_width():
    error = error_with_peak(2)
    ratios = {8: [error, error], 16: [error, 0.9 - error], 32: [0.9 - error] * 2}
    rows = [
        {"width": width, "seed": seed, "test_error": error, "ratio": ratio}
        for width, curves in ratios.items()
        for seed, ratio in enumerate(curves)
    ]
    ds = make_sweep([*rows, {"width": 64, "seed": 0, "test_error": NO_DESCENT, "ratio": error}])
    correlation = claim.rank_correlation(ds, claim.training_measures(ds)).sel(measure=SPECTRUM)
    means = claim.mean_by_width(correlation)
    assert [key for key, _ in means] == [{"width": width} for width in ratios]
    assert [mean for _, mean in means] == pytest.approx([1, 0, -1])


def test_rank_correlation_starts_after_the_first_minimum_and_skips_constants():
    error = error_with_peak(2)
    minimum = 10**1.2
    ratio = np.where(minimum < EPOCHS, error, 0.9 - error)  # falls while the test error does only after its minimum
    rows = [{"width": 8, "seed": s, "test_error": error, "ratio": r} for s, r in enumerate([ratio, 0 * ratio + 0.2])]
    ds = make_sweep(rows)
    correlation = claim.rank_correlation(ds, claim.training_measures(ds)).sel(measure=SPECTRUM)
    assert correlation.values == pytest.approx([1, NAN], nan_ok=True)


# Nulls.


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
    assert not np.array_equal(null, claim.swap_null(leads, seed=1))


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


# Online.


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
    noticed = indicator.online_start(tent(2), EPOCHS).noticed
    np.testing.assert_allclose(counts["notice_lead"], [np.log10(noticed) - 2, NAN, NAN])


# Comparison with the baselines.


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


# Memorisation.


def test_auc_of_separated_identical_and_tied_scores():
    low, high = np.array([1.0, 2, 3]), np.array([4.0, 5])
    assert claim.detection_auc(high, low) == 1
    assert claim.detection_auc(low, high) == 0
    assert claim.detection_auc(low, low) == 0.5
    assert claim.detection_auc(np.array([2.0]), np.array([1.0, 2, 2, 3])) == 0.5
    assert claim.detection_auc(np.array([2.0, NAN]), np.array([1.0, 1, 2, 3, NAN])) == pytest.approx(2.5 / 4)
    assert np.isnan(claim.detection_auc(np.array([NAN]), low)) and np.isnan(claim.detection_auc(low, np.array([])))


def test_auc_of_the_two_kinds_exchanged_is_its_complement_and_monotone_maps_do_not_change_it():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 6, 9).astype(float), rng.integers(0, 6, 13).astype(float)
        wins = np.mean((a[:, None] > b) + 0.5 * (a[:, None] == b))
        assert claim.detection_auc(a, b) == pytest.approx(wins)
        assert claim.detection_auc(a, b) == pytest.approx(1 - claim.detection_auc(b, a))
        assert claim.detection_auc(np.exp(a), np.exp(b)) == claim.detection_auc(a, b)


def with_example_measures(ds):
    """Loss separates the relabelled examples from the first of the training split; its second is relabelled too."""
    dims = ("member", "epoch", "split", "example")
    loss = np.broadcast_to(np.array([[1, 9, NAN], [2, 2, 3], [0, 0, 0.0]]), (*ds["test_error"].shape, 3, 3))
    relabelled = np.broadcast_to(np.array([[0, 1, 0], [1, 1, 1], [0, 0, 0]], bool), (ds.sizes["member"], 3, 3))
    ds["energy"][:, :, 1] = [[1, 9, 9, 9, 9], [0, 0, 0, 0, 1], [NAN] * 5]
    return ds.assign(
        loss=(dims, loss.copy()),
        margin=(dims, loss),
        jacobian_norm=(dims, np.where(np.isnan(loss), NAN, 1.0)),
        relabelled=(("member", "split", "example"), relabelled),
    )


def test_memorisation_tells_relabelled_examples_from_those_that_are_not():
    ds = with_example_measures(planted(seeds=1))
    expected = {"loss": 1, "negative_margin": 0, "jacobian_norm": 0.5, "high_frequency_share": 1}
    by_epoch = ds.assign(relabelled=ds["relabelled"].expand_dims(epoch=ds["epoch"]).astype(float))
    as_coordinate = ds.set_coords("relabelled")
    for given in (ds, by_epoch, as_coordinate):
        auc = claim.memorisation(given)
        assert {name: set(auc[name].values.reshape(-1)) for name in auc} == {n: {v} for n, v in expected.items()}
        assert auc["loss"].transpose("member", "epoch").shape == ds["test_error"].shape
        assert "note" not in auc.attrs


def test_augmented_examples_are_compared_within_the_train_split():
    ds = with_example_measures(planted(seeds=1))
    ds["loss"][:, :, 0] = [5, 3, 4]  # the second is relabelled
    ds["loss"][:, :, 1] = [9, 9, 9]
    given = ds.assign_coords(spectrum_augment=("member", [True, False]))
    assert claim.memorisation(given)["loss"].isel(epoch=-1).values.tolist() == [0, 1]
    nobody = given.assign(relabelled=given["relabelled"].where(given["split"] != "train", 0))
    assert claim.memorisation(nobody)["loss"].isel(epoch=-1).values.tolist() == pytest.approx([NAN, 1], nan_ok=True)


def test_memorisation_is_reported_at_the_peak_and_in_the_end():
    ds = with_example_measures(planted(seeds=3))
    ds["loss"][:, EPOCHS > 300, 1] = 0
    ds["loss"][0, :, 1] = 0  # at the peak, seed 0 has AUC 0 at width 8 and 1 at width 16
    peak = float(claim.second_descents(ds)["peak_epoch"].median())
    nearest = EPOCHS[1:][np.abs(np.log(EPOCHS[1:] / peak)).argmin()]
    heading, *lines = claim.memorisation_in_words(ds)
    assert f"median peak of the test error: epoch {peak:g}" in heading
    (line,) = [line for line in lines if line.startswith("loss")]
    assert line.startswith(f"loss: 0.83 (95 % interval 0.12 to 1.55) at epoch {nearest}, 0.00 (95 % interval 0.00 to")
    assert line.endswith("in the end; 6 members.")
    ds["test_error"][0, -1] = NAN
    assert "loss: 1.00 (95 % interval 1.00 to 1.00) at" in "\n".join(claim.memorisation_in_words(ds))
    ds["test_error"][1:] = NO_DESCENT
    heading, *lines = claim.memorisation_in_words(ds)
    assert "peak" not in heading and not any(" at epoch" in line for line in lines)
    few = ds.isel(member=ds["seed"] < 1)
    assert "loss: 0.00 (1 seed: no interval) in the end; 1 member." in claim.memorisation_in_words(few)


def test_memorisation_without_relabelled_examples_is_nan_with_a_note():
    ds = with_example_measures(planted(seeds=1))
    none = ds.assign(loss=ds["loss"].where(ds["split"] != "noisy"))[["loss", "relabelled", "diverged"]]
    for given in (ds.drop_vars("relabelled"), none):
        auc = claim.memorisation(given)
        assert np.isnan(auc["loss"]).all() and auc["loss"].dims == ("member", "epoch")
        assert "relabelled" in auc.attrs["note"]
    assert np.isnan(claim.memorisation(ds.assign(diverged=("member", [3, -1])))["loss"]).all(
        "epoch"
    ).values.tolist() == [
        True,
        False,
    ]


# The verdict.


def answer(ds):
    return "\n".join(claim.verdict(ds))


def test_a_measure_that_knows_the_peak_is_better_than_late_events():
    text = answer(planted(shift=0, baseline=0.8))
    assert text.startswith(f"{SPECTRUM} is better than interpolation, the best baseline (chosen on the same members)")
    assert "in 12 members: 12 strong" in text and "0 diverged, 0 unfinished" in text
    assert f"{SPECTRUM}: is closer to the peak than its curves shifted in epoch" in text
    assert f"{SPECTRUM}: noticed 12 of 12 second descents in training, after (+) the peak by +0." in text
    assert "interpolation: noticed 12 of 12 second descents in training." in text
    assert "95 % interval" in text and "at width 8" in text and "at width 16" in text


def test_a_late_measure_is_worse_than_an_event_at_the_peak():
    assert f"{SPECTRUM} is worse than interpolation" in answer(planted(shift=0.8, baseline=0))


def test_a_measure_that_is_the_baseline_is_not_distinguishable_from_it():
    assert f"{SPECTRUM} is not distinguishable from" in answer(planted(shift=0.3, baseline=0.25, jitter=0.1))


def test_noise_is_not_better_than_the_baseline_nor_than_chance():
    rng = np.random.default_rng(3)
    for baseline, than in ((0.1, "worse than"), (0.6, "not distinguishable from"), (5, "no better than chance")):
        ds = planted(baseline=baseline, measure=lambda _: rng.uniform(0.1, 0.5, len(EPOCHS)))
        text = answer(ds)
        assert f"{SPECTRUM} is better than" not in text and f"{SPECTRUM} is {than}" in text
        assert f"{SPECTRUM}: is no closer to the peak than its curves shifted in epoch" in text


def test_with_few_recorded_spectra_nothing_can_be_told_from_chance():
    ds = planted(baseline=0.8)
    some = ds.assign(energy=ds["energy"].where(ds["epoch"].isin(EPOCHS[::4])))  # 10 after epoch 0
    text = answer(some)
    assert f"{SPECTRUM} is not to be told from chance (too few recorded epochs), though closer than" in text
    assert f"{SPECTRUM}: too few recorded epochs to tell it from its curves shifted in epoch (p = 0.1" in text
    assert "no better than chance" not in text and f"{SPECTRUM} is better" not in text
    text = answer(planted(seeds=3))
    assert "too few seeds to tell it from its curves exchanged between seeds (p =" in text


def test_the_verdict_says_how_many_spectra_are_those_of_straight_lines():
    ds = planted()
    share = xr.full_like(ds["energy"].isel(example=0, frequency=0, drop=True), 2.0)  # other splits, epoch 0
    share[:, 1:, 0] = np.where(ds["member"] < 3, 0.95, 0.85)[:, None]
    share[:, 1::2, 0] = NAN
    text = answer(ds.assign(slope_share=share))
    assert f"The slope dominates 25% of {12 * 19} training spectra: the raw ratio of those is the slope" in text
    assert "slope dominates" not in answer(ds)


def test_the_verdict_says_what_could_not_be_tested_and_why():
    no_descent = [{"width": 8, "seed": s, "test_error": NO_DESCENT, "ratio": tent(2)} for s in range(3)]
    text = answer(make_sweep(no_descent))
    assert text.startswith("No member has a second descent") and "No member is without label noise" in text
    assert "jacobian_ratio (needs jacobian_norm, logit_norm)" in text and "is better" not in text
    assert f"{SPECTRUM}: alarms in 3 of 3 members without a second descent." in text

    text = answer(planted(seeds=2))
    assert "(2 seeds: no interval)" in text and "cannot be compared with the baselines: 2 seeds" in text
    assert "Every member has a second descent: false alarms cannot be tested" in text

    apart = planted(seeds=2).isel(member=[0, 3])
    assert "too few seeds in one width to tell it from its curves exchanged" in answer(apart)

    text = answer(planted().drop_dims(["split", "example", "frequency"]))
    assert f"{SPECTRUM} (needs energy)" in text and f"{SPECTRUM} cannot be compared" in text

    clean = [m | {"label_noise": 0.0, "test_error": error_with_peak(2)} for m in no_descent]
    text = answer(make_sweep([*clean, no_descent[0]]))
    assert "Every member without label noise has a second descent" in text
    assert "noisy_fit: not recorded in any member with a second descent" in text

    text = answer(make_sweep([m | {"label_noise": 0.0, "diverged": 0 if m["seed"] == 0 else -1} for m in no_descent]))
    assert "1 diverged" in text
    assert f"{SPECTRUM}: alarms in 2 of 2 members without a second descent (2 of 2 without label noise)." in text


def test_the_verdict_is_the_same_each_time():
    assert claim.verdict(planted()) == claim.verdict(planted())
