"""What can happen to a file."""

import contextlib
import os
import shutil

from synthetic import NAME

from spectral_dd import named_spectra, sweeps


@contextlib.contextmanager
def brought_back(path):
    """Whatever happens to a file within it is undone."""
    data = path.read_bytes()
    try:
        yield
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def read_json(run, name, sweep):
    """Whether a JSON file says what it said; raises InputError where it is refused."""
    if name == "sweep.json":
        return sweeps.read_sweep(run) == sweep
    return named_spectra.read(run, NAME, sweep).settings == {"spectrum_points": 8}


def _zeroed(path, others, rng):
    size = path.stat().st_size
    start = rng.randrange(size)
    with open(path, "r+b") as file:
        file.seek(start)
        file.write(bytes(min(size - start, 4096)))


FAULTS = {
    "truncated": lambda path, others, rng: os.truncate(path, rng.randrange(path.stat().st_size)),
    "zeroed": _zeroed,
    "deleted": lambda path, others, rng: path.unlink(),
    "copied": lambda path, others, rng: shutil.copy(rng.choice(others), path),
    "foreign": lambda path, others, rng: path.write_bytes(rng.randbytes(500)),
}
