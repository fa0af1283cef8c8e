"""Records are whole or not there, whatever stops the writer, and the newest intact one is restored."""

import os
import resource
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from packs import MEMBERS, abstract, assert_same, make_results, make_state, run_python
from spectral_dd import checkpoint
from spectral_dd.checkpoint import PackWriter, load_member_state, load_results, load_state, recorded_epochs
from spectral_dd.errors import CheckpointError, InputError

# A state may hold float64.
pytestmark = pytest.mark.usefixtures("x64")


def test_round_trip_keeps_every_bit(tmp_path):
    state = jax.tree.map(jnp.asarray, make_state(3))
    with PackWriter(tmp_path) as writer:
        writer.record(3, state, make_results(3))
        epoch, restored = writer.restore(abstract(state))
    assert epoch == 3
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))
    assert_same(restored, make_state(3))
    assert_same(load_results(tmp_path, 3), make_results(3))
    assert_same(load_state(tmp_path, 3, abstract(state)), make_state(3))


def test_orbax_itself_reads_the_record(pack):
    loaded = checkpoint.ocp.load_checkpointables(pack / "records" / "1")
    assert_same(loaded["state"], make_state(1))
    assert_same(loaded["results"], make_results(1))


def test_restore_takes_the_newest_of_records_and_rolling(pack):
    assert recorded_epochs(pack) == [0, 1, 3]
    with PackWriter(pack) as writer:
        assert writer.latest() == 5
        epoch, state = writer.restore(abstract(make_state(0)))
        assert epoch == 5
        assert_same(state, make_state(5))
        writer.record(8, make_state(8), make_results(8))
        assert writer.latest() == 8
        assert not list((pack / "rolling").iterdir())  # superseded
        epoch, state = writer.restore(abstract(make_state(0)))
    assert epoch == 8
    assert_same(state, make_state(8))


def test_only_the_latest_rolling_checkpoint_is_kept(pack):
    with PackWriter(pack) as writer:
        for epoch in (6, 7, 7):
            writer.roll(epoch, make_state(epoch))
        writer.roll(2, make_state(2))  # A later epoch is recorded.
    assert [path.name for path in (pack / "rolling").iterdir()] == ["7"]


def test_an_epoch_is_recorded_once(pack):
    with PackWriter(pack) as writer:
        with pytest.raises(ValueError, match="epoch 3 is already recorded"):
            writer.record(3, make_state(4), make_results(4))
        writer.record(9, make_state(9), make_results(9))
        with pytest.raises(ValueError, match="epoch 9 is already recorded"):
            writer.record(9, make_state(4), make_results(4))
    assert_same(load_results(pack, 3), make_results(3))
    assert_same(load_results(pack, 9), make_results(9))


def test_an_empty_pack(tmp_path):
    assert recorded_epochs(tmp_path / "nothing") == []
    assert not (tmp_path / "nothing").exists()
    with PackWriter(tmp_path / "new" / "pack") as writer:
        assert writer.latest() is None
        with pytest.raises(CheckpointError, match="none of its 0 checkpoints"):
            writer.restore(abstract(make_state(0)))


def test_buffers_may_be_donated_right_after(tmp_path):
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state = {"w": jnp.zeros((MEMBERS, 50_000), jnp.float32)}
    with PackWriter(tmp_path) as writer:
        for epoch in range(5):
            writer.record(epoch, state, {"error": state["w"][:, 0]})
            state = step(state)
        epoch, state = writer.restore(abstract(state))
        for _ in range(3):  # What is restored may be donated as well.
            state = step(state)
    assert (np.asarray(state["w"]) == 7).all()
    for epoch in range(5):
        assert (load_member_state(tmp_path, epoch, 3)["w"] == epoch).all()
        assert (load_results(tmp_path, epoch)["error"] == epoch).all()


def test_what_cannot_be_stored_is_refused_at_once(tmp_path):
    two_numbers, scalar = {"a": np.zeros(3), "b": np.zeros(4)}, {"a": np.zeros(())}
    with PackWriter(tmp_path) as writer:
        for state in (two_numbers, scalar, {}):
            with pytest.raises(ValueError, match="member axis"):
                writer.record(1, state, make_results(1))
        for name in ("a.b", "a/b", "", 0):
            with pytest.raises(ValueError, match="names must be"):
                writer.record(1, {name: np.zeros(3)}, make_results(1))
        writer.record(1, make_state(1), make_results(1))
    assert recorded_epochs(tmp_path) == [1]


def test_if_all_is_damaged_nothing_is_set_aside(tmp_path):
    with PackWriter(tmp_path) as writer:
        writer.record(3, make_state(3), make_results(3))
    shutil.rmtree(tmp_path / "records" / "3" / "state" / "ocdbt.process_0")
    with PackWriter(tmp_path) as writer, pytest.raises(CheckpointError, match="none of its 1 checkpoints"):
        writer.restore(abstract(make_state(0)))
    assert recorded_epochs(tmp_path) == [3]


@pytest.mark.parametrize("missing", ["commit_success.txt", "_CHECKPOINT_METADATA", "state/manifest.ocdbt", "results"])
def test_a_half_deleted_step_is_no_step(pack, missing):
    path = pack / "records" / "3" / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    (pack / "rolling" / "5" / "commit_success.txt").unlink()
    assert recorded_epochs(pack) == [0, 1]
    with pytest.raises(InputError, match="epoch 3 is not recorded"):
        load_results(pack, 3)
    with PackWriter(pack) as writer:
        assert writer.latest() == 1
        assert writer.restore(abstract(make_state(0)))[0] == 1
        writer.record(3, make_state(3), make_results(3))
    assert_same(load_results(pack, 3), make_results(3))


def test_leftovers_of_a_killed_writer_are_ignored_then_cleaned(pack):
    leftovers = [pack / "records" / "9.orbax-checkpoint-tmp", pack / "rolling" / "4.deleting"]
    for path in leftovers:
        shutil.copytree(pack / "records" / "3", path)
    assert recorded_epochs(pack) == [0, 1, 3]
    assert all(path.exists() for path in leftovers)
    with PackWriter(pack) as writer:
        assert writer.latest() == 5
        assert not any(path.exists() for path in leftovers)
        writer.record(9, make_state(9), make_results(9))
    assert_same(load_results(pack, 9), make_results(9))


def test_a_second_writer_is_refused(tmp_path):
    with PackWriter(tmp_path) as writer:
        with pytest.raises(InputError, match=f"is being trained by process {os.getpid()} on ") as caught:
            PackWriter(tmp_path)
        assert "\n" not in str(caught.value)
        writer.record(1, make_state(1), make_results(1))  # The first one was not disturbed.
    with PackWriter(tmp_path) as writer:
        assert writer.latest() == 1


def test_a_full_disk_is_reported_and_harms_nothing(pack):
    # A limit on the size of files fails in the same place and the same way, and needs no file system of its own.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    state = {"w": np.random.default_rng(0).normal(size=(MEMBERS, 100_000))}
    writer = PackWriter(pack)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        writer.record(9, state, make_results(9))
        with pytest.raises(CheckpointError, match=r"pack/records/9: cannot save the checkpoint") as caught:
            writer.latest()
        assert "\n" not in str(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    writer.record(10, make_state(10), make_results(10))  # Would leave a gap where epoch 9 is missing.
    writer.close()
    assert {path.name for path in (pack / "records").iterdir()} == {"0", "1", "3"}
    with PackWriter(pack) as writer:
        assert writer.restore(abstract(make_state(0)))[0] == 5
        writer.record(9, make_state(9), make_results(9))
    assert recorded_epochs(pack) == [0, 1, 3, 9]


def test_what_stops_the_program_is_not_hidden_by_a_failed_save(tmp_path):
    with pytest.raises(KeyboardInterrupt), PackWriter(tmp_path) as writer:
        (tmp_path / "records").rmdir()
        (tmp_path / "records").write_text("in the way")
        writer.record(1, make_state(1), make_results(1))
        raise KeyboardInterrupt


def test_readers_beside_a_writer_see_whole_records_and_disturb_nothing(tmp_path):
    done, seen, errors = threading.Event(), set(), []

    def read() -> None:
        try:
            while not done.is_set():
                for epoch in recorded_epochs(tmp_path)[-2:]:
                    assert_same(load_results(tmp_path, epoch), make_results(epoch))
                    assert_same(
                        load_member_state(tmp_path, epoch, 3), jax.tree.map(lambda leaf: leaf[3], make_state(epoch))
                    )
                    seen.add(epoch)
        except Exception as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    with PackWriter(tmp_path) as writer:
        for epoch in range(0, 10, 2):
            writer.record(epoch, make_state(epoch), make_results(epoch))
            writer.roll(epoch + 1, make_state(epoch + 1))
    done.set()
    reader.join()
    assert not errors
    assert seen
    assert recorded_epochs(tmp_path) == list(range(0, 10, 2))
    for epoch in recorded_epochs(tmp_path):
        assert_same(load_results(tmp_path, epoch), make_results(epoch))


def test_from_one_device_to_four_and_back(pack, tmp_path):
    mesh = jax.make_mesh((4,), ("member",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("member"))
    with PackWriter(pack) as one:
        epoch, state = one.restore(abstract(make_state(0), sharding))
    assert epoch == 5
    assert_same(state, make_state(5))
    for leaf in jax.tree.leaves(state):
        assert leaf.sharding == sharding
        assert [shard.data.shape[0] for shard in leaf.addressable_shards] == [MEMBERS // 4] * 4
    with PackWriter(tmp_path / "four") as four:
        four.record(epoch, state, {"step": state["step"]})
    with PackWriter(tmp_path / "four") as one:
        epoch, state = one.restore(abstract(make_state(0)))
    assert epoch == 5
    assert_same(state, make_state(5))
    assert_same(load_member_state(tmp_path / "four", 5, 3), jax.tree.map(lambda leaf: leaf[3], make_state(5)))


TRAIN_UNTIL_KILLED = """
sys.stdin.readline() or sys.exit()
with p.PackWriter(sys.argv[1]) as writer:
    epoch = 0
    if writer.latest() is not None:
        epoch, state = writer.restore(p.abstract(p.make_state(0)))
        p.assert_same(state, p.make_state(epoch))
        epoch += 1
    while True:
        if epoch % 3:
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
        assert whole[-1] > reached
        reached = whole[-1]
        for epoch in recorded_epochs(tmp_path):
            assert_same(load_results(tmp_path, epoch), make_results(epoch))
    with PackWriter(tmp_path) as writer:
        epoch, state = writer.restore(abstract(make_state(0)))
        assert epoch >= reached  # Nothing that was reported as complete is lost.
        assert writer.latest() == epoch
    assert_same(state, make_state(epoch))
    assert recorded_epochs(tmp_path) == list(range(0, epoch + 1, 3))
    assert not list(tmp_path.rglob("*.damaged"))
