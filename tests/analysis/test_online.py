"""What is said during training, against the definition and against the future."""

import numpy as np
import pytest
from by_hand import NAN, curve, online_start, random_curves

from spectral_dd.analysis.curves import smooth
from spectral_dd.analysis.online import PROMINENCE, OnlineStart, Start, online_starts

TRAINED = [1, 2, 3, 4, 5, 6, 7, 9, 11, 14, 17, 21]
STEP = np.log1p(PROMINENCE)


def test_the_online_detector_names_the_top_when_the_fall_has_reached_the_prominence():
    levels = [2, 0, 0.9, 1.6, 2.3, 2.0, 1.3, 3, 0]  # in steps of the prominence: one up from 0, and down from 2.3
    values = np.exp(STEP * np.repeat(levels, 3))  # smoothed over three, a level is that of its middle
    epochs = np.arange(1, 28)
    said = [online_start(values[:n], epochs[:n]) for n in range(28)]
    assert said == [None] * 21 + [Start(epoch=14, noticed=21)] * 7


def test_the_online_detector_ignores_the_initialisation():
    values = [1.0, 2, 4, 3, 2, 1, 0.5]  # rises from epoch 0 on, where nothing has been learned
    assert online_start(values, range(1, 8)) is not None
    assert online_start(values[:1] + values[2:], range(6)) is None
    for first in (1e-9, 1e9, NAN):
        for values in random_curves(50):
            alone = online_start(values, TRAINED)
            assert online_start([first, *values], [0, *TRAINED]) == alone


@pytest.mark.parametrize("values", [np.arange(1, 13), np.arange(12, 0, -1), np.ones(12), [1, 1.05] * 6, [NAN] * 12])
def test_the_online_detector_says_nothing_without_a_rise_and_a_fall(values):
    assert online_start(values, TRAINED) is None


def test_the_online_detector_never_revises_and_sees_nothing_of_the_future():
    starts = set()
    for values in random_curves():
        online = OnlineStart()
        said = [online.update(epoch, value) for epoch, value in zip(TRAINED, values, strict=True)]
        starts.add(said[-1])
        first = next((i for i, start in enumerate(said) if start is not None), len(said))
        assert said == [None] * first + [said[-1]] * (len(said) - first)
        if first < len(said):
            assert said[-1].epoch < said[-1].noticed == TRAINED[first]
        for n in (3, 7, 11):
            assert online_start(values[:n], TRAINED[:n]) == said[n - 1]
    assert None in starts and len(starts) > 10


def by_definition(level):
    """Places of the top and of the fall from it by a step, after a rise by a step from the lowest so far."""
    rise = [i for i in range(len(level)) if level[i] - min(level[: i + 1]) >= STEP]
    for now in range(rise[0], len(level)) if rise else ():
        top = rise[0] + int(np.argmax(level[rise[0] : now + 1]))
        if level[top] - level[now] >= STEP:
            return top, now
    return None


def test_the_online_detector_is_its_definition_on_smoothed_curves_known_a_record_later():
    told = 0
    for values in random_curves():
        found = by_definition(np.log(smooth(curve(*values)).values[:-1]))
        expected = found and Start(TRAINED[found[0]], TRAINED[found[1] + 1])
        assert online_start(values, TRAINED) == expected
        told += found is not None
    assert 50 < told < 150


def test_the_online_detector_knows_no_scale_and_passes_over_what_has_no_logarithm():
    rng = np.random.default_rng(1)
    for values in random_curves(50):
        alone = online_start(values, TRAINED)
        assert online_start(1e-6 * values, TRAINED) == alone
        places = np.sort(rng.choice(18, len(values), replace=False))
        gaps = rng.choice([NAN, 0, np.inf, -3], 18)
        gaps[places] = values
        epochs = np.arange(1, 19)
        assert online_start(gaps, epochs) == online_start(values, epochs[places])


def test_a_rise_and_fall_of_exactly_the_prominence_are_noticed():
    epochs = range(1, 10)
    assert online_start(0.1 * np.repeat([1, 1 + PROMINENCE, 1], 3), epochs) == (5, 9)
    assert online_start(0.1 * np.repeat([1, 1 + PROMINENCE - 1e-6, 1], 3), epochs) is None


def test_epochs_that_do_not_increase_are_refused():
    with pytest.raises(ValueError, match="epoch=2: must be after 2"):
        online_start([1.0, 2.0], [2, 2])


def test_noise_around_a_constant_is_no_second_descent_below_3_percent_and_is_at_5():
    epochs, rng = np.arange(1, 31), np.random.default_rng(0)

    def alarms(noise):
        curves = np.exp(noise * rng.standard_normal((400, len(epochs))))
        return np.mean([online_start(curve, epochs) is not None for curve in curves])

    assert alarms(0.03) < 0.01
    assert 0.1 < alarms(0.05) < 0.3


def test_many_curves_are_told_as_one_is_whatever_records_each_has():
    rng = np.random.default_rng(3)
    curves = np.array([values for values in random_curves()])
    curves[rng.random(curves.shape) < 0.1] = NAN
    curves[rng.random(curves.shape) < 0.05] = 0
    said = [online_start(values, TRAINED) or (-1, -1) for values in curves]
    np.testing.assert_array_equal(online_starts(curves, TRAINED), said)
    assert len({tuple(one) for one in said}) > 10
    with pytest.raises(ValueError, match="must increase"):
        online_starts(curves[:, :2], [2, 2])
