"""Checkpoints -> a labelled data set, and single members back as plain networks."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from spectral_dd import checkpoint, indicator, padding
from spectral_dd.config import Config, InputError
from spectral_dd.family import SPLITS
from spectral_dd.files import pack_directory, spectrum_directory
from spectral_dd.models import build_model
from spectral_dd.spectrum import frequencies
from spectral_dd.sweep import FIELDS, read_sweep

METRICS = ("train_loss", "train_error", "clean_error", "noisy_error", "test_loss", "test_error")


def load_results(workdir: str | os.PathLike, spectrum: str | None = None) -> xr.Dataset:
    """What was recorded so far in a sweep's directory; the processes that train it may be running.

    Args:
      workdir: DIR of experiments/train_sweep.py.
      spectrum: the name of spectra that experiments/evaluate_spectrum.py made; by default those of training.

    Returns:
      Dimensions `member, epoch, split, example, frequency`. Coordinates along `member`: every field of `Config`,
      `parameters` (trainable ones) and `noise_rate` (share of training labels that are wrong). `frequency` is
      in cycles per unit L2 distance in input space. Variables: the metrics of `train.evaluate` and `finite`
      as `diverged`, the first recorded epoch where it is false, or -1; what was measured around single examples:
      `energy`, `amplitude` and the rest of `spectrum.LineSpectra`, the names of `measures.py`, `relabelled`;
      `slope_share` of `indicator.slope_share`, and where it is `slope_dominated`; `indicated_start` and
      `indicated_noticed` (member): what `indicator.OnlineStart` says of the high-frequency ratio of the training split,
      or -1. What is not recorded (yet) is NaN.

    Raises:
      InputError: DIR holds no sweep, nothing is recorded yet, or no spectra of that name.
    """
    sweep = read_sweep(workdir)
    records = _records(sweep.packs, pathlib.Path(workdir))
    if not records:
        raise InputError(f"--workdir={workdir}: nothing is recorded yet")
    epochs = np.array(sorted({epoch for _, epoch, _ in records}))
    members = len(sweep.configs)

    def gather(name: str) -> np.ndarray:
        values = np.full((members, len(epochs)), np.nan)
        for pack, epoch, results in records:
            values[pack, np.searchsorted(epochs, epoch)] = results[name]
        return values

    variables: dict[str, Any] = {name: (("member", "epoch"), gather(name)) for name in METRICS}
    broken = gather("finite") == 0
    first = np.where(broken.any(axis=1), epochs[broken.argmax(axis=1)], -1)
    variables["diverged"] = ("member", first)

    configs = sweep.configs
    if spectrum is not None:
        directory, settings = spectrum_directory(workdir, spectrum), read_spectrum_settings(workdir, spectrum)
        # A running sweep may have got further since its own records were listed.
        records = [record for record in _records(sweep.packs, directory) if record[1] in epochs]
        configs = [dataclasses.replace(c, **settings) for c in configs]
    spectra, coordinates = _spectra(records, configs, epochs)
    facts = sweep.facts[0]
    coordinates |= {name: ("member", np.array([getattr(c, name) for c in configs])) for name in FIELDS}
    coordinates |= {name: ("member", np.array([fact[name] for fact in sweep.facts])) for name in facts}
    coordinates |= {"member": np.arange(members), "epoch": epochs}
    ds = xr.Dataset(variables | spectra, coordinates, {"command": sweep.provenance["command"]})
    return ds.assign(_derived(ds, sweep.packs, configs)) if "slope_energy" in ds else ds


def _derived(ds: xr.Dataset, packs: list[list[int]], configs: list[Config]) -> dict[str, Any]:
    """What follows from the energies, pack by pack, since packs may differ in their bins."""
    shares, starts = [], np.full((len(configs), 2), -1)
    for pack in packs:
        config, members = configs[pack[0]], ds[["energy", "slope_energy"]].isel(member=pack)
        own = np.isin(ds["frequency"], frequencies(config.spectrum_points, config.spectrum_half_width))
        energy = members["energy"].isel(frequency=own)
        shares.append(indicator.slope_share(energy, members["slope_energy"], config.spectrum_points))
        for member, ratio in zip(pack, indicator.high_frequency_ratio(energy.sel(split="train")).values, strict=True):
            starts[member] = indicator.online_start(ratio, ds["epoch"].values) or -1
    share = xr.concat(shares, "member").sortby("member")
    return {
        "slope_share": share,
        "slope_dominated": share > indicator.SLOPE_DOMINATED,
        "indicated_start": ("member", starts[:, 0]),
        "indicated_noticed": ("member", starts[:, 1]),
    }


def _records(packs: list[list[int]], directory: pathlib.Path) -> list[tuple[list[int], int, dict[str, np.ndarray]]]:
    """Members, epoch and results of every record below a directory."""
    records = []
    for number, pack in enumerate(packs):
        place = pack_directory(directory, number)
        records += [(pack, e, checkpoint.load_results(place, e)) for e in checkpoint.recorded_epochs(place)]
    return records


def _spectra(records: list, configs: list[Config], epochs: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was measured around single examples, and its coordinates. Both are empty if nothing was."""
    records = [record for record in records if "energy" in record[2]]
    if not records:
        return {}, {}
    grids = [frequencies(c.spectrum_points, c.spectrum_half_width) for c in configs]
    frequency = np.unique(np.concatenate(grids))
    examples = max(c.spectrum_examples for c in configs)
    shape = (len(configs), len(epochs), len(SPLITS), examples)
    dims = ("member", "epoch", "split", "example")
    variables: dict[str, Any] = {}
    for pack, epoch, results in records:
        bins = np.searchsorted(frequency, grids[pack[0]])
        for name in set(results) - {*METRICS, "finite", "epoch"}:
            values = results[name]
            place = [pack, [np.searchsorted(epochs, epoch)], range(len(SPLITS)), range(values.shape[2])]
            has_frequency = values.ndim == 4
            if name not in variables:
                full = np.full((*shape, len(frequency)) if has_frequency else shape, np.nan, np.float32)
                variables[name] = ((*dims, "frequency") if has_frequency else dims, full)
            variables[name][1][np.ix_(*place, *([bins] if has_frequency else []))] = values[:, None]
    return variables, {"split": list(SPLITS), "example": np.arange(examples), "frequency": frequency}


def read_spectrum_settings(workdir: str | os.PathLike, name: str) -> dict[str, Any]:
    """The fields of `Config` that the named spectra were evaluated with.

    Raises:
      InputError: there are none of that name.
    """
    path = spectrum_directory(workdir, name) / "settings.json"
    if not path.exists():
        known = sorted(p.parent.name for p in path.parent.parent.glob("*/settings.json"))
        raise InputError(
            f"--name={name}: {workdir} has {'spectra ' + ', '.join(known) if known else 'no evaluated spectra'}; "
            "experiments/evaluate_spectrum.py makes them"
        )
    return json.loads(path.read_text())


def load_member(workdir: str | os.PathLike, member: int, epoch: int | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """One member as a plain network at its own width, without padding.

    Args:
      workdir: DIR of experiments/train_sweep.py.
      member: as in `load_results`.
      epoch: a recorded one; by default the last.

    Returns:
      model, variables: `model.apply(variables, images, train=False)` gives the logits of images
      `(example, height, width, channel)`, in [0, 1] where the data set's are uint8.

    Raises:
      InputError: DIR holds no sweep, or the member or epoch does not exist.
    """
    sweep = read_sweep(workdir)
    pack, place = sweep.place(member)
    directory = pack_directory(workdir, pack)
    recorded = checkpoint.recorded_epochs(directory)
    if not recorded or (epoch is not None and epoch not in recorded):
        raise InputError(f"epoch={epoch}: member {member} has recorded {', '.join(map(str, recorded)) or 'nothing'}")
    epoch = recorded[-1] if epoch is None else epoch
    config = sweep.configs[member]
    about = sweep.datasets[config.dataset]
    if config.dtype == "float64" and jnp.zeros(0, "float64").dtype != np.float64:
        raise InputError(f"member={member}: is float64, which needs JAX_ENABLE_X64=1")
    model = build_model(config, about["num_classes"])
    image = jnp.zeros((1, *about["image_shape"]), config.param_dtype)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    wide = checkpoint.load_member_state(directory, epoch, place, ("variables",))["variables"]
    return model, padding.unpad(wide, shapes)
