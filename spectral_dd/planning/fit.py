"""How many members of a pack fit into the memory of a device: by compiling, before anything is written."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from spectral_dd.family import host_arrays
from spectral_dd.planning import packing
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.epochs import spectrum_epochs
from spectral_dd.planning.prepare import Prepared
from spectral_dd.programs import Programs, memory
from spectral_dd.sweeps import Lowering, Pack
from spectral_dd.training import EVALUATION_BATCH


def program_names(prepared: Prepared, pack: Pack) -> tuple[str, ...]:
    """The programs of `programs.Programs` that a pack needs."""
    configs, draws = [prepared.configs[i] for i in pack.members], [prepared.draws[i] for i in pack.members]
    if not spectrum_epochs(configs, prepared.dataset(pack.members[0]), draws, pack.ends):
        return "training", "evaluation"
    measured = ("logits",) if configs[0].spectrum.measures else ()
    return "training", "evaluation", "spectra", *measured


def fitting(
    prepared: Prepared,
    pack: Pack,
    on: Sequence[jax.Device],
    cost: Cost,
    limit: int | None = None,
    names: Sequence[str] | None = None,
) -> Lowering:
    """The lowering of a pack with as many members at once as fit.

    A program holds no more than its arguments and what it moves, so a pack for which both are less than a device has
    needs no compiling.

    Args:
      prepared: the sweep.
      pack: whose members are in question.
      on: the devices that it is spread over.
      cost: of a step.
      limit: bytes that a device may use; by default what it has.
      names: of the programs that must fit; by default all that the pack needs. The first decides.

    Raises:
      InputError: not even one member of one of its programs fits.
    """
    configs, dataset = [prepared.configs[i] for i in pack.members], prepared.dataset(pack.members[0])
    draws = [prepared.draws[i] for i in pack.members]
    limit = limit or memory(on[0])
    on_each = -(-len(configs) // len(on))
    at_once = min(pack.lowering.at_once or on_each, on_each)
    widest = packing.widest(configs)
    moved = at_once * cost.step_bytes(widest, EVALUATION_BATCH)
    # Parameters, two moments and the gradient.
    of_state = 4 * on_each * cost.parameters(widest) * np.dtype(widest.param_dtype).itemsize
    images = dataset.train_images.nbytes + dataset.test_images.nbytes + dataset.test_labels.nbytes
    of_members = 12 * on_each * max(c.train_size for c in configs)  # places and labels
    if moved + of_state + images + of_members < limit:
        return pack.lowering
    shapes = host_arrays(configs, dataset, draws)[0].shapes()
    programs = Programs(configs, dataset.num_classes, shapes, on, lowering=pack.lowering, memory_limit=limit)
    fits, *_ = (programs[name].at_once for name in names or program_names(prepared, pack))
    return pack.lowering if fits == at_once else dataclasses.replace(pack.lowering, at_once=fits)
