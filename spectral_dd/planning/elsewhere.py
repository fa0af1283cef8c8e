"""A sweep on hardware that is not here, as a table with a line a pack; nothing is written."""

import collections
import os
from collections.abc import Iterator, Mapping

import numpy as np

from spectral_dd.config import AUTO
from spectral_dd.errors import InputError, counted
from spectral_dd.family import host_arrays
from spectral_dd.planning import disk, packing, target
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.epochs import recorded_epochs, spectrum_epochs
from spectral_dd.planning.extend import sweep_for
from spectral_dd.planning.fit import program_names
from spectral_dd.planning.hardware import GIB, Chip, Target
from spectral_dd.planning.prepare import Prepared
from spectral_dd.programs import lowerings
from spectral_dd.sweeps import Pack, Sweep

# Packs whose members differ in nothing but width are compiled at so many widths, since each takes minutes.
WIDTHS = 4


def describe(
    workdir: str | os.PathLike,
    prepared: Prepared,
    min_packs: int,
    hardware: Target,
    *,
    tasks: int = 1,
    extend: bool = False,
) -> Iterator[str]:
    """Lines: of each pack, what its programs need and how fast they can be at most; then of the whole sweep, and of the
    busiest of so many tasks that share it.

    Raises:
      InputError: DIR cannot take this sweep, or the hardware cannot.
    """
    if hardware.num_devices > len(prepared.configs):
        raise InputError(
            f"--target={hardware.name}: has {counted(hardware.num_devices, 'device')} for "
            f"{counted(len(prepared.configs), 'member')}; "
            "choose fewer"
        )
    if any(config.dtype == AUTO for config in prepared.configs):
        raise InputError(f"--dtype={AUTO}: is measured on the devices that are here; give the type with --target")
    cost = Cost(prepared.configs, prepared.datasets, hardware.platform)
    sweep, _ = sweep_for(workdir, prepared, cost, min_packs, extend=extend, target=hardware)
    prepared = prepared.of(sweep.configs)
    jobs = [_job(prepared, sweep, pack, hardware) for pack in sweep.packs]
    yield "pack  members  widths  lowering       memory  a step of all members of a device  at least  programs"
    records = [_records(prepared, pack) for pack in sweep.packs]
    groups = collections.defaultdict[tuple, dict[int, int]](dict)  # of packs whose members differ in the width alone
    # The largest first, which is the one to compile of those of a width.
    for number in sorted(range(len(jobs)), key=lambda number: -len(jobs[number].configs)):
        job, times = jobs[number], records[number]
        widest = packing.widest(job.configs)
        alike = (*widest.static().values(), widest.steps, job.lowering.convolution, job.programs, times)
        groups[alike][number] = widest.width
    compiled = sorted(number for widths in groups.values() for number in spread(widths))
    seconds: dict[int, float] = {}  # of a member
    accounts_of = target.compile_for(hardware, [jobs[number] for number in compiled])
    for number, accounts in zip(compiled, accounts_of, strict=True):
        yield f"{number:4d}  {_line(jobs[number], accounts, hardware)}"
        of_pack = _seconds(jobs[number], accounts, hardware.chip, *records[number])
        seconds[number] = of_pack / len(jobs[number].configs)
    if left := len(jobs) - len(compiled):
        yield (
            f"{counted(left, 'pack')} of these widths or between them: not compiled; a member's time follows a power "
            "of the width between two that are"
        )
    of_packs = {
        number: len(jobs[number].configs) * each
        for widths in groups.values()
        for number, each in zip(widths, between(widths, seconds), strict=True)
    }
    device_seconds = sum(of_packs.values())
    yield (
        f"{counted(len(sweep.configs), 'member')} in {counted(len(sweep.packs), 'pack')} on {hardware.name}: at least "
        f"{device_seconds / 3600:.2g} device hours, by the roofline of the data sheet: a lower bound, not a promise; "
        f"records take up to {disk.in_units(disk.disk_bytes(workdir, sweep, prepared, cost))} of the disk"
    )
    if tasks > 1:
        shares = packing.shares([pack.cost for pack in sweep.packs], tasks)
        busiest = max(sum(of_packs[number] for number in share) for share in shares) / hardware.num_devices
        yield f"the busiest of {tasks} tasks on {hardware.name} each: at least {busiest / 3600:.2g} hours"


def spread(widths: Mapping[int, int]) -> list[int]:
    """The first pack of each of `WIDTHS` widths, or of all if they are no more, from the narrowest to the widest at
    even ratios.

    Args:
      widths: by the number of the pack.
    """
    first = {width: number for number, width in [*widths.items()][::-1]}
    there = sorted(first)
    if len(there) > WIDTHS:
        wanted = np.linspace(np.log(there[0]), np.log(there[-1]), WIDTHS)
        there = [there[np.abs(np.log(there) - one).argmin()] for one in wanted]
    return [first[width] for width in dict.fromkeys(there)]


def between(widths: Mapping[int, int], seconds: Mapping[int, float]) -> list[float]:
    """Seconds of a member of each pack, from those of some: straight lines between neighbours on logarithmic axes."""
    known = sorted((width, seconds[number]) for number, width in widths.items() if number in seconds)
    return np.exp(np.interp(np.log(list(widths.values())), *np.log(known).T)).tolist()


def _records(prepared: Prepared, pack: Pack) -> tuple[int, int]:
    """How many records a pack has, and how many of them with spectra."""
    with_spectra = spectrum_epochs(*prepared.of_pack(pack.members), pack.ends)
    return len(recorded_epochs(prepared.configs[pack.members[0]], pack.ends)), len(with_spectra)


def _job(prepared: Prepared, sweep: Sweep, pack: Pack, hardware: Target) -> target.Job:
    configs, dataset, draws = prepared.of_pack(pack.members)
    shapes = host_arrays(configs, dataset, draws)[0].shapes()
    # A sweep that was begun elsewhere has lowerings for there.
    usual = lowerings(hardware.platform, packing.widest(configs))[0]
    return target.Job(
        configs,
        dataset.num_classes,
        shapes,
        sweep.lowering(pack, hardware.platform) or usual,
        1 if sweep.apart else min(hardware.num_devices, len(configs)),
        program_names(prepared, pack),
    )


def _line(job: target.Job, accounts: dict[str, target.Account], hardware: Target) -> str:
    step, config = accounts["training"], packing.widest(job.configs)
    chip, gib = hardware.chip, GIB
    widths = sorted({c.width for c in job.configs})
    memory = max(account.memory for account in accounts.values())
    bounds = step.bounds(chip, config)
    bound = max(bounds, key=lambda name: bounds[name])
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


def _seconds(job: target.Job, accounts: dict[str, target.Account], chip: Chip, recorded: int, spectra: int) -> float:
    """Device seconds of a pack: training, evaluation at each record, spectra and what is measured around them."""
    config = packing.widest(job.configs)
    exact = config.replace(dtype=config.param_dtype, matmul_precision="float32")
    times = {"training": max(c.steps for c in job.configs), "evaluation": recorded}
    times |= {"spectra": spectra, "logits": spectra * config.spectrum.updates}
    return job.num_devices * sum(
        times[name] * account.seconds(chip, exact if name in ("spectra", "logits") else config)
        for name, account in accounts.items()
    )
