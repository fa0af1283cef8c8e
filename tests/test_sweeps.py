import json
import typing

import numpy as np
import pandas as pd
import pytest

import spectral_dd as sdd
from spectral_dd import formats, named_spectra, strict_json, sweeps
from spectral_dd.config import Config, SpectrumConfig
from spectral_dd.errors import InputError
from spectral_dd.members import expand
from spectral_dd.named_spectra import NamedSpectra
from spectral_dd.presets import PRESETS
from spectral_dd.sweeps import Lowering, Pack, Sweep


def test_axes_multiply_in_the_order_of_the_fields():
    configs = expand({"seed": [0, 1], "width": [2, 4], "epochs": 3})
    assert [(c.width, c.seed) for c in configs] == [(2, 0), (2, 1), (4, 0), (4, 1)]
    assert {c.epochs for c in configs} == {3}


@pytest.mark.parametrize("axes", [{"width": [4, 4]}, {"width": []}, {"learning_rate": ["1e-3", 0.001]}])
def test_an_axis_names_each_value_once(axes):
    with pytest.raises(InputError, match="must be one or more different values"):
        expand(axes)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_constructs(name):
    assert sdd.sweep(name)


def test_python_takes_ranges_arrays_and_single_values_and_overrides_the_preset():
    configs = sdd.sweep("digits", width=np.array([2, 4]), seed=range(3), label_noise=0.1, spectrum_points=8)
    assert [(c.width, c.seed) for c in configs] == [(w, s) for w in (2, 4) for s in range(3)]
    assert {(c.label_noise, c.spectrum.points, c.train_size) for c in configs} == {(0.1, 8, 600)}
    assert sdd.sweep(None, width=3) == sdd.sweep("none", width=3) == [Config(width=3)]


def test_the_default_preset_is_of_its_own_data_set_and_model_alone(tmp_path):
    (tmp_path / "members.csv").write_text("width,model\n2,mlp\n4,cnn5\n")
    for own in ({}, {"dataset": "digits"}, {"model": ["cnn5"]}):
        assert {(c.train_size, c.label_noise) for c in sdd.sweep(**own)} == {(600, 0.15)}
    for other in ({"dataset": "cifar10"}, {"model": "mlp"}, {"model": ["cnn5", "mlp"]}):
        assert {c.replace(model="cnn5", dataset="digits") for c in sdd.sweep(**other)} == {Config()}
    assert {c.train_size for c in sdd.sweep(members=tmp_path / "members.csv")} == {0}
    # Who names a preset gets it.
    assert {c.train_size for c in sdd.sweep("digits", model="mlp")} == {600}


@pytest.mark.parametrize(
    ("asked", "budget"),
    [
        ({"seed": 1}, 0.18),
        ({"spectrum_points": 64}, 1.0),
        ({"members": [{"width": 2, "spectrum_half_width": 1.0}]}, 1.0),
        ({"spectrum_points": 64, "spectrum_budget": 0.5}, 0.5),
    ],
)
def test_spectra_that_are_asked_for_are_not_dropped_by_the_budget_of_a_preset(asked, budget):
    assert {c.spectrum.budget for c in sdd.sweep("digits", **asked)} == {budget}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"wdth": 4}, "'wdth': is no field of a member. Did you mean 'width'?"),
        ({"preset": "digit"}, "--preset=digit: must be one of"),
        ({"width": 0}, "--width=0: must be a whole number of at least 1"),
        ({"learning_rate": 1e39}, "--learning_rate=1e+39: must be a number from 0 to 3.4e+38"),
        ({"width": 10**8}, "--width=100000000: must be a whole number from 1 to 1048576"),
        ({"epochs": 2**31}, "--epochs=2147483648: must be a whole number from 1 to 2147483647"),
        ({"momentum": 0.5}, "--momentum=0.5: says nothing with --optimizer=adam; it is for sgd"),
        ({"noise_map": "9:1"}, "--noise_map=9:1: says nothing with --noise_kind=symmetric; it is for asymmetric"),
        ({"schedule": "cosine", "schedule_steps": [8]}, "--schedule_steps=8: says nothing with --schedule=cosine"),
        ({"members": [{"width": 2, "sed": 1}]}, "members[0], column 'sed': is no field of a member"),
        ({"members": [{"width": 2}], "width": [1]}, "--width: is a column of the table of members too"),
    ],
)
def test_a_sweep_that_cannot_be_is_named(arguments, message):
    with pytest.raises(InputError) as error:
        sdd.sweep(**arguments)
    assert message in str(error.value)


TABLE = "width, learning_rate\n2, 1e-2\n\n4, 5e-3\n"


def test_a_table_ties_values_to_each_other_and_axes_multiply_its_rows(tmp_path):
    path = tmp_path / "members.csv"
    path.write_text(TABLE)
    frame = pd.DataFrame({"width": [2, 4], "learning_rate": [1e-2, 5e-3]})
    for members in (path, str(path), frame, frame.to_dict("records")):
        configs = sdd.sweep("digits", members=members, seed=[0, 1])
        found = [(c.width, c.learning_rate, c.seed, c.train_size) for c in configs]
        assert found == [(2, 1e-2, 0, 600), (2, 1e-2, 1, 600), (4, 5e-3, 0, 600), (4, 5e-3, 1, 600)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE.replace("width", "wdth"), "line 1, column 'wdth': is no field of a member. Did you mean 'width'?"),
        (TABLE.replace("4,", ","), "line 4, column width: is empty"),
        (TABLE.replace("4,", "0,"), "line 4, column width: --width=0: must be a whole number of at least 1"),
        (TABLE + "8\n", "line 5: has 1 cells, not 2 as the first line"),
        ("width, width\n1, 2\n", "line 1: a column is there twice"),
        ("width\n", "must have a line of field names and a line a member"),
        ("width, train_size\n2, 50\n", "line 2: --batch_size=100: larger than the training set (--train_size=50)"),
        ("width\n2\n3\n2\n", "line 4: is the same member as "),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_table_that_cannot_work_is_named_with_line_and_column(tmp_path, text, message):
    path = tmp_path / "members.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as error:
        sdd.sweep("digits", members=path)
    assert str(error.value).startswith(f"--members={path}: {message}")


FACTS = {"parameters": 10, "noise_rate": 0.0}
DATASETS = {"digits": {"image_shape": [8, 8, 1], "num_classes": 10}}


def make_sweep(configs, packs=None, identity="one"):
    packs = packs or [Pack(tuple(range(len(configs))), Lowering("im2col", 1), 1.5)]
    return Sweep(configs, packs, False, "cpu", [FACTS for _ in configs], DATASETS, {"command": "x"}, identity)


def test_sweep_json_round_trip(tmp_path):
    written = make_sweep(expand({"width": [1, 2], "learning_rate": [1 / 3]}))
    sweeps.write_sweep(tmp_path / "new" / "run", written)
    assert repr(written) == "Sweep(2 members, 1 packs)"
    assert sweeps.read_sweep(tmp_path / "new" / "run") == written


def older(configs, version):
    """What former revisions wrote; they did not know the newest fields of a member."""
    common = {"facts": [FACTS] * len(configs), "datasets": DATASETS, "provenance": {"command": "x"}, "apart": False}
    values = [{name: value for name, value in c.values().items() if name != "spectrum_window"} for c in configs]
    if version == 2:
        pack = {"members": [0, 1], "lowering": {"convolution": "im2col", "at_once": 1}, "cost": 1.5}
        return {"format": 2, "shared": {}, "members": values, "packs": [pack], "platform": "cpu", **common}
    lowering = {"platform": "cpu", "convolution": "im2col", "at_once": 1}
    return {"configs": values, "packs": [[0, 1]], "costs": [1.5], "lowerings": [lowering], **common}


@pytest.mark.parametrize("version", [1, 2])
def test_a_sweep_json_of_an_older_format_is_read_and_checked(tmp_path, version):
    configs = expand({"width": [1, 2]})
    old = older(configs, version)
    (tmp_path / "sweep.json").write_text(json.dumps(old))
    assert sweeps.read_sweep(tmp_path) == make_sweep(configs, identity="")
    packs = [[1, 1]] if version == 1 else [old["packs"][0] | {"members": [1, 1]}]
    (tmp_path / "sweep.json").write_text(json.dumps(old | {"packs": packs}))
    with pytest.raises(InputError, match="packs: must have each member once"):
        sweeps.read_sweep(tmp_path)


# What files of the newest format hold. See the rule in formats.py: another field is another format, or every run of the
# one that is pinned here becomes unreadable.
PINNED = (
    4,
    {
        Config: """model width seed data_seed noise_seed init_seed order_seed dtype matmul_precision initializer dataset
            image_feature label_feature test_fraction channels train_size train_labels label_noise noise_kind noise_map
            noisy_split shift flip epochs batch_size optimizer learning_rate weight_decay momentum schedule
            schedule_steps records_per_decade measure spectrum""",
        SpectrumConfig: """examples points half_width direction directions output window measures updates from_epoch
            budget augment resample""",
        Sweep: "configs packs apart platform facts datasets provenance identity",
        Pack: "members lowering cost ends",
        Lowering: "convolution at_once",
        sweeps.Facts: "parameters noise_rate",
        NamedSpectra: "settings sweep identity measures",
    },
)


def test_a_field_more_or_less_is_another_format():
    version, fields = PINNED
    here = {kind: set(typing.get_type_hints(kind)) for kind in fields}
    assert (formats.FORMAT, here) == (version, {kind: set(names.split()) for kind, names in fields.items()})


def test_what_this_revision_writes_is_read_when_the_next_format_has_more_fields(tmp_path, monkeypatch):
    configs = expand({"width": [1, 2], "spectrum_window": ["none"]})
    sweep = make_sweep(configs)
    here = sweep.to_json()
    del here["shared"]["spectrum_window"]  # as if it were of a field that is not known yet
    (tmp_path / "sweep.json").write_text(strict_json.dump(here))
    named_spectra.settle(tmp_path, "fine", sweep, {"spectrum_points": 64})
    with pytest.raises(InputError, match=r"members\[0\]\.spectrum_window: is missing"):
        sweeps.read_sweep(tmp_path)
    monkeypatch.setattr(formats, "FORMAT", formats.FORMAT + 1)
    default = Config().spectrum.window
    assert sweeps.read_sweep(tmp_path).configs == [c.replace(spectrum_window=default) for c in configs]
    assert named_spectra.read(tmp_path, "fine", sweep).settings == {"spectrum_points": 64}


def test_a_sweep_json_of_a_later_format_is_refused_with_both_versions(tmp_path):
    (tmp_path / "sweep.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match=r"format is version 99, this revision reads versions 1 to 4"):
        sweeps.read_sweep(tmp_path)


def change(path, value):
    """The JSON of a sweep with another value at a path of keys, and a new seal."""

    def apply(content):
        for key in path[:-1]:
            content = content[key]
        if value is None:
            del content[path[-1]]
        else:
            content[path[-1]] = value

    return apply


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("packs", 0, "members"), [0, 0], "packs: must have each member once"),
        (("packs", 0, "members"), 0, "packs[0].members: must be a list"),
        (("packs", 0, "cost"), True, "packs[0].cost: must be a number"),
        (("packs", 0, "cost"), 10**400, "packs[0].cost: must be a number"),
        (("packs", 0, "lowering", "at_once"), 0, "at least 1 member at once"),
        (("packs", 0, "lowering", "at_once"), "1", "packs[0].lowering.at_once: must be a whole number"),
        (("facts",), [FACTS], "facts: must be as many as members"),
        (("facts", 0, "parameters"), 1.5, "facts[0].parameters: must be a whole number"),
        (("datasets",), {}, "datasets: must have digits"),
        (("datasets", "digits", "num_classes"), 0, "datasets.digits: must have"),
        (("apart",), 0, "apart: must be true or false"),
        (("members", 0, "width"), "1", "members[0].width: must be a whole number"),
        (("members", 0, "width"), 2, "members: must be one or more different ones"),
        (("shared", "seed"), None, "members[0].seed: is missing"),
        (("members", 1, "seed"), 0, "members[1].seed: is among what all members share"),
        (("shared", "sed"), 1, "members[0], 'sed': is no field of a member"),
        (("apart",), None, "apart: is missing"),
        (("identity",), None, "identity: is missing"),
        (("surplus",), 1, "surplus: is unknown"),
    ],
)
def test_each_part_of_sweep_json_has_its_type_and_fits_the_others(tmp_path, path, value, message):
    content = json.loads(json.dumps(make_sweep(expand({"width": [1, 2]})).to_json()))
    change(path, value)(content)
    (tmp_path / "sweep.json").write_text(json.dumps(strict_json.seal(content)))
    with pytest.raises(InputError) as caught:
        sweeps.read_sweep(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path / "sweep.json") in str(caught.value)


def test_an_edited_sweep_json_is_refused(tmp_path):
    sweeps.write_sweep(tmp_path, make_sweep(expand({"width": [1, 2]})))
    path = tmp_path / "sweep.json"
    path.write_text(path.read_text().replace('"width": 2', '"width": 3'))
    with pytest.raises(InputError, match="its checksum differs: it is damaged, or was edited"):
        sweeps.read_sweep(tmp_path)


def test_of_two_processes_that_start_a_sweep_one_wins_and_both_get_its_packs(tmp_path):
    configs = expand({"width": [1, 2]})
    first = sweeps.write_sweep(tmp_path, make_sweep(configs))
    packs = [Pack((i,), Lowering("im2col", 1), 1.0) for i in range(2)]
    assert sweeps.write_sweep(tmp_path, make_sweep(configs, packs)) == first
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.json"]


def test_a_member_is_found_in_its_pack():
    packs = [Pack((2, 0), Lowering("im2col", 1), 1.0), Pack((1,), Lowering("im2col", 1), 1.0)]
    sweep = make_sweep(expand({"width": [1, 2, 3]}), packs)
    assert [sweep.locate(member) for member in range(3)] == [(0, 1), (1, 0), (0, 0)]
    with pytest.raises(InputError, match="member=3: the sweep has members 0 to 2"):
        sweep.locate(3)


def test_a_directory_with_other_files_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="has files but no sweep"):
        sweeps.check_workdir(tmp_path, [Config()])


def test_a_damaged_sweep_json_is_named(tmp_path):
    for damaged in ("{", "[]", "{}", "null", "[" * 100_000, '{"a": NaN}', '{"a": 1, "a": 2}', "\x00"):
        (tmp_path / "sweep.json").write_text(damaged)
        with pytest.raises(InputError, match="cannot be read as a sweep"):
            sweeps.read_sweep(tmp_path)
