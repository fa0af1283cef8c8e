"""One writer at a time, and a word where the file system cannot see to it."""

import os

import pytest

from spectral_dd import locks
from spectral_dd.errors import LockedError


def test_a_lock_has_one_holder_who_is_named(tmp_path):
    path = tmp_path / "lock"
    assert not locks.is_locked(path)
    with locks.lock(path):
        assert locks.is_locked(path)
        with pytest.raises(LockedError, match=f"in use by process {os.getpid()} on "):
            locks.lock(path)
    assert not locks.is_locked(path)
    locks.lock(path).close()


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        ("ext4 /dev/sda rw", ""),
        ("nfs4 server:/x rw,vers=4.2,local_lock=none", ""),
        ("nfs server:/x rw,vers=3,nolock,local_lock=all", "on nfs with nolock, locks do not hold across hosts"),
        ("lustre server:/x rw,flock", ""),
        ("lustre server:/x rw,localflock", "on lustre with localflock, locks do not hold across hosts"),
        ("fuse.sshfs server:/x rw", "on fuse.sshfs, locks do not hold across hosts"),
    ],
)
def test_a_file_system_whose_locks_are_of_one_host_is_named(tmp_path, mount, said):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 8:1 / / rw - ext4 /dev/root rw\n36 22 0:40 / /shared rw,noatime shared:1 - {mount}\n")
    warning = locks.warning(tmp_path.__class__("/shared/me/run"), str(mounts))
    assert said in warning and bool(said) == bool(warning)
    assert locks.warning(tmp_path.__class__("/home/me/run"), str(mounts)) == ""
