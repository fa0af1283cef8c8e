"""A sweep, pack by pack: restore or initialise -> train -> evaluate -> spectra -> save.

Also what surrounds that: checking a sweep before any device work, setting up JAX, progress, and stopping on a
signal so that the same command goes on where it stopped.
"""

import contextlib
import dataclasses
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import queue
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import jax
import numpy as np
import xarray as xr
from tqdm import tqdm

from spectral_dd import checkpoint, data, indicator, packing, tune
from spectral_dd.config import CheckpointError, Config, InputError
from spectral_dd.family import SPLITS, Family, Lowering
from spectral_dd.files import cache_directory, pack_directory, spectrum_directory
from spectral_dd.models import build_model
from spectral_dd.sweep import (
    Sweep,
    check_workdir,
    read_sweep,
    write_once,
    write_sweep,
)

# Epochs are dispatched in pieces of about so long, so that progress shows and a signal is answered.
PIECE_SECONDS = 2.0
# Without a terminal, lines of progress are at least so far apart.
LOG_SECONDS = 10.0


class Interrupted(Exception):
    """A signal asked to stop, and everything is saved. `signal_number` is that signal."""

    def __init__(self, signal_number: int):
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


def set_up_jax(x64: bool = False) -> None:
    """One virtual device for each CPU core, and a compilation cache that survives the process.

    Must be called before the first use of a device. $JAX_COMPILATION_CACHE_DIR chooses another cache.

    Args:
      x64: whether members of dtype float64 will be trained.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jax.config.update("jax_num_cpu_devices", cores)
    # A GPU's own choice for float32 products may be TF32, with 10 bits of mantissa.
    jax.config.update("jax_default_matmul_precision", "float32")
    jax.config.update("jax_enable_x64", x64)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def load_datasets(configs: Sequence[Config], data_dir: str | None = None) -> dict[str, data.Dataset]:
    """The data sets that the members name.

    Raises:
      InputError: see `data.load_dataset`.
    """
    return {name: data.load_dataset(name, data_dir) for name in dict.fromkeys(c.dataset for c in configs)}


def resolve(configs: Sequence[Config], datasets: dict[str, data.Dataset]) -> list[Config]:
    """The members with what depends on the data filled in and checked: `train_size` 0 becomes all of it.

    Raises:
      InputError: a training set is larger than the data or smaller than a batch, or the images are too small.
    """
    resolved = []
    for config in configs:
        dataset = datasets[config.dataset]
        size = len(data.draw(dataset, config).index)
        _check_images(config, dataset)
        resolved.append(dataclasses.replace(config, train_size=size))
    if len(set(resolved)) < len(resolved):
        raise InputError("--train_size=0: means all of the data, which the sweep names already")
    return resolved


def _check_images(config: Config, dataset: data.Dataset) -> None:
    height, width, channels = dataset.train_images.shape[1:]
    about = f"--dataset={config.dataset}: images are {height}x{width} with {channels} channel{'s' * (channels > 1)}"
    smallest = build_model(config, dataset.num_classes).smallest_image
    if min(height, width) < smallest:
        raise InputError(f"{about}; --model={config.model} needs {smallest}x{smallest} at least")
    if config.channels not in (0, channels):
        raise InputError(f"{about}; --channels={config.channels}: must be {channels}, or 0 for any")
    if config.shift >= min(height, width):
        raise InputError(f"{about}; --shift={config.shift}: must be below {min(height, width)}")


def work_of(datasets: dict[str, data.Dataset]) -> packing.Work:
    return packing.Work(
        {name: d.train_images.shape[1:] for name, d in datasets.items()},
        {name: d.num_classes for name, d in datasets.items()},
    )


def plan_sweep(
    configs: Sequence[Config], datasets: dict[str, data.Dataset], num_tasks: int = 1, *, measure: bool = False
) -> Sweep:
    """Packs the (resolved) members and gathers what sweep.json says about them.

    With `measure`, lowerings and the time of a step are measured where the sweep is long enough to pay for it.
    """
    work, devices = work_of(datasets), jax.local_device_count()
    choices, seconds = {}, work.seconds
    plan = packing.plan_for(configs, seconds, devices, min_packs=num_tasks)
    if measure:
        measurements = tune.Measurements(cache_directory() / "timings.json")
        choices = tune.tune(configs, plan, datasets, measurements)
        seconds = tune.MeasuredWork(work, choices).seconds
        plan = packing.plan_for(configs, seconds, devices, min_packs=num_tasks)
    platform = jax.local_devices()[0].platform
    widest = [max((configs[i] for i in pack), key=lambda c: c.width) for pack in plan.packs]
    return Sweep(
        configs=list(configs),
        packs=plan.packs,
        apart=plan.apart,
        lowerings=[
            {"platform": platform, **dataclasses.asdict(tune.lowering_for(choices, config))} for config in widest
        ],
        costs=plan.costs,
        facts=[
            {
                "parameters": work.parameters(c),
                "noise_rate": data.draw(datasets[c.dataset], c).noise_rate,
            }
            for c in configs
        ],
        datasets={
            name: {"image_shape": list(d.train_images.shape[1:]), "num_classes": d.num_classes}
            for name, d in datasets.items()
        },
        provenance=provenance(),
    )


def describe(workdir: str | os.PathLike, configs: Sequence[Config], data_dir: str | None, num_tasks: int) -> str:
    """What `run_sweep` would do, as a table with a line a pack; checks all that it would check, writes nothing."""
    datasets = load_datasets(configs, data_dir)
    configs = resolve(configs, datasets)
    existing = check_workdir(workdir, configs)
    sweep, work = existing or plan_sweep(configs, datasets, num_tasks), work_of(datasets)
    lines = ["pack  members  widths      parameters      padding  state    work"]
    for number, members in enumerate(sweep.pack_configs):
        widest = max(members, key=lambda c: c.width)
        # Parameters and, at most, as many numbers again for each moment of the optimiser.
        moments = 1 if widest.optimizer == "sgd" else 2
        state = len(members) * (1 + moments) * work.parameters(widest) * np.dtype(widest.param_dtype).itemsize
        widths = sorted({c.width for c in members})
        lines.append(
            f"{number:4d}  {len(members):7d}  {'-'.join(map(str, dict.fromkeys((widths[0], widths[-1])))):8s}  "
            f"{work.parameters(widest):12,d}  {packing.padding_waste(members, work.seconds):9.0%}  "
            f"{state / 2**20:5.1f} MiB  {sum(work.train_flops(c, widest.width) for c in members) / 1e12:.2f} TFLOP"
        )
    images = sum(d.train_images.nbytes + d.test_images.nbytes for d in datasets.values())
    lines.append(
        f"{len(configs)} members in {len(sweep.packs)} packs on {jax.local_device_count()} devices; "
        f"images {images / 2**20:.1f} MiB a device; "
        f"records at epochs {', '.join(map(str, recorded_epochs(configs[0].epochs, configs[0].records_per_decade)))}; "
        f"{'resumes ' if existing else 'new sweep in '}{workdir}"
    )
    lines += dict.fromkeys(filter(None, (thinning(p, datasets[p[0].dataset]) for p in sweep.pack_configs)))
    return "\n".join(lines)


def provenance() -> dict[str, Any]:
    """The command line, versions, device and git revision of this process."""
    git = ["git", "-C", str(pathlib.Path(__file__).parent)]
    try:
        run = subprocess.run([*git, "describe", "--always", "--dirty", "--abbrev=40"], capture_output=True, text=True)
        revision = run.stdout.strip() or None
    except OSError:
        revision = None
    packages = ("spectral_dd", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "command": shlex.join(sys.argv),
        "date": time.strftime("%Y-%m-%d"),
        "git_revision": revision,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "devices": [d.device_kind for d in jax.local_devices()],
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a source tree on PYTHONPATH
        return None


def recorded_epochs(epochs: int, per_decade: int) -> list[int]:
    """0, then epochs at even distances of their logarithm, then the last one, no nearer than half a distance."""
    steps = np.arange(0, np.log10(epochs) * per_decade)
    spaced = np.rint(10 ** (steps / per_decade)).astype(int)
    return sorted({0, epochs, *spaced[spaced < epochs * 10 ** (-0.5 / per_decade)].tolist()})


def spectrum_epochs(configs: Sequence[Config], dataset: data.Dataset) -> list[int]:
    """The recorded epochs of a pack that get spectra: all, or every second, third ... from the last one back, so that
    their share of the work is at most `spectrum_budget`.

    The work is counted in passes of an example through the network, not measured: the same command records the same.
    """
    config = configs[0]
    targets = recorded_epochs(config.epochs, config.records_per_decade)
    if not config.spectrum_examples:
        return []
    largest = [max(sizes) for sizes in zip(*(_split_sizes(c, dataset) for c in configs), strict=True)]
    segment = config.spectrum_directions * config.spectrum_points
    spectra = segment * sum(min(size, config.spectrum_examples) for size in largest)
    if config.spectrum_measures:
        # The derivative along the segment, a row of the Jacobian for each class, the outputs of the updated networks.
        passes = 2 * segment + 3 * dataset.num_classes + config.spectrum_updates
        spectra += passes * sum(min(size, config.spectrum_examples, config.spectrum_measures) for size in largest)
        spectra += 3 * config.spectrum_updates * config.batch_size
    training = sum(3 * c.epochs * c.steps_per_epoch * c.batch_size for c in configs)
    training += len(targets) * sum(c.train_size + len(dataset.test_labels) for c in configs)
    affordable = np.inf if config.spectrum_budget == 1 else config.spectrum_budget / (1 - config.spectrum_budget)
    affordable *= training / (len(configs) * spectra)
    if affordable < 1:
        return []
    every = next(n for n in itertools.count(1) if -(-len(targets) // n) <= affordable)
    return targets[::-1][::every][::-1]


def _split_sizes(config: Config, dataset: data.Dataset) -> tuple[int, int, int]:
    """Examples of the training set, of its relabelled ones and of the test set."""
    own = data.draw(dataset, config)
    return len(own.index), int(own.relabelled.sum()), len(dataset.test_labels)


def thinning(configs: Sequence[Config], dataset: data.Dataset) -> str:
    """What `spectrum_budget` costs a pack, in words; empty if nothing."""
    config = configs[0]
    recorded, kept = recorded_epochs(config.epochs, config.records_per_decade), spectrum_epochs(configs, dataset)
    if not config.spectrum_examples or len(kept) == len(recorded):
        return ""
    return f"--spectrum_budget={config.spectrum_budget:g}: spectra at {len(kept)} of {len(recorded)} recorded epochs"


def run_sweep(
    workdir: str | os.PathLike,
    configs: Sequence[Config],
    data_dir: str | None = None,
    *,
    task_index: int = 0,
    task_count: int = 1,
    save_minutes: float = 5.0,
    measure: bool = False,
) -> Sweep:
    """Trains a sweep, or this task's share of its packs, in DIR; goes on where DIR stopped.

    Args:
      workdir: DIR; new, empty, or holding this sweep.
      configs: the members.
      data_dir: of TFDS.
      task_index: which share, 0 to task_count - 1.
      task_count: number of shares; as many processes or jobs can fill one DIR at the same time.
      save_minutes: longest time between checkpoints.
      measure: choose lowerings and packs of a new sweep by measurements, see `tune.py`.

    Raises:
      InputError: something of the above cannot work; nothing was written.
      Interrupted: a signal came; everything is saved.
    """
    if not 0 <= task_index < task_count:
        raise InputError(f"--task_index={task_index}: must be a whole number from 0 to --task_count - 1")
    datasets = load_datasets(configs, data_dir)
    configs = resolve(configs, datasets)
    sweep = check_workdir(workdir, configs)
    if sweep is None:
        sweep = write_sweep(workdir, plan_sweep(configs, datasets, task_count, measure=measure))
    packs = sweep.pack_configs
    mine = packing.shares(sweep.costs, task_count)[task_index]
    for line in dict.fromkeys(thinning(packs[i], datasets[packs[i][0].dataset]) for i in mine):
        if line:
            print(line, file=sys.stderr)
    devices = jax.local_devices()
    # Either one pack after another, each on all devices, or as many packs at a time as there are devices.
    places = [[device] for device in devices] if sweep.apart else [devices]
    with (
        Compilations() as compilations,
        Progress(sum(sweep.costs[i] for i in mine), len(places)) as progress,
        stop_signals() as stop_signal,
    ):

        def train(i: int, place: list[jax.Device]) -> None:
            if (number := stop_signal()) is not None:
                raise Interrupted(number)
            train_pack(
                packs[i],
                datasets[packs[i][0].dataset],
                pack_directory(workdir, i),
                PackProgress(progress, f"pack {i + 1}/{len(packs)}", packs[i], sweep.costs[i]),
                stop_signal,
                save_seconds=60 * save_minutes,
                lowering=_lowering(sweep, i),
                devices=place,
            )

        _each_in_its_place(train, sorted(mine, key=lambda i: -sweep.costs[i]), places)
    print(compilations, file=sys.stderr)
    return sweep


def _each_in_its_place(train: Callable[[int, Any], None], packs: Sequence[int], places: Sequence[Any]) -> None:
    """Calls `train(pack, place)` for each pack in the order given, as soon as a place is free.

    Packs that are under way when one fails go on to their end; those that have not begun do not begin.
    """
    if len(places) == 1:
        for pack in packs:
            train(pack, places[0])
        return
    x64 = jax.config.read("jax_enable_x64")  # which may hold for this thread alone
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for pack in packs:
        waiting.put(pack)
    failures: list[BaseException] = []

    def train_here(place: Any) -> None:
        with jax.enable_x64(x64), contextlib.suppress(queue.Empty):
            while not failures:
                pack = waiting.get_nowait()
                try:
                    train(pack, place)
                except BaseException as failure:
                    failures.append(failure)

    # Daemons, so that a second Ctrl-C ends the process without them.
    threads = [threading.Thread(target=train_here, args=(place,), daemon=True) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _lowering(sweep: Sweep, pack: int) -> Lowering | None:
    """The lowering that sweep.json holds for a pack, unless it was chosen for other devices."""
    if not sweep.lowerings:
        return None
    platform, convolution, at_once = (sweep.lowerings[pack][k] for k in ("platform", "convolution", "at_once"))
    return Lowering(convolution, at_once) if platform == jax.local_devices()[0].platform else None


def train_pack(
    configs: Sequence[Config],
    dataset: data.Dataset,
    directory: str | os.PathLike,
    progress: "PackProgress",
    stop_signal: Callable[[], int | None] = lambda: None,
    *,
    save_seconds: float = 300.0,
    lowering: Lowering | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> None:
    """Trains one pack to its end from wherever its checkpoints are.

    Raises:
      Interrupted: `stop_signal` gave a signal, and the state is saved.
    """
    config = configs[0]
    targets = recorded_epochs(config.epochs, config.records_per_decade)
    if set(targets) <= set(checkpoint.recorded_epochs(directory)) and checkpoint.is_intact(directory, config.epochs):
        progress.skip_to(config.epochs)
        return
    with checkpoint.PackWriter(directory) as writer:
        family = Family(configs, dataset, devices, lowering=lowering)
        if writer.latest() is None:
            epoch, state = 0, family.initial_state()
        else:
            epoch, tree = writer.restore(family.abstract_tree())
            state = family.load_tree(tree)
        recorded = set(checkpoint.recorded_epochs(directory))
        with_spectra = spectrum_epochs(configs, dataset)
        second_descents = SecondDescents(len(configs))
        for earlier in sorted(e for e in recorded if e <= epoch):
            with contextlib.suppress(CheckpointError):  # a damaged old record is no reason to stop training
                second_descents.update(earlier, checkpoint.load_results(directory, earlier))
        progress.skip_to(epoch)
        progress.note(str(second_descents))
        piece, saved_at = 1, time.monotonic()
        for target in targets:
            if target < epoch or target in recorded:
                continue
            while epoch < target:
                started, stop = time.monotonic(), min(target, epoch + piece)
                state = jax.block_until_ready(family.train(state, epoch, stop))
                seconds_per_epoch = (time.monotonic() - started) / (stop - epoch)
                piece = max(1, round(PIECE_SECONDS / seconds_per_epoch))
                epoch = stop
                progress.advance(epoch)
                if (number := stop_signal()) is not None:
                    writer.roll(epoch, family.save_tree(state))
                    writer.close()
                    raise Interrupted(number)
                if epoch < target and time.monotonic() - saved_at > save_seconds:
                    writer.roll(epoch, family.save_tree(state))
                    saved_at = time.monotonic()
            results = measure(family, state, epoch, epoch in with_spectra)
            second_descents.update(epoch, results)
            progress.note(str(second_descents))
            writer.record(epoch, family.save_tree(state), results)
            saved_at = time.monotonic()
            progress.advance(epoch)


def evaluate_spectra(
    workdir: str | os.PathLike, name: str, settings: dict[str, Any], data_dir: str | None = None
) -> None:
    """Evaluates spectra with other settings on all records of a finished or running sweep, without touching it.

    They go to DIR/spectra/NAME; `results.load_results(DIR, NAME)` reads them. Records that are there already are
    kept, so the same call later adds what a running sweep has recorded meanwhile.

    Args:
      workdir: DIR of a sweep.
      name: of these spectra: letters, digits, '_', '-' and '.'.
      settings: values of `Config`'s spectrum fields; the others stay as in training.
      data_dir: of TFDS.

    Raises:
      InputError: DIR holds no sweep, the settings cannot work, or DIR has spectra of that name with others.
    """
    sweep = read_sweep(workdir)
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"--name={name}: must be letters, digits, '_', '-' and '.'")
    configs = [dataclasses.replace(c, **settings) for c in sweep.configs]
    if not all(c.spectrum_examples for c in configs):
        raise InputError("--spectrum_examples=0: must be at least 1")
    directory = spectrum_directory(workdir, name)
    datasets = load_datasets(configs, data_dir)
    path = directory / "settings.json"
    write_once(path, settings)
    if (there := json.loads(path.read_text())) != settings:
        raise InputError(f"--name={name}: {directory} holds spectra with {there}; give another name")
    for number, pack in enumerate(sweep.packs):
        source, target = pack_directory(workdir, number), pack_directory(directory, number)
        epochs = sorted(set(checkpoint.recorded_epochs(source)) - set(checkpoint.recorded_epochs(target)))
        if not epochs:
            continue
        family = Family([configs[i] for i in pack], datasets[configs[pack[0]].dataset])
        with checkpoint.PackWriter(target) as writer:
            for epoch in tqdm(epochs, desc=f"pack {number + 1}/{len(sweep.packs)}", unit=" records", disable=None):
                state = family.load_tree(checkpoint.load_state(source, epoch, family.abstract_tree()))
                # The state is in the sweep's own record; a record must have one, so it is only named.
                writer.record(epoch, {"epoch": np.full(len(pack), epoch)}, family.spectra(state, epoch))


def measure(family: Family, state: Any, epoch: int, with_spectra: bool) -> dict[str, np.ndarray]:
    """What a record holds beside the state: metrics `(member,)` and, if asked for, spectra."""
    return family.evaluate(state) | (family.spectra(state, epoch) if with_spectra else {})


class SecondDescents:
    """In how many members the high-frequency ratio of the training split indicates a second descent, so far."""

    def __init__(self, num_members: int):
        self._online = [indicator.OnlineStart() for _ in range(num_members)]

    def update(self, epoch: int, results: dict[str, np.ndarray]) -> None:
        """Takes what was recorded at the next epoch, with or without spectra."""
        if "energy" in results:
            energy = xr.DataArray(results["energy"][:, SPLITS.index("train")], dims=("member", "example", "frequency"))
            for online, ratio in zip(self._online, indicator.high_frequency_ratio(energy).values, strict=True):
                online.update(epoch, ratio)

    def __str__(self) -> str:
        noticed = sum(online.start is not None for online in self._online)
        return f", second descent indicated in {noticed}" if noticed else ""


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], int | None]]:
    """Within it, the first SIGINT, SIGTERM or SIGUSR1 is only noted, and given by what it yields; a second
    SIGINT stops at once, as usual."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        print("\nstopping as soon as the epoch is saved; Ctrl-C again stops at once", file=sys.stderr)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Compilations:
    """Counts the programs that XLA compiles within it, and their time."""

    _EVENT = "/jax/core/compile/backend_compile_duration"

    def __enter__(self) -> "Compilations":
        self._seconds: list[float] = []
        jax.monitoring.register_event_duration_secs_listener(self._add)
        return self

    def __exit__(self, *exception: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._add)

    def _add(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event == self._EVENT:
            self._seconds.append(duration_secs)

    def __str__(self) -> str:
        # Most are single operations on arrays; those are compiled in no time.
        long = [s for s in self._seconds if s > 1]
        total = sum(self._seconds)
        return f"compiled {len(self._seconds)} programs in {total:.1f} s, {len(long)} of them took more than 1 s"


class Progress:
    """One line on stderr: a bar in a terminal, else a plain line now and then."""

    def __init__(self, total_work: float, streams: int = 1):
        """
        Args:
          total_work: of all packs together, in any unit.
          streams: packs that are trained at the same time.
        """
        self._bar = tqdm(
            total=total_work,
            bar_format="{percentage:3.0f}% |{bar:20}| {desc} [{elapsed}]",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )
        self._lock = threading.Lock()
        self._logged_at = time.monotonic()
        self._left, self._streams = total_work, streams
        # What the time left is estimated from: without the first pieces of a pack, which compile.
        self._timed_work = self._timed_seconds = 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def update(self, work: float, line: str, timed_seconds: float, must_log: bool) -> None:
        """Adds work that was done and, unless they are 0, the seconds that it took."""
        with self._lock:
            self._left = max(0.0, self._left - work)
            if timed_seconds:
                self._timed_seconds += timed_seconds
                self._timed_work += work
            if self._timed_work:
                left = round(self._left * self._timed_seconds / self._timed_work / self._streams)
                line += f", {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
            self._bar.set_description_str(line, refresh=False)
            self._bar.update(work)
            if self._bar.disable and (must_log or time.monotonic() - self._logged_at > LOG_SECONDS):
                print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
                self._logged_at = time.monotonic()


class PackProgress:
    """The progress of one pack; several may be under way."""

    def __init__(self, progress: Progress, name: str, configs: Sequence[Config], work: float):
        widths = sorted({c.width for c in configs})
        span = f"{widths[0]}-{widths[-1]}" if len(widths) > 1 else f"{widths[0]}"
        self._progress, self._name = progress, f"{name}, {len(configs)} members of width {span}"
        self._work, self._epochs, self._epoch = work, configs[0].epochs, 0
        self._examples_per_epoch = sum(c.steps_per_epoch * c.batch_size for c in configs)
        self._rate, self._note, self._pieces = "", "", 0
        self._advanced_at = time.monotonic()

    def note(self, text: str) -> None:
        """What the line says of the pack beside its progress."""
        self._note = text

    def skip_to(self, epoch: int) -> None:
        """The pack had come to `epoch` before."""
        self._update(epoch, 0.0)
        self._advanced_at = time.monotonic()

    def advance(self, epoch: int) -> None:
        """The pack has come to `epoch`, or has finished recording it."""
        now, trained = time.monotonic(), epoch - self._epoch
        seconds, self._advanced_at = now - self._advanced_at, now
        if trained:
            self._pieces += 1
            self._rate = f", {trained * self._examples_per_epoch / seconds:,.0f} examples/s"
        self._update(epoch, seconds if self._pieces > 1 else 0.0, must_log=epoch == self._epochs and not trained)

    def _update(self, epoch: int, timed_seconds: float, must_log: bool = False) -> None:
        work = (epoch - self._epoch) / self._epochs * self._work
        self._epoch = epoch
        line = f"{self._name}, epoch {epoch}/{self._epochs}{self._rate}{self._note}"
        self._progress.update(work, line, timed_seconds, must_log)
