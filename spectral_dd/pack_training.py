"""One pack: restore or initialise -> train -> evaluate -> spectra -> save."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from spectral_dd import checkpoint, monitor, stored
from spectral_dd.analysis import online
from spectral_dd.config import Config
from spectral_dd.data import Dataset, Draws
from spectral_dd.errors import CheckpointError, InputError, Interrupted
from spectral_dd.family import Family
from spectral_dd.files import Place
from spectral_dd.planning.epochs import recorded_epochs, spectrum_epochs
from spectral_dd.progress import PackProgress, errors_in_words
from spectral_dd.records import SPLITS
from spectral_dd.spectrum import high_frequency_share
from spectral_dd.sweeps import Lowering

# Epochs are dispatched in so many seconds' worth at a time, so that progress shows and a signal is answered.
DISPATCH_SECONDS = 2.0


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
    with checkpoint.PackWriter(place) as writer, monitor.Beats(place.directory, progress.facts):
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
            abstract = self._family.abstract_tree()
            self.epoch, tree = self._writer.restore(abstract, at_most=target)
            self._state = self._family.load_tree(tree)
            with contextlib.suppress(CheckpointError, InputError):  # damaged or lost: it is drawn again
                self._family.began_at(stored.load_variables(self._place, 0, abstract["variables"]))
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
        self._progress.diverged = int((results["finite"] == 0).sum())
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


class SecondDescents:
    """In how many members the high-frequency ratio of the training split indicates a second descent, so far."""

    def __init__(self, num_members: int):
        self._online = [online.OnlineStart() for _ in range(num_members)]

    def update(self, epoch: int, results: dict[str, np.ndarray]) -> None:
        """Takes what was recorded at the next epoch, with or without spectra."""
        if "energy" in results:
            # `frequency.high_frequency_ratio`, without what that imports, which takes a second.
            power = np.nansum(results["energy"][:, list(SPLITS).index("train")], axis=1, dtype=np.float64)
            for detector, ratio in zip(self._online, high_frequency_share(power), strict=True):
                detector.update(epoch, ratio)

    def __str__(self) -> str:
        noticed = sum(detector.start is not None for detector in self._online)
        return f", second descent indicated in {noticed}" if noticed else ""
