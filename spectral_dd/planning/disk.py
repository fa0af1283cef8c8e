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

# Directories and files that hold no arrays, in blocks of the disk: of a record, and of a pack beside its records.
_RECORD_BYTES, _PACK_BYTES = 80_000, 100_000


def state_bytes(configs: Sequence[Config], cost: Cost) -> int:
    """Bytes of all that the training of a pack goes on from."""
    return len(configs) * _numbers(configs[0]) * _parameter_bytes(packing.widest(configs), cost)


def _numbers(config: Config) -> int:
    """Of a parameter, at most: itself and each moment of the optimiser."""
    return 2 if config.optimizer == "sgd" else 3


def _parameter_bytes(config: Config, cost: Cost) -> int:
    return cost.parameters(config) * np.dtype(config.param_dtype).itemsize


def disk_bytes(workdir: str | os.PathLike, sweep: Sweep, prepared: Prepared, cost: Cost) -> int:
    """Bytes that are still to be written, at most: floats compress a little. Of padded members, the zeros take none,
    but in the states of a pack under way."""
    total, under_way = 0, 0
    for number, pack in enumerate(sweep.packs):
        configs = sweep.members(pack)
        there = set(stored.recorded_epochs(sweep.place(workdir, number)))
        left = set(recorded_epochs(configs[0], pack.ends)) - there
        with_spectra = left & set(spectrum_epochs(*prepared.of_pack(pack.members), pack.ends))
        variables = sum(_parameter_bytes(config, cost) for config in configs)
        asked = configs[0].spectrum
        sizes = {"split": 3, "example": asked.examples, "frequency": asked.points // 2 + 1}
        spectra = sum(math.prod(sizes.get(dim, 1) for dim in about.dims) for about in MEASURED.values())
        total += len(left) * (variables + len(configs) * 8 * len(METRICS) + _RECORD_BYTES)
        total += len(with_spectra) * len(configs) * 4 * spectra
        if left:
            total += _numbers(configs[0]) * variables + _PACK_BYTES
            under_way = max(under_way, 2 * state_bytes(configs, cost))
    return total + under_way


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
