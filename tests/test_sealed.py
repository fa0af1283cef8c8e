"""What is read has the bits that were stored, or the error says what is damaged; no more is read than is asked for."""

import os
import random
import shutil

import jax
import numpy as np
import pytest
import tensorstore as ts

from packs import MEMBERS, abstract, assert_same, flip_bit, largest_file, make_results, make_state
from spectral_dd.checkpoint import PackWriter, is_intact, load_member_state, load_results, load_state, recorded_epochs
from spectral_dd.errors import CheckpointError, InputError

# A state may hold float64.
pytestmark = pytest.mark.usefixtures("x64")


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
        metrics = ts.experimental_collect_matching_metrics("/tensorstore/kvstore/file/bytes_read")
        return sum(value["value"] for metric in metrics for value in metric["values"])

    before = bytes_read()
    np.testing.assert_array_equal(load_member_state(tmp_path, 1, 4)["kernel"], kernel[4])
    assert bytes_read() - before < 1.1 * kernel[4].nbytes


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


def test_damage_is_named_and_restore_falls_back(pack):
    for step in (pack / "rolling" / "5", pack / "records" / "3"):
        path = largest_file(step / "state" / "ocdbt.process_0" / "d")
        flip_bit(path, path.stat().st_size // 3)
    assert [is_intact(pack, epoch) for epoch in (0, 1, 3)] == [True, True, False]
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
