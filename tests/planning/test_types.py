import pytest

import spectral_dd as sdd
from helpers import fast_programs
from spectral_dd import devices, run
from spectral_dd.config import Config
from spectral_dd.errors import InputError
from spectral_dd.members import expand
from spectral_dd.planning import dry_run, elsewhere, tune, types
from spectral_dd.planning.hardware import CHIPS, Target
from spectral_dd.planning.prepare import prepare

FIELDS = {"model": "mlp", "train_size": 128, "epochs": 1, "spectrum_examples": 0}
OPEN = [Config.of(width=w, dtype="auto", **FIELDS) for w in (2, 4)]


@pytest.fixture
def units(monkeypatch):
    """A processor that multiplies in bfloat16."""
    monkeypatch.setattr(devices, "has_bfloat16_units", lambda: True)


def types_of(prepared):
    return {c.dtype for c in prepared.configs}


def test_the_type_of_the_faster_step_is_taken_and_known_to_the_next_sweep(tmp_path, units, monkeypatch, capsys):
    timings = tune.Timings(tmp_path / "timings.json")
    monkeypatch.setattr(tune.Timings, "kept", lambda: timings)
    dtype = types_of(types.decided(tmp_path / "run", prepare(OPEN)))
    said = capsys.readouterr().err
    assert said.startswith(f"--dtype=auto: {min(dtype)}, a step of width 4 takes ")
    assert "ms in float32, " in said and "ms in bfloat16" in said
    # Another one measures nothing.
    monkeypatch.setattr(tune, "time_step", None)
    assert types_of(types.decided(tmp_path / "another", prepare(OPEN))) == dtype
    for key in list(timings._seconds):
        timings.put(key, 1e-3 if "bfloat16" in key else 1.0)
    assert types_of(types.decided(tmp_path / "another", prepare(OPEN))) == {"bfloat16"}


def test_float32_is_taken_where_bfloat16_cannot_be_faster(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(devices, "has_bfloat16_units", lambda: False)
    prepared = types.decided(tmp_path / "run", prepare([*OPEN, Config.of(dtype="bfloat16", **FIELDS)]))
    assert [c.dtype for c in prepared.configs] == ["float32", "float32", "bfloat16"]
    assert capsys.readouterr().err == "--dtype=auto: float32, the processor has no units for bfloat16\n"
    assert "--dtype=float32 is faster" in types.advice(prepared.configs)
    assert types.advice(prepared.configs[:2]) == ""


def test_a_sweep_keeps_the_type_that_it_was_begun_in(small, small_axes, units, monkeypatch):
    monkeypatch.setattr(tune, "time_step", None)
    again = prepare(expand(small_axes | {"dtype": "auto"}))
    assert types_of(types.decided(small, again)) == {"float32"}
    assert "; resumes " in dry_run.describe(small, again)


def test_a_task_that_comes_second_takes_the_type_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "has_bfloat16_units", lambda: False)
    write_sweep = run.write_sweep

    def another_is_first(workdir, sweep, there):
        monkeypatch.setattr(run, "write_sweep", write_sweep)
        sdd.train(workdir, [c.replace(dtype="bfloat16") for c in OPEN], tune=False)
        return write_sweep(workdir, sweep, there)

    monkeypatch.setattr(run, "write_sweep", another_is_first)
    with fast_programs():
        assert types_of(sdd.train(tmp_path / "run", OPEN, tune=False)) == {"bfloat16"}


def test_a_type_is_not_left_open_where_nothing_is_measured_or_another_member_has_it(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="--dtype=auto: is measured on the devices that are here; give the type with"):
        next(elsewhere.describe(tmp_path / "run", prepare(OPEN), 1, Target("h100", CHIPS["h100"], 1)))
    monkeypatch.setattr(devices, "has_bfloat16_units", lambda: False)
    with pytest.raises(InputError, match="--dtype=auto: is float32 here, which the sweep names already"):
        types.decided(tmp_path / "run", prepare([*OPEN, OPEN[0].replace(dtype="float32")]))
