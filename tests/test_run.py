import json
import os
import signal

import jax
import numpy as np
import pytest

import spectral_dd
from spectral_dd import checkpoint, run
from spectral_dd.config import Config, InputError
from spectral_dd.sweep import expand, pack_directory, read_sweep

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
}


class Silent:
    def skip_to(self, epoch):
        pass

    def advance(self, epoch):
        pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("sweep") / "run"
    run.run_sweep(workdir, expand(AXES))
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
        (12, 1, [0, 1, 10, 12]),
        (1000, 1, [0, 1, 10, 100, 1000]),
        (4, 100, [0, 1, 2, 3, 4]),
    ],
)
def test_recorded_epochs_are_evenly_spaced_in_the_logarithm(epochs, per_decade, expected):
    assert run.recorded_epochs(epochs, per_decade) == expected


def test_results_are_labelled(finished):
    ds = spectral_dd.load_results(finished)
    assert dict(ds.sizes) == {"member": 4, "epoch": 6, "split": 3, "example": 5, "frequency": 5}
    assert list(ds.epoch) == [0, 1, 2, 5, 10, 12]
    assert list(ds.width.values) == [2, 2, 4, 4]
    assert list(ds.split.values) == ["train", "noisy", "test"]
    np.testing.assert_allclose(ds.frequency, [0, 1, 2, 3, 4])
    np.testing.assert_allclose(ds.noise_rate, 19 / 96)
    assert (ds.diverged == -1).all()
    assert not ds.isnull().any().to_array().any()
    assert ((ds.train_error >= 0) & (ds.train_error <= 1)).all()


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


def test_another_sweep_is_refused_with_what_differs(finished):
    before = (finished / "sweep.json").read_bytes()
    with pytest.raises(InputError) as error:
        run.run_sweep(finished, expand(AXES | {"width": [2, 8], "learning_rate": [0.1]}))
    assert "--width=2,4 there, 2,8 here; --learning_rate=0.001 there, 0.1 here" in str(error.value)
    assert (finished / "sweep.json").read_bytes() == before


def test_tasks_fill_one_directory_and_all_agree(finished, tmp_path):
    for i in range(3):
        run.run_sweep(tmp_path, expand(AXES), task_index=i, task_count=3)
        done = [checkpoint.recorded_epochs(pack_directory(tmp_path, p)) for p in range(3)]
        assert sum(12 in epochs for epochs in done) == i + 1
    # Other packs, other padding: sums are rounded otherwise, which later epochs amplify.
    ours, theirs = (spectral_dd.load_results(d).sel(epoch=[0, 1]) for d in (tmp_path, finished))
    for name in ("train_loss", "test_loss", "energy"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3)


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
    [(7, 12, "member=7: the sweep has members 0 to 3"), (0, 11, "epoch=11: member 0 has recorded 0, 1, 2, 5, 10, 12")],
)
def test_a_member_or_epoch_that_does_not_exist_is_named(finished, member, epoch, message):
    with pytest.raises(InputError) as error:
        spectral_dd.load_member(finished, member, epoch)
    assert str(error.value) == message


def test_other_spectra_on_the_checkpoints(finished):
    before = {p: p.stat().st_mtime_ns for p in (finished / "packs").rglob("*") if p.is_file()}
    run.evaluate_spectra(finished, "fine", {"spectrum_points": 16, "spectrum_half_width": 0.25})
    run.evaluate_spectra(finished, "same", {})
    assert before == {p: p.stat().st_mtime_ns for p in (finished / "packs").rglob("*") if p.is_file()}

    recorded, fine, same = (spectral_dd.load_results(finished, name) for name in (None, "fine", "same"))
    np.testing.assert_array_equal(same.energy, recorded.energy)
    np.testing.assert_allclose(fine.frequency, 2 * np.arange(9))
    assert (fine.spectrum_points == 16).all()
    assert not fine.energy.isnull().any()
    np.testing.assert_array_equal(fine.test_error, recorded.test_error)
    with pytest.raises(InputError, match=r"--name=fine: .*spectrum_points"):
        run.evaluate_spectra(finished, "fine", {"spectrum_points": 32})
    with pytest.raises(InputError, match="has spectra fine, same"):
        spectral_dd.load_results(finished, "fin")


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
    run.run_sweep(tmp_path, [Config(width=1, epochs=1, batch_size=100, spectrum_examples=0)])
    assert json.loads((tmp_path / "sweep.json").read_text())["configs"][0]["train_size"] == 1000
    ds = spectral_dd.load_results(tmp_path)
    assert ds.train_size == 1000 and "energy" not in ds
