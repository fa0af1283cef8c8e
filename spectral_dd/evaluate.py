"""Other spectra from the checkpoints of a finished or running sweep, which stays as it is."""

import json
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import linen as nn

from spectral_dd import checkpoint, devices, files, progress
from spectral_dd.data import Dataset
from spectral_dd.errors import InputError
from spectral_dd.family import Family
from spectral_dd.planning.prepare import Prepared, prepare
from spectral_dd.sweeps import Pack, read_sweep


def evaluate_spectra(
    workdir: str | os.PathLike,
    name: str,
    settings: Mapping[str, Any],
    *,
    dataset: Dataset | None = None,
    model: type[nn.Module] | None = None,
    data_dir: str | None = None,
) -> None:
    """Evaluates spectra with other settings on all records of a sweep.

    They go to DIR/spectra/NAME; `results.load_results(DIR, NAME)` reads them. Records that are there already are
    kept, so the same call later adds what a running sweep has recorded meanwhile.

    Args:
      workdir: DIR of a sweep.
      name: of these spectra: letters, digits, '_', '-' and '.'.
      settings: values of the fields `spectrum_...`; the others stay as in training.
      dataset, model, data_dir: as in `run.train`.

    Raises:
      InputError: DIR holds no sweep, the settings cannot work, or DIR has spectra of that name with others.
    """
    sweep = read_sweep(workdir)
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"--name={name}: must be letters, digits, '_', '-' and '.'")
    configs = [c.replace(**settings) for c in sweep.configs]
    if not all(c.spectrum.examples for c in configs):
        raise InputError("--spectrum_examples=0: must be at least 1")
    devices.set_up()
    with devices.numerics(any(c.dtype == "float64" for c in configs)):
        with progress.going_on(lambda: f"loading the data and drawing what {len(configs)} members need"):
            prepared = prepare(configs, data_dir, dataset=dataset, model=model)
        if not any(checkpoint.recorded_epochs(files.pack_directory(workdir, n)) for n in range(len(sweep.packs))):
            raise InputError(f"--workdir={workdir}: nothing is recorded yet")
        directory = files.spectrum_directory(workdir, name)
        _settle(directory, name, settings)
        for number, pack in enumerate(sweep.packs):
            source, target = files.pack_directory(workdir, number), files.pack_directory(directory, number)
            _evaluate_pack(pack, prepared, source, target, f"pack {number + 1}/{len(sweep.packs)}")


def _settle(directory: Any, name: str, settings: Mapping[str, Any]) -> None:
    """Writes the settings of these spectra, or checks that they are those that are there."""
    path = directory / "settings.json"
    files.write_once(path, json.dumps(dict(settings), indent=1))
    if (there := json.loads(path.read_text())) != dict(settings):
        raise InputError(f"--name={name}: {directory} holds spectra with {there}; give another name")


def _evaluate_pack(pack: Pack, prepared: Prepared, source: Any, target: Any, about: str) -> None:
    """Adds the spectra of the epochs that `source` has recorded and `target` has not."""
    epochs = sorted(set(checkpoint.recorded_epochs(source)) - set(checkpoint.recorded_epochs(target)))
    if not epochs:
        return
    members = pack.members
    draws = [prepared.draws[i] for i in members]
    family = Family([prepared.configs[i] for i in members], prepared.dataset(members[0]), draws)
    with checkpoint.PackWriter(target) as writer:
        for epoch in progress.track(epochs, f"{about}: spectra of {len(members)} members"):
            state = family.load_tree(checkpoint.load_state(source, epoch, family.abstract_tree()))
            # The state is in the sweep's own record; a record must have one, so it is only named.
            writer.record(epoch, {"epoch": np.full(len(members), epoch)}, family.probe(state, epoch))
