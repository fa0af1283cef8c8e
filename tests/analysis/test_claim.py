"""The measures of the training set on sweeps made by hand, and what an online detector says of them."""

import numpy as np
import pytest
import xarray as xr
from by_hand import EPOCHS, NAN, NO_DESCENT, error_with_peak, make_sweep, online_start, planted, tent

from spectral_dd.analysis import claim
from spectral_dd.analysis.claim import SPECTRUM


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


def test_members_that_diverged_or_are_unfinished_have_no_kind():
    rows = [{"width": 8, "seed": s, "test_error": error_with_peak(2), "ratio": tent(2)} for s in range(3)]
    ds = make_sweep([rows[0], rows[1] | {"diverged": 100}, rows[2] | {"test_error": NO_DESCENT}])
    assert claim.second_descents(ds)["kind"].values.tolist() == ["strong", "diverged", "none"]
    unfinished = planted(seeds=2)
    unfinished["test_error"][0, -1] = NAN
    assert claim.second_descents(unfinished)["kind"].values.tolist() == ["unfinished", "strong", "strong", "strong"]
    alarms = claim.online_alarms(unfinished, claim.training_measures(unfinished))
    assert alarms["second_descent"].sel(measure=SPECTRUM) == 3
