"""A sweep: checked, planned, and trained pack by pack on the devices that are here."""

import os
import sys
from collections.abc import Sequence

import jax
from flax import linen as nn

from spectral_dd import devices, files, launcher, locks, models, stored, summary
from spectral_dd.config import AUTO, Config, needs_x64
from spectral_dd.data import Dataset
from spectral_dd.errors import InputError, Interrupted, LockedError, counted
from spectral_dd.own_measures import Measures
from spectral_dd.pack_training import train_pack
from spectral_dd.planning import packing, types
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.disk import check_disk
from spectral_dd.planning.epochs import recorded_epochs, thinning
from spectral_dd.planning.extend import sweep_for
from spectral_dd.planning.prepare import Prepared, prepare
from spectral_dd.progress import Progress, going_on, stop_signals
from spectral_dd.side_by_side import beside_signals, on_free_devices
from spectral_dd.sweeps import Sweep, write_sweep


def train(
    workdir: str | os.PathLike,
    configs: Sequence[Config],
    *,
    dataset: Dataset | None = None,
    model: type[nn.Module] | None = None,
    measure: Measures | None = None,
    data_dir: str | None = None,
    task_index: int | None = None,
    task_count: int | None = None,
    save_minutes: float = 5.0,
    min_packs: int = 1,
    tune: bool = True,
    extend: bool = False,
    about: Sequence[str] = (),
) -> Sweep:
    """Trains a sweep, or this task's share of its packs, in DIR; goes on where DIR stopped.

    Args:
      workdir: DIR; new, empty, or holding this sweep.
      configs: the members, see `members.sweep`.
      dataset: for all members, in the place of the one that they name.
      model: class of the network of all members, in the place of the one that they name: a Linen module with the
        fields `width` and `num_classes`, called `(images, train)`.
      measure: of one's own, recorded beside the others: a function of (f, examples, directions), or several, see
        `own_measures.measure`.
      data_dir: of TFDS.
      task_index: which share, 0 to task_count - 1; by default what started this process says, see `launcher.py`.
      task_count: number of shares; as many processes or jobs can fill one DIR at the same time.
      save_minutes: longest time between checkpoints.
      min_packs: packs of a new sweep are halved until there are so many, as far as there are members, so that as many
        tasks find work. Results of other packs differ in the last bits.
      tune: choose lowerings and packs of a new sweep by timing them where that pays, see `planning/tune.py`.
      extend: keep what DIR holds and add members, or epochs to its packs.
      about: lines that are printed on stderr once everything is checked.

    Raises:
      InputError: something of the above cannot work; nothing was written.
      Interrupted: a signal came; everything is saved.
      LockedError: other processes train packs of this share; the rest of it is done.
      CheckpointError: a checkpoint cannot be written or read.
    """
    task = launcher.this_task(task_index, task_count)
    devices.set_up()
    x64 = needs_x64(configs)

    def prepare_and_plan() -> tuple[Prepared, Sweep]:
        with devices.numerics(x64):
            with going_on(lambda: "loading the data and drawing what each member needs"):
                prepared = prepare(configs, data_dir, dataset=dataset, model=model, measure=measure)
            prepared = types.decided(workdir, prepared)
            cost = Cost(prepared.configs, prepared.datasets)
            with going_on(lambda: "planning the packs"):
                sweep, there = sweep_for(workdir, prepared, cost, min_packs, extend=extend)
            prepared = prepared.of(sweep.configs)
            models.check_code((c.model for c in prepared.configs), sweep.provenance.get("code", {}))
            said = check_disk(workdir, sweep, prepared, cost)
            for line in [*about, *prepared.described()] if about else []:
                print(line, file=sys.stderr)
            if sweep != there:
                if slow := types.advice(sweep.configs):
                    print(slow, file=sys.stderr)
                if tune:  # once everything else is checked, since it computes on the devices
                    sweep, there = sweep_for(workdir, prepared, cost, min_packs, timed=True, extend=extend)
                try:
                    sweep = write_sweep(workdir, sweep, there)
                except InputError:
                    if there is None and any(c.dtype == AUTO for c in configs) and types.begun_in(workdir):
                        return prepare_and_plan()  # another task was first, and may have chosen another type
                    raise
                print(f"{workdir} takes {said}", file=sys.stderr)
            if warning := locks.warning(files.workdir_path(workdir)):
                print(warning, file=sys.stderr)
            return prepared.of(sweep.configs), sweep

    prepared, sweep = beside_signals([prepare_and_plan])[0]
    mine = packing.shares([pack.cost for pack in sweep.packs], task.count)[task.index]
    if task.source:
        print(f"{task}: {len(mine) or 'none'} of {counted(len(sweep.packs), 'pack')}", file=sys.stderr)
    if not mine:
        return sweep
    _train_packs(workdir, sweep, prepared, mine, 60 * save_minutes, x64)
    if said := summary.divergence(workdir, sweep, mine):
        print(said, file=sys.stderr)
    return sweep


def _train_packs(
    workdir: str | os.PathLike, sweep: Sweep, prepared: Prepared, mine: Sequence[int], save_seconds: float, x64: bool
) -> None:
    """Trains the packs of these numbers. Those that another process trains are come back to in the end.

    Raises:
      LockedError: packs are left that other processes train.
    """
    packs = {number: sweep.packs[number] for number in mine}
    parts = {number: (*prepared.of_pack(pack.members), pack.ends) for number, pack in packs.items()}
    for line in dict.fromkeys(thinning(*part) for part in parts.values()):
        if line:
            print(line, file=sys.stderr)
    here = jax.local_devices()
    # Either one pack after another, each on all devices, or as many packs at a time as there are devices.
    groups = [[device] for device in here] if sweep.apart else [here]
    costs = {number: pack.cost for number, pack in packs.items()}
    targets = {number: recorded_epochs(configs[0], ends) for number, (configs, *_, ends) in parts.items()}
    locked: dict[int, LockedError] = {}
    with (
        devices.Compilations() as compilations,
        Progress(costs, targets, len(groups), here[0].platform) as progress,
        stop_signals(progress.doing) as stop_signal,
    ):

        def train_one(number: int, on: list[jax.Device]) -> None:
            try:
                train_pack(
                    *parts[number],
                    sweep.place(workdir, number),
                    progress.pack(number, f"pack {number + 1}/{len(sweep.packs)}", parts[number][0]),
                    stop_signal,
                    save_seconds=save_seconds,
                    lowering=sweep.lowering(packs[number], here[0].platform),
                    on=on,
                )
            except LockedError as error:
                locked[number] = error
            except Interrupted as error:
                message = f"{error}: saved in {workdir}; the same command goes on from there"
                raise Interrupted(message, error.signal_number) from None

        # What is finished is only checked, which can wait.
        finished = {n: {*targets[n]} <= {*stored.recorded_epochs(sweep.place(workdir, n))} for n in mine}
        on_free_devices(train_one, sorted(mine, key=lambda n: (finished[n], -costs[n])), groups, x64)
        again = list(locked)
        locked.clear()
        on_free_devices(train_one, again, groups, x64)
    compilations.say()
    if locked:
        left = "; ".join(str(locked[number]) for number in sorted(locked)[:2])
        raise LockedError(
            f"{len(mine) - len(locked)} of {len(mine)} packs are trained, the rest is left to others: {left}"
            f"{' ...' * (len(locked) > 2)}; the same command comes back to it"
        )
