"""What a sweep would do, as a table with a line a pack; nothing is written."""

import os

import jax

from spectral_dd.config import Config
from spectral_dd.planning import disk, packing
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.epochs import recorded_epochs, thinning
from spectral_dd.planning.plan import plan_sweep
from spectral_dd.planning.prepare import Prepared
from spectral_dd.sweeps import check_workdir


def describe(workdir: str | os.PathLike, prepared: Prepared, min_packs: int = 1) -> str:
    """Packs, size and work of a sweep on DIR; checks all that training would check.

    Raises:
      InputError: DIR or its disk cannot take this sweep.
    """
    existing, cost = check_workdir(workdir, prepared.configs), Cost(prepared.configs, prepared.datasets)
    sweep = existing or plan_sweep(prepared, cost, min_packs)
    prepared.check_datasets(sweep)
    lines: list[str] = ["pack  members  widths      parameters      padding  state    work"]
    notes: dict[str, None] = {}
    for number, pack in enumerate(sweep.packs):
        members = sweep.members(pack)
        lines.append(f"{number:4d}  {_line(members, cost)}")
        draws = [prepared.draws[i] for i in pack.members]
        notes[thinning(members, prepared.dataset(pack.members[0]), draws)] = None
    images = sum(d.train_images.nbytes + d.test_images.nbytes for d in prepared.datasets.values())
    lines.append(
        f"{len(sweep.configs)} members in {len(sweep.packs)} packs on {jax.local_device_count()} devices; "
        f"images {images / 2**20:.1f} MiB a device; "
        f"records at epochs {', '.join(map(str, recorded_epochs(sweep.configs[0])))}; "
        f"{'resumes ' if existing else 'new sweep in '}{workdir}, which takes "
        f"{disk.check_disk(workdir, sweep, prepared, cost)}"
    )
    return "\n".join([*lines, *filter(None, notes)])


def _line(members: list[Config], cost: Cost) -> str:
    widest = packing.widest(members)
    widths = sorted({c.width for c in members})
    parameters = cost.parameters(widest)
    _, state = disk.state_bytes(members, cost)
    work = cost.step_flops(widest, widest.width) * sum(c.steps for c in members)
    return (
        f"{len(members):7d}  {'-'.join(map(str, dict.fromkeys((widths[0], widths[-1])))):8s}  {parameters:12,d}  "
        f"{packing.padding_waste(members, cost):9.0%}  {state / 2**20:5.1f} MiB  {work / 1e12:.2f} TFLOP"
    )
