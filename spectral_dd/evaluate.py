"""Other spectra from the checkpoints of a finished or running sweep, which stays as it is."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from spectral_dd import checkpoint, devices, models, named_spectra, own_measures, progress, stored
from spectral_dd.data import Dataset
from spectral_dd.errors import InputError
from spectral_dd.family import Family
from spectral_dd.files import Place
from spectral_dd.planning.prepare import Prepared, prepare
from spectral_dd.sweeps import Pack, read_sweep


def evaluate_spectra(
    workdir: str | os.PathLike,
    name: str,
    settings: Mapping[str, Any],
    *,
    dataset: Dataset | None = None,
    model: type[nn.Module] | None = None,
    measure: Callable[..., Any] | None = None,
    data_dir: str | None = None,
) -> None:
    """Evaluates spectra with other settings on all records of a sweep.

    They go to DIR/spectra/NAME; `results.load_results(DIR, NAME)` reads them. Records that are there already are
    kept, so the same call later adds what a running sweep has recorded meanwhile. `optimization_variance` needs the
    optimiser's state, which records do not keep: only training records it.

    Args:
      workdir: DIR of a sweep.
      name: of these spectra: letters, digits, '_', '-' and '.'.
      settings: values of the fields `spectrum_...` and `measure`; the others stay as in training.
      dataset, model, measure, data_dir: as in `run.train`.

    Raises:
      InputError: DIR holds no sweep, the settings cannot work, or DIR has spectra of that name with others.
    """
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
    with devices.numerics(any(c.dtype == "float64" for c in configs)):
        prepared = prepare(configs, data_dir, dataset=dataset, model=model)
        prepared.check_datasets(sweep)
        described = own_measures.described(c.measure for c in configs)
        spectra = named_spectra.settle(workdir, name, sweep, settings, described)
        for number, pack in enumerate(sweep.packs):
            source, target = sweep.place(workdir, number), spectra.place(workdir, name, number)
            _evaluate_pack(pack, prepared, source, target, f"pack {number + 1}/{len(sweep.packs)}")


def _evaluate_pack(pack: Pack, prepared: Prepared, source: Place, target: Place, about: str) -> None:
    """Adds the spectra of the epochs that `source` has recorded and `target` has not, or has damaged."""
    recorded = stored.recorded_epochs(source)
    if all(e in stored.recorded_epochs(target) and stored.is_intact(target, e) for e in recorded):
        return
    members = pack.members
    draws = [prepared.draws[i] for i in members]
    family = Family([prepared.configs[i] for i in members], prepared.dataset(members[0]), draws)
    abstract = family.abstract_tree()["variables"]
    with checkpoint.PackWriter(target) as writer:
        writer.set_aside_damaged(every_byte=True)
        for epoch in progress.track(sorted({*recorded} - {*stored.recorded_epochs(target)}), about):
            state = family.load_variables(stored.load_variables(source, epoch, abstract))
            writer.record(epoch, {}, family.probe(state, epoch))
