"""Resuming is invisible: whatever stops a process, whenever, the same command gives the same bits."""

import functools
import random
import shutil
import signal
from unittest.mock import ANY

import pytest
from processes import TRACES, end, flags_of, interrupt, start, wait_for_a_moment, wait_for_files, wait_for_imports

import spectral_dd as sdd
from helpers import assert_identical, everything
from spectral_dd import stored, verify
from spectral_dd.members import expand
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
    assert end(process)[0] in (-signal.SIGKILL, 0)  # on a busy machine it may have ended before
    sdd.train(tmp_path / "run", expand(small_axes))
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


def tasks(workdir, model, devices, save_minutes=5.0):
    """Two processes that share a sweep."""
    arguments = [f"--workdir={workdir}", "--task_count=2", f"--save_minutes={save_minutes}"]
    arguments += flags_of(MANY | {"model": model})
    return [start("train_sweep.py", *arguments, f"--task_index={i}", devices=devices) for i in range(2)]


@pytest.fixture(scope="module")
def reference(whole, tmp_path_factory):
    """Of a network: the run that nothing stopped, and what it recorded."""
    if not whole:
        pytest.skip("make torture")

    @functools.cache
    def made(model):
        workdir = tmp_path_factory.mktemp("reference") / "run"
        assert [end(process) for process in tasks(workdir, model, 2)] == [(0, ANY), (0, ANY)]
        return workdir, everything(workdir)

    return made


def assert_whole(workdir, expected):
    assert [f for f in verify.check_run(workdir) if f.kind != "set aside"] == []
    assert_identical(everything(workdir), expected)


def number_of_records(expected):
    return sum(len(key) == 2 and key[1] >= 0 for key in expected)


def stop_until_done(workdir, model, records, number, rng, most, begun):
    """Stops one or both of two processes at random moments until the sweep is done, or so often. Returns how often."""
    stops, ended = 0, {0, -number, 128 + number}
    while True:
        devices = rng.choice([1, 2, 2, 4]) if begun or stops else 2  # who makes the sweep decides the packs
        processes = tasks(workdir, model, devices, rng.choice([0.0, 5.0]))
        if stops < most:
            wait_for_a_moment(processes[0], workdir, rng, records)
            for process in rng.choice([processes, processes, processes[:1]]):
                stops += process.poll() is None
                process.send_signal(number)
        statuses, errors = zip(*map(end, processes), strict=True)
        assert not any(map(TRACES.search, errors)), errors
        assert ended.issuperset(statuses), (statuses, errors)
        if statuses == (0, 0):
            return stops


# The last is a network that takes longer.
@pytest.mark.parametrize(
    ("number", "model", "seed"),
    [(signal.SIGKILL, "mlp", seed) for seed in range(3)] + [(signal.SIGKILL, "cnn5", 3), (signal.SIGTERM, "mlp", 4)],
)
def test_stopped_at_any_moment(reference, times, tmp_path, report, number, model, seed):
    there, expected = reference(model)
    records = number_of_records(expected)
    rng, stops, runs, most = random.Random(seed), 0, 0, times(50)
    while stops < most:
        workdir = tmp_path / f"run{runs}"
        if runs % 2:
            workdir.mkdir()
            shutil.copy(there / "sweep.json", workdir)
        stops += stop_until_done(workdir, model, records, number, rng, most - stops, begun=runs % 2)
        assert_whole(workdir, expected)
        shutil.rmtree(workdir)
        runs += 1
    report(f"{stops} times {signal.Signals(number).name}, {runs} runs of {model}: 0 differences, 0 tracebacks")


@pytest.mark.parametrize("seed", [0, 1])
def test_double_signals_at_any_moment(reference, times, tmp_path, report, seed):
    there, expected = reference("mlp")
    rng, workdir, saved = random.Random(seed), tmp_path / "run", 0
    for _ in range(times(50)):
        workdir.mkdir(exist_ok=True)
        shutil.copy(there / "sweep.json", workdir)
        process = start("train_sweep.py", f"--workdir={workdir}", *flags_of(MANY | {"model": "mlp"}), devices=2)
        wait_for_a_moment(process, workdir, rng, number_of_records(expected))
        first = rng.choice([signal.SIGINT, signal.SIGINT, signal.SIGTERM])
        interrupt(process, 0.0, first)
        interrupt(process, rng.choice([0.0, rng.uniform(0, 1)]))
        status, errors = end(process)
        ended = {0, 130, -signal.SIGINT}  # the last where Python is ending already, and leaves it to the system
        ended |= {143, -signal.SIGTERM} if first == signal.SIGTERM else set()
        assert status in ended, (status, errors)
        assert not TRACES.search(errors), errors
        saved += "saved in" in errors
        if status == 0:
            assert_whole(workdir, expected)
            shutil.rmtree(workdir)
    report(f"{times(50)} double signals, {saved} were answered before the second: 0 tracebacks, 0 aborts")


def test_readers_beside_writers(reference, tmp_path, report):
    _, expected = reference("mlp")
    workdir, reads, checks = tmp_path / "run", 0, 0
    processes = tasks(workdir, "mlp", 2, save_minutes=0.0)
    wait_for_files(processes[0], workdir, "packs/*/records/0")
    while any(process.poll() is None for process in processes):
        sweep = read_sweep(workdir)
        for number in range(len(sweep.packs)):
            place = sweep.place(workdir, number)
            for epoch in stored.recorded_epochs(place):
                assert_identical(stored.load_results(place, epoch), expected[number, epoch])
                reads += 1
        assert not list(verify.check_run(workdir))
        checks += 1
    assert [end(process)[0] for process in processes] == [0, 0]
    assert_whole(workdir, expected)
    report(f"{reads} records and {checks} times the whole run read beside two writers: 0 differences")
