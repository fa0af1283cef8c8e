"""What a person sees while a sweep trains, and the signals with which they stop it."""

import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

import numpy as np
import rich.console
import rich.progress

from spectral_dd.config import Config
from spectral_dd.planning.cost import rates_of

# After so long without a word a line says what is going on.
SILENCE_SECONDS = 5.0

_said_at = 0.0


def say(line: str) -> None:
    """Prints a line with the time of day on stderr."""
    global _said_at
    _said_at = time.monotonic()
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def going_on(what: Callable[[], str]) -> Iterator[None]:
    """Within it, what is going on is said on stderr whenever nothing was said for `SILENCE_SECONDS`."""
    started, ended = time.monotonic(), threading.Event()

    def watch() -> None:
        while not ended.wait(max(0.0, max(started, _said_at) + SILENCE_SECONDS - time.monotonic())):
            if time.monotonic() - max(started, _said_at) >= SILENCE_SECONDS:
                say(what())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def stop_signals(doing: Callable[[], str] = lambda: "training") -> Iterator[Callable[[], int | None]]:
    """Within it, the first SIGINT, SIGTERM, SIGUSR1 or SIGUSR2 is only noted, and given by what it yields; a second
    SIGINT does what it did before. Outside of the main thread signals are left as they are.

    Args:
      doing: what is under way, which the answer to the first signal says.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def note(number: int, frame: FrameType | None) -> None:
        if not received:
            name = signal.Signals(number).name
            answer = f"\n{name}: {doing()}; stopping as soon as the epoch is saved; Ctrl-C again stops at once\n"
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, answer.encode())  # print is not reentrant
        received.append(number)
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, note)
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclasses.dataclass
class _Pack:
    """How far a pack is, and the seconds it took: for setting up, which compiles, for training, and for recording."""

    cost: float  # planned seconds of training
    records_left: int
    done: float = 0.0  # share of its epochs
    setup: float = 0.0
    training: float = 0.0
    trained: float = 0.0  # planned seconds of what `training` took
    recording: float = 0.0
    recorded: float = 0.0  # planned seconds of the pack, once for each record that `recording` took


# Shares of the epochs do not add up to 1 exactly.
_ALL = 1 - 1e-9


class TimeLeft:
    """Estimates the time until the last pack has ended, from the plan and from what packs took so far."""

    def __init__(self, costs: Mapping[int, float], records: Mapping[int, int], at_a_time: int, platform: str = "cpu"):
        """
        Args:
          costs: planned seconds of each pack's training.
          records: number of records of each pack.
          at_a_time: packs that are trained at the same time.
          platform: of the devices. Of the plan's seconds for other devices than CPUs only the ratios are believed.
        """
        self.packs = {number: _Pack(cost, records[number]) for number, cost in costs.items()}
        self._at_a_time, self._platform = at_a_time, platform

    def add(self, number: int, share: float, seconds: float, setting_up: bool, records_left: int) -> None:
        """A pack has done another share of its epochs (or none, but recorded) in so many seconds."""
        pack = self.packs[number]
        pack.done, pack.records_left = pack.done + share, records_left
        if setting_up:
            pack.setup += seconds
        elif share:
            pack.training += seconds
            pack.trained += share * pack.cost
        else:
            pack.recording += seconds
            pack.recorded += pack.cost

    def seconds(self) -> float | None:
        """None: nothing is known yet."""
        packs = self.packs.values()
        trained, recorded = sum(pack.trained for pack in packs), sum(pack.recorded for pack in packs)
        if not trained and self._platform != "cpu" and any(pack.done < _ALL for pack in packs):
            return None
        training = sum(pack.training for pack in packs) / trained if trained else 1.0
        recording = sum(pack.recording for pack in packs) / recorded if recorded else 0.0
        finished = [pack.setup for pack in packs if pack.done >= _ALL and pack.setup]
        setup = sum(finished) / len(finished) if finished else rates_of(self._platform).compile_seconds
        left = [
            max(0.0, setup - pack.setup) + (training * (1 - pack.done) + recording * pack.records_left) * pack.cost
            for pack in packs
            if pack.done < _ALL
        ]
        return max([0.0, sum(left) / self._at_a_time, *left])


def _console() -> tuple[rich.console.Console, bool]:
    """Stderr, and whether it shows plain lines only: it is neither a terminal nor a notebook."""
    console = rich.console.Console(stderr=True)
    return console, not (console.is_terminal or console.is_jupyter)


def track(items: Sequence[Any], description: str) -> Iterable[Any]:
    """The items, with a bar in a terminal or notebook, else a line now and then; on stderr."""
    console, plain = _console()
    if not plain:
        yield from rich.progress.track(items, description=description, console=console)
        return
    done = 0
    with going_on(lambda: f"{description}, {done} of {len(items)} done"):
        for done, item in enumerate(items):  # noqa: B007 (the line reads it)
            yield item


class Progress:
    """Bars in a terminal or notebook, else a plain line at the end of a pack and after each silence; on stderr."""

    def __init__(
        self,
        costs: Mapping[int, float],
        targets: Mapping[int, Sequence[int]],
        at_a_time: int = 1,
        platform: str = "cpu",
    ):
        """
        Args:
          costs: planned seconds of each pack's training, by the number of the pack.
          targets: epochs that each pack records.
          at_a_time: packs that are trained at the same time.
          platform: of the devices, see `TimeLeft`.
        """
        console, self._plain = _console()
        self._bars = rich.progress.Progress(
            rich.progress.BarColumn(20),
            rich.progress.TaskProgressColumn(),
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.TimeElapsedColumn(),
            console=console,
            disable=self._plain,
        )
        self._sweep = self._bars.add_task("sweep", total=sum(costs.values()))
        records = {number: len(epochs) for number, epochs in targets.items()}
        self._left, self._lock = TimeLeft(costs, records, at_a_time, platform), threading.Lock()
        self._targets = targets
        self.seconds_left = self._left.seconds()
        self._packs: list[PackProgress] = []
        self._latest: PackProgress | None = None
        self._speaking = going_on(self._line) if self._plain else contextlib.nullcontext()

    def __enter__(self) -> Self:
        self._bars.start()
        self._speaking.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._speaking.__exit__(kind, error, traceback)
        self._bars.stop()

    def pack(self, number: int, name: str, configs: Sequence[Config]) -> "PackProgress":
        self._packs.append(PackProgress(self, number, name, configs))
        return self._packs[-1]

    def doing(self) -> str:
        """What is under way, in words."""
        compiling = [pack.name for pack in self._packs if "compiling" in pack.doing]
        return (
            f"programs of {' and '.join(compiling)} are being compiled, which comes first" if compiling else "training"
        )

    def update(self, pack: "PackProgress", share: float, seconds: float, setting_up: bool, must_log: bool) -> None:
        with self._lock:
            records_left = sum(target > pack.epoch for target in self._targets[pack.number])
            self._left.add(pack.number, share, seconds, setting_up, records_left)
            self.seconds_left = self._left.seconds()
            self._latest = pack
            if not self._plain:
                self._show(pack, share)
            elif must_log:
                say(self._line())

    def begin(self, pack: "PackProgress") -> None:
        """The pack begins something that may take a while."""
        self._latest = pack
        if pack.bar is not None:
            self._bars.update(pack.bar, description=str(pack))

    def _line(self) -> str:
        return f"{self._latest or 'setting up'}{self._time_left()}"

    def _time_left(self) -> str:
        if (seconds := self._left.seconds()) is None:
            return ""
        left = round(seconds)
        return f", {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"

    def _show(self, pack: "PackProgress", share: float) -> None:
        cost = self._left.packs[pack.number].cost
        self._bars.update(self._sweep, advance=share * cost, description=f"sweep{self._time_left()}")
        if pack.bar is None:
            pack.bar = self._bars.add_task("", total=1.0)
        self._bars.update(pack.bar, advance=share, description=str(pack))
        if pack.epoch == pack.epochs:
            self._bars.update(pack.bar, visible=False)


def errors_in_words(results: Mapping[str, np.ndarray]) -> str:
    """The smallest and the largest error of the members that have not diverged: ', test error 7.8-13.8 %'."""
    text = ""
    for name, words in (("train_error", "training error"), ("test_error", "test error")):
        finite = results[name][np.isfinite(results[name])]
        if finite.size:
            bounds = dict.fromkeys(f"{100 * bound:.1f}" for bound in (finite.min(), finite.max()))
            text += f", {words} {'-'.join(bounds)} %"
    return text


class PackProgress:
    """The progress of one pack; several may be under way."""

    def __init__(self, progress: Progress, number: int, name: str, configs: Sequence[Config]):
        widths = sorted({c.width for c in configs})
        span = f"{widths[0]}-{widths[-1]}" if len(widths) > 1 else f"{widths[0]}"
        self.number, self.epoch, self.epochs = number, 0, configs[0].epochs
        self.bar: rich.progress.TaskID | None = None
        self.name, self.doing = name, ""
        self._progress = progress
        self._name = f"{name}, {len(configs)} member{'s' * (len(configs) > 1)} of width {span}"
        self._examples_per_epoch = sum(c.steps_per_epoch * c.batch_size for c in configs)
        self._rate, self._note = 0.0, ""
        self.diverged = 0  # members
        self._advanced_at = time.monotonic()

    def __str__(self) -> str:
        rate = f", {self._rate:,.0f} examples/s" if self._rate else ""
        return f"{self._name}, epoch {self.epoch}/{self.epochs}{self.doing}{rate}{self._note}"

    def begin(self, what: str) -> None:
        """Says what the pack does from now on."""
        self.doing = f", {what}"
        self._progress.begin(self)

    def facts(self) -> dict[str, Any]:
        """How far the pack is, for those who look from outside; see `monitor.Beats`."""
        return {
            "epoch": self.epoch,
            "examples_per_second": self._rate,
            "diverged": self.diverged,
            "seconds_left": self._progress.seconds_left,
        }

    def note(self, text: str) -> None:
        """What the line says of the pack beside its progress."""
        self._note = text

    def skip_to(self, epoch: int) -> None:
        """The pack had come to `epoch` before; what this took was setting up."""
        self.advance(epoch, setting_up=True, trained=False)

    def advance(self, epoch: int, *, setting_up: bool = False, trained: bool = True) -> None:
        """The pack has come to `epoch`, or has recorded it if it was there before.

        Args:
          epoch: epochs that are finished.
          setting_up: whether something was compiled for it.
          trained: whether the epochs since the last call were trained in the time since then.
        """
        now, passed, self.doing = time.monotonic(), epoch - self.epoch, ""
        seconds, self._advanced_at = now - self._advanced_at, now
        if passed and trained:
            self._rate = passed * self._examples_per_epoch / seconds
        self.epoch = epoch
        ended = trained and epoch == self.epochs and not passed
        self._progress.update(self, passed / self.epochs, seconds, setting_up, must_log=ended)
