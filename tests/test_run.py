import json
import shutil
import signal
import threading
import time

import numpy as np
import pytest
import xarray as xr

import spectral_dd as sdd
from helpers import assert_identical, everything
from spectral_dd import locks, pack_training, run, side_by_side, stored
from spectral_dd.config import Config
from spectral_dd.data import draw_all
from spectral_dd.errors import CheckpointError, InputError, Interrupted, LockedError
from spectral_dd.files import pack_directory
from spectral_dd.members import expand
from spectral_dd.planning import packing
from spectral_dd.planning.extend import extended
from spectral_dd.planning.prepare import Prepared
from spectral_dd.sweeps import Lowering, Pack, Sweep, read_sweep


class Silent:
    def facts(self):
        return {}

    def skip_to(self, epoch):
        pass

    def begin(self, what):
        pass

    def note(self, text):
        pass

    def advance(self, epoch, **how):
        pass


def train_pack(sweep, number, dataset, workdir, *arguments, **options):
    configs = sweep.members(sweep.packs[number])
    draws = draw_all(configs, {dataset.name: dataset})
    pack_training.train_pack(configs, dataset, draws, (), sweep.place(workdir, number), Silent(), *arguments, **options)


@pytest.mark.usefixtures("fast_compile")
def test_a_budget_thins_the_spectra_but_never_the_metrics(tmp_path, capsys, small_axes):
    configs = expand(small_axes | {"width": 2, "seed": 0, "spectrum_points": 128, "spectrum_budget": 0.4})
    sdd.train(tmp_path / "run", configs)
    assert "--spectrum_budget=0.4: spectra at 2 of 5 recorded epochs" in capsys.readouterr().err
    ds = sdd.load_results(tmp_path / "run")
    assert ds.test_error.notnull().all()
    assert list(ds.epoch[ds.energy.notnull().any(("member", "split", "example", "frequency"))]) == [0, 12]


def test_the_detector_says_during_training_what_it_says_of_the_checkpoints():
    """Of a ratio that rises and falls by far: 1, 1, 4, 4, 1, 1 thousandths."""
    online = pack_training.SecondDescents(2)
    for epoch, ratio in enumerate([1e-3, 1e-3, 4e-3, 4e-3, 1e-3, 1e-3]):
        energy = np.zeros((2, 3, 4, 5))
        energy[..., 0], energy[:1, ..., 4] = 1, ratio
        online.update(epoch, {"energy": energy})
        online.update(epoch, {})
    assert str(online) == ", second descent indicated in 1"


@pytest.mark.usefixtures("fast_compile")
def test_the_same_command_gives_the_same_bits(finished, axes, tmp_path):
    sdd.train(tmp_path, expand(axes))
    assert_identical(everything(tmp_path), everything(finished))


@pytest.mark.parametrize(("trained", "at"), [("small", 3), ("finished", 7), ("small", 11)])
def test_interrupted_and_resumed_gives_the_same_bits(request, tmp_path, trained, at, digits, monkeypatch):
    """Stopped between records, at a record, and short of the end; each time the process starts anew."""
    monkeypatch.setattr(pack_training, "DISPATCH_SECONDS", 0.0)  # one epoch at a time
    if trained == "finished":
        request.getfixturevalue("fast_compile")
    trained = request.getfixturevalue(trained)
    sweep = read_sweep(trained)
    for number in range(len(sweep.packs)):
        # The first question is asked before the pack begins.
        count = iter(range(100))
        with pytest.raises(Interrupted):
            train_pack(
                *(sweep, number, digits, tmp_path),
                lambda count=count: signal.SIGTERM if next(count) == at else None,
            )
        train_pack(sweep, number, digits, tmp_path)
    (tmp_path / "sweep.json").write_text((trained / "sweep.json").read_text())
    assert_identical(everything(tmp_path), everything(trained))
    assert next(epoch for epoch, _ in stored.stored_states(sweep.place(tmp_path, 0))) == 12


def test_an_extended_sweep_keeps_what_it_has_and_adds_members_and_epochs(small, small_axes, tmp_path):
    there = shutil.copytree(small, tmp_path / "run")
    before = {key: found for key, found in everything(there).items() if key[1] >= 0}
    longer = small_axes | {"epochs": 20}
    more = expand(longer | {"learning_rate": [3e-3, 1e-3]})
    sweep = sdd.train(there, more, extend=True)
    assert [pack.members for pack in sweep.packs] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert [c.learning_rate for c in sweep.configs] == [1e-3] * 4 + [3e-3] * 4
    after = everything(there)
    assert_identical({key: after[key] for key in before}, before)
    assert [epoch for pack, epoch, *place in after if pack == 0 and not place] == [0, 1, 2, 5, 12, 20, -1]
    # As if it had been meant to be so long.
    sdd.train(tmp_path / "longer", expand(longer))
    direct = everything(tmp_path / "longer")
    last = [key for key in direct if key[1] in (20, -1)]
    assert_identical({key: after[key] for key in last}, {key: direct[key] for key in last})

    files = {p: p.stat().st_mtime_ns for p in there.rglob("*") if p.is_file()}
    assert sdd.train(there, more) == sdd.train(there, more, extend=True) == sweep
    for fewer, extend, message in (
        (small_axes, False, "holds a different sweep: .*--extend to add members or epochs"),
        (small_axes, True, "can only be extended by members and epochs: --epochs=20 there, 12 here"),
        (longer | {"seed": [0, 2]}, True, "can only be extended by members and epochs: --seed=0,1 there, 0,2 here"),
    ):
        with pytest.raises(InputError, match=message):
            sdd.train(there, expand(fewer), extend=extend)
    assert files == {p: p.stat().st_mtime_ns for p in there.rglob("*") if p.is_file()}


def test_a_cosine_schedule_has_come_to_its_end(small_axes):
    configs = {epochs: expand(small_axes | {"schedule": "cosine", "epochs": epochs}) for epochs in (12, 20)}
    packs = [Pack((0, 1, 2, 3), Lowering("im2col", 1), 1.0)]
    there = Sweep(configs[12], packs, False, "cpu", [], {}, {})
    with pytest.raises(InputError, match="--epochs=20: the cosine schedule has come to its end at epoch 12"):
        extended(there, Prepared(configs[20], {}, []), lambda new: there)


def test_it_trains_in_a_thread(small, small_axes, tmp_path):
    thread = threading.Thread(target=sdd.train, args=(tmp_path, expand(small_axes)))
    thread.start()
    thread.join()
    assert_identical(everything(tmp_path), everything(small))


def test_a_task_without_a_share_says_so(small, small_axes, capsys):
    sdd.train(small, expand(small_axes), task_index=1, task_count=2)
    assert "task 1 of 2 (--task_index): none of 1 pack\n" in capsys.readouterr().err


def test_a_finished_sweep_is_left_alone(finished, axes):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    sdd.train(finished, expand(axes))
    assert before == {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}


def test_a_lost_record_is_said_and_made_anew(small, small_axes, tmp_path, capsys):
    shutil.copytree(small, tmp_path / "run")
    shutil.rmtree(pack_directory(tmp_path / "run", 0) / "records" / "1")
    sdd.train(tmp_path / "run", expand(small_axes))
    assert "packs/000: records 1 are missing and made anew" in capsys.readouterr().err
    assert_identical(everything(tmp_path / "run"), everything(small))


@pytest.mark.usefixtures("fast_compile")
def test_a_pack_that_another_process_trains_is_left_and_said(tmp_path, two_packs):
    sweep = two_packs(tmp_path / "run", False)
    for place in (sweep.place(tmp_path / "run", number) for number in range(2)):
        shutil.rmtree(place.directory / "records" / "12")
    with (
        locks.lock(sweep.place(tmp_path / "run", 0).directory / "lock"),
        pytest.raises(LockedError, match=r"1 of 2 packs are trained, the rest is left to others: .*packs/000: in use"),
    ):
        two_packs(tmp_path / "run", False)
    recorded = [stored.recorded_epochs(sweep.place(tmp_path / "run", number)) for number in range(2)]
    assert [12 in epochs for epochs in recorded] == [False, True]


def test_a_damaged_record_of_a_finished_sweep_is_made_anew_by_the_same_command(small, small_axes, tmp_path):
    shutil.copytree(small, tmp_path / "run")
    record = pack_directory(tmp_path / "run", 0) / "records" / "2"
    largest = max((p for p in (record / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    sdd.train(tmp_path / "run", expand(small_axes))
    assert_identical(everything(tmp_path / "run"), everything(small))


def test_long_gaps_between_records_are_covered_by_rolling_checkpoints(small, tmp_path, digits, monkeypatch):
    monkeypatch.setattr(pack_training, "DISPATCH_SECONDS", 0.0)
    killed = iter([None] * 10)
    with pytest.raises(StopIteration):  # after nine epochs, without a chance to save
        train_pack(read_sweep(small), 0, digits, tmp_path, lambda: next(killed), save_seconds=0)
    place = read_sweep(small).place(tmp_path, 0)
    assert [epoch for epoch, _ in stored.stored_states(place)] == [9, 8]
    assert stored.recorded_epochs(place) == [0, 1, 2, 5]


def test_another_sweep_is_refused_with_what_differs(small, small_axes):
    before = (small / "sweep.json").read_bytes()
    with pytest.raises(InputError) as error:
        sdd.train(small, expand(small_axes | {"width": [2, 8], "learning_rate": 0.1}))
    assert "--width=2,4 there, 2,8 here; --learning_rate=0.001 there, 0.1 here" in str(error.value)
    assert (small / "sweep.json").read_bytes() == before


@pytest.mark.usefixtures("fast_compile")
def test_divergence_is_recorded_and_said(tmp_path, small_axes, capsys):
    axes = {"learning_rate": [1e-3, 1e30], "optimizer": "sgd", "seed": 0, "width": 2, "epochs": 3}
    sdd.train(tmp_path, expand(small_axes | axes))
    ds = sdd.load_results(tmp_path)
    assert list(ds.diverged) == [-1, 1]
    assert "1 of 2 members diverged: 1 at epoch 1" in capsys.readouterr().err
    assert ds.test_error.sel(member=1, epoch=slice(1, None)).isnull().all()


def test_nothing_is_written_when_the_input_cannot_work(tmp_path, axes):
    cases = [
        ({"train_size": 2000}, "--train_size=2000"),
        ({"train_size": 0, "batch_size": 1001}, "--batch_size=1001"),
        ({"dataset": "digit"}, "--dataset=digit"),
        ({"model": "cnn4"}, "--model=cnn4"),
    ]
    for values, message in cases:
        with pytest.raises(InputError, match=message):
            sdd.train(tmp_path / "run", expand(axes | values))
        assert not (tmp_path / "run").exists()


def test_train_size_0_means_all_and_is_written_as_such(tmp_path):
    sdd.train(tmp_path, [Config.of(model="mlp", width=1, epochs=1, batch_size=100, spectrum_examples=0)])
    assert json.loads((tmp_path / "sweep.json").read_text())["shared"]["train_size"] == 1000
    ds = sdd.load_results(tmp_path)
    assert ds.train_size == 1000 and "energy" not in ds


@pytest.fixture
def two_packs(monkeypatch, small_axes):
    """Each width its own pack, on all devices or apart, whatever is faster."""
    configs = expand(small_axes | {"width": [2, 8]})

    def train(workdir, apart, convolution="im2col", **options):
        lowering = Lowering(convolution, 1)
        packs = [
            Pack(tuple(i for i, c in enumerate(configs) if c.width == width), lowering, float(width))
            for width in (2, 8)
        ]
        monkeypatch.setattr(packing, "plan", lambda *args: packing.Plan(packs, apart, 16.0))
        return sdd.train(workdir, configs, **options)

    return train


@pytest.mark.usefixtures("fast_compile")
def test_packs_on_devices_of_their_own_give_what_packs_on_all_devices_give(tmp_path, two_packs):
    for apart in (False, True):
        assert two_packs(tmp_path / str(apart), apart).apart == apart
    together, separate = (sdd.load_results(tmp_path / str(apart)) for apart in (False, True))
    xr.testing.assert_allclose(together.drop_vars("sweep"), separate.drop_vars("sweep"), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("fast_compile")
def test_the_lowering_of_sweep_json_is_kept_when_a_run_resumes(tmp_path, two_packs, monkeypatch):
    used, train_pack = [], run.train_pack

    def note(*arguments, lowering, **options):
        used.append(lowering)
        return train_pack(*arguments, lowering=lowering, **options)

    monkeypatch.setattr(run, "train_pack", note)
    sweep = two_packs(tmp_path, False, "lax")
    assert two_packs(tmp_path, False, tune=True) == sweep
    assert used == [Lowering("lax", 1)] * 4
    # Another platform has its own.
    assert sweep.lowering(sweep.packs[0], "cpu") == Lowering("lax", 1)
    assert sweep.lowering(sweep.packs[0], "tpu") is None


def test_a_pack_that_fails_lets_those_under_way_finish_and_no_other_begin():
    both_begun, has_failed, finished = threading.Barrier(2), threading.Event(), []

    def train(pack, on):
        both_begun.wait(timeout=60)
        if pack == 0:
            has_failed.set()
            raise CheckpointError("pack 0")
        has_failed.wait()
        time.sleep(0.2)  # raising takes a moment
        finished.append(pack)

    with pytest.raises(CheckpointError, match="pack 0"):
        side_by_side.on_free_devices(train, range(4), ["a", "b"], x64=False)
    assert finished == [1]


def test_a_data_set_that_was_made_anew_is_refused_with_what_differs(tmp_path):
    """Not the same name, but the same data, is what a sweep goes on with."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(256, size=(60, 4, 4)).astype(np.uint8), np.arange(60) % 3
    axes = {"model": "mlp", "width": 1, "batch_size": 20, "spectrum_examples": 0, "records_per_decade": 1}
    first = tmp_path / "labels.npy"

    def train(images=images, labels=labels, given=labels, **fields):
        np.savez(
            tmp_path / "mine.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels
        )
        np.save(first, given)
        members = sdd.sweep(None, dataset=f"{tmp_path}/mine.npz", train_labels=str(first), **axes, **fields)
        sdd.train(tmp_path / "run", members, tune=False)

    train(epochs=2)
    before = sdd.load_results(tmp_path / "run")
    for other, message in (
        (
            {"labels": (labels + 1) % 3},
            r"mine\.npz: is another one than the sweep was begun with: labels \w+ there, \w+",
        ),
        ({"images": images[:, ::-1]}, r"begun with: images \w{16} there, \w{16} here$"),
        ({"images": images / 255}, r"image type uint8 there, float32 here; images "),
        ({"labels": labels * 2}, r"classes None there, \[0, 2, 4\] here"),
        ({"given": labels[::-1]}, r"begun with: train_labels of .*labels\.npy \w{16} there, \w{16} here$"),
    ):
        with pytest.raises(InputError, match=message) as error:
            train(**({"given": other["labels"]} if "labels" in other else {}) | other, epochs=2)
        assert "\n" not in str(error.value)
    train(epochs=2)
    assert sdd.load_results(tmp_path / "run").identical(before)
