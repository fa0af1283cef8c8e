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
from spectral_dd.analysis import detection
from spectral_dd.errors import CheckpointError, InputError
from spectral_dd.files import Place
from spectral_dd.records import METRICS, SPLITS
from spectral_dd.sweeps import Sweep

Results = Mapping[str, np.ndarray]
# Of these the mean square is of interest, see `claim.training_measures`.
ROOT_MEAN_SQUARE = ("jacobian_norm", "logit_norm")
# What `averaged` takes from the examples beside their means.
REDUCED = ("energy_error", "detection")
# These say which example it is, or are of no example.
UNAVERAGED = ("relabelled", "index", "label", "true_label", "plane_label")


def averaged(results: Results, area_under_margin: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Metrics, the means over examples of what was measured around them (NaN is passed over), and what the examples
    tell beside their means.

    Args:
      results: of a record, `(member,)` and `(member, split, example, ...)`.
      area_under_margin: at its epoch, `(member, split, example)`.

    Returns:
      `(member,)` and `(member, split, ...)`; of `ROOT_MEAN_SQUARE` the root of the mean square. `energy_error` and
      `detection`, see `analysis.detection`.
    """
    found = {name: np.asarray(results[name]) for name in (*METRICS, "finite") if name in results}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a split without examples
        for name in results:
            if np.ndim(results[name]) >= 3 and name not in UNAVERAGED:
                values, squared = np.asarray(results[name], float), name in ROOT_MEAN_SQUARE
                mean = np.nanmean(np.square(values) if squared else values, axis=2)
                found[name] = (np.sqrt(mean) if squared else mean).astype(np.float32)
    if "energy" in results:
        found["energy_error"] = detection.energy_error(results["energy"]).astype(np.float32)
    if "relabelled" in results:
        train, noisy = map(list(SPLITS).index, ("train", "noisy"))
        found["detection"] = detection.detection(results, area_under_margin, train, noisy)
    return found


class Summary:
    """The averages of a pack's records by epoch, and what is added to them.

    Epochs may be missing, and some may have been set aside since. It keeps the margins that were added: areas under
    them follow from all before. Those of earlier records are read once.

    Args:
      place: of the pack.
      names: of what is read; by default all. Then nothing can be written.
    """

    def __init__(self, place: Place, names: Iterable[str] | None = None) -> None:
        self._place = place
        self.found, self.names = _read(place, names)
        self._before: set[int] | None = None  # recorded epochs that nothing was read of yet
        self._margins: dict[int, np.ndarray] = {}
        self._written_at, self._is_new = -math.inf, False

    def add(self, epoch: int, results: Results) -> None:
        """Adds what was recorded at an epoch, in the place of what there was of it. Nothing is written."""
        area = None
        if "margin" in results:
            self._margins[epoch] = results["margin"]
            area = self._area(epoch)
        self.found[epoch] = averaged(results, area)
        self.names |= results.keys()
        self._is_new = True

    def _area(self, epoch: int) -> np.ndarray:
        if self._before is None:
            self._before = {*stored.recorded_epochs(self._place)}
        for earlier in sorted(one for one in self._before if one < epoch and one not in self._margins):
            with contextlib.suppress(CheckpointError, InputError):  # damaged, or set aside since
                for margin in stored.load_results(self._place, earlier, ("margin",)).values():
                    self._margins[earlier] = margin
            self._before.remove(earlier)
        epochs = sorted(one for one in self._margins if one <= epoch)
        margins = np.stack([self._margins[one] for one in epochs]).astype(np.float64)
        return detection.mean_so_far(margins, np.array(epochs, float))[-1].astype(np.float32)

    def write_new(self, *, every_seconds: float = 0.0) -> None:
        """Writes the file if something was added since, and it was not written within so many seconds; raises as
        `write` does."""
        if self._is_new and time.monotonic() - self._written_at >= every_seconds:
            self.write()

    def write(self) -> None:
        """Writes the file.

        Raises:
          OSError: it cannot be written; the one before is still there.
        """
        self._written_at = time.monotonic()
        arrays: dict[str, Any] = {}
        for name in {name for values in self.found.values() for name in values}:
            epochs = sorted(e for e, values in self.found.items() if name in values)
            arrays[f"{name}.epochs"] = np.array(epochs)
            arrays[name] = np.stack([self.found[e][name] for e in epochs])
        states.write_sealed(_path(self._place), self._place, 0, arrays)
        self._is_new = False


def _path(place: Place) -> pathlib.Path:
    return pathlib.Path(place.directory) / "summary.npz"


def _read(place: Place, names: Iterable[str] | None = None) -> tuple[dict[int, dict[str, np.ndarray]], set[str]]:
    """Averages by epoch, and the names of all that are there."""
    found: dict[int, dict[str, np.ndarray]] = {}
    wanted = None if names is None else {part for name in names for part in (name, f"{name}.epochs")}
    arrays, there = {}, set()
    if _path(place).exists():
        with contextlib.suppress(CheckpointError):  # The records have it all.
            arrays = states.read_sealed(_path(place), place, 0, wanted)
            there = states.names(_path(place))
    for name, values in arrays.items():
        if not name.endswith(".epochs"):
            for epoch, value in zip(arrays[f"{name}.epochs"].tolist(), values, strict=True):
                found.setdefault(epoch, {})[name] = value
    # An older revision wrote less.
    return {e: values for e, values in found.items() if "energy" not in values or "energy_error" in values}, there


def divergence(workdir: str | os.PathLike, sweep: Sweep, packs: Iterable[int]) -> str:
    """Which members of packs have diverged, in words; empty if none."""
    first: dict[int, int] = {}
    for number in packs:
        place = sweep.place(workdir, number)
        there, _ = _read(place, ("finite",))
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
