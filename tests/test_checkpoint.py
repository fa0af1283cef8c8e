"""Records are whole or not there, whatever stops the writer, and the newest intact one is restored."""

import asyncio
import gc
import itertools
import os
import resource
import shutil
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from packs import (
    MEMBERS,
    abstract,
    assert_same,
    make_results,
    make_state,
    place,
    record_older,
    run_python,
    variables_of,
)
from spectral_dd import checkpoint
from spectral_dd.checkpoint import PackWriter
from spectral_dd.errors import CheckpointError, InputError, LockedError
from spectral_dd.stored import load_member, load_results, load_variables, recorded_epochs, stored_states

# A state may hold float64.
pytestmark = pytest.mark.usefixtures("x64")


def test_round_trip_keeps_every_bit(tmp_path):
    state = jax.tree.map(jnp.asarray, make_state(3))
    with PackWriter(place(tmp_path)) as writer:
        writer.record(3, state, make_results(3))
        epoch, restored = writer.restore(abstract(state))
    assert epoch == 3
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))
    assert_same(restored, make_state(3))
    assert_same(load_results(place(tmp_path), 3), make_results(3))
    assert_same(load_variables(place(tmp_path), 3, abstract(state["variables"])), variables_of(3))


def test_orbax_itself_reads_the_record(pack):
    loaded = checkpoint.ocp.load(pack / "records" / "1")
    assert_same(loaded["variables"], variables_of(1))
    assert_same(loaded["results"], make_results(1))


def test_a_record_is_few_files(pack):
    # Twelve as a rule; how many threads of TensorStore write at once makes one more or less. A file an array were 20.
    assert len([path for path in (pack / "records" / "1").rglob("*") if path.is_file()]) < 16


def test_the_newest_state_is_restored_and_one_before_it_is_kept(pack):
    assert recorded_epochs(place(pack)) == [0, 1, 3]
    with PackWriter(place(pack)) as writer:
        assert writer.latest() == 5
        epoch, state = writer.restore(abstract(make_state(0)))
        assert epoch == 5
        assert_same(state, make_state(5))
        writer.record(8, make_state(8), make_results(8))
        assert writer.latest() == 8
        assert [epoch for epoch, _ in stored_states(place(pack))] == [8, 5]
        epoch, state = writer.restore(abstract(make_state(0)))
        assert epoch == 8
        assert_same(state, make_state(8))
        epoch, state = writer.restore(abstract(make_state(0)), at_most=7)
    assert epoch == 5
    assert_same(state, make_state(5))


def test_a_lost_record_is_made_anew_from_states_of_its_own(pack):
    """They are older than the newest two, and kept as long as they are the latest."""
    with PackWriter(place(pack)) as writer:
        for epoch in (1, 2):
            writer.roll(epoch, make_state(epoch))
        writer.close()
        assert [epoch for epoch, _ in stored_states(place(pack))] == [5, 3, 2]
    with PackWriter(place(pack)) as writer:
        writer.roll(7, make_state(7))
    assert [epoch for epoch, _ in stored_states(place(pack))] == [7, 5]


def test_a_pack_of_the_former_layout_is_read_and_trained_on(tmp_path):
    older = place(record_older(tmp_path / "pack"), sweep="")
    assert recorded_epochs(older) == [0, 1, 3]
    assert_same(load_results(older, 1), make_results(1))
    assert_same(load_member(older, 3, 2), variables_of(3, 2))
    with PackWriter(older) as writer:
        assert [epoch for epoch, _ in stored_states(older)] == [5, 3, 1, 0]
        epoch, state = writer.restore(abstract(make_state(0)))
        assert epoch == 5
        assert_same(state, make_state(5))
        for epoch in (6, 7):
            writer.record(epoch, make_state(epoch), make_results(epoch))
    assert not (tmp_path / "pack" / "rolling" / "5").exists()
    assert recorded_epochs(older) == [0, 1, 3, 6, 7]
    with pytest.raises(CheckpointError, match="is another sweep's, copied here"):
        load_results(place(tmp_path / "pack"), 1)


def test_a_finished_pack_keeps_one_state_without_the_zeros_of_padding(tmp_path):
    state = {"variables": {"kernel": np.zeros((MEMBERS, 10_000))}, "step": np.arange(MEMBERS)}
    with PackWriter(place(tmp_path)) as writer:
        writer.roll(4, make_state(4))
        writer.roll(5, state)
        writer.finish()
        [(epoch, path)] = stored_states(place(tmp_path))
        assert epoch == 5
        assert path.stat().st_size < 10_000
        assert_same(writer.restore(abstract(state))[1], state)


def test_an_epoch_is_recorded_once(pack):
    with PackWriter(place(pack)) as writer:
        with pytest.raises(ValueError, match="epoch 3 is already recorded"):
            writer.record(3, make_state(4), make_results(4))
        writer.record(9, make_state(9), make_results(9))
        with pytest.raises(ValueError, match="epoch 9 is already recorded"):
            writer.record(9, make_state(4), make_results(4))
    assert_same(load_results(place(pack), 3), make_results(3))
    assert_same(load_results(place(pack), 9), make_results(9))


def test_an_empty_pack(tmp_path):
    assert recorded_epochs(place(tmp_path / "nothing")) == []
    assert not (tmp_path / "nothing").exists()
    with PackWriter(place(tmp_path / "new" / "pack")) as writer:
        assert writer.latest() is None
        with pytest.raises(CheckpointError, match="none of 0 states can be read"):
            writer.restore(abstract(make_state(0)))


def test_buffers_may_be_donated_right_after(tmp_path):
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state = {"variables": {"w": jnp.zeros((MEMBERS, 50_000), jnp.float32)}}
    with PackWriter(place(tmp_path)) as writer:
        for epoch in range(5):
            writer.record(epoch, state, {"error": state["variables"]["w"][:, 0]})
            state = step(state)
        epoch, state = writer.restore(abstract(state))
        for _ in range(3):  # What is restored may be donated as well.
            state = step(state)
    assert (np.asarray(state["variables"]["w"]) == 7).all()
    for epoch in range(5):
        assert (load_member(place(tmp_path), epoch, 3)["w"] == epoch).all()
        assert (load_results(place(tmp_path), epoch)["error"] == epoch).all()


def test_what_cannot_be_stored_is_refused_at_once(tmp_path):
    two_numbers, scalar = {"a": np.zeros(3), "b": np.zeros(4)}, {"a": np.zeros(())}
    with PackWriter(place(tmp_path)) as writer:
        for state in (two_numbers, scalar):
            with pytest.raises(ValueError, match="member axis"):
                writer.record(1, state, make_results(1))
        for name in ("a.b", "a/b", "", 0):
            with pytest.raises(ValueError, match="names must be"):
                writer.record(1, {name: np.zeros(3)}, make_results(1))
        writer.record(1, make_state(1), make_results(1))
    assert recorded_epochs(place(tmp_path)) == [1]


def test_if_all_states_are_damaged_nothing_is_set_aside(pack):
    for _, path in stored_states(place(pack)):
        path.write_bytes(b"")
    with PackWriter(place(pack)) as writer, pytest.raises(CheckpointError, match="none of 2 states can be read"):
        writer.restore(abstract(make_state(0)))
    assert [path.name for path in (pack / "rolling").iterdir()] == ["5.npz", "3.npz"]


@pytest.mark.parametrize("missing", ["commit_success.txt", "_CHECKPOINT_METADATA", "state/manifest.ocdbt"])
def test_a_half_deleted_record_is_no_record(pack, missing):
    (pack / "records" / "3" / missing).unlink()
    assert recorded_epochs(place(pack)) == [0, 1]
    with pytest.raises(InputError, match="epoch 3 is not recorded"):
        load_results(place(pack), 3)
    with PackWriter(place(pack)) as writer:
        assert writer.restore(abstract(make_state(0)), at_most=3)[0] == 3
        writer.record(3, make_state(3), make_results(3))
    assert_same(load_results(place(pack), 3), make_results(3))


def test_leftovers_of_a_killed_writer_are_ignored_then_cleaned(pack):
    leftovers = [pack / "records" / "9.orbax-checkpoint-tmp", pack / "rolling" / "4.deleting"]
    for path in leftovers:
        shutil.copytree(pack / "records" / "3", path)
    assert recorded_epochs(place(pack)) == [0, 1, 3]
    assert all(path.exists() for path in leftovers)
    with PackWriter(place(pack)) as writer:
        assert writer.latest() == 5
        assert not any(path.exists() for path in leftovers)
        writer.record(9, make_state(9), make_results(9))
    assert_same(load_results(place(pack), 9), make_results(9))


def test_a_second_writer_is_refused(tmp_path):
    with PackWriter(place(tmp_path)) as writer:
        with pytest.raises(LockedError, match=f"in use by process {os.getpid()} on ") as caught:
            PackWriter(place(tmp_path))
        assert "\n" not in str(caught.value)
        writer.record(1, make_state(1), make_results(1))  # The first one was not disturbed.
    with PackWriter(place(tmp_path)) as writer:
        assert writer.latest() == 1


@pytest.mark.parametrize(("size", "failing"), [(100_000, "rolling/9.npz"), (10, "records/9")])
def test_a_full_disk_is_reported_and_harms_nothing(pack, capfd, size, failing):
    # A limit on the size of files fails in the same place and the same way, and needs no file system of its own.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    state = {"w": np.random.default_rng(0).normal(size=(MEMBERS, size))}
    writer = PackWriter(place(pack))
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        results = {"energy": np.random.default_rng(1).normal(size=(MEMBERS, 100_000))}
        writer.record(9, state, results)
        with pytest.raises(CheckpointError, match=f"pack/{failing}: cannot be saved: ") as caught:
            writer.latest()
        assert "\n" not in str(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    writer.record(10, make_state(10), make_results(10))  # Would leave a gap where epoch 9 is missing.
    writer.close()
    assert recorded_epochs(place(pack)) == [0, 1, 3]
    assert capfd.readouterr().err == ""
    with PackWriter(place(pack)) as writer:
        assert writer.restore(abstract(make_state(0)), at_most=8)[0] == 5
        writer.record(9, make_state(9), make_results(9))
    assert recorded_epochs(place(pack)) == [0, 1, 3, 9]


@pytest.mark.parametrize(("file", "said"), [("/site/orbax/checkpoint/save.py", 0), ("/site/own.py", 1)])
def test_the_other_writes_of_a_failed_save_are_not_reported_by_asyncio(caplog, file, said):
    names = {}
    exec(compile("async def write(): raise ValueError('No space left on device')", file, "exec"), names)

    async def save():
        forgotten = asyncio.create_task(names["write"]())
        await asyncio.sleep(0)
        del forgotten

    asyncio.run(save())
    gc.collect()  # asyncio reports a task when it is forgotten
    assert len(caplog.records) == said


def test_a_process_that_sleeps_for_hours_within_a_save_goes_on(tmp_path, monkeypatch):
    clock, hours = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: clock() + 3600 * next(hours))
    with PackWriter(place(tmp_path / "pack")) as writer:
        writer.record(0, make_state(0), make_results(0))
    assert recorded_epochs(place(tmp_path / "pack")) == [0]


def test_what_stops_the_program_is_not_hidden_by_a_failed_save(tmp_path):
    with pytest.raises(KeyboardInterrupt), PackWriter(place(tmp_path)) as writer:
        (tmp_path / "records").rmdir()
        (tmp_path / "records").write_text("in the way")
        writer.record(1, make_state(1), make_results(1))
        raise KeyboardInterrupt


def test_readers_beside_a_writer_see_whole_records_and_disturb_nothing(tmp_path):
    done, seen, errors = threading.Event(), set(), []

    def read() -> None:
        try:
            while not done.is_set():
                for epoch in recorded_epochs(place(tmp_path))[-2:]:
                    assert_same(load_results(place(tmp_path), epoch), make_results(epoch))
                    assert_same(load_member(place(tmp_path), epoch, 3), variables_of(epoch, 3))
                    seen.add(epoch)
        except Exception as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    with PackWriter(place(tmp_path)) as writer:
        for epoch in range(0, 10, 2):
            writer.record(epoch, make_state(epoch), make_results(epoch))
            writer.roll(epoch + 1, make_state(epoch + 1))
    done.set()
    reader.join()
    assert not errors
    assert seen
    assert recorded_epochs(place(tmp_path)) == list(range(0, 10, 2))
    for epoch in recorded_epochs(place(tmp_path)):
        assert_same(load_results(place(tmp_path), epoch), make_results(epoch))


def test_from_one_device_to_four_and_back(pack, tmp_path):
    mesh = jax.make_mesh((4,), ("member",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("member"))
    with PackWriter(place(pack)) as one:
        epoch, state = one.restore(abstract(make_state(0), sharding))
    assert epoch == 5
    assert_same(state, make_state(5))
    for leaf in jax.tree.leaves(state):
        assert leaf.sharding == sharding
        assert [shard.data.shape[0] for shard in leaf.addressable_shards] == [MEMBERS // 4] * 4
    with PackWriter(place(tmp_path / "four")) as four:
        four.record(epoch, state, {"step": state["step"]})
    with PackWriter(place(tmp_path / "four")) as one:
        epoch, state = one.restore(abstract(make_state(0)))
    assert epoch == 5
    assert_same(state, make_state(5))
    assert_same(load_member(place(tmp_path / "four"), 5, 3), variables_of(5, 3))


TRAIN_UNTIL_KILLED = """
sys.stdin.readline() or sys.exit()
with p.PackWriter(p.place(sys.argv[1])) as writer:
    epoch = 0
    if writer.latest() is not None:
        epoch, state = writer.restore(p.abstract(p.make_state(0)))
        p.assert_same(state, p.make_state(epoch))
    recorded = p.recorded_epochs(p.place(sys.argv[1]))
    while True:
        if epoch % 3 or epoch in recorded:
            writer.roll(epoch, p.make_state(epoch))
        else:
            writer.record(epoch, p.make_state(epoch), p.make_results(epoch))
        print(writer.latest(), flush=True)
        epoch += 1
"""


def test_after_kill_9_the_newest_complete_epoch_restores(tmp_path):
    reached = -1
    delays = (0.0, 0.03, 0.11)
    children = [run_python(TRAIN_UNTIL_KILLED, tmp_path) for _ in delays]  # One works at a time; all start now.
    for child, delay in zip(children, delays, strict=True):
        child.stdin.write("go\n")
        child.stdin.flush()
        lines = [child.stdout.readline()]
        killer = threading.Timer(delay, child.kill)
        killer.start()
        lines += child.communicate(timeout=60)[0].splitlines()
        killer.join()
        assert child.returncode == -9
        whole = [int(line) for line in lines if line.strip()]
        assert whole[-1] >= reached
        reached = whole[-1]
        for epoch in recorded_epochs(place(tmp_path)):
            assert_same(load_results(place(tmp_path), epoch), make_results(epoch))
    with PackWriter(place(tmp_path)) as writer:
        epoch, state = writer.restore(abstract(make_state(0)))
        assert epoch >= reached  # Nothing that was reported as complete is lost.
        assert writer.latest() == epoch
    assert_same(state, make_state(epoch))
    assert recorded_epochs(place(tmp_path)) in (list(range(0, epoch + 1, 3)), list(range(0, epoch, 3)))
    assert not list(tmp_path.rglob("*.damaged"))
