"""Checkpoints -> a labelled data set, and single members back as plain networks."""

import itertools
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from spectral_dd import derived, models, named_spectra, on_demand, own_measures, padding, probe, stored, summary
from spectral_dd.config import FIELDS, Config
from spectral_dd.errors import CheckpointError, InputError
from spectral_dd.files import Place, workdir_path
from spectral_dd.records import COORDINATES, MEASURED, METRICS, SPLITS, VARIABLES, Variable
from spectral_dd.spectrum import frequencies
from spectral_dd.sweeps import Pack, Sweep, read_sweep

# From so many bytes on, what was measured around single examples is read when it is used.
LAZY_BYTES = 2**30


def load_results(
    workdir: str | os.PathLike | Sequence[str | os.PathLike],
    spectrum: str | None = None,
    *,
    skip_damaged: bool = False,
    lazy: bool | None = None,
    averaged: bool | None = False,
) -> xr.Dataset:
    """What was recorded so far in a sweep's directory; the processes that train it may be running.

    Args:
      workdir: DIR of a sweep, or several, whose members follow each other: `member` counts through, `sweep` is the
        directory and `sweep_member` the number there.
      spectrum: the name of spectra that `evaluate.evaluate_spectra` made; by default those of training.
      skip_damaged: leave damaged records out, as if they were not recorded. What is lazy is checked when it is read.
      lazy: what was measured around single examples is made of dask arrays, a chunk a pack and epoch, and read when it
        is used; by default where it is more than `LAZY_BYTES`. Then `area_under_margin`, `reproducibility` and
        `plane_regions` are left out, which all of it must be read for.
      averaged: what was measured around single examples is averaged over them: `example` is one long. So the results of
        thousands of networks fit into memory, and all that is computed of means is as before. None: where they would
        be lazy.

    Returns:
      Dimensions `member, epoch, split, example, frequency`, and `plane, point`. Variables as in `records.VARIABLES`,
      those that are there; along `member` every field of `Config`, `parameters` and `noise_rate`. Each has the
      attributes `units`, `long_name` and `description`. What is not recorded (yet) is NaN. Attributes, if there is
      something to say: `incomplete`, what is damaged or not evaluated yet, which is printed as well; `left_out`, what
      spectra that were evaluated after training lack.

    Raises:
      InputError: DIR holds no sweep, nothing is recorded yet, or there are no spectra of that name.
      CheckpointError: a record is damaged.
    """
    if not isinstance(workdir, str | os.PathLike):
        options: dict[str, Any] = {"skip_damaged": skip_damaged, "lazy": lazy, "averaged": averaged}
        return _joined([load_results(one, spectrum, **options) for one in _different(workdir)])
    sweep = read_sweep(workdir)
    damaged: list[str] | None = [] if skip_damaged else None
    configs, places = sweep.configs, [sweep.place(workdir, i) for i in range(len(sweep.packs))]
    evaluated_places, incomplete, attributes = None, "", {"command": sweep.provenance["command"]}
    if spectrum is not None:
        spectra = named_spectra.read(workdir, spectrum, sweep)
        configs = [c.replace(**spectra.settings) for c in configs]
        evaluated_places = [spectra.place(workdir, spectrum, i) for i in range(len(sweep.packs))]
    listed = [stored.recorded_epochs(place) for place in places]
    large = _bytes(configs, len({*itertools.chain(*listed)})) > LAZY_BYTES if lazy is None else lazy
    averaged = large if averaged is None else averaged
    whole = not averaged and not large
    kept = None if averaged else (*METRICS, "finite", *derived.ENERGIES, *summary.REDUCED)
    records = _records(sweep.packs, places, listed, damaged, whole, kept)
    if not records:
        raise InputError(f"--workdir={workdir}: nothing is recorded yet")
    epochs = np.array(sorted({epoch for record in records for epoch in record.epochs}))
    metrics = {name: _gather(records, name, len(configs), epochs) for name in (*METRICS, "finite")}
    broken = metrics.pop("finite") == 0
    diverged = np.where(broken.any(axis=1), epochs[broken.argmax(axis=1)], -1)
    variables: dict[str, Any] = metrics | {"diverged": diverged}
    if spectrum is not None and evaluated_places is not None:
        # A running sweep may have got further since its own records were listed.
        listed = [[e for e in stored.recorded_epochs(place) if e in epochs] for place in evaluated_places]
        evaluated = _records(sweep.packs, evaluated_places, listed, damaged, whole, kept)
        incomplete = _unevaluated(workdir, spectrum, records, evaluated)
        records = evaluated
        if any(c.spectrum.measures for c in configs):
            attributes["left_out"] = named_spectra.LEFT_OUT
    own = _own_measures(workdir, sweep, spectrum)
    rows = MEASURED | own
    there = frozenset[str]().union(*(record.names for record in records))
    recorded = [name for name in rows if name in there]
    # Of what is lazy, only what more follows from is read.
    read = [name for name in recorded if whole or averaged or name in derived.ENERGIES]
    measured, coordinates = _measured(records, configs, epochs, {name: rows[name] for name in read})
    coordinates |= _of_members(sweep, configs) | {"epoch": epochs, "sweep": np.full(len(configs), str(workdir))}
    table = VARIABLES | COORDINATES | own
    ds = xr.Dataset(
        {name: (table[name].dims, array) for name, array in (variables | measured).items()},
        {name: (table[name].dims if name in table else "member", array) for name, array in coordinates.items()},
        attributes | _incomplete(incomplete, damaged),
    )
    if "slope_energy" in ds:
        reduced = () if whole else [_gather(records, name, len(configs), epochs) for name in summary.REDUCED]
        del records  # which may be large
        ds = ds.assign(derived.of_energies(ds, configs)).assign(derived.of_measures(ds))
        ds = ds.assign(derived.of_examples(ds) if whole else derived.of_averages(ds, *reduced))
    if not whole and not averaged and measured:
        ds = _on_demand(ds, rows, recorded, evaluated_places or places, sweep.packs)
    return _described(ds, own)


def _on_demand(
    ds: xr.Dataset, rows: Mapping[str, Variable], recorded: list[str], places: Sequence[Place], packs: Sequence[Pack]
) -> xr.Dataset:
    """The same with the values of single examples in the place of their averages."""
    names = [*recorded, *(name for name in summary.UNAVERAGED if name not in recorded)]
    if "margin" not in recorded:  # there are no other measures than spectra
        names.remove("plane_label")
    ds = ds.drop_dims("example").assign(on_demand.arrays({name: rows[name] for name in names}, ds, places, packs))
    return ds.assign_coords(example=np.arange(ds.sizes["example"]))


def _of_members(sweep: Sweep, configs: Sequence[Config]) -> dict[str, np.ndarray]:
    """Coordinates along `member`."""
    values = [c.values() for c in configs]
    numbers = np.arange(len(configs))
    return {
        **{name: np.array([v[name] for v in values]) for name in FIELDS},
        **{name: np.array([dict(fact)[name] for fact in sweep.facts]) for name in sweep.facts[0]},
        "member": numbers,
        "sweep_member": numbers,
    }


def _bytes(configs: list[Config], epochs: int) -> int:
    """Of what was measured around single examples, as a dense array."""
    bins = {(c.spectrum.points, c.spectrum.half_width) for c in configs}
    frequency = len(np.unique(np.concatenate([frequencies(*segment) for segment in bins])))
    spectra = sum("frequency" in about.dims for about in MEASURED.values())
    values = spectra * frequency + len(MEASURED) - spectra
    return 4 * len(configs) * epochs * len(SPLITS) * max(c.spectrum.examples for c in configs) * values


def _different(workdirs: Sequence[str | os.PathLike]) -> Sequence[str | os.PathLike]:
    real = [workdir_path(one) for one in workdirs]
    if twice := [one for one, path in zip(workdirs, real, strict=True) if real.count(path) > 1]:
        raise InputError(f"--workdir={','.join(map(str, workdirs))}: must be different; {twice[0]} is there twice")
    return workdirs


def _joined(results: Sequence[xr.Dataset]) -> xr.Dataset:
    """The members of several sweeps, numbered through. What a sweep has not recorded is NaN."""
    if not results:
        raise InputError("--workdir=: must be at least one directory")
    ds = xr.concat(
        results,
        "member",
        data_vars="all",
        coords="minimal",
        compat="override",
        join="outer",
        combine_attrs="drop_conflicts",
    )
    ds = ds.assign_coords(member=("member", np.arange(ds.sizes["member"]), results[0]["member"].attrs))
    return ds.assign_attrs(command="\n".join(one.attrs["command"] for one in results))


def _own_measures(workdir: str | os.PathLike, sweep: Sweep, spectrum: str | None) -> dict[str, Variable]:
    """Measures of one's own that are recorded, as rows of the table."""
    about = sweep.provenance.get("measures", {})
    if spectrum is not None:
        about = named_spectra.read(workdir, spectrum, sweep).measures
    return own_measures.variables(about)


class _Records(NamedTuple):
    """What a pack has recorded at some epochs."""

    members: list[int]
    epochs: list[int]
    results: dict[str, tuple[list[int], np.ndarray]]  # the epochs that have it, and (epoch, member, ...)
    names: Collection[str]  # of all results, not only those that were read


def _records(
    packs: Iterable[Pack],
    places: Iterable[Place],
    listed: Iterable[Sequence[int]],
    damaged: list[str] | None,
    whole: bool,
    kept: Sequence[str] | None = None,
) -> list[_Records]:
    """Every listed record of packs by itself, or the averages over examples of all of a pack, maybe only some. If there
    is a list for damaged ones, they are named in it and left out."""
    records = []
    for pack, place, epochs in zip(packs, places, listed, strict=True):
        averages = None if whole else summary.Summary(place, kept)
        members, found = list(pack.members), dict[int, Mapping[str, np.ndarray]]()
        for epoch in epochs:
            try:
                if averages is None:
                    results = stored.load_results(place, epoch)
                    one = {name: ([epoch], values[None]) for name, values in results.items()}
                    records.append(_Records(members, [epoch], one, one.keys()))
                else:
                    if epoch not in averages.found:
                        averages.add(epoch, stored.load_results(place, epoch))
                    found[epoch] = averages.found[epoch]
            except CheckpointError:
                if damaged is None:
                    raise
                damaged.append(f"{place.directory.name}/records/{epoch}")
        if averages is not None and found:
            records.append(_Records(members, [*found], _stacked(found), averages.names))
    return records


def _stacked(averages: Mapping[int, Mapping[str, np.ndarray]]) -> dict[str, tuple[list[int], np.ndarray]]:
    """Averages by epoch as `_Records.results`, with an `example` axis of one."""
    stacked = {}
    for name in {name: None for found in averages.values() for name in found}:
        epochs = [epoch for epoch, found in averages.items() if name in found]
        values = np.stack([averages[epoch][name] for epoch in epochs])
        of_examples = name not in ("finite", *METRICS, *summary.REDUCED)
        stacked[name] = (epochs, values[:, :, :, None] if of_examples else values)
    return stacked


def _unevaluated(
    workdir: str | os.PathLike, spectrum: str, records: Iterable[_Records], evaluated: Iterable[_Records]
) -> str:
    """What of the records the named spectra are not evaluated for, in words.

    Raises:
      InputError: any of them.
    """
    again = "the evaluate_spectrum.py command with this name adds them"
    recorded, there = ({(tuple(r.members), e) for r in some for e in r.epochs} for some in (records, evaluated))
    if not there & recorded:
        raise InputError(f"--name={spectrum}: {workdir} has none of these spectra yet; {again}")
    missing = len(recorded - there)
    return f"spectra {spectrum} are missing at {missing} of {len(recorded)} records; {again}" if missing else ""


def _incomplete(missing: str, damaged: list[str] | None) -> dict[str, str]:
    """The attribute that says what is not there; nothing if all is. Prints it, too."""
    said = [missing] if missing else []
    if damaged:
        named = ", ".join(damaged[:5]) + ", ..." * (len(damaged) > 5)
        said.append(f"{len(damaged)} damaged records are left out: {named}")
    for line in said:
        print(line, file=sys.stderr)
    return {"incomplete": "; ".join(said)} if said else {}


def _gather(records: Iterable[_Records], name: str, num_members: int, epochs: np.ndarray) -> np.ndarray:
    records = [record for record in records if name in record.results]  # a sweep of an earlier version lacks some
    shape = records[0].results[name][1].shape[2:] if records else ()
    gathered = np.full((num_members, len(epochs), *shape), np.nan)
    for record in records:
        own, values = record.results[name]
        gathered[np.ix_(record.members, np.searchsorted(epochs, own))] = values.swapaxes(0, 1)
    return gathered


def _measured(
    records: Iterable[_Records], configs: list[Config], epochs: np.ndarray, table: Mapping[str, Variable]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What was measured around single examples, and its coordinates. Both are empty if nothing was. It is taken out of
    the records, so that not all is held twice."""
    records = [record for record in records if "energy" in record.results]
    if not records:
        return {}, {}
    bins = [frequencies(c.spectrum.points, c.spectrum.half_width) for c in configs]
    coordinates: dict[str, Any] = {
        "split": list(SPLITS),
        "example": np.arange(max(record.results["energy"][1].shape[3] for record in records)),
        "frequency": np.unique(np.concatenate(bins)),
    }
    if any("plane_label" in record.results for record in records):
        coordinates |= {"plane": np.arange(probe.PLANES), "point": np.arange(probe.PLANE_POINTS**2)}
    sizes = {name: len(values) for name, values in coordinates.items()} | {"member": len(configs), "epoch": len(epochs)}
    variables: dict[str, np.ndarray] = {}
    for name in [name for name in table if any(name in record.results for record in records)]:
        dims = table[name].dims
        variables[name] = np.full([sizes[dim] for dim in dims], np.nan, np.float32)
        for record in (record for record in records if name in record.results):
            own, values = record.results.pop(name)
            values = values.swapaxes(0, 1)  # (member, epoch, split, example, ...) or (..., plane, point)
            where = [record.members, np.searchsorted(epochs, own)]
            # There may be fewer examples than of other members.
            there = variables[name][:, :, : values.shape[2], : values.shape[3]]
            if "frequency" in dims and len(bins[record.members[0]]) < sizes["frequency"]:
                where.append(np.searchsorted(coordinates["frequency"], bins[record.members[0]]))
                there, values = np.moveaxis(there, -1, 2), np.moveaxis(values, -1, 2)
            there[np.ix_(*where)] = values
    return variables, coordinates


def _described(ds: xr.Dataset, own: dict[str, Variable]) -> xr.Dataset:
    """The same with `units`, `long_name` and `description` on every variable and coordinate."""
    fields = {
        name: Variable(("member",), field.metadata["unit"], name.replace("_", " "), field.metadata["help"])
        for name, field in FIELDS.items()
    }
    for name, about in (VARIABLES | COORDINATES | fields | own).items():
        if name in ds.variables:
            ds[name].attrs.update(units=about.units, long_name=about.long_name, description=about.meaning)
    return ds


def load_member(
    workdir: str | os.PathLike, member: int, epoch: int | None = None, *, model: type[nn.Module] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """One member as a plain network at its own width, without padding.

    Args:
      workdir: DIR of a sweep.
      member: as in `load_results`.
      epoch: a recorded one; by default the last.
      model: the class of the network, if the sweep was trained with one of your own.

    Returns:
      model, variables: `model.apply(variables, images, train=False)` gives the logits of images
      `(example, height, width, channel)` as the data set has them: uint8 and uint16 are scaled to [0, 1] inside.

    Raises:
      InputError: DIR holds no sweep, the member or epoch does not exist, or the file of a network of one's own is
        missing, has changed since, or is in DIR, from where no code is loaded.
      CheckpointError: the record is damaged.
    """
    sweep = read_sweep(workdir)
    pack, place = sweep.locate(member)
    where = sweep.place(workdir, pack)
    recorded = stored.recorded_epochs(where)
    if not recorded or (epoch is not None and epoch not in recorded):
        raise InputError(f"epoch={epoch}: member {member} has recorded {', '.join(map(str, recorded)) or 'nothing'}")
    epoch = recorded[-1] if epoch is None else epoch
    config = sweep.configs[member]
    if config.dtype == "float64" and jnp.zeros(0, "float64").dtype != np.float64:
        raise InputError(f"member={member}: is float64, which needs JAX_ENABLE_X64=1")
    if model is not None:
        config = config.replace(model=models.register(model))
    else:
        models.recall([config.model], sweep.provenance.get("code", {}), workdir)
    about = sweep.datasets[config.dataset]
    network = models.build_model(config, about["num_classes"])
    image = jnp.zeros((1, *about["image_shape"]), config.param_dtype)
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), image)
    wide = stored.load_member(where, epoch, place)
    return models.taking_integers(network, config.param_dtype), padding.unpad(wide, shapes)
