"""A sweep, pack by pack: restore or initialise -> train -> evaluate -> spectra -> save."""

import contextlib
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr
from flax import linen as nn

from spectral_dd import checkpoint, devices, locks, models, stored
from spectral_dd.analysis import frequency, online
from spectral_dd.config import Config
from spectral_dd.data import Dataset, Draws
from spectral_dd.errors import CheckpointError, InputError, Interrupted, LockedError
from spectral_dd.family import Family
from spectral_dd.files import Place
from spectral_dd.planning import packing
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.disk import check_disk
from spectral_dd.planning.epochs import recorded_epochs, spectrum_epochs, thinning
from spectral_dd.planning.extend import sweep_for
from spectral_dd.planning.prepare import Prepared, prepare
from spectral_dd.progress import PackProgress, Progress, going_on, stop_signals
from spectral_dd.records import SPLITS
from spectral_dd.side_by_side import beside_signals, on_free_devices
from spectral_dd.sweeps import Lowering, Sweep, write_sweep

# Epochs are dispatched in so many seconds' worth at a time, so that progress shows and a signal is answered.
DISPATCH_SECONDS = 2.0


def train(
    workdir: str | os.PathLike,
    configs: Sequence[Config],
    *,
    dataset: Dataset | None = None,
    model: type[nn.Module] | None = None,
    measure: Callable[..., Any] | None = None,
    data_dir: str | None = None,
    task_index: int = 0,
    task_count: int = 1,
    save_minutes: float = 5.0,
    min_packs: int = 1,
    tune: bool = True,
    extend: bool = False,
    about: Sequence[str] = (),
) -> Sweep:
    """Trains a sweep, or this task's share of its packs, in DIR; goes on where DIR stopped.

    Args:
      workdir: DIR; new, empty, or holding this sweep.
      configs: the members, see `sweeps.sweep`.
      dataset: for all members, in the place of the one that they name.
      model: class of the network of all members, in the place of the one that they name: a Linen module with the
        fields `width` and `num_classes`, called `(images, train)`.
      measure: of one's own, recorded beside the others: a function of (f, examples, directions), see
        `own_measures.measure`.
      data_dir: of TFDS.
      task_index: which share, 0 to task_count - 1.
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
    if not 0 <= task_index < task_count:
        raise InputError(f"--task_index={task_index}: must be a whole number from 0 to --task_count - 1")
    devices.set_up()
    x64 = any(c.dtype == "float64" for c in configs)

    def prepare_and_plan() -> tuple[Prepared, Sweep]:
        with devices.numerics(x64):
            with going_on(lambda: f"loading the data and drawing what {len(configs)} members need"):
                prepared = prepare(configs, data_dir, dataset=dataset, model=model, measure=measure)
            cost = Cost(prepared.configs, prepared.datasets)
            with going_on(lambda: f"planning: the packs of {len(configs)} members"):
                sweep, there = sweep_for(workdir, prepared, cost, min_packs, extend=extend)
            prepared = prepared.of(sweep.configs)
            models.check_code((c.model for c in prepared.configs), sweep.provenance.get("code", {}))
            said = check_disk(workdir, sweep, prepared, cost)
            for line in about:
                print(line, file=sys.stderr)
            if sweep != there:
                if tune:  # once everything else is checked, since it computes on the devices
                    sweep, there = sweep_for(workdir, prepared, cost, min_packs, timed=True, extend=extend)
                sweep = write_sweep(workdir, sweep, there)
                print(f"{workdir} takes {said}", file=sys.stderr)
            if warning := locks.warning(pathlib.Path(workdir)):
                print(warning, file=sys.stderr)
            return prepared.of(sweep.configs), sweep

    prepared, sweep = beside_signals([prepare_and_plan])[0]
    mine = packing.shares([pack.cost for pack in sweep.packs], task_count)[task_index]
    if not mine:
        print(f"no pack is left for --task_index={task_index}: the sweep has {len(sweep.packs)}", file=sys.stderr)
        return sweep
    _train_packs(workdir, sweep, prepared, mine, 60 * save_minutes, x64)
    if said := divergence(workdir, sweep, mine):
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
    parts = {
        number: (
            sweep.members(pack),
            prepared.dataset(pack.members[0]),
            [prepared.draws[i] for i in pack.members],
            pack.ends,
        )
        for number, pack in packs.items()
    }
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
        Progress(costs, targets, len(groups)) as progress,
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
    print(compilations, file=sys.stderr)
    if locked:
        left = "; ".join(str(locked[number]) for number in sorted(locked)[:2])
        raise LockedError(
            f"{len(mine) - len(locked)} of {len(mine)} packs are trained, the rest is left to others: {left}"
            f"{' ...' * (len(locked) > 2)}; the same command comes back to it"
        )


def divergence(workdir: str | os.PathLike, sweep: Sweep, packs: Iterable[int]) -> str:
    """Which members of packs have diverged, in words; empty if none."""
    first: dict[int, int] = {}
    for number in packs:
        place = sweep.place(workdir, number)
        for epoch in stored.recorded_epochs(place):
            finite = stored.load_results(place, epoch, ("finite",))["finite"]
            for member in np.array(sweep.packs[number].members)[finite == 0].tolist():
                first.setdefault(member, epoch)
    if not first:
        return ""
    named = ", ".join(f"{member} at epoch {first[member]}" for member in sorted(first)[:10])
    return f"{len(first)} of {len(sweep.configs)} members diverged: {named}{', ...' * (len(first) > 10)}"


def train_pack(
    configs: Sequence[Config],
    dataset: Dataset,
    draws: Sequence[Draws],
    ends: Sequence[int],
    place: Place,
    progress: PackProgress,
    stop_signal: Callable[[], int | None] = lambda: None,
    *,
    save_seconds: float = 300.0,
    lowering: Lowering | None = None,
    on: Sequence[jax.Device] | None = None,
) -> None:
    """Trains one pack to its end from wherever its checkpoints are.

    Args:
      configs, dataset, draws: of its members.
      ends: `Pack.ends`.
      place: where its checkpoints are.
      progress: what is told of it.
      stop_signal: gives a signal that has come.
      save_seconds: longest time between checkpoints.
      lowering, on: as in `Family`.

    Raises:
      Interrupted: `stop_signal` gave a signal, and the state is saved.
    """
    if (number := stop_signal()) is not None:
        raise Interrupted(signal.Signals(number).name, number)
    targets = recorded_epochs(configs[0], ends)
    complete = set(targets) <= {*stored.recorded_epochs(place)}
    if complete and all(stored.is_intact(place, epoch) for epoch in targets):
        progress.skip_to(targets[-1])
        return
    with checkpoint.PackWriter(place) as writer:
        if complete:
            writer.set_aside_damaged(every_byte=True)
        family = Family(configs, dataset, draws, on, lowering=lowering)
        training = PackTraining(family, writer, place, progress, stop_signal, save_seconds)
        with_spectra = spectrum_epochs(configs, dataset, draws, ends)
        recorded = {*stored.recorded_epochs(place)}
        if missing := [str(t) for t in targets if t not in recorded and t < max(recorded, default=0)]:
            print(f"{place.directory}: records {', '.join(missing)} are missing and made anew", file=sys.stderr)
        for target in sorted({*targets} - recorded):
            training.resume(target)
            training.train_to(target)
            training.record(target in with_spectra)
        writer.finish()
        if training.epoch < targets[-1]:  # Only lost records were made anew.
            progress.skip_to(targets[-1])


class PackTraining:
    """A pack under way: its state at an epoch, and what is saved of it."""

    def __init__(
        self,
        family: Family,
        writer: checkpoint.PackWriter,
        place: Place,
        progress: PackProgress,
        stop_signal: Callable[[], int | None],
        save_seconds: float,
    ):
        self.epoch = -1  # There is no state yet.
        self._family, self._writer, self._place, self._progress = family, writer, place, progress
        self._stop_signal, self._save_seconds = stop_signal, save_seconds
        self._compiled: set[str] = set()
        self._dispatch, self._saved_at = 1, time.monotonic()

    def resume(self, target: int) -> None:
        """Takes the newest state up to `target` that there is, unless this one is it, or draws the first one."""
        newest = max((epoch for epoch, _ in stored.stored_states(self._place) if epoch <= target), default=0)
        if newest <= self.epoch:
            return
        if newest:
            self.epoch, tree = self._writer.restore(self._family.abstract_tree(), at_most=target)
            self._state = self._family.load_tree(tree)
        else:
            self.epoch, self._state = 0, self._family.initial_state()
        self._second_descents = SecondDescents(len(self._family.configs))
        for earlier in stored.recorded_epochs(self._place):
            if earlier <= self.epoch:
                with contextlib.suppress(CheckpointError):  # a damaged old record is no reason to stop training
                    self._second_descents.update(earlier, stored.load_results(self._place, earlier, ("energy",)))
        self._progress.note(str(self._second_descents))
        self._progress.skip_to(self.epoch)

    def train_to(self, target: int) -> None:
        """Trains until `target`, saving now and then.

        Raises:
          Interrupted: a signal came, and the state is saved.
        """
        while self.epoch < target:
            started, stop = time.monotonic(), min(target, self.epoch + self._dispatch)
            self._begin("training")
            self._state = jax.block_until_ready(self._family.train(self._state, self.epoch, stop))
            seconds_per_epoch = (time.monotonic() - started) / (stop - self.epoch)
            self._dispatch = max(1, round(DISPATCH_SECONDS / seconds_per_epoch))
            self.epoch = stop
            self._progress.advance(stop, setting_up=self._was_first("training"))
            if (number := self._stop_signal()) is not None:
                self._save()
                self._writer.close()
                raise Interrupted(signal.Signals(number).name, number)
            if stop < target and time.monotonic() - self._saved_at > self._save_seconds:
                self._save()

    def record(self, with_spectra: bool) -> None:
        """Evaluates the state and saves it with the results."""
        program = "spectra" if with_spectra else "evaluation"
        self._begin(program)
        results = self._family.evaluate(self._state)
        if with_spectra:
            results |= self._family.probe(self._state, self.epoch)
        self._second_descents.update(self.epoch, results)
        self._progress.note(f"{errors_in_words(results)}{self._second_descents}")
        self._writer.record(self.epoch, self._family.save_tree(self._state), results)
        self._saved_at = time.monotonic()
        self._progress.advance(self.epoch, setting_up=self._was_first(program))

    def _save(self) -> None:
        self._writer.roll(self.epoch, self._family.save_tree(self._state))
        self._saved_at = time.monotonic()

    def _begin(self, program: str) -> None:
        self._progress.begin(program if program in self._compiled else f"compiling: {program}")

    def _was_first(self, program: str) -> bool:
        """Whether a program ran for the first time, which compiled it."""
        was_first = program not in self._compiled
        self._compiled.add(program)
        return was_first


def errors_in_words(results: Mapping[str, np.ndarray]) -> str:
    """The smallest and the largest error of the members that have not diverged: ', test error 7.8-13.8 %'."""
    text = ""
    for name, words in (("train_error", "training error"), ("test_error", "test error")):
        finite = results[name][np.isfinite(results[name])]
        if finite.size:
            bounds = dict.fromkeys(f"{100 * bound:.1f}" for bound in (finite.min(), finite.max()))
            text += f", {words} {'-'.join(bounds)} %"
    return text


class SecondDescents:
    """In how many members the high-frequency ratio of the training split indicates a second descent, so far."""

    def __init__(self, num_members: int):
        self._online = [online.OnlineStart() for _ in range(num_members)]

    def update(self, epoch: int, results: dict[str, np.ndarray]) -> None:
        """Takes what was recorded at the next epoch, with or without spectra."""
        if "energy" in results:
            train = results["energy"][:, list(SPLITS).index("train")]
            energy = xr.DataArray(train, dims=("member", "example", "frequency"))
            for detector, ratio in zip(self._online, frequency.high_frequency_ratio(energy).values, strict=True):
                detector.update(epoch, ratio)

    def __str__(self) -> str:
        noticed = sum(detector.start is not None for detector in self._online)
        return f", second descent indicated in {noticed}" if noticed else ""
