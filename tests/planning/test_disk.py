"""What a sweep takes of the disk is known before, and is there."""

import pytest

import spectral_dd as sdd
from spectral_dd.errors import InputError
from spectral_dd.members import expand
from spectral_dd.planning import disk
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.plan import plan_sweep
from spectral_dd.planning.prepare import prepare
from spectral_dd.sweeps import read_sweep


def planned(workdir, configs):
    prepared = prepare(configs)
    cost = Cost(prepared.configs, prepared.datasets)
    return workdir, plan_sweep(prepared, cost), prepared, cost


def test_a_run_takes_at_most_what_was_said_and_a_finished_one_nothing_more(small, small_axes, tmp_path):
    said = disk.disk_bytes(*planned(tmp_path, expand(small_axes)))
    taken = sum(path.stat().st_blocks * 512 for path in (small / "packs").rglob("*"))
    assert 0.6 * said < taken < said
    _, _, prepared, cost = planned(small, expand(small_axes))
    assert disk.disk_bytes(small, read_sweep(small), prepared, cost) == 0


def test_a_sweep_for_which_there_is_no_room_is_refused_and_nothing_written(tmp_path, small_axes):
    records = {"epochs": 100_000, "records_per_decade": 50_000, "spectrum_examples": 0}
    configs = expand(small_axes | records | {"width": 6000, "seed": 0})
    with pytest.raises(InputError, match=r"needs up to \S+ TB of the disk, .* are free there") as caught:
        disk.check_disk(*planned(tmp_path, configs))
    assert len(str(caught.value)) <= 300
    with pytest.raises(InputError, match="of the disk"):
        sdd.train(tmp_path / "run", configs)
    assert not list(tmp_path.iterdir())
