"""What a pack has recorded, averaged over examples: one small file beside its records, so that thousands of networks
are read at once.

It is derived: what it lacks is taken from the records, and whoever deletes it loses nothing.
"""

import contextlib
import math
import os
import pathlib
import time
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from spectral_dd import states, stored
from spectral_dd.errors import CheckpointError
from spectral_dd.files import Place
from spectral_dd.records import METRICS
from spectral_dd.sweeps import Sweep

Results = Mapping[str, np.ndarray]
# Each time all of the file is written.
WRITE_SECONDS = 10.0
# Of these the mean square is of interest, see `claim.training_measures`.
ROOT_MEAN_SQUARE = ("jacobian_norm", "logit_norm")
# These say which example it is, or are of no example.
UNAVERAGED = ("relabelled", "index", "label", "true_label", "plane_label")


def averaged(results: Results) -> dict[str, np.ndarray]:
    """Metrics, and the means over examples of what was measured around them; NaN is passed over.

    Args:
      results: of a record, `(member,)` and `(member, split, example, ...)`.

    Returns:
      `(member,)` and `(member, split, ...)`; of `ROOT_MEAN_SQUARE` the root of the mean square.
    """
    found = {name: np.asarray(results[name]) for name in (*METRICS, "finite") if name in results}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a split without examples
        for name in results:
            if np.ndim(results[name]) >= 3 and name not in UNAVERAGED:
                values, squared = np.asarray(results[name], float), name in ROOT_MEAN_SQUARE
                mean = np.nanmean(np.square(values) if squared else values, axis=2)
                found[name] = (np.sqrt(mean) if squared else mean).astype(np.float32)
    return found


class Writer:
    """Adds what is recorded, one after another, for the one process that writes a pack.

    Args:
      place: of the pack.
    """

    def __init__(self, place: Place) -> None:
        self._place, self._found = place, read(place)
        self._written_at, self._is_written = -math.inf, True

    def add(self, epoch: int, results: Results) -> None:
        """Takes what was recorded at an epoch, in the place of what there was of it. The file is written now and then.

        Raises:
          OSError: it cannot be written; the one before is still there.
        """
        self._found[epoch] = averaged(results)
        self._is_written = False
        if time.monotonic() - self._written_at > WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Writes what is not written yet; raises as `add` does."""
        if self._is_written:
            return
        self._written_at, self._is_written = time.monotonic(), True
        arrays: dict[str, Any] = {}
        for name in {name for values in self._found.values() for name in values}:
            epochs = sorted(e for e, values in self._found.items() if name in values)
            arrays[f"{name}.epochs"] = np.array(epochs)
            arrays[name] = np.stack([self._found[e][name] for e in epochs])
        states.write_sealed(_path(self._place), self._place, 0, arrays)


def _path(place: Place) -> pathlib.Path:
    return pathlib.Path(place.directory) / "summary.npz"


def read(place: Place) -> dict[int, dict[str, np.ndarray]]:
    """What was recorded, `averaged`, by epoch. Epochs may be missing, and some may have been set aside since."""
    found: dict[int, dict[str, np.ndarray]] = {}
    arrays = {}
    if _path(place).exists():
        with contextlib.suppress(CheckpointError):  # The records have it all.
            arrays = states.read_sealed(_path(place), place, 0)
    for name, values in arrays.items():
        if not name.endswith(".epochs"):
            for epoch, value in zip(arrays[f"{name}.epochs"].tolist(), values, strict=True):
                found.setdefault(epoch, {})[name] = value
    return found


def divergence(workdir: str | os.PathLike, sweep: Sweep, packs: Iterable[int]) -> str:
    """Which members of packs have diverged, in words; empty if none."""
    first: dict[int, int] = {}
    for number in packs:
        place = sweep.place(workdir, number)
        there = read(place)
        for epoch in stored.recorded_epochs(place):
            finite = (
                there[epoch]["finite"] if epoch in there else stored.load_results(place, epoch, ("finite",))["finite"]
            )
            for member in np.array(sweep.packs[number].members)[finite == 0].tolist():
                first.setdefault(member, epoch)
    if not first:
        return ""
    named = ", ".join(f"{member} at epoch {first[member]}" for member in sorted(first)[:10])
    return f"{len(first)} of {len(sweep.configs)} members diverged: {named}{', ...' * (len(first) > 10)}"
