"""A sweep that is there and one with more members or epochs: what is kept, what goes on and what is new."""

import dataclasses
import os
from collections.abc import Callable, Collection

from spectral_dd.config import Config
from spectral_dd.errors import InputError
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.hardware import Target
from spectral_dd.planning.plan import plan_sweep
from spectral_dd.planning.prepare import Prepared
from spectral_dd.provenance import provenance
from spectral_dd.sweeps import Sweep, check_workdir, difference


def sweep_for(
    workdir: str | os.PathLike,
    prepared: Prepared,
    cost: Cost,
    min_packs: int = 1,
    *,
    timed: bool = False,
    extend: bool = False,
    target: Target | None = None,
) -> tuple[Sweep, Sweep | None]:
    """The sweep that DIR shall hold: the one that is there, one that extends it, or a new one. Writes nothing.

    Args:
      workdir: DIR.
      prepared: the members.
      cost: of a step.
      min_packs, timed, target: of new members, as in `plan.plan_sweep`.
      extend: whether a sweep that is there may get more members and epochs.

    Returns:
      The sweep, and the one that is there.

    Raises:
      InputError: DIR cannot take this sweep.
    """
    there = check_workdir(workdir, prepared.configs, extend=extend)
    if there is None:
        return plan_sweep(prepared, cost, min_packs, timed=timed, target=target), None
    prepared.check_datasets(there)
    if set(there.configs) == set(prepared.configs):
        return there, there
    try:
        return extended(
            there, prepared, lambda new: plan_sweep(new, cost, min_packs, timed=timed, target=target)
        ), there
    except InputError as error:
        raise InputError(f"--workdir={workdir}: {error}") from error


def extended(there: Sweep, prepared: Prepared, plan: Callable[[Prepared], Sweep]) -> Sweep:
    """A sweep that keeps all members and packs of another one, with their numbers, and has those that are new behind.

    Raises:
      InputError: a member is missing, or cannot be trained for more epochs.
    """
    wanted = set(prepared.configs)
    configs, packs = list(there.configs), []
    for pack in there.packs:
        epochs = _epochs(there.members(pack), wanted)
        if epochs is None:
            differs = difference(there.configs, prepared.configs)
            raise InputError(f"can only be extended by members and epochs: {differs}")
        before = there.members(pack)[0].epochs
        if epochs > before:
            if there.members(pack)[0].schedule == "cosine":
                raise InputError(f"--epochs={epochs}: the cosine schedule has come to its end at epoch {before}")
            pack = dataclasses.replace(pack, cost=pack.cost * epochs / before, ends=(*pack.ends, before))
            for i in pack.members:
                configs[i] = configs[i].replace(epochs=epochs)
        packs.append(pack)
    if len(set(configs)) < len(configs):
        raise InputError("members that differ in --epochs alone cannot be extended to the same")
    facts, kept = list(there.facts), set(configs)
    made_by = there.provenance | {
        "command": provenance()["command"],
        "commands_before": [*there.provenance.get("commands_before", []), there.provenance.get("command")],
    }
    if new_configs := [config for config in prepared.configs if config not in kept]:
        new = plan(prepared.of(new_configs))
        packs += [
            dataclasses.replace(pack, members=tuple(i + len(configs) for i in pack.members)) for pack in new.packs
        ]
        configs, facts = configs + new_configs, facts + new.facts
        for name in ("code", "measures"):
            made_by[name] = new.provenance[name] | made_by.get(name, {})
    return dataclasses.replace(there, configs=configs, packs=packs, facts=facts, provenance=made_by)


def _epochs(members: Collection[Config], wanted: Collection[Config]) -> int | None:
    """The epochs that a pack goes on to, its own if these are wanted; None if its members are not wanted so."""
    now = next(iter(members)).epochs
    longer = sorted({config.epochs for config in wanted if config.epochs > now})
    return next((n for n in (now, *longer) if all(c.replace(epochs=n) in wanted for c in members)), None)
