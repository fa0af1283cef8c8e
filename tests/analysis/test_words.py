"""The table and the sentences: what they say of sweeps made by hand."""

import numpy as np
import pytest
import xarray as xr
from by_hand import (
    EPOCHS,
    FALL_RISE_FALL,
    NAN,
    NO_DESCENT,
    make_sweep,
    planted,
    sweep_of_errors,
    tent,
    with_example_measures,
)

from spectral_dd.analysis import claim, curves, words
from spectral_dd.analysis.verdict import verdict

COMMAND = "experiments/train_sweep.py --workdir=runs/seeds --width=8,32 --seed=0-2 --task_index=1"


def answer(ds):
    return words.answer(verdict(ds), COMMAND)


def details(ds):
    return "\n".join(words.verdict_details(verdict(ds), ds))


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


def test_a_measure_that_follows_the_peak_is_a_yes_in_one_sentence():
    text = answer(planted())
    assert text.startswith(
        "Yes. In 12 networks of 6 seeds the spectrum peaks when the second descent starts (0.01 decades"
    )
    assert "95 % interval -0.01 to +0.03" in text and text.count(". ") == 1


def test_no_says_why():
    assert answer(planted(0.6)).startswith(
        "No. In 12 networks with a second descent the spectrum does not peak at its start (0.61 decades after it"
    )
    assert "does not follow its start from seed to seed: a fixed epoch does as well (p = 1;" in answer(
        planted(measure=lambda _: tent(2.0))
    )
    assert answer(planted(measure=lambda _: NO_DESCENT)) == (
        "No. The spectrum has no peak in any of 12 networks with a second descent."
    )


def test_what_the_sweep_could_not_have_told_comes_with_the_command_that_would():
    again = "This would do: python experiments/train_sweep.py --workdir=runs/seeds --width=8,32 --seed=0-2"
    few = answer(planted(seeds=2))
    assert few == f"{words.UNTOLD}: it has 2 seeds with a second descent, and needs 3. {again},3,4,5 --extend"
    three = answer(planted(seeds=3, widths=(8,)))
    assert three.startswith(
        f"{words.UNTOLD}: the starts of the second descent differ by 0.08 decades between seeds, and"
    )
    assert three.endswith(f"with 3 seeds a measure that follows them is found in 28% of cases. {again},3,4,5 --extend")
    rare = planted().where(lambda ds: ds["epoch"].isin(EPOCHS[::6]))[["energy"]]
    assert answer(planted().assign(rare)) == (
        f"{words.UNTOLD}: its 12 networks with a second descent have fewer than 3 spectra around its start. This would "
        "do: python experiments/evaluate_spectrum.py --workdir=runs/seeds --name=all && python experiments/indicate.py "
        "--workdir=runs/seeds --spectrum=all"
    )
    assert "it has no spectra. This would do: python experiments/evaluate" in answer(planted().drop_vars("energy"))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("/bin/spectral-dd train_sweep --workdir r", "spectral-dd train_sweep --workdir=r --seed=0,1,2,3 --extend"),
        (
            "/x/spectral_dd/__main__.py train_sweep --workdir='my run' --seed 1,4-6 --task_index=2 --flip",
            "python -m spectral_dd train_sweep '--workdir=my run' --flip --seed=1,4-6,0,2,3 --extend",
        ),
    ],
)
def test_more_seeds_are_asked_for_as_the_sweep_was(command, expected):
    assert words.answer(verdict(planted(seeds=2)), command).endswith(f"needs 3. This would do: {expected}")


def test_more_seeds_of_a_sweep_from_python():
    for command in ("", "/x/ipykernel_launcher.py -f kernel.json"):
        text = words.answer(verdict(planted(seeds=2)), command)
        assert text.endswith("needs 3. Train it in the same directory with 3 more seeds and extend=True.")


def test_without_a_second_descent_there_is_nothing_to_tell():
    no_descent = make_sweep([{"width": 8, "seed": s, "test_error": NO_DESCENT, "ratio": tent(2)} for s in range(3)])
    assert "none of its 3 networks has a second descent, a rise and then a fall of the test error by 3" in answer(
        no_descent
    )
    assert "No member is without label noise" in details(no_descent)
    no_descent["test_error"][:, -1] = NAN
    assert "no network has a second descent yet, 3 are unfinished. The same command goes on" in answer(no_descent)


def test_the_table_has_a_row_for_each_measure():
    head, spectrum, *_, interpolation = words.verdict_cells(verdict(planted(seeds=2)))
    assert head[:4] == ["measure", "answer", "peaks in", "lead, decades"]
    assert spectrum == ["high frequency ratio", "could not have told", "4 of 4", "+0.01", "-", "0%", "4 of 4", "-"]
    assert interpolation[0] == "interpolation (event)"


def test_the_details_name_what_was_left_out_the_best_baseline_and_what_is_not_recorded():
    ds = planted(baseline=0.8)
    assert "high_frequency_ratio is nearer than interpolation, the best baseline" in details(ds)
    assert "high_frequency_ratio is farther than interpolation" in details(planted(shift=0.8, baseline=0.2))
    assert "not distinguishable from interpolation" in details(planted(shift=0.3, baseline=0.3, jitter=0.1))
    assert "jacobian_ratio (needs jacobian_norm, logit_norm)" in details(ds)
    assert "Every member has a second descent: false alarms cannot be tested" in details(ds)
    ds["test_error"][0, -1] = NAN
    assert "in 12 members: 11 strong, 0 weak, 0 none. Left out: 0 diverged, 1 unfinished." in details(ds)


def test_the_verdict_says_how_many_spectra_are_those_of_straight_lines():
    ds = planted()
    share = xr.full_like(ds["energy"].isel(example=0, frequency=0, drop=True), 2.0)  # other splits, epoch 0
    share[:, 1:, 0] = np.where(ds["member"] < 3, 0.95, 0.85)[:, None]
    share[:, 1::2, 0] = NAN
    text = details(ds.assign(slope_share=share))
    assert f"The slope dominates 25% of {12 * 19} training spectra: their raw ratio is the slope" in text
    assert "slope dominates" not in details(ds)


def test_a_setting_is_described_in_words():
    assert words.describe({"label_noise": 0.1, "train_size": 4000}) == "label noise 0.1, train size 4000"
    assert words.describe({}) == ""


def test_memorisation_is_reported_at_the_peak_and_in_the_end():
    ds = with_example_measures(planted(seeds=3))
    ds["loss"][:, EPOCHS > 300, 1] = 0
    ds["loss"][0, :, 1] = 0  # at the peak, seed 0 has AUC 0 at width 8 and 1 at width 16
    peak = float(claim.second_descents(ds)["peak_epoch"].median())
    nearest = EPOCHS[1:][np.abs(np.log(EPOCHS[1:] / peak)).argmin()]
    heading, *lines = words.memorisation_in_words(ds)
    assert f"median peak of the test error is at epoch {peak:g}." in heading
    (line,) = [line for line in lines if line.startswith("loss")]
    assert line.startswith(f"loss: 0.83 (95 % interval 0.12 to 1.00) at epoch {nearest}, 0.00 (95 % interval 0.00 to")
    assert line.endswith("at the end; 6 members.")
    ds["test_error"][0, -1] = NAN
    assert "loss: 1.00 (95 % interval 1.00 to 1.00) at" in "\n".join(words.memorisation_in_words(ds))
    ds["test_error"][1:] = NO_DESCENT
    heading, *lines = words.memorisation_in_words(ds)
    assert "peak" not in heading and not any(" at epoch" in line for line in lines)
    few = ds.isel(member=ds["seed"] < 1)
    assert "loss: 0.00 (1 seed: no interval) at the end; 1 member." in words.memorisation_in_words(few)
