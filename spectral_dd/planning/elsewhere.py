"""A sweep on hardware that is not here, as a table with a line a pack; nothing is written."""

import dataclasses
import os
from collections.abc import Iterator

import jax
import numpy as np

from spectral_dd.config import Config
from spectral_dd.errors import InputError
from spectral_dd.family import host_arrays
from spectral_dd.planning import packing, target
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.epochs import recorded_epochs, spectrum_epochs
from spectral_dd.planning.fit import program_names
from spectral_dd.planning.prepare import Prepared
from spectral_dd.programs import Programs, lowerings
from spectral_dd.records import SPLITS
from spectral_dd.sweeps import Pack, check_workdir


def describe(workdir: str | os.PathLike, prepared: Prepared, num_tasks: int, hardware: target.Target) -> Iterator[str]:
    """Lines: of each pack, what its programs need and how fast they can be at most; then of the whole sweep.

    Raises:
      InputError: DIR cannot take this sweep, or the hardware cannot.
    """
    if hardware.num_devices > len(prepared.configs):
        raise InputError(
            f"--target={hardware.name}: has {hardware.num_devices} devices for {len(prepared.configs)} members; "
            "choose fewer, or --task_count with a smaller target"
        )
    packs, num_devices = _packs(workdir, prepared, num_tasks, hardware)
    jobs = [_job(prepared, pack, num_devices) for pack in packs]
    yield "pack  members  widths  lowering       memory  a step of all members of a device  at least  programs"
    device_seconds, disk = 0.0, 0.0
    for number, (job, accounts) in enumerate(zip(jobs, target.compile_for(hardware, jobs), strict=True)):
        yield f"{number:4d}  {_line(job, accounts, hardware)}"
        draws = [prepared.draws[i] for i in packs[number].members]
        with_spectra = spectrum_epochs(job.configs, prepared.dataset(packs[number].members[0]), draws)
        device_seconds += _seconds(job, accounts, hardware.chip, len(with_spectra))
        disk += _record_bytes(job, len(with_spectra))
    yield (
        f"{len(prepared.configs)} members in {len(packs)} packs on {hardware.name}: at least "
        f"{device_seconds / 3600:.2g} device hours, by the roofline of the data sheet: a lower bound, not a promise; "
        f"records take {disk / target.GIB:.2g} GiB on disk"
    )


def _packs(
    workdir: str | os.PathLike, prepared: Prepared, num_tasks: int, hardware: target.Target
) -> tuple[list[Pack], int]:
    """The packs, and the number of devices that each is spread over."""

    def usual(widest: Config):
        return lowerings(hardware.platform, widest.width)[0]

    if existing := check_workdir(workdir, prepared.configs):
        packs = existing.packs
        if existing.platform != hardware.platform:
            widest = [packing.widest(existing.members(pack)) for pack in packs]
            packs = [dataclasses.replace(p, lowering=usual(w)) for p, w in zip(packs, widest, strict=True)]
        return packs, 1 if existing.apart else hardware.num_devices
    cost = Cost(prepared.configs, prepared.datasets)
    plan = packing.plan(prepared.configs, cost, usual, hardware.num_devices, num_tasks)
    return plan.packs, 1 if plan.apart else hardware.num_devices


def _job(prepared: Prepared, pack: Pack, num_devices: int) -> target.Job:
    configs, dataset = [prepared.configs[i] for i in pack.members], prepared.dataset(pack.members[0])
    draws = [prepared.draws[i] for i in pack.members]
    programs = program_names(prepared, pack.members)
    shapes = host_arrays(configs, dataset, draws)[0].shapes()
    return target.Job(configs, dataset.num_classes, shapes, pack.lowering, min(num_devices, len(configs)), programs)


def _line(job: target.Job, accounts: dict[str, target.Account], hardware: target.Target) -> str:
    step, config = accounts["training"], packing.widest(job.configs)
    chip, gib = hardware.chip, target.GIB
    widths = sorted({c.width for c in job.configs})
    memory = max(account.memory for account in accounts.values())
    bound = "FLOPs" if step.flops / chip.flops(config) > step.bytes / chip.bandwidth else "bytes"
    seconds = sum(account.compile_seconds for account in accounts.values())
    collectives, transfers = (
        sum(getattr(account, name) for account in accounts.values()) for name in ("collectives", "host_transfers")
    )
    return (
        f"{len(job.configs):7d}  {'-'.join(map(str, dict.fromkeys((widths[0], widths[-1])))):6s}  "
        f"{job.lowering.convolution}, {step.at_once} at once  {memory / gib:.2f} of {hardware.memory / gib:.1f} GiB  "
        f"{step.flops / 1e9:.2f} GFLOP, {step.bytes / 1e6:.1f} MB, bound by {bound}  "
        f"{step.seconds(chip, config) * 1e3:.3g} ms  {len(accounts)} in {seconds:.0f} s, {collectives} collectives, "
        f"{transfers} transfers to the host"
    )


def _seconds(job: target.Job, accounts: dict[str, target.Account], chip: target.Chip, spectra: int) -> float:
    """Device seconds of a pack: training, evaluation at each record, spectra and what is measured around them."""
    config = packing.widest(job.configs)
    exact = config.replace(dtype=config.param_dtype, matmul_precision="float32")
    times = {"training": max(c.steps for c in job.configs), "evaluation": len(recorded_epochs(config))}
    times |= {"spectra": spectra, "outputs": spectra * (1 + config.spectrum.updates)}
    return job.num_devices * sum(
        times[name] * account.seconds(chip, exact if name in ("spectra", "outputs") else config)
        for name, account in accounts.items()
    )


def _record_bytes(job: target.Job, spectra: int) -> float:
    """Bytes of a pack's records: variables and spectra, and the optimiser of the newest two."""
    config, members = packing.widest(job.configs), len(job.configs)
    state = Programs(job.configs, job.num_classes, job.shapes, jax.local_devices()[:1]).abstract_state()
    variables, optimizer = (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        for tree in (state.variables, state.optimizer)
    )
    # Three spectra of the frequencies, and some ten numbers, of each example.
    numbers = len(SPLITS) * config.spectrum.examples * (3 * (config.spectrum.points // 2 + 1) + 10)
    of_spectra = members * numbers * np.dtype(config.param_dtype).itemsize
    return len(recorded_epochs(config)) * variables + 2 * optimizer + spectra * of_spectra
