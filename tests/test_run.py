import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
import xarray as xr

import spectral_dd
from spectral_dd import checkpoint, packing, run
from spectral_dd.config import Config
from spectral_dd.errors import CheckpointError, InputError
from spectral_dd.files import pack_directory
from spectral_dd.sweep import expand, read_sweep

SCRIPTS = pathlib.Path(__file__).parent.parent / "experiments"
AXES = {
    "width": [2, 4],
    "seed": [0, 1],
    "train_size": [96],
    "batch_size": [32],
    "epochs": [12],
    "label_noise": [0.2],
    "shift": [1],
    "records_per_decade": [3],
    "spectrum_examples": [5],
    "spectrum_points": [8],
    "spectrum_measures": [5],
}


# The same with a network that compiles fast.
SMALL = AXES | {"model": ["mlp"], "spectrum_measures": [0], "spectrum_budget": [1]}


def flags_of(axes):
    return [f"--{name}={','.join(map(str, axis))}" for name, axis in axes.items()]


class Silent:
    def skip_to(self, epoch):
        pass

    def note(self, text):
        pass

    def advance(self, epoch):
        pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("sweep") / "run"
    run.run_sweep(workdir, expand(AXES))
    return workdir


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("sweep") / "run"
    run.run_sweep(workdir, expand(SMALL))
    return workdir


def everything(workdir):
    """Every array that a sweep recorded."""
    sweep = read_sweep(workdir)
    found = {}
    for pack in range(len(sweep.packs)):
        directory = pack_directory(workdir, pack)
        for epoch in checkpoint.recorded_epochs(directory):
            found[pack, epoch] = checkpoint.load_results(directory, epoch)
            for place in range(len(sweep.packs[pack])):
                found[pack, epoch, place] = checkpoint.load_member_state(directory, epoch, place)
    return found


def assert_identical(ours, theirs):
    assert ours.keys() == theirs.keys()
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


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
    assert run.recorded_epochs(epochs, per_decade) == expected


def test_results_are_labelled(finished):
    ds = spectral_dd.load_results(finished)
    assert dict(ds.sizes) == {"member": 4, "epoch": 5, "split": 3, "example": 5, "frequency": 5}
    assert list(ds.epoch) == [0, 1, 2, 5, 12]
    assert list(ds.width.values) == [2, 2, 4, 4]
    assert list(ds.split.values) == ["train", "noisy", "test"]
    np.testing.assert_allclose(ds.frequency, [0, 1, 2, 3, 4])
    np.testing.assert_allclose(ds.noise_rate, 19 / 96)
    assert (ds.diverged == -1).all()
    assert not ds.isnull().any().to_array().any()
    assert ((ds.train_error >= 0) & (ds.train_error <= 1)).all()


@pytest.mark.parametrize("budget", [0.0, 0.02, 0.04, 0.3, 1.0])
def test_a_budget_keeps_the_last_spectra_and_as_many_as_it_can(digits, budget):
    """Counted here by hand: segments of 8 points, around 5 examples of 3 splits, beside 3 passes a training example."""
    config = Config(
        train_size=96, batch_size=32, epochs=40, label_noise=0.2, spectrum_examples=5, spectrum_points=8,
        spectrum_measures=0, spectrum_budget=budget,
    )  # fmt: skip
    recorded, kept = run.recorded_epochs(40, 10), run.spectrum_epochs([config], digits)
    training, spectra = 3 * 40 * 96 + len(recorded) * (96 + len(digits.test_labels)), 3 * 5 * 8
    if kept:
        assert kept[-1] == 40 and set(kept) <= set(recorded)
        assert budget == 1 or len(kept) * spectra <= budget * (training + len(kept) * spectra)
        steps = {recorded.index(b) - recorded.index(a) for a, b in itertools.pairwise(kept)}
        assert len(steps) <= 1
    assert (len(kept) == len(recorded)) if budget >= 0.3 else (len(kept) < len(recorded))


def test_a_budget_thins_the_spectra_but_never_the_metrics(tmp_path, capsys):
    sweep = expand(SMALL | {"width": [2], "seed": [0], "spectrum_points": [128], "spectrum_budget": [0.4]})
    run.run_sweep(tmp_path / "run", sweep)
    assert "--spectrum_budget=0.4: spectra at 2 of 5 recorded epochs" in capsys.readouterr().err
    ds = spectral_dd.load_results(tmp_path / "run")
    assert ds.test_error.notnull().all()
    assert list(ds.epoch[ds.energy.notnull().any(("member", "split", "example", "frequency"))]) == [1, 12]


def test_the_detector_says_during_training_what_it_says_of_the_checkpoints():
    """Of a ratio that rises and falls by far: 1, 1, 4, 4, 1, 1 thousandths."""
    online = run.SecondDescents(2)
    for epoch, ratio in enumerate([1e-3, 1e-3, 4e-3, 4e-3, 1e-3, 1e-3]):
        energy = np.zeros((2, 3, 4, 5))
        energy[..., 0], energy[:1, ..., 4] = 1, ratio
        online.update(epoch, {"energy": energy})
        online.update(epoch, {})
    assert str(online) == ", second descent indicated in 1"


def test_the_same_command_gives_the_same_bits(finished, tmp_path):
    run.run_sweep(tmp_path, expand(AXES))
    assert_identical(everything(tmp_path), everything(finished))


@pytest.mark.parametrize("at", [3, 7, 11])
def test_interrupted_and_resumed_gives_the_same_bits(finished, tmp_path, at, digits, monkeypatch):
    """Stopped between records, at a record, and short of the end; each time the process starts anew."""
    monkeypatch.setattr(run, "PIECE_SECONDS", 0.0)  # one epoch at a time
    sweep = read_sweep(finished)
    for i, pack in enumerate(sweep.pack_configs):
        count = iter(range(100))
        with pytest.raises(run.Interrupted):
            run.train_pack(
                pack,
                digits,
                pack_directory(tmp_path, i),
                Silent(),
                lambda count=count: signal.SIGTERM if next(count) + 1 == at else None,
            )
        run.train_pack(pack, digits, pack_directory(tmp_path, i), Silent())
    (tmp_path / "sweep.json").write_text((finished / "sweep.json").read_text())
    assert_identical(everything(tmp_path), everything(finished))
    assert not any((pack_directory(tmp_path, 0) / "rolling").iterdir())


def test_a_signal_is_noted_and_the_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with run.stop_signals() as stop_signal:
        assert stop_signal() is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop_signal() == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_finished_sweep_is_left_alone(finished):
    files = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    run.run_sweep(finished, expand(AXES))
    assert files == {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}


def test_a_damaged_final_record_is_trained_again_by_the_same_command(small, tmp_path):
    shutil.copytree(small, tmp_path / "run")
    record = pack_directory(tmp_path / "run", 0) / "records" / "12"
    largest = max((p for p in (record / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    run.run_sweep(tmp_path / "run", expand(SMALL))
    assert_identical(everything(tmp_path / "run"), everything(small))


def test_long_gaps_between_records_are_covered_by_rolling_checkpoints(finished, tmp_path, digits, monkeypatch):
    monkeypatch.setattr(run, "PIECE_SECONDS", 0.0)
    pack = read_sweep(finished).pack_configs[0]
    killed = iter([None] * 9)
    with pytest.raises(StopIteration):  # after nine epochs, without a chance to save
        run.train_pack(pack, digits, tmp_path, Silent(), lambda: next(killed), save_seconds=0)
    assert [p.name for p in (tmp_path / "rolling").iterdir()] == ["9"]
    assert checkpoint.recorded_epochs(tmp_path) == [0, 1, 2, 5]


def test_another_sweep_is_refused_with_what_differs(finished):
    before = (finished / "sweep.json").read_bytes()
    with pytest.raises(InputError) as error:
        run.run_sweep(finished, expand(AXES | {"width": [2, 8], "learning_rate": [0.1]}))
    assert "--width=2,4 there, 2,8 here; --learning_rate=0.001 there, 0.1 here" in str(error.value)
    assert (finished / "sweep.json").read_bytes() == before


def test_tasks_that_start_at_the_same_time_share_a_new_directory(small, tmp_path):
    command = [sys.executable, str(SCRIPTS / "train_sweep.py"), f"--workdir={tmp_path / 'run'}", *flags_of(SMALL)]
    tasks = [
        subprocess.Popen([*command, f"--task_index={i}", "--task_count=3"], stderr=subprocess.PIPE, text=True)
        for i in range(3)
    ]
    for task in tasks:
        _, errors = task.communicate(timeout=300)
        assert task.returncode == 0, errors
    assert len(read_sweep(tmp_path / "run").packs) == 3
    ours, theirs = spectral_dd.load_results(tmp_path / "run"), spectral_dd.load_results(small)
    assert not ours.test_error.isnull().any()
    # Other packs, other padding: sums are rounded otherwise, which later epochs amplify.
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose(ours[name].sel(epoch=[0, 1]), theirs[name].sel(epoch=[0, 1]), rtol=1e-3)
    np.testing.assert_allclose(ours.energy.sel(epoch=0), theirs.energy.sel(epoch=0), rtol=1e-3)


def test_the_scripts_evaluate_spectra_and_draw_a_report(small, tmp_path):
    shutil.copytree(small, tmp_path / "run")
    for script, *flags in (
        ("evaluate_spectrum.py", "--name=long", "--spectrum_points=16", "--spectrum_half_width=1"),
        ("report.py", "--spectrum=long"),
    ):
        command = [sys.executable, str(SCRIPTS / script), f"--workdir={tmp_path / 'run'}", *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
    assert (tmp_path / "run" / "report.html").stat().st_size > 100_000
    np.testing.assert_allclose(spectral_dd.load_results(tmp_path / "run", "long").frequency, np.arange(9) / 2)


def test_a_member_is_the_plain_network(finished, digits):
    ds = spectral_dd.load_results(finished)
    for member in range(4):
        for epoch in (0, 12):
            model, variables = spectral_dd.load_member(finished, member, epoch)
            assert model.width == ds.width[member]
            assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == ds.parameters[member]
            logits = model.apply(variables, digits.test_images / np.float32(255), train=False)
            wrong = np.mean(np.argmax(logits, axis=1) != digits.test_labels)
            np.testing.assert_allclose(wrong, ds.test_error.sel(member=member, epoch=epoch), atol=2 / 797)
    assert spectral_dd.load_member(finished, 1)[1].keys() == {"params", "batch_stats"}


@pytest.mark.parametrize(
    ("member", "epoch", "message"),
    [(7, 12, "member=7: the sweep has members 0 to 3"), (0, 11, "epoch=11: member 0 has recorded 0, 1, 2, 5, 12")],
)
def test_a_member_or_epoch_that_does_not_exist_is_named(finished, member, epoch, message):
    with pytest.raises(InputError) as error:
        spectral_dd.load_member(finished, member, epoch)
    assert str(error.value) == message


def test_other_spectra_on_the_checkpoints(small):
    before = {p: p.stat().st_mtime_ns for p in (small / "packs").rglob("*") if p.is_file()}
    run.evaluate_spectra(small, "fine", {"spectrum_points": 16, "spectrum_half_width": 0.25})
    run.evaluate_spectra(small, "same", {})
    assert before == {p: p.stat().st_mtime_ns for p in (small / "packs").rglob("*") if p.is_file()}

    recorded, fine, same = (spectral_dd.load_results(small, name) for name in (None, "fine", "same"))
    np.testing.assert_array_equal(same.energy, recorded.energy)
    np.testing.assert_allclose(fine.frequency, 2 * np.arange(9))
    assert (fine.spectrum_points == 16).all()
    assert not fine.energy.isnull().any()
    np.testing.assert_array_equal(fine.test_error, recorded.test_error)
    with pytest.raises(InputError, match=r"--name=fine: .*spectrum_points"):
        run.evaluate_spectra(small, "fine", {"spectrum_points": 32})
    with pytest.raises(InputError, match="has spectra fine, same"):
        spectral_dd.load_results(small, "fin")


def test_divergence_is_recorded(tmp_path):
    axes = AXES | {"learning_rate": [1e-3, 1e9], "optimizer": ["sgd"], "seed": [0], "width": [2], "epochs": [3]}
    run.run_sweep(tmp_path, expand(axes))
    ds = spectral_dd.load_results(tmp_path)
    assert list(ds.diverged) == [-1, 1]
    assert ds.test_error.sel(member=1, epoch=slice(1, None)).isnull().all()


def test_nothing_is_written_when_the_input_cannot_work(tmp_path):
    cases = [
        ({"train_size": [2000]}, "--train_size=2000"),
        ({"train_size": [0], "batch_size": [1001]}, "--batch_size=1001"),
        ({"dataset": ["digit"]}, "--dataset=digit"),
    ]
    for axes, message in cases:
        with pytest.raises(InputError, match=message):
            run.run_sweep(tmp_path / "run", expand(AXES | axes))
        assert not (tmp_path / "run").exists()


def test_train_size_0_means_all_and_is_written_as_such(tmp_path):
    run.run_sweep(tmp_path, [Config(model="mlp", width=1, epochs=1, batch_size=100, spectrum_examples=0)])
    assert json.loads((tmp_path / "sweep.json").read_text())["configs"][0]["train_size"] == 1000
    ds = spectral_dd.load_results(tmp_path)
    assert ds.train_size == 1000 and "energy" not in ds


def test_members_with_other_epochs_and_other_segments_share_a_data_set(tmp_path):
    axes = {"epochs": [1, 2], "spectrum_half_width": [0.25, 0.5], "seed": [0], "width": [2]}
    run.run_sweep(tmp_path, expand(SMALL | axes))
    ds = spectral_dd.load_results(tmp_path)
    assert list(ds.epoch) == [0, 1, 2]
    np.testing.assert_array_equal(ds.test_error.isel(epoch=2).isnull(), ds.epochs == 1)
    np.testing.assert_allclose(ds.frequency, [0, 1, 2, 3, 4, 6, 8])
    measured = ds.energy.isel(epoch=1, split=0, example=0).notnull()
    for member in range(4):
        own = np.arange(5) / (2 * float(ds.spectrum_half_width[member]))
        np.testing.assert_array_equal(ds.frequency[measured[member].values], own)


def test_ctrl_c_saves_says_how_to_go_on_and_the_same_command_does(tmp_path):
    flags = flags_of(SMALL | {"epochs": [20000]})
    command = [sys.executable, str(SCRIPTS / "train_sweep.py"), f"--workdir={tmp_path / 'run'}", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((tmp_path / "run").glob("packs/*/records/5")):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"SIGINT: saved in {tmp_path / 'run'}; the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert spectral_dd.load_results(tmp_path / "run").epoch[-1] < 20000
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert not spectral_dd.load_results(tmp_path / "run").test_error.isnull().any()


def test_packs_on_devices_of_their_own_give_what_packs_on_all_devices_give(tmp_path, monkeypatch):
    configs = expand(SMALL | {"width": [2, 8]})
    plan_for = packing.plan_for
    for apart in (False, True):
        # Each width its own pack, whatever is faster.
        packs = [[i for i, c in enumerate(configs) if c.width == width] for width in (2, 8)]
        plan = packing.Plan(packs, [1.0, 2.0], apart)
        monkeypatch.setattr(packing, "plan_for", lambda *args, plan=plan, **options: plan)
        run.run_sweep(tmp_path / str(apart), configs)
        assert read_sweep(tmp_path / str(apart)).apart == apart
    monkeypatch.setattr(packing, "plan_for", plan_for)
    together, separate = (spectral_dd.load_results(tmp_path / str(apart)) for apart in (False, True))
    xr.testing.assert_allclose(together, separate, rtol=1e-4, atol=1e-5)


def test_a_pack_that_fails_lets_those_under_way_finish_and_no_other_begin():
    both_begun, has_failed, finished = threading.Barrier(2), threading.Event(), []

    def train(pack, place):
        both_begun.wait(timeout=60)
        if pack == 0:
            has_failed.set()
            raise CheckpointError("pack 0")
        has_failed.wait()
        time.sleep(0.2)  # raising takes a moment
        finished.append(pack)

    with pytest.raises(CheckpointError, match="pack 0"):
        run._each_in_its_place(train, range(4), ["a", "b"])
    assert finished == [1]
