"""The verdict of a whole sweep: which members it takes, and that it gives the planted answers."""

import numpy as np
import pytest
import xarray as xr
from by_hand import EPOCHS, NAN, NO_DESCENT, error_with_peak, make_sweep, planted, tent

import spectral_dd as sdd
from spectral_dd.analysis import claim
from spectral_dd.analysis.claim import SPECTRUM
from spectral_dd.analysis.verdict import MEANING, by_cell, leads


def of_spectrum(ds):
    return sdd.verdict(ds).sel(measure=SPECTRUM)


@pytest.mark.parametrize("shift", [-0.2, 0.0, 0.1])
def test_a_planted_lead_is_a_yes_with_the_lead_in_its_interval(shift):
    row = of_spectrum(planted(shift))
    assert row["answer"] == "yes" and row["low"] <= shift <= row["high"]
    assert row["high"] - row["low"] < 0.15
    assert [int(row[name]) for name in ("members", "found", "seeds", "cells")] == [12, 12, 6, 2]


def test_a_measure_equal_to_the_test_error_has_lead_0_however_rarely_it_is_recorded():
    rows = [
        {"width": 8, "seed": seed, "test_error": error, "ratio": error}
        for seed, error in enumerate(
            [error_with_peak(p, 0.05 + 0.01 * i) for i, p in enumerate(np.linspace(1.7, 2.25, 12))]
        )
    ]
    for every in (1, 2, 3):
        ds = make_sweep(rows)
        row = of_spectrum(ds.assign(energy=ds["energy"].where(ds["epoch"].isin(EPOCHS[::-1][::every]))))
        assert row["answer"] == "yes" and row["low"] < 0 < row["high"]
        assert abs(row["lead"]) < 0.01 * every


def test_a_late_measure_and_one_that_always_peaks_at_the_same_epoch_are_a_no():
    late = of_spectrum(planted(0.6))
    assert late["answer"] == "no" and late["p"] < 0.01 and late["low"] > 0.5
    fixed = of_spectrum(planted(measure=lambda _: tent(2.0)))
    assert fixed["answer"] == "no" and fixed["q"] == pytest.approx(1) and fixed["power"] > 0.9


def test_events_count_from_the_middle_of_the_gap_before_their_record():
    lead = sdd.verdict(planted(baseline=0.5)).sel(measure="interpolation")
    assert lead["low"] < 0.5 < lead["high"]
    never = sdd.verdict(planted(baseline=9)).sel(measure="interpolation")
    assert never["found"] == 0 and never["answer"] == "no" and never["q"] == pytest.approx(1)


def test_members_without_a_second_descent_diverged_unfinished_or_with_few_records_are_not_tested():
    error = error_with_peak(2)
    rows = [{"width": 8, "seed": s, "test_error": error, "ratio": tent(2)} for s in range(6)]
    rows[1] |= {"diverged": 100}
    rows[2] |= {"test_error": NO_DESCENT}
    ds = make_sweep(rows)
    ds["test_error"][3, -1] = NAN
    ds["energy"][4, ~ds["epoch"].isin([1, 100, 10000])] = NAN  # one record near the peak
    ds["energy"][5, :, 0] = NAN
    tested = leads(ds, claim.training_measures(ds)).sel(measure=SPECTRUM)["test_place"].notnull()
    assert tested.values.tolist() == [True, False, False, False, False, False]
    found = sdd.verdict(ds)
    kinds = [int(found[kind]) for kind in ("strong", "weak", "none", "diverged", "unfinished")]
    assert kinds == [3, 0, 1, 1, 1] and found["untested"].sel(measure=SPECTRUM) == 2


def test_epoch_0_and_values_that_are_not_positive_indicate_nothing():
    ds = planted(seeds=3, widths=(8,))
    ds["energy"][:, 0, 0, :, 1:] = 1e9
    ds["energy"][:, 5, 0, :, 1:] = 0
    assert abs(of_spectrum(ds)["lead"]) < 0.05


def test_two_seeds_have_a_lead_and_nothing_more():
    row = of_spectrum(planted(seeds=2))
    assert row["answer"] == "could not have told" and abs(row["lead"]) < 0.1 and row["power"] == 0
    assert np.isnan([row["low"], row["p"]]).all()


def test_seeds_that_are_needed_have_the_power():
    few = of_spectrum(planted(seeds=3, widths=(8,)))
    needed = int(few["seeds_needed"])
    assert few["power"] < 0.8 and needed > 3
    assert of_spectrum(planted(seeds=2 * needed, widths=(8,)))["power"] > 0.8


def test_cells_are_widths_and_settings_and_seeds_stand_in_columns():
    coords = {"seed": [2, 0, 1, 0], "width": [8, 8, 8, 8], "label_noise": [0.1, 0.1, 0.1, 0.2]}
    located = xr.Dataset({"x": (("member", "measure"), [[3.0], [1.0], [2.0], [9.0]])}, {"measure": ["m"]})
    located = located.assign_coords({name: ("member", values) for name, values in coords.items()})
    np.testing.assert_array_equal(by_cell(located)["x"], [[[1, 2, 3], [9, NAN, NAN]]])


def test_members_may_have_measures_of_their_own():
    """The field `measure` of a member is no dimension."""
    ds = planted(seeds=3)
    own = ds.assign_coords(measure=("member", ["mine.py:depth"] * ds.sizes["member"]))
    xr.testing.assert_identical(sdd.verdict(own), sdd.verdict(ds))


def test_every_variable_says_what_it_is():
    found = sdd.verdict(planted(seeds=2))
    assert set(found.data_vars) == set(MEANING)
    assert all(variable.attrs["long_name"] for variable in found.data_vars.values())
    xr.testing.assert_identical(found, sdd.verdict(planted(seeds=2)))
