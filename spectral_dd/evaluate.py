"""Other spectra from the checkpoints of a finished or running sweep, which stays as it is."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import linen as nn

from spectral_dd import checkpoint, devices, files, launcher, progress
from spectral_dd.data import Dataset
from spectral_dd.errors import InputError, Interrupted
from spectral_dd.family import Family
from spectral_dd.planning import packing
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
    task_index: int | None = None,
    task_count: int | None = None,
) -> None:
    """Evaluates spectra with other settings on all records of a sweep, or of this task's share of its packs.

    They go to DIR/spectra/NAME; `results.load_results(DIR, NAME)` reads them. Records that are there already are
    kept, so the same call later adds what a running sweep has recorded meanwhile.

    Args:
      workdir: DIR of a sweep.
      name: of these spectra: letters, digits, '_', '-' and '.'.
      settings: values of the fields `spectrum_...`; the others stay as in training.
      dataset, model, data_dir, task_index, task_count: as in `run.train`. A task's packs are those that it trains.

    Raises:
      InputError: DIR holds no sweep, the settings cannot work, or DIR has spectra of that name with others.
      Interrupted: a signal came; what is evaluated is saved.
    """
    task = launcher.this_task(task_index, task_count)
    sweep = read_sweep(workdir)
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"--name={name}: must be letters, digits, '_', '-' and '.'")
    configs = [c.replace(**settings) for c in sweep.configs]
    if not all(c.spectrum.examples for c in configs):
        raise InputError("--spectrum_examples=0: must be at least 1")
    devices.set_up()
    with devices.numerics(any(c.dtype == "float64" for c in configs)):
        prepared = prepare(configs, data_dir, dataset=dataset, model=model)
        directory = files.spectrum_directory(workdir, name)
        _settle(directory, name, settings)
        mine = packing.shares([pack.cost for pack in sweep.packs], task.count)[task.index]
        if task.source:
            print(f"{task}: {len(mine)} of {len(sweep.packs)} packs", file=sys.stderr)
        with devices.Compilations() as compilations, progress.stop_signals() as stop_signal:
            for number in mine:
                source, target = files.pack_directory(workdir, number), files.pack_directory(directory, number)
                about = f"pack {number + 1}/{len(sweep.packs)}"
                _evaluate_pack(sweep.packs[number], prepared, source, target, about, stop_signal)
        print(compilations, file=sys.stderr)


def _settle(directory: Any, name: str, settings: Mapping[str, Any]) -> None:
    """Writes the settings of these spectra, or checks that they are those that are there."""
    path = directory / "settings.json"
    files.write_once(path, json.dumps(dict(settings), indent=1))
    if (there := json.loads(path.read_text())) != dict(settings):
        raise InputError(f"--name={name}: {directory} holds spectra with {there}; give another name")


def _evaluate_pack(
    pack: Pack, prepared: Prepared, source: Any, target: Any, about: str, stop_signal: Callable[[], int | None]
) -> None:
    """Adds the spectra of the epochs that `source` has recorded and `target` has not.

    Raises:
      Interrupted: `stop_signal` gave a signal, and what is evaluated is saved.
    """
    epochs = sorted(set(checkpoint.recorded_epochs(source)) - set(checkpoint.recorded_epochs(target)))
    if not epochs:
        return
    members = pack.members
    draws = [prepared.draws[i] for i in members]
    family = Family([prepared.configs[i] for i in members], prepared.dataset(members[0]), draws)
    with checkpoint.PackWriter(target) as writer:
        for epoch in progress.track(epochs, about):
            if (number := stop_signal()) is not None:
                name = signal.Signals(number).name
                raise Interrupted(f"{name}: saved in {target}; the same command goes on from there", number)
            state = family.load_tree(checkpoint.load_state(source, epoch, family.abstract_tree()))
            # The state is in the sweep's own record; a record must have one, so it is only named.
            writer.record(epoch, {"epoch": np.full(len(members), epoch)}, family.probe(state, epoch))
