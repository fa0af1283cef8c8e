import itertools

import pytest

import spectral_dd as sdd
from spectral_dd.config import Config
from spectral_dd.data import draw
from spectral_dd.planning.epochs import recorded_epochs, spectrum_epochs, thinning
from spectral_dd.planning.prepare import prepare


@pytest.mark.parametrize(
    ("epochs", "per_decade", "expected"),
    [
        (1, 10, [0, 1]),
        (10, 3, [0, 1, 2, 5, 10]),
        (12, 1, [0, 1, 12]),
        (400, 2, [0, 1, 3, 10, 32, 100, 400]),
        (1000, 1, [0, 1, 10, 100, 1000]),
        (4, 100, [0, 1, 2, 3, 4]),
    ],
)
def test_recorded_epochs_are_evenly_spaced_in_the_logarithm(epochs, per_decade, expected):
    assert recorded_epochs(Config(epochs=epochs, records_per_decade=per_decade)) == expected


@pytest.mark.parametrize("budget", [0.0, 0.02, 0.04, 0.3, 1.0])
def test_a_budget_keeps_the_last_spectra_and_as_many_as_it_can(digits, budget):
    """Counted here by hand: segments of 8 points, around 5 examples of 3 splits, beside 3 passes a training example."""
    config = Config.of(
        train_size=96, batch_size=32, epochs=40, label_noise=0.2, spectrum_examples=5, spectrum_points=8,
        spectrum_measures=0, spectrum_budget=budget,
    )  # fmt: skip
    draws = [draw(digits, config)]
    recorded, kept = recorded_epochs(config), spectrum_epochs([config], digits, draws)
    training, spectra = 3 * 40 * 96 + len(recorded) * (96 + len(digits.test_labels)), 3 * 5 * 8
    if kept:
        assert kept[-1] == 40 and set(kept) <= set(recorded)
        assert budget == 1 or len(kept) * spectra <= budget * (training + len(kept) * spectra)
        steps = {recorded.index(b) - recorded.index(a) for a, b in itertools.pairwise(kept)}
        assert max(steps, default=1) - min(steps, default=1) <= 1
    assert (len(kept) == len(recorded)) if budget >= 0.3 else (len(kept) < len(recorded))
    words = f"--spectrum_budget={budget:g}: spectra at {len(kept)} of {len(recorded)} recorded epochs"
    assert thinning([config], digits, draws) == ("" if len(kept) == len(recorded) else words)


def test_no_spectra_are_recorded_where_none_are_asked_for(digits):
    config = Config.of(train_size=128, spectrum_examples=0)
    assert spectrum_epochs([config], digits, [draw(digits, config)]) == []
    assert thinning([config], digits, [draw(digits, config)]) == ""


def test_spectra_start_where_the_preset_says_but_the_last_epoch_always_has_them(digits):
    config = Config.of(train_size=96, batch_size=32, epochs=40, spectrum_from_epoch=8)
    draws = [draw(digits, config)]
    assert spectrum_epochs([config], digits, draws) == [e for e in recorded_epochs(config) if e >= 8]
    words = "--spectrum_from_epoch=8, --spectrum_budget=1: spectra at 8 of 15 recorded epochs"
    assert thinning([config], digits, draws) == words
    assert spectrum_epochs([config.replace(spectrum_from_epoch=900)], digits, draws) == [40]


def test_the_default_preset_has_a_spectrum_at_every_record_from_where_the_test_error_has_fallen_on():
    """For one member as for many: the verdict is asked of sweeps of any size."""
    for axes in ({"width": 32}, {"width": (8, 32), "seed": (0, 1), "label_noise": (0, 0.15)}):
        prepared = prepare(sdd.sweep("digits", **axes))
        recorded = recorded_epochs(prepared.configs[0])
        kept = spectrum_epochs(prepared.configs, prepared.dataset(0), prepared.draws)
        assert kept == [epoch for epoch in recorded if epoch >= 8] and len(kept) == 18
