"""From prepared members to a `Sweep`: packs, lowerings and what sweep.json says about the members."""

import functools
import uuid

import jax

from spectral_dd import files, models, own_measures
from spectral_dd.planning import packing, tune
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.exactness import exact_models
from spectral_dd.planning.prepare import Prepared
from spectral_dd.provenance import provenance
from spectral_dd.sweeps import Sweep


def plan_sweep(prepared: Prepared, cost: Cost, min_packs: int = 1, *, timed: bool = False) -> Sweep:
    """Packs the members.

    Args:
      prepared: the members.
      cost: of a step, where it is not timed.
      min_packs: at least so many packs, as far as there are members.
      timed: time lowerings and steps where the sweep is long enough to pay for it, see `tune.py`.
    """
    configs, datasets = prepared.configs, prepared.datasets
    devices = jax.local_device_count()
    choices: dict[str, tune.Choice] = {}
    exact = exact_models(configs, datasets)
    lowering_for = functools.partial(tune.lowering_for, choices)
    plan = packing.plan(configs, cost, lowering_for, devices, min_packs, exact)
    if timed:
        timings = tune.Timings(files.cache_directory() / "step_seconds.json")
        choices = tune.tune(configs, plan, datasets, timings)
        timed_cost = tune.TimedCost(cost, choices)
        lowering_for = functools.partial(tune.lowering_for, choices)  # of the new choices
        plan = packing.plan(configs, timed_cost, lowering_for, devices, min_packs, exact)
    return Sweep(
        configs=configs,
        packs=plan.packs,
        apart=plan.apart,
        platform=jax.local_devices()[0].platform,
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
