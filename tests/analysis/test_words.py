"""The table and the sentences: what they say of sweeps made by hand."""

import numpy as np
import pytest
import xarray as xr
from by_hand import (
    EPOCHS,
    FALL_RISE_FALL,
    NAN,
    NO_DESCENT,
    error_with_peak,
    make_sweep,
    planted,
    sweep_of_errors,
    tent,
    with_example_measures,
)

from spectral_dd.analysis import claim, curves, words
from spectral_dd.analysis.claim import SPECTRUM


def answer(ds):
    return "\n".join(words.verdict(ds))


def test_format_summary_is_aligned_and_says_over_how_many_seeds():
    ds = sweep_of_errors(
        [
            ({"width": 8, "seed": 0}, FALL_RISE_FALL, np.zeros(12), -1),
            ({"width": 8, "seed": 1}, np.linspace(0.9, 0.2, 12), np.ones(12), -1),
            ({"width": 16, "seed": 0}, np.full(12, 0.9), np.ones(12), 3),
        ]
    )
    head, narrow, wide = words.format_summary(curves.summary(ds)).splitlines()
    assert len(head) == len(narrow) == len(wide)
    assert "diverged" in head and "unfinished" not in head
    assert " ".join(narrow.split()) == "8 80 15.0 40.0 (1/2) 8 (1/2) 20.0 50.0 0 (1/2) 2 0"
    assert " ".join(wide.split()) == "16 160 - - - - - - 1 1"


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
    means = words.mean_by_width(correlation)
    assert [key for key, _ in means] == [{"width": width} for width in ratios]
    assert [mean for _, mean in means] == pytest.approx([1, 0, -1])


def test_a_measure_that_knows_the_peak_is_better_than_late_events():
    text = answer(planted(shift=0, baseline=0.8))
    assert text.startswith(f"{SPECTRUM} is better than interpolation, the best baseline (chosen on the same members)")
    assert "in 12 members: 12 strong" in text and "0 diverged, 0 unfinished" in text
    assert f"{SPECTRUM}: closer to the peak than its curves shifted in epoch" in text
    assert f"{SPECTRUM}: noticed 12 of 12 second descents during training, in the median +0." in text
    assert "interpolation: noticed 12 of 12 second descents during training." in text
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
        assert f"{SPECTRUM}: no closer to the peak than its curves shifted in epoch" in text


def test_with_few_recorded_spectra_nothing_can_be_told_from_chance():
    ds = planted(baseline=0.8)
    some = ds.assign(energy=ds["energy"].where(ds["epoch"].isin(EPOCHS[::4])))  # 10 after epoch 0
    text = answer(some)
    assert f"{SPECTRUM} is not distinguishable from chance (too few recorded epochs), although closer than" in text
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
    assert f"The slope dominates 25% of {12 * 19} training spectra: their raw ratio is the slope" in text
    assert "slope dominates" not in answer(ds)


def test_unfinished_members_are_named():
    ds = planted(seeds=2)
    ds["test_error"][0, -1] = NAN
    assert "in 4 members: 3 strong, 0 weak, 0 none. Left out: 0 diverged, 1 unfinished." in answer(ds)


def test_a_setting_is_described_in_words():
    assert words.describe({"label_noise": 0.1, "train_size": 4000}) == "label noise 0.1, train size 4000"
    assert words.describe({}) == ""


def test_the_verdict_says_what_could_not_be_tested_and_why():
    no_descent = [{"width": 8, "seed": s, "test_error": NO_DESCENT, "ratio": tent(2)} for s in range(3)]
    text = answer(make_sweep(no_descent))
    assert text.startswith("No member has a second descent") and "No member is without label noise" in text
    assert "jacobian_ratio (needs jacobian_norm, logit_norm)" in text and "is better" not in text
    assert f"{SPECTRUM}: false alarms in 3 of 3 members without a second descent." in text

    text = answer(planted(seeds=2))
    assert "(2 seeds: no interval)" in text
    assert "cannot be compared with the baselines: an interval needs 3 seeds with a value, not 2." in text
    assert "Every member has a second descent: false alarms cannot be tested" in text

    apart = planted(seeds=2).isel(member=[0, 3])
    assert "too few seeds at one width to compare it with its curves exchanged" in answer(apart)

    text = answer(planted().drop_dims(["split", "example", "frequency"]))
    assert f"{SPECTRUM} (needs energy)" in text and f"{SPECTRUM} cannot be compared" in text

    clean = [m | {"label_noise": 0.0, "test_error": error_with_peak(2)} for m in no_descent]
    text = answer(make_sweep([*clean, no_descent[0]]))
    assert "Every member without label noise has a second descent" in text
    assert "noisy_fit: not recorded in any member with a second descent" in text

    text = answer(make_sweep([m | {"label_noise": 0.0, "diverged": 0 if m["seed"] == 0 else -1} for m in no_descent]))
    assert "1 diverged" in text
    assert f"{SPECTRUM}: false alarms in 2 of 2 members without a second descent (2 of 2 without label noise)." in text


def test_the_verdict_is_the_same_each_time():
    assert words.verdict(planted()) == words.verdict(planted())


def test_memorisation_is_reported_at_the_peak_and_in_the_end():
    ds = with_example_measures(planted(seeds=3))
    ds["loss"][:, EPOCHS > 300, 1] = 0
    ds["loss"][0, :, 1] = 0  # at the peak, seed 0 has AUC 0 at width 8 and 1 at width 16
    peak = float(claim.second_descents(ds)["peak_epoch"].median())
    nearest = EPOCHS[1:][np.abs(np.log(EPOCHS[1:] / peak)).argmin()]
    heading, *lines = words.memorisation_in_words(ds)
    assert f"median peak of the test error is at epoch {peak:g}." in heading
    (line,) = [line for line in lines if line.startswith("loss")]
    assert line.startswith(f"loss: 0.83 (95 % interval 0.12 to 1.55) at epoch {nearest}, 0.00 (95 % interval 0.00 to")
    assert line.endswith("at the end; 6 members.")
    ds["test_error"][0, -1] = NAN
    assert "loss: 1.00 (95 % interval 1.00 to 1.00) at" in "\n".join(words.memorisation_in_words(ds))
    ds["test_error"][1:] = NO_DESCENT
    heading, *lines = words.memorisation_in_words(ds)
    assert "peak" not in heading and not any(" at epoch" in line for line in lines)
    few = ds.isel(member=ds["seed"] < 1)
    assert "loss: 0.00 (1 seed: no interval) at the end; 1 member." in words.memorisation_in_words(few)
