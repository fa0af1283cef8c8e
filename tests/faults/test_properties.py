"""Any valid sweep plans; anything else is one clear line, and nothing is written."""

import copy
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import known_sweep

import spectral_dd as sdd
from spectral_dd import formats, padding, strict_json
from spectral_dd.config import FIELDS, Config
from spectral_dd.errors import InputError
from spectral_dd.members import expand
from spectral_dd.planning import packing
from spectral_dd.sweeps import Lowering, Sweep, check_workdir

EXAMPLES = settings(
    max_examples=2000 if os.environ.get("TORTURE") else 40, deadline=None, derandomize=True, database=None
)

# What a file or a flag may hold.
TEXT = st.text("aZ09_-+.,:;'\"\\/[]{}() \n\r\t\0é€\ud800", max_size=5)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from(["", "1e3", "nan", "true"])
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))


def one_line(error):
    assert str(error) and "\n" not in str(error)
    return str(error)


def allowed(name):
    """Values of a field that are allowed alone."""
    field, limits = FIELDS[name], FIELDS[name].metadata
    if field.type is bool:
        return st.booleans()
    if field.type is str:
        return st.sampled_from(limits["choices"]) if "choices" in limits else st.just(field.default)
    if field.type is int:
        return st.integers(limits.get("min", 1), min(limits.get("max", 64), 64))
    return st.floats(limits.get("min", limits.get("above", 0)) + 1e-3, limits.get("max", 10))


def axes(fields):
    return st.sets(st.sampled_from(fields), max_size=4).flatmap(
        lambda names: st.fixed_dictionaries({name: st.lists(allowed(name), min_size=1, max_size=3) for name in names})
    )


@EXAMPLES
@given(st.dictionaries(st.sampled_from([*FIELDS, "wdth"]), SCALARS | st.lists(SCALARS, max_size=2), max_size=3))
def test_any_values_are_members_or_one_line(values):
    try:
        configs = sdd.sweep(None, **values)
    except InputError as error:
        one_line(error)
        return
    for config in configs:
        assert Config.of(**config.values()) == config
        stored = json.loads(json.dumps(config.values(), allow_nan=False))
        assert Config.of(**stored) == config


class Linear:
    compile_seconds = 16.0

    def step_seconds(self, config, width, members=1):
        return 1e-3 * width


@EXAMPLES
@given(axes(list(FIELDS)), st.integers(1, 8), st.integers(1, 9))
def test_any_sweep_has_packs_that_hold_each_member_once(values, devices, min_packs):
    try:
        configs = expand(values)
    except InputError as error:  # Two fields contradict each other, or a value is there twice.
        one_line(error)
        return
    plan = packing.plan(configs, Linear(), lambda config: Lowering("im2col", 1), devices, min_packs)
    members = sorted(member for pack in plan.packs for member in pack.members)
    assert members == list(range(len(configs)))
    facts = [{"parameters": 1, "noise_rate": 0.0}] * len(configs)
    datasets = {c.dataset: {"image_shape": [8, 8, 1], "num_classes": 10} for c in configs}
    sweep = Sweep(configs, plan.packs, plan.apart, "cpu", facts, datasets, {"command": "x"}, "one")
    assert Sweep.from_json(strict_json.parse(strict_json.dump(sweep.to_json()))) == sweep


def places(content, path=()):
    """The paths of all parts of a JSON value."""
    yield path
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, part in items:
        yield from places(part, (*path, name))


WRITTEN = json.loads(json.dumps(known_sweep().to_json()))


@EXAMPLES
@given(st.sampled_from([path for path in places(WRITTEN) if path]), JSON, st.booleans(), st.booleans())
def test_a_sweep_json_changed_anywhere_is_the_same_or_refused(path, value, remove, reseal):
    content = copy.deepcopy(WRITTEN)
    part = content
    for name in path[:-1]:
        part = part[name]
    if remove:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    try:
        text = strict_json.dump(content) if reseal else json.dumps(content | {"crc": strict_json.seal(WRITTEN)["crc"]})
    except ValueError:  # not a number
        return
    try:
        sweep = Sweep.from_json(strict_json.parse(text))
    except ValueError as error:
        one_line(InputError(error))  # as `read_sweep` answers
        return
    # Whoever seals it again may change what it says, but not what it is.
    assert reseal or sweep == known_sweep()
    assert sorted(m for pack in sweep.packs for m in pack.members) == list(range(len(sweep.configs)))


@EXAMPLES
@given(TEXT | JSON.map(lambda value: json.dumps({"format": formats.FORMAT, "crc": value})) | JSON.map(json.dumps))
def test_any_text_is_no_sweep_in_one_line(tmp_path_factory, text):
    workdir = tmp_path_factory.mktemp("any")
    (workdir / "sweep.json").write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(InputError) as caught:
        check_workdir(workdir, known_sweep().configs)
    assert len(one_line(caught.value).replace(str(workdir), "DIR")) <= 300


@EXAMPLES
@given(st.lists(st.lists(SCALARS.map(str), max_size=3).map(",".join), max_size=4).map("\n".join))
def test_any_table_of_members_is_members_or_one_line(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("table") / "members.csv"
    path.write_text("width,seed\n" + table, encoding="utf-8", errors="replace")
    try:
        assert sdd.sweep("digits", members=path)
    except InputError as error:
        one_line(error)


@EXAMPLES
@given(st.data())
def test_what_is_padded_comes_back(data):
    shapes = data.draw(st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=3))
    narrow = {str(i): np.random.default_rng(i).normal(size=shape) for i, shape in enumerate(shapes)}
    wide = {name: np.zeros([n + data.draw(st.integers(0, 3)) for n in leaf.shape]) for name, leaf in narrow.items()}
    padded = padding.pad(narrow, wide)
    back = padding.unpad(padded, narrow)
    for name, leaf in narrow.items():
        np.testing.assert_array_equal(back[name], leaf)
        assert padded[name].shape == wide[name].shape
        assert np.count_nonzero(padded[name]) == np.count_nonzero(leaf)
