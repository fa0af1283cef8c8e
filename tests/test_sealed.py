"""What is read has the bits that were stored, or the error says what is damaged; no more is read than is asked for."""

import os
import random
import shutil

import jax
import numpy as np
import pytest
import tensorstore as ts

from packs import (
    MEMBERS,
    abstract,
    assert_same,
    flip_bit,
    largest_file,
    make_results,
    make_state,
    place,
    record_pack,
    variables_of,
)
from spectral_dd import sealed
from spectral_dd.checkpoint import PackWriter
from spectral_dd.errors import CheckpointError, InputError
from spectral_dd.stored import is_intact, load_member, load_results, load_variables, recorded_epochs

# A state may hold float64.
pytestmark = pytest.mark.usefixtures("x64")


def test_one_member_is_the_slice_of_the_stack(pack):
    for member in (0, MEMBERS - 1):
        assert_same(load_member(place(pack), 1, member), variables_of(1, member))


def test_results_are_read_by_name(pack):
    loaded = load_results(place(pack), 1, ("train_error", "not_there"))
    assert_same(loaded, {"train_error": make_results(1)["train_error"]})


def test_small_results_of_a_shape_are_one_array_and_read_by_name(tmp_path):
    results = {name: np.full((MEMBERS, 3), i, np.float32) for i, name in enumerate(("a", "b", "c"))}
    results |= {"flag": np.zeros((MEMBERS, 3), bool), "large": np.zeros((MEMBERS, 2000), np.float32)}
    with PackWriter(place(tmp_path)) as writer:
        writer.record(1, {}, results)
    stored = sealed.read_seal(tmp_path / "records" / "1", place(tmp_path))
    assert {*stored} == {"results.a+b+c", "results.flag", "results.large"}
    assert_same(load_results(place(tmp_path), 1), results)
    assert_same(load_results(place(tmp_path), 1, ("c", "large", "d")), {"c": results["c"], "large": results["large"]})


def test_no_more_is_read_than_is_asked_for(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(MEMBERS, 100_000)).astype(np.float32)
    with PackWriter(place(tmp_path)) as writer:
        writer.record(1, {"variables": {"kernel": kernel}}, {"energy": kernel, "error": kernel[:, 0]})

    def bytes_read() -> int:
        metrics = ts.experimental_collect_matching_metrics("/tensorstore/kvstore/file/bytes_read")
        return sum(value["value"] for metric in metrics for value in metric["values"])

    before = bytes_read()
    np.testing.assert_array_equal(load_member(place(tmp_path), 1, 4)["kernel"], kernel[4])
    assert bytes_read() - before < 1.1 * kernel[4].nbytes
    before = bytes_read()
    load_results(place(tmp_path), 1, ("error",))
    assert bytes_read() - before < 0.1 * kernel[4].nbytes


def test_wrong_requests_are_one_line(pack):
    state, variables = make_state(0), make_state(0)["variables"]
    other = variables | {"params": {"Dense_0": variables["params"]["Dense_0"] | {"bias": state["step"]}}}
    for call, message in (
        (lambda: load_results(place(pack), 2), "epoch 2 is not recorded; recorded epochs: 0, 1, 3"),
        (lambda: load_results(place(pack / "nothing"), 2), "recorded epochs: none"),
        (lambda: load_member(place(pack), 1, MEMBERS), "no member 8; it holds members 0 to 7"),
        (lambda: load_member(place(pack), 1, -1), "no member -1"),
        (lambda: load_variables(place(pack), 1, abstract({"other": state["step"]})), "differ in other"),
        (lambda: load_variables(place(pack), 1, abstract(other)), r"bias' is stored as float64\(8, 300\), asked for"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    with PackWriter(place(pack)) as writer:
        with pytest.raises(InputError, match=r"differ in batch_stats\.mean"):
            writer.restore(abstract({**state, "batch_stats": {"mean": state["step"]}}))
        with pytest.raises(InputError, match="differ in step"):
            writer.restore(abstract({name: leaf for name, leaf in state.items() if name != "step"}))
        assert writer.latest() == 5  # Nothing was set aside.


def test_float64_without_x64_is_refused(pack):
    with jax.enable_x64(False), pytest.raises(InputError, match="needs JAX_ENABLE_X64=1"):
        load_variables(place(pack), 1, abstract(make_state(1)["variables"]))


def test_a_damaged_state_falls_back_to_the_one_before_it(pack):
    flip_bit(pack / "rolling" / "5.npz", 20_000)
    with PackWriter(place(pack)) as writer:
        epoch, state = writer.restore(abstract(make_state(0)))
    assert epoch == 3
    assert_same(state, make_state(3))
    assert (pack / "rolling" / "5.npz.damaged").exists()


def test_a_damaged_record_is_named_and_can_be_recorded_anew(pack):
    path = largest_file(pack / "records" / "3" / "state" / "ocdbt.process_0" / "d")
    flip_bit(path, path.stat().st_size // 3)
    assert [is_intact(place(pack), epoch) for epoch in (0, 1, 3)] == [True, True, False]
    with pytest.raises(CheckpointError, match=r"pack/records/3: 'variables\..*' is damaged") as caught:
        for member in range(MEMBERS):
            load_member(place(pack), 3, member)
    assert len(str(caught.value)) <= 300
    with PackWriter(place(pack)) as writer:
        assert writer.set_aside_damaged() == []  # Its seal is intact.
        assert writer.set_aside_damaged(every_byte=True) == [3]
        writer.record(3, make_state(3), make_results(3))
    assert recorded_epochs(place(pack)) == [0, 1, 3]
    assert_same(load_member(place(pack), 3, 0), variables_of(3, 0))
    assert (pack / "records" / "3.damaged").is_dir()


def test_what_is_copied_from_elsewhere_is_refused_and_set_aside(pack, tmp_path):
    record_pack(tmp_path / "other")
    for source, where, message in (
        (pack / "records" / "1", place(pack), "is of epoch 1, copied here"),
        (pack / "records" / "3", place(pack, pack=1), "is of pack 0, copied here"),
        (pack / "records" / "3", place(pack, sweep="two"), "is another sweep's, copied here"),
    ):
        copy = tmp_path / "copy" / "records" / "3"
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(source, copy)
        where = where._replace(directory=tmp_path / "copy")
        for read in (lambda where=where: load_results(where, 3), lambda where=where: load_member(where, 3, 0)):
            with pytest.raises(CheckpointError, match=message):
                read()
        with PackWriter(where):
            assert recorded_epochs(where) == []
    shutil.copy(pack / "rolling" / "3.npz", pack / "rolling" / "5.npz")
    with PackWriter(place(pack)) as writer:
        assert writer.restore(abstract(make_state(0)))[0] == 3


def test_any_flipped_bit_or_cut_file_is_noticed_or_harmless(pack, tmp_path):
    rng = random.Random(0)
    files = [path.relative_to(pack) for path in pack.rglob("*") if path.is_file() and path.stat().st_size]
    for trial in range(20):
        copy = tmp_path / f"copy{trial}"
        shutil.copytree(pack, copy)
        victim = copy / rng.choice(files)
        if trial % 3:
            flip_bit(victim, rng.randrange(10**6))
        else:
            os.truncate(victim, rng.randrange(victim.stat().st_size))
        with PackWriter(place(copy)) as writer:
            epoch, state = writer.restore(abstract(make_state(0)))
            assert_same(state, make_state(epoch))
            writer.set_aside_damaged(every_byte=True)
        left = recorded_epochs(place(copy))
        assert len(left) + (epoch == 5) >= 3
        for epoch in left:
            assert_same(load_results(place(copy), epoch), make_results(epoch))
