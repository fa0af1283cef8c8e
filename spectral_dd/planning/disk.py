"""How much of the disk a sweep will take, and whether it is there."""

import math
import os
import shutil
from collections.abc import Sequence

import numpy as np

from spectral_dd import files, stored
from spectral_dd.config import Config
from spectral_dd.errors import InputError
from spectral_dd.planning import packing
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.epochs import recorded_epochs, spectrum_epochs
from spectral_dd.planning.prepare import Prepared
from spectral_dd.records import MEASURED, METRICS
from spectral_dd.sweeps import Sweep

# Files of a record that hold no arrays, and the checksums: a few KB each.
_RECORD_BYTES = 50_000


def state_bytes(configs: Sequence[Config], cost: Cost) -> tuple[int, int]:
    """Bytes of a pack's variables, and of all that training goes on from."""
    widest = packing.widest(configs)
    variables = len(configs) * cost.parameters(widest) * np.dtype(widest.param_dtype).itemsize
    # Parameters and, at most, as many numbers again for each moment of the optimiser.
    return variables, (2 if widest.optimizer == "sgd" else 3) * variables


def disk_bytes(workdir: str | os.PathLike, sweep: Sweep, prepared: Prepared, cost: Cost) -> int:
    """Bytes that are still to be written, at most: floats of spectra compress a little."""
    total = 0
    for number, pack in enumerate(sweep.packs):
        configs = sweep.members(pack)
        there = set(stored.recorded_epochs(sweep.place(workdir, number)))
        left = set(recorded_epochs(configs[0], pack.ends)) - there
        draws = [prepared.draws[i] for i in pack.members]
        with_spectra = left & set(spectrum_epochs(configs, prepared.dataset(pack.members[0]), draws, pack.ends))
        variables, state = state_bytes(configs, cost)
        asked = configs[0].spectrum
        sizes = {"split": 3, "example": asked.examples, "frequency": asked.points // 2 + 1}
        spectra = sum(math.prod(sizes.get(dim, 1) for dim in about.dims) for about in MEASURED.values())
        total += len(left) * (variables + len(configs) * 8 * len(METRICS) + _RECORD_BYTES)
        total += len(with_spectra) * len(configs) * 4 * spectra
        total += 2 * state if left else 0
    return total


def check_disk(workdir: str | os.PathLike, sweep: Sweep, prepared: Prepared, cost: Cost) -> str:
    """How much of the disk the sweep takes, in words.

    Raises:
      InputError: it is more than there is.
    """
    directory = files.workdir_path(workdir)
    existing = next(p for p in (directory, *directory.parents) if p.exists())
    needed, free = disk_bytes(workdir, sweep, prepared, cost), shutil.disk_usage(existing).free
    if needed > free:
        raise InputError(
            f"--workdir={workdir}: needs up to {in_units(needed)} of the disk, {in_units(free)} are free there; choose "
            "another disk, smaller --records_per_decade or --spectrum_examples"
        )
    return f"up to {in_units(needed)} of the disk, {in_units(free)} are free"


def in_units(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
