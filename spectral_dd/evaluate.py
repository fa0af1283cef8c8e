"""Other spectra from the checkpoints of a finished or running sweep, which stays as it is."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from spectral_dd import checkpoint, devices, launcher, models, named_spectra, own_measures, progress, stored
from spectral_dd.config import needs_x64
from spectral_dd.data import Dataset
from spectral_dd.errors import InputError, Interrupted, counted
from spectral_dd.family import Family
from spectral_dd.files import Place
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
    measure: own_measures.Measures | None = None,
    data_dir: str | None = None,
    task_index: int | None = None,
    task_count: int | None = None,
) -> None:
    """Evaluates spectra with other settings on all records of a sweep, or of this task's share of its packs.

    They go to DIR/spectra/NAME; `results.load_results(DIR, NAME)` reads them. Records that are there already are
    kept, so the same call later adds what a running sweep has recorded meanwhile. `optimization_variance` is left out,
    see `named_spectra.LEFT_OUT`; it is said on stderr where it would be measured.

    Args:
      workdir: DIR of a sweep.
      name: of these spectra: letters, digits, '_', '-' and '.'.
      settings: values of the fields `spectrum_...` and `measure`; the others stay as in training.
      dataset, model, measure, data_dir, task_index, task_count: as in `run.train`. A task's packs are those that it
        trains.

    Raises:
      InputError: DIR holds no sweep, the settings cannot work or need more memory than a device has, or DIR has
        spectra of that name with others.
      Interrupted: a signal came; what is evaluated is saved.
    """
    task = launcher.this_task(task_index, task_count)
    sweep = read_sweep(workdir)
    if measure is not None:
        settings = {**settings, "measure": own_measures.register(measure)}
    configs = [c.replace(**settings) for c in sweep.configs]
    if not all(c.spectrum.examples for c in configs):
        raise InputError("--spectrum_examples=0: must be at least 1")
    devices.set_up()
    code = sweep.provenance.get("code", {})
    if model is None:
        models.recall((c.model for c in configs), code, workdir)
    if "measure" not in settings:
        own_measures.recall((c.measure for c in configs), code, workdir)
    with devices.numerics(needs_x64(configs)):
        with progress.going_on(lambda: "loading the data and drawing what each member needs"):
            prepared = prepare(configs, data_dir, dataset=dataset, model=model)
        prepared.check_datasets(sweep)
        if not any(stored.recorded_epochs(sweep.place(workdir, number)) for number in range(len(sweep.packs))):
            raise InputError(f"--workdir={workdir}: nothing is recorded yet")
        if any(c.spectrum.measures for c in configs):
            print(f"--name={name}: {named_spectra.LEFT_OUT}", file=sys.stderr)
        mine = packing.shares([pack.cost for pack in sweep.packs], task.count)[task.index]
        if not named_spectra.are_settled(workdir, name):
            widest = max(mine, key=lambda number: packing.widest(sweep.members(sweep.packs[number])).width, default=0)
            with progress.going_on(lambda: "compiling: spectra"):
                _family(sweep.packs[widest], prepared).programs["spectra"]  # before anything is written
        described = own_measures.described(c.measure for c in configs)
        spectra = named_spectra.settle(workdir, name, sweep, settings, described)
        if task.source:
            print(f"{task}: {len(mine) or 'none'} of {counted(len(sweep.packs), 'pack')}", file=sys.stderr)
        with devices.Compilations() as compilations, progress.stop_signals(lambda: "evaluating") as stop_signal:
            for number in mine:
                source, target = sweep.place(workdir, number), spectra.place(workdir, name, number)
                about = f"pack {number + 1}/{len(sweep.packs)}"
                _evaluate_pack(sweep.packs[number], prepared, source, target, about, stop_signal)
        compilations.say()


def _evaluate_pack(
    pack: Pack, prepared: Prepared, source: Place, target: Place, about: str, stop_signal: Callable[[], int | None]
) -> None:
    """Adds the spectra of the epochs that `source` has recorded and `target` has not, or has damaged.

    Raises:
      Interrupted: `stop_signal` gave a signal, and what is evaluated is saved.
    """
    recorded = stored.recorded_epochs(source)
    if all(e in stored.recorded_epochs(target) and stored.is_intact(target, e) for e in recorded):
        return
    family = _family(pack, prepared)
    abstract = family.abstract_tree()["variables"]
    with checkpoint.PackWriter(target) as writer:
        writer.set_aside_damaged(every_byte=True)
        for epoch in progress.track(sorted({*recorded} - {*stored.recorded_epochs(target)}), f"{about}: spectra"):
            if (number := stop_signal()) is not None:
                name = signal.Signals(number).name
                raise Interrupted(f"{name}: what is evaluated is saved; the same command goes on from there", number)
            state = family.load_variables(stored.load_variables(source, epoch, abstract))
            writer.record(epoch, {}, family.probe(state, epoch))


def _family(pack: Pack, prepared: Prepared) -> Family:
    return Family(*prepared.of_pack(pack.members))
