import shutil

import numpy as np
import pytest

import spectral_dd as sdd
from spectral_dd.errors import InputError
from spectral_dd.planning import fit


def test_other_spectra_on_the_checkpoints(small):
    before = {p: p.stat().st_mtime_ns for p in (small / "packs").rglob("*") if p.is_file()}
    sdd.evaluate_spectra(small, "fine", {"spectrum_points": 16, "spectrum_half_width": 0.25})
    sdd.evaluate_spectra(small, "same", {})
    assert before == {p: p.stat().st_mtime_ns for p in (small / "packs").rglob("*") if p.is_file()}

    recorded, fine, same = (sdd.load_results(small, name) for name in (None, "fine", "same"))
    np.testing.assert_array_equal(same.energy, recorded.energy)
    np.testing.assert_allclose(fine.frequency, 2 * np.arange(9))
    assert (fine.spectrum_points == 16).all()
    assert not fine.energy.isnull().any()
    np.testing.assert_array_equal(fine.test_error, recorded.test_error)
    assert "left_out" not in same.attrs  # without measures, nothing is
    with pytest.raises(InputError, match=r"--name=fine: .*spectrum_points"):
        sdd.evaluate_spectra(small, "fine", {"spectrum_points": 32})
    with pytest.raises(InputError, match=r"has spectra .*fine, same"):
        sdd.load_results(small, "fin")


def test_a_sweep_without_records_is_named(small, tmp_path):
    shutil.copy(small / "sweep.json", tmp_path)
    with pytest.raises(InputError, match="nothing is recorded yet"):
        sdd.evaluate_spectra(tmp_path, "fine", {})
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("a/b", {}, "--name=a/b: must be letters"),
        ("none", {"spectrum_examples": 0}, "--spectrum_examples=0: must be at least 1"),
        ("odd", {"spectrum_points": 7}, "--spectrum_points=7: must be even"),
    ],
)
def test_settings_that_cannot_work_write_nothing(small, name, settings, message):
    with pytest.raises(InputError, match=message):
        sdd.evaluate_spectra(small, name, settings)
    assert not (small / "spectra" / name).exists()


def test_what_is_too_large_is_said_before_anything_is_written(small, monkeypatch):
    monkeypatch.setattr(fit, "memory", lambda device: 1000)
    with pytest.raises(InputError, match=r"--width=\d+: spectra of one mlp with --spectrum_points=8 needs .* GiB of"):
        sdd.evaluate_spectra(small, "large", {"spectrum_points": 8})
    assert not (small / "spectra" / "large").exists()
