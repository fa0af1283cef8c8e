"""Known answers of the AUC, and which examples are compared."""

import numpy as np
import pytest
import xarray as xr
from by_hand import NAN, planted, with_example_measures

from spectral_dd.analysis.detection import detection_auc
from spectral_dd.analysis.memorisation import area_under_margin, memorisation


def test_auc_of_separated_identical_and_tied_scores():
    low, high = np.array([1.0, 2, 3]), np.array([4.0, 5])
    assert detection_auc(high, low) == 1
    assert detection_auc(low, high) == 0
    assert detection_auc(low, low) == 0.5
    assert detection_auc(np.array([2.0]), np.array([1.0, 2, 2, 3])) == 0.5
    assert detection_auc(np.array([2.0, NAN]), np.array([1.0, 1, 2, 3, NAN])) == pytest.approx(2.5 / 4)
    assert np.isnan(detection_auc(np.array([NAN]), low)) and np.isnan(detection_auc(low, np.array([])))


def test_auc_of_the_two_kinds_exchanged_is_its_complement_and_monotone_maps_do_not_change_it():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 6, 9).astype(float), rng.integers(0, 6, 13).astype(float)
        wins = np.mean((a[:, None] > b) + 0.5 * (a[:, None] == b))
        assert detection_auc(a, b) == pytest.approx(wins)
        assert detection_auc(a, b) == pytest.approx(1 - detection_auc(b, a))
        assert detection_auc(np.exp(a), np.exp(b)) == detection_auc(a, b)


def test_memorisation_tells_relabelled_examples_from_those_that_are_not():
    ds = with_example_measures(planted(seeds=1))
    expected = {"loss": 1, "negative_margin": 0, "jacobian_norm": 0.5, "high_frequency_share": 1}
    by_epoch = ds.assign(relabelled=ds["relabelled"].expand_dims(epoch=ds["epoch"]).astype(float))
    as_coordinate = ds.set_coords("relabelled")
    for given in (ds, by_epoch, as_coordinate):
        auc = memorisation(given)
        assert {name: set(auc[name].values.reshape(-1)) for name in auc} == {n: {v} for n, v in expected.items()}
        assert auc["loss"].transpose("member", "epoch").shape == ds["test_error"].shape
        assert "note" not in auc.attrs


def test_augmented_examples_are_compared_within_the_train_split():
    ds = with_example_measures(planted(seeds=1))
    ds["loss"][:, :, 0] = [5, 3, 4]  # the second is relabelled
    ds["loss"][:, :, 1] = [9, 9, 9]
    given = ds.assign_coords(spectrum_augment=("member", [True, False]))
    assert memorisation(given)["loss"].isel(epoch=-1).values.tolist() == [0, 1]
    nobody = given.assign(relabelled=given["relabelled"].where(given["split"] != "train", 0))
    assert memorisation(nobody)["loss"].isel(epoch=-1).values.tolist() == pytest.approx([NAN, 1], nan_ok=True)


def test_memorisation_without_relabelled_examples_is_nan_with_a_note():
    ds = with_example_measures(planted(seeds=1))
    none = ds.assign(loss=ds["loss"].where(ds["split"] != "noisy"))[["loss", "relabelled", "diverged"]]
    for given in (ds.drop_vars("relabelled"), none):
        auc = memorisation(given)
        assert np.isnan(auc["loss"]).all() and auc["loss"].dims == ("member", "epoch")
        assert "relabelled" in auc.attrs["note"]
    assert np.isnan(memorisation(ds.assign(diverged=("member", [3, -1])))["loss"]).all("epoch").values.tolist() == [
        True,
        False,
    ]


def test_area_under_the_margin_is_the_mean_over_epochs_however_they_are_recorded():
    """Of a margin a + b e over epochs 0 to e it is a + b e / 2; each member has its own epochs."""
    epochs = np.array([0, 1, 2, 5, 10, 100])
    a, b = np.array([[0.0, -3], [2, 1]]), np.array([[1.0, 0.5], [0, -2]])
    margin = a[:, None, None] + b[:, None, None] * epochs[None, :, None, None]  # member, epoch, split, example
    margin[0, 3] = margin[1, 0] = NAN
    dims = ("member", "epoch", "split", "example")
    found = area_under_margin(xr.DataArray(margin, {"member": [7, 3], "epoch": epochs}, dims))
    assert found.dims == dims
    np.testing.assert_array_equal(np.isnan(found), np.isnan(margin))
    np.testing.assert_allclose(found.values[0, [0, 1, 2, 4, 5], 0], a[0] + b[0] * epochs[[0, 1, 2, 4, 5], None] / 2)
    np.testing.assert_allclose(found.values[1, 1:, 0], a[1] + b[1] * (epochs[1:, None] + 1) / 2)  # from epoch 1 on


def test_memorisation_tells_by_area_and_curvature_too():
    ds = with_example_measures(planted(seeds=1))
    ds = ds.assign(area_under_margin=ds["margin"], loss_curvature=ds["loss"])
    auc = memorisation(ds)
    np.testing.assert_array_equal(auc["negative_area_under_margin"], auc["negative_margin"])
    np.testing.assert_array_equal(auc["loss_curvature"], auc["loss"])
