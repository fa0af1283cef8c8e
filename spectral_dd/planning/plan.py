"""From prepared members to a `Sweep`: packs, lowerings and what sweep.json says about the members."""

import functools
import uuid

import jax

from spectral_dd import models, own_measures
from spectral_dd.planning import fit, packing, tune
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.hardware import Target
from spectral_dd.planning.prepare import Prepared
from spectral_dd.provenance import provenance
from spectral_dd.sweeps import Sweep


def plan_sweep(
    prepared: Prepared, cost: Cost, min_packs: int = 1, *, timed: bool = False, target: Target | None = None
) -> Sweep:
    """Packs the members.

    Args:
      prepared: the members.
      cost: of a step, where it is not timed.
      min_packs: at least so many packs, as far as there are members.
      timed: time lowerings and steps where the sweep is long enough to pay for it, see `tune.py`.
      target: plan for this hardware; by default for what is here.

    Raises:
      InputError: not even one member of a pack fits into the memory of a device.
    """
    configs, datasets = prepared.configs, prepared.datasets
    platform, devices = jax.local_devices()[0].platform, jax.local_device_count()
    if target:
        platform, devices = target.platform, target.num_devices
    choices: dict[str, tune.Choice] = {}
    exact = cost.exact
    lowering_for = functools.partial(tune.lowering_for, choices, platform)
    plan = packing.plan(configs, cost, lowering_for, devices, min_packs, exact)
    if timed:
        choices = tune.tune(configs, plan, datasets, tune.Timings.kept())
        timed_cost = tune.TimedCost(cost, choices)
        lowering_for = functools.partial(tune.lowering_for, choices, platform)  # of the new choices
        plan = packing.plan(configs, timed_cost, lowering_for, devices, min_packs, exact)
    packs = plan.packs
    if not target:
        on = jax.local_devices()[: 1 if plan.apart else None]
        packs = fit.fitting(prepared, packs, on, cost)
    return Sweep(
        configs=configs,
        packs=packs,
        apart=plan.apart,
        platform=platform,
        facts=[
            {"parameters": cost.parameters(c), "noise_rate": drawn.noise_rate}
            for c, drawn in zip(configs, prepared.draws, strict=True)
        ],
        datasets=prepared.about_datasets(),
        provenance=provenance()
        | {
            "code": models.code(c.model for c in configs) | own_measures.code(c.measure for c in configs),
            "measures": own_measures.described(c.measure for c in configs),
        },
        identity=uuid.uuid4().hex,
    )
