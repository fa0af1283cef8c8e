import os
import signal
import threading
import time

import numpy as np
import pytest

from spectral_dd import progress
from spectral_dd.members import expand
from spectral_dd.planning.cost import ACCELERATOR, CPU
from spectral_dd.progress import TimeLeft, going_on, say, stop_signals, track


def test_before_anything_is_known_the_plan_counts_compilations():
    costs, records = {0: 10.0, 1: 20.0}, {0: 5, 1: 5}
    assert TimeLeft(costs, records, at_a_time=1).seconds() == pytest.approx(30 + 2 * CPU.compile_seconds)
    assert TimeLeft(costs, records, at_a_time=2).seconds() == pytest.approx(20 + CPU.compile_seconds)


def test_time_left_follows_what_packs_took():
    """Twice as slow as planned, and 5 s of compilation in the first pack, so 5 s in the second."""
    left = TimeLeft({0: 10.0, 1: 20.0}, {0: 2, 1: 2}, at_a_time=1)
    left.add(0, 0.0, 5.0, setting_up=True, records_left=2)
    left.add(0, 0.5, 10.0, setting_up=False, records_left=2)
    assert left.seconds() == pytest.approx((CPU.compile_seconds - 5) + 10 + CPU.compile_seconds + 40)
    # A record takes a tenth of the pack's planned seconds, and so it will in a pack that is twice as large.
    left.add(0, 0.0, 1.0, setting_up=False, records_left=1)
    assert left.seconds() == pytest.approx((CPU.compile_seconds - 5) + 10 + 1 + CPU.compile_seconds + 40 + 2 * 2)
    left.add(0, 0.5, 10.0, setting_up=False, records_left=0)
    assert left.seconds() == pytest.approx(5 + 40 + 4)
    left.add(1, 0.0, 5.0, setting_up=True, records_left=2)
    left.add(1, 1.0, 40.0, setting_up=False, records_left=0)
    assert left.seconds() == 0


def test_a_plan_for_an_accelerator_says_nothing_of_the_time_before_something_is_trained():
    """Of it the ratios are believed: the second pack takes twice as long as the first."""
    left = TimeLeft({0: 1e6, 1: 2e6}, {0: 1, 1: 1}, at_a_time=1, platform="gpu")
    assert left.seconds() is None
    left.add(0, 0.0, 5.0, setting_up=True, records_left=1)
    assert left.seconds() is None
    left.add(0, 0.5, 5.0, setting_up=False, records_left=1)
    compiling = ACCELERATOR.compile_seconds
    assert left.seconds() == pytest.approx((compiling - 5) + 5 + compiling + 20)
    left.add(0, 0.5, 5.0, setting_up=False, records_left=0)
    assert left.seconds() == pytest.approx(5 + 20)
    assert TimeLeft({}, {}, at_a_time=1, platform="gpu").seconds() == 0


def test_the_line_has_no_time_left_before_it_is_known():
    configs = expand({"width": [2, 4]})
    for platform, line in (("gpu", "setting up"), ("cpu", "setting up, 0:00:26 left")):
        assert progress.Progress({0: 10.0}, {0: [1, 2]}, platform=platform)._line() == line
    unknown = progress.Progress({0: 10.0}, {0: [1, 2]}, platform="gpu")
    assert unknown.pack(0, "pack 1/1", configs).facts()["seconds_left"] is None


def test_the_longest_pack_bounds_the_time_of_packs_side_by_side():
    left = TimeLeft({0: 100.0, 1: 1.0}, {0: 3, 1: 3}, at_a_time=2)
    left.add(1, 1.0, 1.0, setting_up=False, records_left=0)
    assert left.seconds() == pytest.approx(CPU.compile_seconds + 100)


def test_what_is_going_on_is_said_after_a_silence_and_only_then(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SILENCE_SECONDS", 0.05)
    with going_on(lambda: "planning"):
        while capsys.readouterr().err.count("planning\n") == 0:
            time.sleep(0.01)
    monkeypatch.setattr(progress, "SILENCE_SECONDS", 60.0)
    with going_on(lambda: "planning"):
        say("said")
    assert capsys.readouterr().err.endswith(" said\n")


def test_a_loop_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SILENCE_SECONDS", 0.05)
    said = ""
    for _ in track(range(2), "spectra"):
        while "spectra, 1 of 2 done" not in said:
            said += capsys.readouterr().err
            if "spectra, 0 of 2 done" in said:
                break
            time.sleep(0.01)
    assert "spectra, 0 of 2 done" in said


def test_the_line_of_progress_has_the_errors_of_those_that_have_not_diverged():
    results = {"train_error": np.array([0.02, 0.1, np.nan]), "test_error": np.full(3, np.nan)}
    assert progress.errors_in_words(results) == ", training error 2.0-10.0 %"


def test_a_signal_is_noted_and_the_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals() as stop_signal:
        assert stop_signal() is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop_signal() == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_of_the_main_thread_signals_are_left_as_they_are():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def watch():
        with stop_signals() as stop_signal:
            seen.append((stop_signal(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert seen == [(None, before)]
