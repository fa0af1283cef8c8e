"""Which lowering of a pack is fastest and how long its steps take: measured before a long sweep, remembered on disk.

A sweep that is too short to pay for it uses the usual lowering of its platform and the cost model of `packing.py`.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import time
from collections.abc import Sequence

import jax
import numpy as np

from spectral_dd import packing
from spectral_dd.config import Config, InputError
from spectral_dd.data import Dataset
from spectral_dd.family import Family, Lowering, lowerings

# Of the estimated time of a sweep, at most so much goes into measuring.
SHARE = 0.05
# A first measurement compiles and trains; what it will take before one was made.
EXPECTED_SECONDS = 10.0
# Training of about so long is timed, in epochs of so many steps.
TIMED_SECONDS = 0.5
STEPS = 4


@dataclasses.dataclass(frozen=True)
class Timing:
    step_seconds: float  # of one member
    compile_seconds: float


class Measurements:
    """Timings by shape, device and lowering, kept in a JSON file."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._timings: dict[str, Timing] = {}
        # A file that is missing or damaged only costs new measurements.
        with contextlib.suppress(OSError, ValueError, TypeError):
            self._timings = {key: Timing(*values) for key, values in json.loads(path.read_text()).items()}

    def get(self, key: str) -> Timing | None:
        return self._timings.get(key)

    def put(self, key: str, timing: Timing) -> None:
        self._timings[key] = timing
        content = json.dumps({k: dataclasses.astuple(t) for k, t in self._timings.items()}, indent=1)
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Other processes may write it as well: whole files only, the last one stays.
            temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            temporary.write_text(content)
            temporary.replace(self._path)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What was measured of a group of members that agree on their static fields."""

    lowerings: dict[int, Lowering]  # the fastest, by width
    seconds: dict[int, float]  # of a step of a member with it, by width


def tune(
    configs: Sequence[Config],
    plan: packing.Plan,
    datasets: dict[str, Dataset],
    measurements: Measurements,
) -> dict[str, Choice]:
    """Measures the lowerings at the widest member of each pack, the costliest pack first, as long as it pays.

    Args:
      configs: members of the sweep.
      plan: made without measurements; says how long the sweep will take.
      datasets: that the members name.
      measurements: what is known already, and where new ones go.

    Returns:
      What is known now, by `group_of`; groups of which nothing could be measured are left out.
    """
    num_devices = jax.local_device_count()
    budget, spent, expected = SHARE * plan.seconds(num_devices), 0.0, EXPECTED_SECONDS
    found: dict[str, Choice] = {}
    for _, pack in sorted(zip(plan.costs, plan.packs, strict=True), key=lambda item: -item[0]):
        widest = max((configs[i] for i in pack), key=lambda c: c.width)
        members = len(pack) if plan.apart else -(-len(pack) // num_devices)
        timings: dict[Lowering, Timing] = {}
        for lowering in lowerings(jax.local_devices()[0].platform):
            # Members that are computed one after another take their time each, however many there are.
            at_once = 1 if lowering.at_once == 1 else members
            key = _key(widest, datasets[widest.dataset], lowering, at_once)
            timing = measurements.get(key)
            if timing is None and spent + expected <= budget:
                started = time.monotonic()
                with contextlib.suppress(InputError):  # does not fit into memory
                    timing = measure(widest, datasets[widest.dataset], lowering, at_once)
                    measurements.put(key, timing)
                expected = time.monotonic() - started
                spent += expected
            if timing is not None:
                timings[lowering] = timing
        if timings:
            best = min(timings, key=lambda lowering: timings[lowering].step_seconds)
            choice = found.setdefault(group_of(widest), Choice({}, {}))
            choice.lowerings[widest.width] = best
            choice.seconds[widest.width] = timings[best].step_seconds
    return found


def measure(config: Config, dataset: Dataset, lowering: Lowering, members: int) -> Timing:
    """Trains so many members on each device for a moment.

    Raises:
      InputError: not even one member fits into memory.
    """
    steps = max(1, min(STEPS, len(dataset.train_labels) // config.batch_size))
    config = dataclasses.replace(config, train_size=steps * config.batch_size, label_noise=0.0, spectrum_examples=0)
    copies = [dataclasses.replace(config, seed=i) for i in range(members * jax.local_device_count())]
    family = Family(copies, dataset, lowering=lowering)
    state = family.initial_state()

    def seconds(epochs: int) -> float:
        nonlocal state
        started = time.monotonic()
        state = jax.block_until_ready(family.train(state, 0, epochs))
        return time.monotonic() - started

    first, second = seconds(1), seconds(1)
    epochs = max(1, round(TIMED_SECONDS / second))
    per_epoch = min(second, seconds(epochs) / epochs)
    return Timing(per_epoch / (steps * members), first - second)


def group_of(config: Config) -> str:
    """Names the static fields: members of one group share measurements."""
    return json.dumps(config.static(), sort_keys=True)


def _key(config: Config, dataset: Dataset, lowering: Lowering, members: int) -> str:
    device = jax.local_devices()[0]
    shapes = (config.model, *dataset.train_images.shape[1:], config.batch_size, config.dtype, config.optimizer)
    augmentation = (config.shift, config.flip)
    where = (device.device_kind, os.uname().nodename, jax.local_device_count(), jax.__version__)
    return json.dumps([*where, *shapes, *augmentation, config.width, members, *dataclasses.astuple(lowering)])


def lowering_for(choices: dict[str, Choice], config: Config) -> Lowering:
    """The fastest lowering at the nearest width that was measured, else the usual one."""
    choice = choices.get(group_of(config))
    if choice is None:
        return lowerings(jax.local_devices()[0].platform)[0]
    return choice.lowerings[min(choice.lowerings, key=lambda width: abs(math.log(width / config.width)))]


class MeasuredWork:
    """`packing.Work.seconds`, corrected by what was measured: their ratio, interpolated over the logarithm of width."""

    def __init__(self, work: packing.Work, choices: dict[str, Choice]):
        self._work, self._choices = work, choices

    def seconds(self, config: Config, width: int) -> float:
        estimate = self._work.seconds(config, width)
        choice = self._choices.get(group_of(config))
        if choice is None:
            return estimate
        widths = sorted(choice.seconds)
        steps = config.epochs * config.steps_per_epoch
        ratios = [choice.seconds[w] * steps / self._work.seconds(config, w) for w in widths]
        return estimate * float(np.exp(np.interp(math.log(width), np.log(widths), np.log(ratios))))
