"""A sweep, pack by pack: restore or initialise -> train -> evaluate -> spectra -> save."""

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr
from flax import linen as nn

from spectral_dd import checkpoint, devices, launcher, monitor
from spectral_dd.analysis import frequency, online
from spectral_dd.config import Config
from spectral_dd.data import Dataset, Draws
from spectral_dd.errors import CheckpointError, Interrupted
from spectral_dd.family import Family
from spectral_dd.files import pack_directory
from spectral_dd.planning import packing
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.epochs import recorded_epochs, spectrum_epochs, thinning
from spectral_dd.planning.plan import plan_sweep
from spectral_dd.planning.prepare import Prepared, prepare
from spectral_dd.progress import PackProgress, Progress, stop_signals
from spectral_dd.records import SPLITS
from spectral_dd.sweeps import Lowering, Sweep, check_workdir, write_sweep

# Epochs are dispatched in so many seconds' worth at a time, so that progress shows and a signal is answered.
DISPATCH_SECONDS = 2.0


def train(
    workdir: str | os.PathLike,
    configs: Sequence[Config],
    *,
    dataset: Dataset | None = None,
    model: type[nn.Module] | None = None,
    data_dir: str | None = None,
    task_index: int | None = None,
    task_count: int | None = None,
    save_minutes: float = 5.0,
    tune: bool = True,
) -> Sweep:
    """Trains a sweep, or this task's share of its packs, in DIR; goes on where DIR stopped.

    Args:
      workdir: DIR; new, empty, or holding this sweep.
      configs: the members, see `sweeps.sweep`.
      dataset: for all members, in the place of the one that they name.
      model: class of the network of all members, in the place of the one that they name: a Linen module with the
        fields `width` and `num_classes`, called `(images, train)`.
      data_dir: of TFDS.
      task_index: which share, 0 to task_count - 1; by default what started this process says, see `launcher.py`.
      task_count: number of shares; as many processes or jobs can fill one DIR at the same time.
      save_minutes: longest time between checkpoints.
      tune: choose lowerings and packs of a new sweep by timing them where that pays, see `planning/tune.py`.

    Raises:
      InputError: something of the above cannot work; nothing was written.
      Interrupted: a signal came; everything is saved.
      CheckpointError: a checkpoint cannot be written or read.
    """
    task = launcher.this_task(task_index, task_count)
    devices.set_up()
    with devices.numerics(any(c.dtype == "float64" for c in configs)):
        prepared = prepare(configs, data_dir, dataset=dataset, model=model)
        sweep = check_workdir(workdir, prepared.configs)
        if sweep is None:
            cost = Cost(prepared.configs, prepared.datasets)
            sweep = write_sweep(workdir, plan_sweep(prepared, cost, task.count, timed=tune))
        mine = packing.shares([pack.cost for pack in sweep.packs], task.count)[task.index]
        if task.source:
            print(f"{task}: {len(mine)} of {len(sweep.packs)} packs", file=sys.stderr)
        _train_packs(workdir, sweep, prepared, mine, 60 * save_minutes)
    return sweep


def _train_packs(
    workdir: str | os.PathLike, sweep: Sweep, prepared: Prepared, mine: Sequence[int], save_seconds: float
) -> None:
    """Trains the packs of these numbers."""

    packs = {number: sweep.packs[number] for number in mine}
    parts = {
        number: (sweep.members(pack), prepared.dataset(pack.members[0]), [prepared.draws[i] for i in pack.members])
        for number, pack in packs.items()
    }
    for line in dict.fromkeys(thinning(*part) for part in parts.values()):
        if line:
            print(line, file=sys.stderr)
    here = jax.local_devices()
    # Either one pack after another, each on all devices, or as many packs at a time as there are devices.
    groups = [[device] for device in here] if sweep.apart else [here]
    costs = {number: pack.cost for number, pack in packs.items()}
    targets = {number: recorded_epochs(configs[0]) for number, (configs, _, _) in parts.items()}
    with (
        devices.Compilations() as compilations,
        Progress(costs, targets, len(groups)) as progress,
        stop_signals() as stop_signal,
    ):

        def train_one(number: int, on: list[jax.Device]) -> None:
            try:
                train_pack(
                    *parts[number],
                    pack_directory(workdir, number),
                    progress.pack(number, f"pack {number + 1}/{len(sweep.packs)}", parts[number][0]),
                    stop_signal,
                    save_seconds=save_seconds,
                    lowering=sweep.lowering(packs[number], here[0].platform),
                    on=on,
                )
            except Interrupted as error:
                message = f"{error}: saved in {workdir}; the same command goes on from there"
                raise Interrupted(message, error.signal_number) from None

        _on_free_devices(train_one, sorted(mine, key=lambda number: -costs[number]), groups)
    print(compilations, file=sys.stderr)


def _on_free_devices(train_one: Callable[[int, Any], None], packs: Sequence[int], groups: Sequence[Any]) -> None:
    """Calls `train_one(pack, devices)` for each pack in the order given, as soon as a group of devices is free.

    Packs that are under way when one fails go on to their end; those that have not begun do not begin.
    """
    if len(groups) == 1:
        for pack in packs:
            train_one(pack, groups[0])
        return
    x64 = jax.config.read("jax_enable_x64")
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for pack in packs:
        waiting.put(pack)
    failures: list[BaseException] = []

    def train_here(group: Any) -> None:
        with devices.numerics(x64), contextlib.suppress(queue.Empty):  # of this thread
            while not failures:
                pack = waiting.get_nowait()
                try:
                    train_one(pack, group)
                except BaseException as failure:
                    failures.append(failure)

    # Daemons, so that a second Ctrl-C ends the process without them.
    threads = [threading.Thread(target=train_here, args=(group,), daemon=True) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def train_pack(
    configs: Sequence[Config],
    dataset: Dataset,
    draws: Sequence[Draws],
    directory: str | os.PathLike,
    progress: PackProgress,
    stop_signal: Callable[[], int | None] = lambda: None,
    *,
    save_seconds: float = 300.0,
    lowering: Lowering | None = None,
    on: Sequence[jax.Device] | None = None,
) -> None:
    """Trains one pack to its end from wherever its checkpoints are.

    Raises:
      Interrupted: `stop_signal` gave a signal, and the state is saved.
    """
    if (number := stop_signal()) is not None:
        raise Interrupted(signal.Signals(number).name, number)
    targets = recorded_epochs(configs[0])
    recorded = set(checkpoint.recorded_epochs(directory))
    if set(targets) <= recorded and checkpoint.is_intact(directory, targets[-1]):
        progress.skip_to(targets[-1])
        return
    with checkpoint.PackWriter(directory) as writer, monitor.Beats(directory, progress.facts):
        training = PackTraining(
            Family(configs, dataset, draws, on, lowering=lowering), writer, progress, stop_signal, save_seconds
        )
        training.restore(directory)
        with_spectra = spectrum_epochs(configs, dataset, draws)
        recorded = set(checkpoint.recorded_epochs(directory))
        for target in targets:
            if target >= training.epoch and target not in recorded:
                training.train_to(target)
                training.record(target in with_spectra)


class PackTraining:
    """A pack under way: its state at an epoch, and what is saved of it."""

    def __init__(
        self,
        family: Family,
        writer: checkpoint.PackWriter,
        progress: PackProgress,
        stop_signal: Callable[[], int | None],
        save_seconds: float,
    ):
        self.epoch = 0
        self._family, self._writer, self._progress = family, writer, progress
        self._stop_signal, self._save_seconds = stop_signal, save_seconds
        self._second_descents = SecondDescents(len(family.configs))
        self._compiled: set[str] = set()
        self._dispatch, self._saved_at = 1, time.monotonic()

    def restore(self, directory: str | os.PathLike) -> None:
        """Takes the newest state there is, or draws the first one."""
        if self._writer.latest() is None:
            self._state = self._family.initial_state()
        else:
            self.epoch, tree = self._writer.restore(self._family.abstract_tree())
            self._state = self._family.load_tree(tree)
        for earlier in checkpoint.recorded_epochs(directory):
            if earlier <= self.epoch:
                with contextlib.suppress(CheckpointError):  # a damaged old record is no reason to stop training
                    self._second_descents.update(earlier, checkpoint.load_results(directory, earlier))
        self._progress.note(str(self._second_descents))
        self._progress.skip_to(self.epoch)

    def train_to(self, target: int) -> None:
        """Trains until `target`, saving now and then.

        Raises:
          Interrupted: a signal came, and the state is saved.
        """
        while self.epoch < target:
            started, stop = time.monotonic(), min(target, self.epoch + self._dispatch)
            self._state = jax.block_until_ready(self._family.train(self._state, self.epoch, stop))
            seconds_per_epoch = (time.monotonic() - started) / (stop - self.epoch)
            self._dispatch = max(1, round(DISPATCH_SECONDS / seconds_per_epoch))
            self.epoch = stop
            self._progress.advance(stop, setting_up=self._is_first("training"))
            if (number := self._stop_signal()) is not None:
                self._save()
                self._writer.close()
                raise Interrupted(signal.Signals(number).name, number)
            if stop < target and time.monotonic() - self._saved_at > self._save_seconds:
                self._save()

    def record(self, with_spectra: bool) -> None:
        """Evaluates the state and saves it with the results."""
        results = self._family.evaluate(self._state)
        self._progress.diverged = int((results["finite"] == 0).sum())
        if with_spectra:
            results |= self._family.probe(self._state, self.epoch)
        self._second_descents.update(self.epoch, results)
        self._progress.note(str(self._second_descents))
        self._writer.record(self.epoch, self._family.save_tree(self._state), results)
        self._saved_at = time.monotonic()
        self._progress.advance(self.epoch, setting_up=self._is_first("spectra" if with_spectra else "evaluation"))

    def _save(self) -> None:
        self._writer.roll(self.epoch, self._family.save_tree(self._state))
        self._saved_at = time.monotonic()

    def _is_first(self, program: str) -> bool:
        """Whether a program ran for the first time, which compiles it."""
        is_first = program not in self._compiled
        self._compiled.add(program)
        return is_first


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
