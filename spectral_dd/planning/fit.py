"""How many members of a pack fit into the memory of a device, before anything is written."""

import collections
import dataclasses
import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from spectral_dd.config import Config
from spectral_dd.data import Dataset
from spectral_dd.family import host_arrays
from spectral_dd.planning import packing
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.epochs import spectrum_epochs
from spectral_dd.planning.liveness import bytes_of_a_device
from spectral_dd.planning.prepare import Prepared
from spectral_dd.programs import Programs, memory
from spectral_dd.sweeps import Lowering, Pack
from spectral_dd.training import EVALUATION_BATCH


def program_names(prepared: Prepared, pack: Pack) -> tuple[str, ...]:
    """The programs of `programs.Programs` that a pack needs."""
    if not spectrum_epochs(*prepared.of_pack(pack.members), pack.ends):
        return "training", "evaluation"
    measured = ("logits",) if prepared.configs[pack.members[0]].spectrum.measures else ()
    return "training", "evaluation", "spectra", *measured


class _Size(NamedTuple):
    """What the memory of a pack of a kind grows with."""

    width: int
    on_each: int  # members of a device
    at_once: int
    capacity: int  # training examples, at most


def fitting(
    prepared: Prepared, packs: Sequence[Pack], on: Sequence[jax.Device], cost: Cost, limit: int | None = None
) -> list[Pack]:
    """The packs, each with as many members at once as fit.

    A pack that is no larger than one of its kind that fits does as well. Of others, three answers are tried, the cheap
    ones first: what the layers move in a step, with all the rest; what is alive in the traced programs; compiling.

    Args:
      prepared: the sweep.
      packs: of its members.
      on: the devices that each is spread over.
      cost: of a step.
      limit: bytes that a device may use; by default what it has.

    Raises:
      InputError: not even one member of one of the programs fits.
    """
    limit = limit or memory(on[0])
    fits = collections.defaultdict[tuple, list[_Size]](list)  # as planned, by kind
    lowered: dict[int, Lowering] = {}
    sizes = [_size(prepared, pack, len(on)) for pack in packs]
    for number in sorted(range(len(packs)), key=lambda number: sizes[number], reverse=True):
        pack, size = packs[number], sizes[number]
        static, names = prepared.configs[pack.members[0]].static(), program_names(prepared, pack)
        alike = fits[*static.values(), pack.lowering.convolution, names]
        if any(all(map(operator.le, size, larger)) for larger in alike):
            continue
        at_once = _at_once(prepared, pack, names, size, on, cost, limit)
        if at_once < size.at_once:
            lowered[number] = dataclasses.replace(pack.lowering, at_once=at_once)
        else:
            alike.append(size)
    return [dataclasses.replace(p, lowering=lowered.get(n, p.lowering)) for n, p in enumerate(packs)]


def _size(prepared: Prepared, pack: Pack, devices: int) -> _Size:
    configs = [prepared.configs[i] for i in pack.members]
    on_each = -(-len(configs) // devices)
    at_once = min(pack.lowering.at_once or on_each, on_each)
    return _Size(packing.widest(configs).width, on_each, at_once, max(c.train_size for c in configs))


def _at_once(
    prepared: Prepared,
    pack: Pack,
    names: Sequence[str],
    size: _Size,
    on: Sequence[jax.Device],
    cost: Cost,
    limit: int,
) -> int:
    """Members of a pack that can be trained at once."""
    configs, dataset, draws = prepared.of_pack(pack.members)
    if _moved(packing.widest(configs), dataset, size, cost) < limit:
        return size.at_once
    shapes = host_arrays(configs, dataset, draws)[0].shapes()
    programs = Programs(configs, dataset.num_classes, shapes, on, lowering=pack.lowering, memory_limit=limit)
    doubtful = [name for name in names if bytes_of_a_device(programs.trace(name, size.at_once)) > limit]
    compiled = {name: programs[name].at_once for name in doubtful}
    return compiled.get("training", size.at_once)


def _moved(widest: Config, dataset: Dataset, size: _Size, cost: Cost) -> float:
    """Bytes that a device has to hold at most: what a step reads and writes, states, images and labels."""
    spectrum, item = widest.spectrum, np.dtype(widest.param_dtype).itemsize
    # A segment goes through the network whole.
    moved = size.at_once * cost.step_bytes(widest, max(EVALUATION_BATCH, spectrum.points))
    outputs = 3 * spectrum.examples * spectrum.directions * spectrum.points * dataset.num_classes
    moved += 2 * size.at_once * outputs * item
    # Parameters, two moments and the gradient.
    of_state = 4 * size.on_each * cost.parameters(widest) * item
    images = dataset.train_images.nbytes + dataset.test_images.nbytes + dataset.test_labels.nbytes
    return moved + of_state + images + 12 * size.on_each * size.capacity  # places and labels
