"""From prepared members to a `Sweep`: packs, lowerings and what sweep.json says about the members."""

import dataclasses
import functools

import jax

from spectral_dd import files
from spectral_dd.planning import fit, packing, tune
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.prepare import Prepared
from spectral_dd.provenance import provenance
from spectral_dd.sweeps import Sweep


def plan_sweep(prepared: Prepared, cost: Cost, num_tasks: int = 1, *, timed: bool = False) -> Sweep:
    """Packs the members.

    Args:
      prepared: the members.
      cost: of a step, where it is not timed.
      num_tasks: at least so many packs, as far as there are members.
      timed: time lowerings and steps where the sweep is long enough to pay for it, see `tune.py`.

    Raises:
      InputError: not even one member of a pack fits into the memory of a device.
    """
    configs, datasets = prepared.configs, prepared.datasets
    devices = jax.local_device_count()
    choices: dict[str, tune.Choice] = {}
    plan = packing.plan(configs, cost, functools.partial(tune.lowering_for, choices), devices, num_tasks)
    if timed:
        timings = tune.Timings(files.cache_directory() / "step_seconds.json")
        choices = tune.tune(configs, plan, datasets, timings)
        timed_cost = tune.TimedCost(cost, choices)
        plan = packing.plan(configs, timed_cost, functools.partial(tune.lowering_for, choices), devices, num_tasks)
    on = jax.local_devices()[: 1 if plan.apart else None]
    packs = [dataclasses.replace(pack, lowering=fit.fitting(prepared, pack, on, cost)) for pack in plan.packs]
    return Sweep(
        configs=configs,
        packs=packs,
        apart=plan.apart,
        platform=jax.local_devices()[0].platform,
        facts=[
            {"parameters": cost.parameters(c), "noise_rate": drawn.noise_rate}
            for c, drawn in zip(configs, prepared.draws, strict=True)
        ],
        datasets={
            name: {"image_shape": list(d.train_images.shape[1:]), "num_classes": d.num_classes}
            for name, d in datasets.items()
        },
        provenance=provenance(),
    )
