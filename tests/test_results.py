import shutil

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

import spectral_dd as sdd
from helpers import logits_of
from spectral_dd.analysis import curves
from spectral_dd.config import FIELDS
from spectral_dd.errors import InputError
from spectral_dd.members import expand
from spectral_dd.records import COORDINATES, VARIABLES
from test_cli import run_script


def test_results_are_labelled(finished):
    ds = sdd.load_results(finished)
    sizes = {"member": 4, "epoch": 5, "split": 3, "example": 5, "frequency": 5, "plane": 4, "point": 144, "score": 6}
    assert dict(ds.sizes) == sizes
    assert list(ds.epoch) == [0, 1, 2, 5, 12]
    assert list(ds.width.values) == [2, 2, 4, 4]
    assert list(ds.split.values) == ["train", "noisy", "test"]
    np.testing.assert_allclose(ds.frequency, [0, 1, 2, 3, 4])
    np.testing.assert_allclose(ds.noise_rate, 19 / 96)
    assert (ds.diverged == -1).all()
    assert not ds.drop_vars("noise_energy").isnull().any().to_array().any()
    assert (ds.noise_energy.notnull().sum("example") == min(4, ds.sizes["example"])).all()
    assert ((ds.train_error >= 0) & (ds.train_error <= 1)).all()


def test_everything_in_the_table_is_there_with_unit_and_name_and_nothing_else(finished, tmp_path):
    ds = sdd.load_results(finished)
    assert set(ds.data_vars) == set(VARIABLES)
    assert set(ds.coords) == set(COORDINATES) | set(FIELDS)
    for name, values in ds.variables.items():
        assert {"units", "long_name", "description"} <= values.attrs.keys(), name
        if name in VARIABLES:
            assert values.dims == VARIABLES[name].dims
    assert ds.frequency.attrs["units"] == "cycles / L2 distance"
    assert ds["shift"].attrs["units"] == "pixels"


@pytest.mark.usefixtures("fast_compile")
def test_members_with_other_epochs_and_other_segments_share_a_data_set(tmp_path, small_axes):
    tied = ((1, 0.25), (2, 0.5))
    axes = [{"epochs": epochs, "spectrum_half_width": h, "seed": 0, "width": 2} for epochs, h in tied]
    sdd.train(tmp_path, [config for of_one in axes for config in expand(small_axes | of_one)])
    ds = sdd.load_results(tmp_path)
    assert list(ds.epoch) == [0, 1, 2]
    np.testing.assert_array_equal(ds.test_error.isel(epoch=2).isnull(), ds.epochs == 1)
    np.testing.assert_allclose(ds.frequency, [0, 1, 2, 3, 4, 6, 8])
    measured = ds.energy.isel(epoch=1, split=0, example=0).notnull()
    for member in range(2):
        own = np.arange(5) / (2 * float(ds.spectrum_half_width[member]))
        np.testing.assert_array_equal(ds.frequency[measured[member].values], own)


def test_a_member_is_the_plain_network(finished, digits):
    ds = sdd.load_results(finished)
    for member in range(4):
        for epoch in (0, 12):
            model, variables = sdd.load_member(finished, member, epoch)
            assert model.width == ds.width[member]
            assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == ds.parameters[member]
            logits = logits_of(model, variables, digits.test_images)  # as the data set has them
            scaled = logits_of(model, variables, digits.test_images / np.float32(255))
            np.testing.assert_allclose(logits, scaled, rtol=1e-5, atol=1e-5)
            wrong = np.mean(np.argmax(logits, axis=1) != digits.test_labels)
            np.testing.assert_allclose(wrong, ds.test_error.sel(member=member, epoch=epoch), atol=2 / 797)
    assert sdd.load_member(finished, 1)[1].keys() == {"params", "batch_stats"}


def test_integer_images_of_unknown_range_are_refused(finished, digits):
    model, variables = sdd.load_member(finished, 0)
    with pytest.raises(InputError, match="images must be uint8, uint16 or floating point; they are int64"):
        model.apply(variables, digits.test_images.astype(np.int64), train=False)


def test_every_analysed_example_is_known_by_its_place_and_labels(finished, digits):
    ds = sdd.load_results(finished).isel(member=2, epoch=1)
    source = load_digits().target  # the split is drawn, so the place is the one before it
    for split in ("train", "noisy", "test"):
        index = ds.index.sel(split=split).values.astype(int)
        np.testing.assert_array_equal(ds.true_label.sel(split=split), source[index])
    np.testing.assert_array_equal(ds.label != ds.true_label, ds.relabelled)
    assert ds.relabelled.sum("example").values.tolist()[1:] == [5, 0]
    assert set(ds.index.sel(split="test").values) <= set(digits.test_places)


@pytest.mark.usefixtures("fast_compile")
def test_power_does_not_depend_on_the_number_of_points(small):
    """Of a function that is nearly linear along the segment, bin by bin; energies differ sixteenfold."""
    sdd.evaluate_spectra(small, "coarse", {"spectrum_points": 64})
    sdd.evaluate_spectra(small, "twice", {"spectrum_points": 128})
    coarse, twice = (
        sdd.load_results(small, name).isel(epoch=0).sel(frequency=[0, 1, 2]) for name in ("coarse", "twice")
    )
    np.testing.assert_allclose(coarse.power, twice.power, rtol=0.05)
    np.testing.assert_allclose(twice.energy.mean("example") / 128**2, twice.power, rtol=1e-5)


@pytest.mark.parametrize(
    ("member", "epoch", "message"),
    [(7, 12, "member=7: the sweep has members 0 to 3"), (0, 11, "epoch=11: member 0 has recorded 0, 1, 2, 5, 12")],
)
def test_a_member_or_epoch_that_does_not_exist_is_named(finished, member, epoch, message):
    with pytest.raises(InputError) as error:
        sdd.load_member(finished, member, epoch)
    assert str(error.value) == message


def assert_same_values(ours, theirs):
    assert set(ours.variables) == set(theirs.variables)
    for name in theirs.variables:
        np.testing.assert_array_equal(ours[name].values, theirs[name].values, err_msg=name)


@pytest.mark.parametrize("has_summary", [True, False])
def test_lazy_results_have_the_same_values(finished, tmp_path, has_summary):
    if not has_summary:
        finished = shutil.copytree(finished, tmp_path / "run")
        for path in finished.glob("packs/*/summary.npz"):
            path.unlink()
    lazy, whole = sdd.load_results(finished, lazy=True), sdd.load_results(finished)
    assert lazy.energy.chunks is not None and whole.energy.chunks is None
    means = ["power", "slope_share", "noise_share", "energy_error"]  # kept in float32
    unread = ["area_under_margin", "reproducibility", "plane_regions", "plane", "point"]
    assert_same_values(lazy.drop_vars(means), whole.drop_vars(means + unread))
    for name in means:
        np.testing.assert_allclose(lazy[name], whole[name], rtol=1e-5)
    some = {"member": [2], "epoch": slice(1, 3), "split": 1}
    np.testing.assert_array_equal(lazy.energy.isel(some).values, whole.energy.isel(some).values)
    assert bool([*finished.glob("packs/*/summary.npz")]) == has_summary  # who reads writes nothing


def test_averaged_results_have_one_example_with_the_mean(finished):
    averaged, whole = sdd.load_results(finished, averaged=True), sdd.load_results(finished)
    assert averaged.sizes["example"] == 1
    np.testing.assert_array_equal(averaged.test_error, whole.test_error)
    for name in ("energy", "margin"):
        np.testing.assert_allclose(averaged[name].squeeze("example"), whole[name].mean("example"), rtol=1e-5)
    np.testing.assert_allclose(averaged.energy_error, whole.energy_error, rtol=1e-5)
    np.testing.assert_array_equal(averaged.detection, whole.detection)
    ours, theirs = sdd.verdict(averaged), sdd.verdict(whole)
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values)


@pytest.mark.usefixtures("coarse")
def test_several_sweeps_are_one_data_set_with_members_numbered_through(finished, small, capsys):
    both, one, other = sdd.load_results([finished, small]), sdd.load_results(finished), sdd.load_results(small)
    assert list(both.member) == list(range(8)) and list(both.sweep_member) == [*range(4), *range(4)]
    assert list(both.sweep) == [str(finished)] * 4 + [str(small)] * 4
    np.testing.assert_array_equal(both.test_error.isel(member=slice(4, None)), other.test_error)
    np.testing.assert_array_equal(both.energy.isel(member=slice(4)), one.energy)
    assert both.jacobian_norm.isel(member=slice(4, None)).isnull().all()  # which only the first has
    assert both.diverged.dtype == one.diverged.dtype and both.energy.attrs == one.energy.attrs
    assert "sweep" in curves.setting_names(both) and "sweep" not in curves.setting_names(one)
    assert run_script("report.py", f"--workdir={finished},{small}") == 0
    assert (finished.parent / f"{finished.name}+{small.name}" / "report.html").exists()
