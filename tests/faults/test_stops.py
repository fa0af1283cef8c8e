"""Resuming is invisible: whatever stops a process, whenever, the same command gives the same bits."""

import random
import signal

import pytest
from processes import TRACES, end, flags_of, interrupt, start, wait, wait_for_files, wait_for_imports

from helpers import assert_identical, everything
from spectral_dd import stored, verify
from spectral_dd.sweeps import read_sweep

# Two processes, four packs; networks that compile fast. Whoever resumes may have another number of devices.
MANY = {
    "preset": "digits",
    "width": [1, 2, 4, 8],
    "seed": [0, 1],
    "epochs": 120,
    "min_packs": 4,
    "spectrum_examples": 40,
}


def test_killed_and_resumed_gives_the_same_bits(small, small_axes, tmp_path):
    process = start("train_sweep.py", f"--workdir={tmp_path / 'run'}", *flags_of(small_axes))
    wait_for_files(process, tmp_path / "run", "packs/*/records/1")
    process.kill()
    assert end(process)[0] == -signal.SIGKILL
    assert end(start("train_sweep.py", f"--workdir={tmp_path / 'run'}", *flags_of(small_axes)))[0] == 0
    assert_identical(everything(tmp_path / "run"), everything(small))
    assert [f for f in verify.check_run(tmp_path / "run") if f.kind != "set aside"] == []


def test_ctrl_c_while_importing_is_one_line(tmp_path):
    process = start("train_sweep.py", f"--workdir={tmp_path / 'run'}")
    wait_for_imports(process)
    interrupt(process, 0.0)
    status, errors = end(process)
    assert status == 130
    assert errors.strip() == "train_sweep.py: interrupted"


def test_a_signal_is_answered_at_once_and_a_second_ends_at_once(small_axes, tmp_path):
    axes = small_axes | {"epochs": 20000}
    process = start("train_sweep.py", f"--workdir={tmp_path / 'run'}", *flags_of(axes))
    wait_for_files(process, tmp_path / "run", "packs/*/lock")  # programs are compiled now
    process.send_signal(signal.SIGINT)
    answer = process.stderr.readline()
    while "SIGINT: " not in answer and answer:
        answer = process.stderr.readline()
    assert "stopping as soon as the epoch is saved; Ctrl-C again stops at once" in answer
    process.send_signal(signal.SIGINT)
    status, errors = end(process)
    assert status == 130
    assert not TRACES.search(errors)
    assert errors.strip().endswith("train_sweep.py: interrupted") or "SIGINT: saved in" in errors


@pytest.fixture
def many_kills(whole):
    if not whole:
        pytest.skip("make torture")
    return random.Random(0)


def tasks(workdir, devices):
    arguments = [f"--workdir={workdir}", "--task_count=2", *flags_of(MANY)]
    return [start("train_sweep.py", *arguments, f"--task_index={i}", devices=devices) for i in range(2)]


def finish(workdir, devices=2):
    assert [end(process)[0] for process in tasks(workdir, devices)] == [0, 0]
    assert [f for f in verify.check_run(workdir) if f.kind != "set aside"] == []
    return everything(workdir)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_at_any_moment(many_kills, tmp_path, report, number):
    reference, stops, runs, rng = finish(tmp_path / "reference"), 0, 0, many_kills
    while stops < 200:
        workdir = tmp_path / f"run{runs}"
        while True:
            processes = tasks(workdir, rng.choice([1, 2, 4]))
            wait(processes[0], rng.uniform(1, 25))
            for process in processes:
                if process.poll() is None:
                    process.send_signal(number)
                    stops += 1
            statuses, errors = zip(*map(end, processes), strict=True)
            assert not any(map(TRACES.search, errors)), errors
            if statuses == (0, 0):
                break
        assert_identical(everything(workdir), reference)
        runs += 1
    report(f"{stops} times {signal.Signals(number).name} in {runs} runs that ended: 0 differences, 0 tracebacks")


def test_double_signals_at_any_moment(many_kills, tmp_path, report):
    for _ in range(100):
        process = start("train_sweep.py", f"--workdir={tmp_path / 'run'}", *flags_of(MANY), devices=2)
        wait_for_imports(process)
        interrupt(process, many_kills.uniform(0, 15))
        interrupt(process, many_kills.uniform(0, 1))
        status, errors = end(process)
        assert status in (0, 130), (status, errors)
        assert not TRACES.search(errors), errors
    report("100 double signals: status 130, 0 tracebacks, 0 aborts")


def test_readers_beside_writers(many_kills, tmp_path, report):
    reference, reads = finish(tmp_path / "reference"), 0
    processes = tasks(tmp_path / "run", 2)
    wait_for_files(processes[0], tmp_path / "run", "packs/*/records/0")
    while any(process.poll() is None for process in processes):
        sweep = read_sweep(tmp_path / "run")
        for number in range(len(sweep.packs)):
            place = sweep.place(tmp_path / "run", number)
            for epoch in stored.recorded_epochs(place):
                assert_identical(stored.load_results(place, epoch), reference[number, epoch])
                reads += 1
        assert not list(verify.check_run(tmp_path / "run"))
    assert [end(process)[0] for process in processes] == [0, 0]
    assert_identical(everything(tmp_path / "run"), reference)
    report(f"{reads} records read beside two writers: 0 differences")
