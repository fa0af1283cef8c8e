"""The statistics on simulated sweeps with a known answer, at the records of the digits preset."""

import numpy as np
import pytest
import scipy.stats
from planted_descents import NOTHING, Sweeps, logistic, thinned

from spectral_dd.analysis import evidence
from spectral_dd.config import Config
from spectral_dd.planning.epochs import recorded_epochs

EPOCHS = tuple(recorded_epochs(Config(epochs=400))[1:])
SPECTRA = tuple(epoch for epoch in EPOCHS if epoch >= 8)
ONE_CELL = {seeds: Sweeps(EPOCHS, SPECTRA, seeds) for seeds in (3, 5, 10)}


@pytest.mark.parametrize("lead", [0.0, -0.1])
def test_a_measure_that_follows_the_peak_is_found_with_five_seeds(lead):
    """Even where only one width has a second descent."""
    assert (ONE_CELL[5].judged(lead)["answer"] == "yes").mean() >= 0.9


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("kind", NOTHING)
def test_a_measure_that_knows_nothing_of_the_member_is_seldom_a_yes(kind, seeds):
    assert (ONE_CELL[seeds].judged(kind)["answer"] == "yes").mean() <= 0.05


def test_widths_that_share_their_seeds_do_not_make_a_yes_more_likely():
    sweeps = Sweeps(EPOCHS, SPECTRA, seeds=5, cells=3, number=200, shared=0.9)
    assert (sweeps.judged("independent")["answer"] == "yes").mean() <= 0.05


@pytest.mark.parametrize("seeds", [3, 10])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_intervals_hold_the_true_lead_and_it_has_no_bias_whatever_the_records(every, seeds):
    sweeps, gap = Sweeps(EPOCHS, thinned(EPOCHS, every), seeds), 0.1 * every
    judged, same = sweeps.judged(-0.1), sweeps.judged("same curve")
    held = (judged["low"] <= -0.1) & (judged["high"] >= -0.1)
    assert held.mean() >= 0.92  # 400 simulations: 0.95 within 3 standard errors
    assert every == 3 or held.mean() <= 0.99
    assert abs(np.mean(judged["leads"]) + 0.1) < 0.1 * gap and abs(np.mean(same["leads"])) < 0.1 * gap
    assert ((same["low"] <= 0) & (same["high"] >= 0)).mean() >= 0.92
    assert (same["high"] - same["low"]).min() > 0


def test_curves_of_another_shape_are_found_and_placed_too():
    """Which the method's constants were not fitted on."""
    judged = Sweeps(EPOCHS, SPECTRA, seeds=5, shape=logistic).judged(-0.1)
    assert (judged["answer"] == "yes").mean() >= 0.9
    assert ((judged["low"] <= -0.1) & (judged["high"] >= -0.1)).mean() >= 0.92
    assert abs(np.mean(judged["leads"]) + 0.1) < 0.1 * 0.1


def test_the_power_is_how_often_a_measure_that_follows_is_found():
    sweeps = ONE_CELL[5]
    rng, spread = np.random.default_rng(0), 0.115
    found = []
    for _ in range(2000):
        test = spread * rng.standard_normal(5)
        lead = evidence.FOLLOWS * rng.standard_normal(5)
        q = np.sum((lead - lead.mean()) ** 2) / np.sum((test - test.mean()) ** 2)
        variance = np.var(test, ddof=1)
        found.append((evidence.p_value(q, 5) <= 0.05, evidence.power(variance, 5, 4, evidence.FOLLOWS)))
    actual, said = np.mean(found, axis=0)
    assert said == pytest.approx(actual, abs=0.03)
    assert sweeps.judged(0.0)["power"].mean() == pytest.approx(said, abs=0.08)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_p_is_at_most_the_level_whatever_the_variance_of_the_measure(seeds):
    rng = np.random.default_rng(seeds)
    test = rng.standard_normal((20_000, seeds))
    worst = 0
    for size in (0.3, 0.6, 0.8, 1.0, 1.5):
        lead = size * rng.standard_normal(test.shape) - test
        q = (lead.var(axis=1) / test.var(axis=1)).astype(float)
        worst = max(worst, (evidence.p_value(q, np.array(seeds)) <= 0.05).mean())
    assert worst <= 0.03  # two-sided: half of it is that the lead varies more
    assert worst >= 0.02


def test_p_and_the_largest_q_agree_and_one_fixed_epoch_has_p_1():
    for seeds in (3, 5, 10, 30):
        assert evidence.p_value(evidence.largest_q(np.array(seeds)), np.array(seeds)) == pytest.approx(0.05)
    assert evidence.p_value(np.array([1.0, 3.0]), np.array(5)).tolist() == [1, 1]
    assert np.isnan(evidence.p_value(np.array(0.1), np.array(2)))


def test_the_interval_is_that_of_a_t_test_over_the_means_of_seeds():
    values = np.random.default_rng(0).normal(size=(4, 7))
    values[1, 2] = values[:, 6] = np.nan
    mean, low, high = evidence.interval(values)
    known = scipy.stats.ttest_1samp(np.nanmean(values[:, :6], axis=0), 0)
    assert (low, high) == pytest.approx(tuple(known.confidence_interval()))
    assert mean == pytest.approx((low + high) / 2)


def test_seeds_that_agree_leave_the_width_of_the_records():
    mean, low, high = evidence.interval(np.full((1, 4), 0.2), np.full((1, 4), 0.01))
    assert mean == pytest.approx(0.2)
    assert high - mean == pytest.approx(mean - low) == pytest.approx(scipy.stats.t.ppf(0.975, 3) * 0.1 / 2)


def test_an_interval_needs_three_seeds():
    mean, low, high = evidence.interval(np.array([[1.0, 2.0, np.nan]]))
    assert mean == 1.5 and np.isnan(low) and np.isnan(high)
