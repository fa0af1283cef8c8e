"""Places of peaks and crossings, on curves whose answer is known."""

import numpy as np
import pytest

from spectral_dd.analysis import peaks

RECORDS = np.log10([1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 63, 79, 100, 126, 158, 200, 251, 316, 400])


def bent(places, peak, left, right):
    """Two parabolas that meet at the peak."""
    u = places - np.asarray(peak)[..., None]
    return np.where(u < 0, -left, -right) * u**2


def corner(places, peak, left, right):
    u = places - np.asarray(peak)[..., None]
    return np.where(u < 0, left, -right) * u


def test_straight_lines_stay_as_they_are_whatever_the_records():
    for scale_of in (RECORDS, RECORDS[::3]):
        places, levels = peaks.smoothed((2 - 3 * RECORDS)[None], RECORDS, scale_of)
        np.testing.assert_allclose(levels[0], 2 - 3 * places, atol=1e-9)
        assert (places[0], places[-1]) == (scale_of[0], scale_of[-1])


@pytest.mark.parametrize("shape", [bent, corner])
@pytest.mark.parametrize(("left", "right"), [(1, 1), (1, 3), (3, 1)])
def test_a_peak_is_found_between_records_however_lopsided_it_is(shape, left, right):
    """To a tenth of a gap between records, of 0.1 or 0.2 decades."""
    true = np.random.default_rng(0).uniform(1.4, 1.8, 100)
    for every, gap in ((1, 0.1), (2, 0.2)):
        records = RECORDS[::-1][::every][::-1]
        curves = shape(records, true, left, right)
        place, found = peaks.prominent_peak(*peaks.smoothed(curves, records, records), 0.1)
        assert found.all()
        unsmoothed, wider = peaks.refined(curves, records, records, place)
        assert abs(np.mean(unsmoothed - true)) < 0.1 * gap
        if left != right:  # what it would be without
            assert abs(np.mean(wider - true)) > 0.3 * gap


@pytest.mark.parametrize("every", [2, 3])
def test_a_curve_recorded_more_rarely_peaks_where_the_whole_one_does(every):
    """Smoothed over three neighbouring records each, they would be half a gap apart."""
    true, few = np.random.default_rng(1).uniform(1.5, 1.8, 100), RECORDS[::-1][::every][::-1]
    whole, rare = (corner(records, true, 1, 1.5) for records in (RECORDS, few))
    gap = peaks.gaps(few)[-5]
    (place, _), (same, _) = (
        peaks.prominent_peak(*peaks.smoothed(curves, records, few), 0.1)
        for curves, records in ((whole, RECORDS), (rare, few))
    )
    first, second = (
        peaks.refined(curves, records, few, where)[0]
        for curves, records, where in ((whole, RECORDS, place), (rare, few, same))
    )
    assert abs(np.mean(place - same)) < 0.05 * gap and abs(np.mean(first - second)) < 0.1 * gap


def test_the_most_prominent_peak_is_the_first_of_the_best_or_the_higher_end():
    places = np.arange(7.0)
    curves = np.array(
        [
            [0, 1, 0, 2, 0, 2, 0],  # the first of the best
            [0, 1, 0.5, 3, 2.9, 3.1, 9],  # not the highest
            [6, 5, 4, 3, 2, 1, 0],
            [0, 1, 2, 3, 4, 5, 6],
            [0, 0.2, 0, 0, 0, 0, 0],  # too low
        ]
    )
    place, found = peaks.prominent_peak(places, curves, 0.5)
    assert place.tolist() == [3, 1, 0, 6, 0]
    assert found.tolist() == [True, True, False, False, False]


def test_an_event_lies_in_the_gap_before_its_record():
    records = np.array([0.0, 1, 2, 4])
    place, found = peaks.crossing(np.array([[1, 1, 0.5, 0], [0.2, 1, 1, 1], [1, 1, 1, 1]]), records, 0.5)
    assert place.tolist() == [1.5, 0, 4] and found.tolist() == [True, True, False]
