"""What a sweep would do, as a table with a line a pack; nothing is written."""

import os

import jax

from spectral_dd.config import Config
from spectral_dd.errors import counted
from spectral_dd.planning import disk, packing, types
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.epochs import recorded_epochs, thinning
from spectral_dd.planning.extend import sweep_for
from spectral_dd.planning.prepare import Prepared


def describe(workdir: str | os.PathLike, prepared: Prepared, min_packs: int = 1, *, extend: bool = False) -> str:
    """Packs, size and work of a sweep on DIR; checks all that training would check.

    Raises:
      InputError: DIR or its disk cannot take this sweep.
    """
    prepared = types.decided(workdir, prepared)
    cost = Cost(prepared.configs, prepared.datasets)
    sweep, existing = sweep_for(workdir, prepared, cost, min_packs, extend=extend)
    prepared = prepared.of(sweep.configs)
    lines: list[str] = ["pack  members  widths      parameters      padding  state    work"]
    notes: dict[str, None] = {}
    for number, pack in enumerate(sweep.packs):
        members = sweep.members(pack)
        lines.append(f"{number:4d}  {_line(members, cost)}")
        notes[thinning(*prepared.of_pack(pack.members), pack.ends)] = None
    how = "new sweep in" if existing is None else "resumes" if existing == sweep else "extends"
    images = sum(d.train_images.nbytes + d.test_images.nbytes for d in prepared.datasets.values())
    lines.append(
        f"{counted(len(sweep.configs), 'member')} in {counted(len(sweep.packs), 'pack')} on "
        f"{counted(jax.local_device_count(), 'device')}; "
        f"images {images / 2**20:.1f} MiB a device; "
        f"records at epochs {', '.join(map(str, recorded_epochs(sweep.configs[0], sweep.packs[0].ends)))}; "
        f"{how} {workdir}, which takes "
        f"{disk.check_disk(workdir, sweep, prepared, cost)}"
    )
    return "\n".join([*lines, *filter(None, [types.advice(sweep.configs), *notes])])


def _line(members: list[Config], cost: Cost) -> str:
    widest = packing.widest(members)
    widths = sorted({c.width for c in members})
    parameters = cost.parameters(widest)
    state = disk.state_bytes(members, cost)
    work = cost.step_flops(widest, widest.width) * sum(c.steps for c in members)
    return (
        f"{len(members):7d}  {'-'.join(map(str, dict.fromkeys((widths[0], widths[-1])))):8s}  {parameters:12,d}  "
        f"{packing.padding_waste(members, cost):9.0%}  {state / 2**20:5.1f} MiB  {work / 1e12:.2f} TFLOP"
    )
