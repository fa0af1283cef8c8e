"""Whatever happens to a file is noticed, or changes nothing that is read; verify.py names it, and --repair ends it."""

import json
import os
import random
import shutil

import cases
import pytest
from synthetic import NAME, findings, kinds_of_files, known_sweep, read_all

from packs import flip_bit
from spectral_dd import sweeps, verify
from spectral_dd.errors import InputError

pytestmark = pytest.mark.usefixtures("x64")


def test_a_run_without_damage_is_found_to_be_so(run):
    assert read_all(run) == 0
    assert findings(run) == []


@pytest.mark.parametrize("name", ["run", "./run", "other/../run", "link", "~/run"])
def test_a_run_is_found_to_be_so_whatever_it_is_called(run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(run.parent)
    monkeypatch.setenv("HOME", str(run.parent))
    if name == "link":
        (tmp_path / "link").symlink_to(run)
        monkeypatch.chdir(tmp_path)
    assert findings(name) == []
    assert verify.prune_states(name, keep=2) == (0, 0)


def test_flipped_bits_in_every_kind_of_file(run, whole, times, report):
    rng, refused, harmless = random.Random(0), 0, 0
    kinds = [paths for paths in kinds_of_files(run).values() if paths[0].stat().st_size]
    trials = times(2000) if whole else len(kinds)
    for trial in range(trials):
        path = rng.choice(kinds[trial % len(kinds)])
        with cases.brought_back(path):
            flip_bit(path, rng.randrange(8 * path.stat().st_size))
            if read_all(run, path):
                refused += 1
                assert trial % 25 or findings(run), path
            else:
                harmless += 1
    report(f"{trials} flips, {refused} refused, {harmless} read back equal, 0 silent")


@pytest.mark.parametrize("name", ["sweep.json", "settings.json"])
def test_every_flip_of_a_json_file(run, whole, report, name):
    path = next(run.rglob(name))
    data, sweep, refused = path.read_bytes(), known_sweep(), 0
    flips = range(0, 8 * len(data), 1 if whole else 101)
    with cases.brought_back(path):
        for bit in flips:
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            try:
                assert cases.read_json(run, name, sweep)
            except InputError as error:
                assert "\n" not in str(error)
                refused += 1
    report(f"{len(flips)} flips, {refused} refused, {len(flips) - refused} read back equal")


@pytest.mark.parametrize("fault", cases.FAULTS)
def test_other_faults_of_every_kind_of_file(run, whole, report, fault):
    rng, count = random.Random(0), 0
    kinds = list(kinds_of_files(run).values())
    for paths in kinds if whole else rng.sample(kinds, 4):
        path = rng.choice(paths)
        others = [other for other in paths if other != path and other.read_bytes() != path.read_bytes()]
        if (fault == "copied" and not others) or (fault in ("truncated", "zeroed") and not path.stat().st_size):
            continue
        with cases.brought_back(path):
            cases.FAULTS[fault](path, others, rng)
            if read_all(run, path):
                assert findings(run), path
            count += 1
    report(f"{count} files, 0 silent")


def test_a_record_that_is_lost_is_missing_and_what_is_foreign_is_named(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(copy / "packs" / "000" / "records" / "1")
    shutil.copytree(copy / "packs" / "001" / "records" / "2", copy / "packs" / "000" / "records" / "7")
    (copy / "packs" / "000" / "records" / "notes.txt").write_text("x")
    (copy / "packs" / "005").mkdir()
    shutil.rmtree(copy / "spectra" / NAME / "packs" / "000" / "rolling")
    (copy / "spectra" / NAME / "packs" / "000" / "rolling").write_text("x")
    shutil.rmtree(copy / "spectra" / NAME / "packs" / "001")
    (copy / "spectra" / NAME / "packs" / "001").write_text("x")
    os.truncate(copy / "packs" / "001" / "rolling" / "3.npz", 100)
    (copy / "packs" / "001" / "rolling" / ".writing.x").write_text("half")
    found = {(f.kind, str(f.path.relative_to(copy)).removeprefix("packs/")) for f in findings(copy)}
    assert found == {
        ("missing", "000/records/1"),
        ("foreign", "000/records/7"),
        ("foreign", "000/records/notes.txt"),
        ("foreign", "005"),
        ("foreign", f"spectra/{NAME}/packs/000/rolling"),
        ("foreign", f"spectra/{NAME}/packs/001"),
        ("damaged", "001/rolling/3.npz"),
        ("leftover", "001/rolling/.writing.x"),
    }
    for finding in findings(copy):
        verify.repair(finding)
    assert [f.kind for f in findings(copy) if f.kind != "set aside"] == ["missing"]


def test_states_of_a_finished_run_can_go(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    assert verify.prune_states(copy, keep=1)[0] == 2
    assert verify.prune_states(copy, keep=0)[0] == 2
    assert not list(copy.rglob("rolling/*.npz")) and findings(copy) == []


def test_an_unsealed_file_of_a_sealed_sweep_is_refused(run):
    """As one of the former format would be, whose fields can be edited."""
    path = run / "sweep.json"
    with cases.brought_back(path):
        content = json.loads(path.read_text())
        del content["crc"]
        for version in (2, 3):
            path.write_text(json.dumps(content | {"format": version}))
            with pytest.raises(InputError):
                sweeps.read_sweep(run)
