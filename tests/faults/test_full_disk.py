"""A full disk is one line, and what was recorded before stays; when there is space again, it goes on."""

import pathlib
import random
import shutil
import subprocess
import sys

import pytest
from processes import TRACES

# In a name space of its own, so that no rights are needed: a small disk, filled to a random degree.
SCRIPT = """
import pathlib, random, sys
sys.path[:0] = [{tests!r}, {root!r}]
import jax
jax.config.update("jax_enable_x64", True)
import packs as p
from spectral_dd.checkpoint import PackWriter
from spectral_dd.errors import CheckpointError
from spectral_dd.stored import load_results, recorded_epochs
disk, rng = pathlib.Path(sys.argv[1]), random.Random(int(sys.argv[2]))
for moment in range(int(sys.argv[3])):
    place = p.place(disk / str(moment))
    try:
        with PackWriter(place) as writer:
            writer.record(0, p.make_state(0), p.make_results(0))
            writer.latest()
            room = rng.randrange(0, 350_000)
            with open(disk / "filling", "wb") as file:
                file.truncate(0)
                free = __import__("shutil").disk_usage(disk).free
                file.write(bytes(max(0, free - room)))
            for epoch in range(1, 4):
                writer.record(epoch, p.make_state(epoch), p.make_results(epoch))
    except (CheckpointError, OSError) as error:
        print("said:", error, file=sys.stderr)
    (disk / "filling").unlink()
    for epoch in recorded_epochs(place):
        p.assert_same(load_results(place, epoch), p.make_results(epoch))
    with PackWriter(place) as writer:
        epoch, state = writer.restore(p.abstract(p.make_state(0)))
        p.assert_same(state, p.make_state(epoch))
        for epoch in sorted(set(range(4)) - set(recorded_epochs(place))):
            writer.record(epoch, p.make_state(epoch), p.make_results(epoch))
    assert recorded_epochs(place) == [0, 1, 2, 3]
    __import__("shutil").rmtree(place.directory)
print("ok", file=sys.stderr)
"""


@pytest.fixture
def small_disk(tmp_path):
    mount = f'mount -t tmpfs -o size=1500k tmpfs {tmp_path} && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", mount, "sh"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("needs name spaces of users")
    return command


def test_a_disk_that_fills_up_at_any_moment(small_disk, tmp_path, whole, times, report):
    tests = pathlib.Path(__file__).parents[1]
    script = SCRIPT.format(tests=str(tests), root=str(tests.parent))
    moments, seed = times(50) if whole else 3, random.Random(0).randrange(1000)
    command = [*small_disk, sys.executable, "-c", script, str(tmp_path), str(seed), str(moments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not TRACES.search(done.stderr), done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("said: ")]
    assert all("the disk is full" in line for line in said), said
    assert all(len(line) <= 300 for line in said)
    report(f"{moments} moments, {len(said)} of them with a full disk: 0 records lost, 0 tracebacks")
