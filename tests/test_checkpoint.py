"""What is stored comes back with the same bits, or with an error that says what is damaged; nothing is half there."""

import json
import os
import pathlib
import random
import resource
import shutil
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from spectral_dd import checkpoint
from spectral_dd.checkpoint import (
    CheckpointError,
    PackWriter,
    load_member_state,
    load_results,
    load_state,
    recorded_epochs,
)
from spectral_dd.errors import InputError

MEMBERS = 8


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def make_state(epoch: int, width: int = 300) -> dict:
    """Every type that a state holds, a NaN, a dict without entries; the same for the same epoch."""
    rng = np.random.default_rng(epoch)
    kernel = rng.normal(size=(MEMBERS, 3, width)).astype(np.float32)
    kernel[1, 0, 0] = np.nan
    return {
        "params": {"Dense_0": {"kernel": kernel, "bias": rng.normal(size=(MEMBERS, width))}},
        "batch_stats": {},
        "key": rng.integers(2**32, size=(MEMBERS, 2), dtype=np.uint32),
        "step": np.full(MEMBERS, epoch, np.int32),
        "diverged": rng.random(MEMBERS) < 0.5,
    }


def make_results(epoch: int) -> dict:
    rng = np.random.default_rng(1000 + epoch)
    energy = rng.normal(size=(MEMBERS, 3, 4, 5)).astype(np.float32)
    energy[:, 1] = np.nan
    return {"train_error": rng.random(MEMBERS), "energy": energy}


def abstract(state: dict, sharding=None) -> dict:
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state)


def assert_same(tree: dict, expected: dict) -> None:
    """The same names, types, shapes and bits."""
    tree, expected = (traverse_util.flatten_dict(t, sep="/", keep_empty_nodes=True) for t in (tree, expected))
    assert tree.keys() == expected.keys()
    for name, leaf in expected.items():
        if leaf is traverse_util.empty_node:
            assert tree[name] is traverse_util.empty_node
        else:
            have, want = np.asarray(tree[name]), np.asarray(leaf)
            assert (have.dtype, have.shape, have.tobytes()) == (want.dtype, want.shape, want.tobytes()), name


def flip_bit(path: pathlib.Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << position % 8
    path.write_bytes(data)


def largest_file(directory: pathlib.Path) -> pathlib.Path:
    return max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.fixture
def pack(tmp_path):
    """A pack with epochs 0, 1 and 3 recorded, and 5 rolling."""
    with PackWriter(tmp_path / "pack") as writer:
        for epoch in (0, 1, 3):
            writer.record(epoch, make_state(epoch), make_results(epoch))
        writer.roll(5, make_state(5))
    return tmp_path / "pack"


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


def test_one_member_is_the_slice_of_the_stack(pack):
    for member in (0, MEMBERS - 1):
        expected = jax.tree.map(lambda leaf, m=member: leaf[m], make_state(1))
        assert_same(load_member_state(pack, 1, member), expected)
    parts = load_member_state(pack, 1, 2, parts=("params", "batch_stats"))
    assert_same(parts, {"params": jax.tree.map(lambda leaf: leaf[2], make_state(1)["params"]), "batch_stats": {}})


def test_one_member_is_read_without_the_others(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(MEMBERS, 100_000)).astype(np.float32)
    with PackWriter(tmp_path) as writer:
        writer.record(1, {"kernel": kernel}, make_results(1))

    def bytes_read() -> int:
        metrics = checkpoint.ts.experimental_collect_matching_metrics("/tensorstore/kvstore/file/bytes_read")
        return sum(value["value"] for metric in metrics for value in metric["values"])

    before = bytes_read()
    np.testing.assert_array_equal(load_member_state(tmp_path, 1, 4)["kernel"], kernel[4])
    assert bytes_read() - before < 1.1 * kernel[4].nbytes


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


def test_wrong_requests_are_one_line(pack):
    state = make_state(0)
    for call, message in (
        (lambda: load_results(pack, 2), "epoch 2 is not recorded; recorded epochs: 0, 1, 3"),
        (lambda: load_results(pack / "nothing", 2), "recorded epochs: none"),
        (lambda: load_member_state(pack, 1, MEMBERS), "no member 8; it holds members 0 to 7"),
        (lambda: load_member_state(pack, 1, -1), "no member -1"),
        (lambda: load_member_state(pack, 1, 0, parts=("weights",)), r"no \['weights'\] in the state; it has"),
        (lambda: load_state(pack, 1, abstract({"other": state["step"]})), "differ in other"),
        (lambda: load_state(pack, 1, abstract({"step": state["key"]})), r"'step' is stored as int32\(8,\), asked"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert_same(load_state(pack, 1, abstract({"step": state["step"]})), {"step": make_state(1)["step"]})
    with PackWriter(pack) as writer:
        with pytest.raises(InputError, match=r"differ in batch_stats\.mean"):
            writer.restore(abstract({**state, "batch_stats": {"mean": state["step"]}}))
        with pytest.raises(InputError, match="differ in step"):
            writer.restore(abstract({name: leaf for name, leaf in state.items() if name != "step"}))
        assert writer.latest() == 5  # Nothing was set aside.


def test_float64_without_x64_is_refused(pack):
    with jax.enable_x64(False), pytest.raises(InputError, match="needs JAX_ENABLE_X64=1"):
        load_state(pack, 1, abstract({"params": make_state(1)["params"]}))


@pytest.mark.parametrize(
    "state",
    [{"a": np.zeros(3), "b": np.zeros(4)}, {"a": np.zeros(())}, {"a.b": np.zeros(3)}, {0: np.zeros(3)}, {}],
    ids=["two numbers of members", "no member axis", "name with dot", "name no string", "nothing"],
)
def test_what_cannot_be_stored_is_refused_at_once(tmp_path, state):
    with PackWriter(tmp_path) as writer:
        with pytest.raises(ValueError, match=r"member axis|names must be"):
            writer.record(1, state, make_results(1))
        writer.record(1, make_state(1), make_results(1))
    assert recorded_epochs(tmp_path) == [1]


def test_damage_is_named_and_restore_falls_back(pack):
    for step in (pack / "rolling" / "5", pack / "records" / "3"):
        path = largest_file(step / "state" / "ocdbt.process_0" / "d")
        flip_bit(path, path.stat().st_size // 3)
    with pytest.raises(CheckpointError, match=r"pack/records/3: state '.*' is damaged"):
        for member in range(MEMBERS):
            load_member_state(pack, 3, member)
    with PackWriter(pack) as writer:
        epoch, state = writer.restore(abstract(make_state(0)))
        assert epoch == 1
        assert_same(state, make_state(1))
        writer.record(3, make_state(3), make_results(3))  # Training gets there again.
    assert recorded_epochs(pack) == [0, 1, 3]
    assert_same(load_member_state(pack, 3, 0), jax.tree.map(lambda leaf: leaf[0], make_state(3)))
    assert (pack / "records" / "3.damaged").is_dir()
    assert (pack / "rolling" / "5.damaged").is_dir()


def test_if_all_is_damaged_nothing_is_set_aside(tmp_path):
    with PackWriter(tmp_path) as writer:
        writer.record(3, make_state(3), make_results(3))
    shutil.rmtree(tmp_path / "records" / "3" / "state" / "ocdbt.process_0")
    with PackWriter(tmp_path) as writer, pytest.raises(CheckpointError, match="none of its 1 checkpoints"):
        writer.restore(abstract(make_state(0)))
    assert recorded_epochs(tmp_path) == [3]


def test_any_flipped_bit_or_cut_file_is_noticed_or_harmless(pack, tmp_path):
    shutil.rmtree(pack / "rolling")
    rng = random.Random(0)
    files = [path.relative_to(pack) for path in (pack / "records" / "3").rglob("*") if path.stat().st_size]
    files = [file for file in files if (pack / file).is_file()]
    for trial in range(20):
        copy = tmp_path / f"copy{trial}"
        shutil.copytree(pack, copy)
        victim = copy / rng.choice(files)
        if trial % 3:
            flip_bit(victim, rng.randrange(10**6))
        else:
            os.truncate(victim, rng.randrange(victim.stat().st_size))
        with PackWriter(copy) as writer:
            epoch, state = writer.restore(abstract(make_state(0)))
        assert epoch in (1, 3)
        assert_same(state, make_state(epoch))
        assert recorded_epochs(copy) == [0, 1, 3][: 2 + (epoch == 3)]
        assert_same(load_results(copy, epoch), make_results(epoch))


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
        for epoch in range(0, 16, 2):
            writer.record(epoch, make_state(epoch), make_results(epoch))
            writer.roll(epoch + 1, make_state(epoch + 1))
    done.set()
    reader.join()
    assert not errors
    assert seen
    assert recorded_epochs(tmp_path) == list(range(0, 16, 2))
    for epoch in recorded_epochs(tmp_path):
        assert_same(load_results(tmp_path, epoch), make_results(epoch))


def run_python(code: str, *args: object, **kwargs: object) -> subprocess.Popen:
    """A child that has this file's helpers as `t`."""
    here = pathlib.Path(__file__).parent
    path = os.pathsep.join([str(here.parent), str(here), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    command = [sys.executable, "-c", "import sys, test_checkpoint as t\n" + code, *map(str, args)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, **kwargs)


SAVE_AGAIN_ON_FOUR_DEVICES = """
import jax, numpy as np
mesh = jax.make_mesh((4,), ("member",))
sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("member"))
with t.PackWriter(sys.argv[1]) as one:
    epoch, state = one.restore(t.abstract(t.make_state(0), sharding))
t.assert_same(state, t.make_state(epoch))
assert all(len(leaf.addressable_shards) == 4 and leaf.sharding == sharding for leaf in jax.tree.leaves(state))
assert all(leaf.addressable_shards[0].data.shape[0] == t.MEMBERS // 4 for leaf in jax.tree.leaves(state))
with t.PackWriter(sys.argv[2]) as four:
    four.record(epoch, state, {"step": state["step"]})
"""


def test_from_one_device_to_four_and_back(pack, tmp_path):
    child = run_python(SAVE_AGAIN_ON_FOUR_DEVICES, pack, tmp_path / "four")
    child.communicate(timeout=60)
    assert child.returncode == 0
    with PackWriter(tmp_path / "four") as writer:
        epoch, state = writer.restore(abstract(make_state(0)))
    assert epoch == 5
    assert_same(state, make_state(5))
    assert_same(load_member_state(tmp_path / "four", 5, 3), jax.tree.map(lambda leaf: leaf[3], make_state(5)))


TRAIN_UNTIL_KILLED = """
with t.PackWriter(sys.argv[1]) as writer:
    epoch = 0
    if writer.latest() is not None:
        epoch, state = writer.restore(t.abstract(t.make_state(0)))
        t.assert_same(state, t.make_state(epoch))
        epoch += 1
    while True:
        if epoch % 3:
            writer.roll(epoch, t.make_state(epoch))
        else:
            writer.record(epoch, t.make_state(epoch), t.make_results(epoch))
        print(t.json.dumps(writer.latest()), flush=True)
        epoch += 1
"""


def test_after_kill_9_the_newest_complete_epoch_restores(tmp_path):
    reached = -1
    for delay in (0.0, 0.03, 0.11):
        child = run_python(TRAIN_UNTIL_KILLED, tmp_path)
        lines = [child.stdout.readline()]
        killer = threading.Timer(delay, child.kill)
        killer.start()
        lines += child.communicate(timeout=60)[0].splitlines()
        killer.join()
        assert child.returncode == -9
        whole = [json.loads(line) for line in lines if line.strip()]
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
