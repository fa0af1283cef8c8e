"""Which lowering of a pack is fastest and how long its steps take: timed before a long sweep, remembered on disk.

A sweep that is too short to pay for it uses the usual lowering of its platform and the cost model of `cost.py`.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from spectral_dd import devices, files
from spectral_dd.config import Config
from spectral_dd.data import Dataset, draw_all
from spectral_dd.errors import InputError
from spectral_dd.family import Family
from spectral_dd.planning import packing
from spectral_dd.programs import lowerings
from spectral_dd.sweeps import Lowering

# Of the estimated time of a sweep, at most so much goes into timing.
SHARE = 0.05
# What the first timing will take, with its compilation, before one was made.
EXPECTED_SECONDS = 10.0
# Training of about so long is timed, in epochs of so many steps.
TIMED_SECONDS = 0.5
STEPS = 4


class Timings:
    """Seconds of a step of one member by shape, device and lowering, kept in a JSON file."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._seconds: dict[str, float] = {}
        # A file that is missing or damaged only costs new timings.
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            self._seconds = {key: float(seconds) for key, seconds in json.loads(path.read_text()).items()}

    @classmethod
    def kept(cls) -> "Timings":
        """Those of this machine's cache."""
        return cls(files.cache_directory() / "step_seconds.json")

    def get(self, key: str) -> float | None:
        return self._seconds.get(key)

    def put(self, key: str, seconds: float) -> None:
        self._seconds[key] = seconds
        with contextlib.suppress(OSError):  # Other processes may write it as well: the last one stays.
            files.write_whole(self._path, json.dumps(self._seconds, indent=1))


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is known of a group of members that agree on their static fields."""

    lowerings: dict[int, Lowering]  # the fastest, by width
    seconds: dict[int, float]  # of a step of a member with it, by width
    members: dict[int, int]  # that were timed on a device, by width


def tune(
    configs: Sequence[Config], plan: packing.Plan, datasets: dict[str, Dataset], timings: Timings
) -> dict[str, Choice]:
    """Times the lowerings at the widest member of each pack, the costliest pack first, as long as it pays.

    Args:
      configs: members of the sweep.
      plan: made without timings; says how long the sweep will take.
      datasets: that the members name.
      timings: what is known already, and where new ones go.

    Returns:
      What is known now, by `group_of`; groups of which nothing could be timed are left out.
    """
    num_devices = jax.local_device_count()
    budget, spent, expected = SHARE * plan.seconds(num_devices), 0.0, EXPECTED_SECONDS
    found: dict[str, Choice] = {}
    for pack in sorted(plan.packs, key=lambda pack: -pack.cost):
        widest = packing.widest([configs[i] for i in pack.members])
        members = len(pack.members) if plan.apart else -(-len(pack.members) // num_devices)
        known: dict[Lowering, float] = {}
        for lowering in lowerings(jax.local_devices()[0].platform, widest):
            # Members that are computed one after another take their time each, however many there are.
            at_once = 1 if lowering.at_once == 1 else members
            of_one = (widest, datasets[widest.dataset], lowering, at_once)
            seconds = timings.get(_key(*of_one))
            if seconds is None and spent + expected <= budget:
                started = time.monotonic()
                with contextlib.suppress(InputError):  # does not fit into memory
                    seconds = step_seconds(*of_one, timings)
                expected = time.monotonic() - started
                spent += expected
            if seconds is not None:
                known[lowering] = seconds
        if known:
            fastest = min(known, key=lambda lowering: known[lowering])
            choice = found.setdefault(group_of(widest), Choice({}, {}, {}))
            choice.lowerings[widest.width] = fastest
            choice.seconds[widest.width] = known[fastest]
            choice.members[widest.width] = 1 if fastest.at_once == 1 else members
    return found


def step_seconds(config: Config, dataset: Dataset, lowering: Lowering, members: int, timings: Timings) -> float:
    """`time_step`, if it is not known yet."""
    key = _key(config, dataset, lowering, members)
    seconds = timings.get(key)
    if seconds is None:
        seconds = time_step(config, dataset, lowering, members)
        timings.put(key, seconds)
    return seconds


def time_step(config: Config, dataset: Dataset, lowering: Lowering, members: int) -> float:
    """Seconds of a step of one member, when so many are trained on each device.

    Raises:
      InputError: not even one member fits into memory.
    """
    steps = max(1, min(STEPS, len(dataset.train_labels) // config.batch_size))
    config = config.replace(train_size=steps * config.batch_size, label_noise=0.0, spectrum_examples=0)
    copies = [config.replace(seed=i) for i in range(members * jax.local_device_count())]
    family = Family(copies, dataset, draw_all(copies, {config.dataset: dataset}), lowering=lowering)
    state = family.initial_state()

    def seconds(epochs: int) -> float:
        nonlocal state
        started = _busy_seconds()
        state = jax.block_until_ready(family.train(state, 0, epochs))
        return _busy_seconds() - started

    seconds(1)  # compiles
    second = seconds(1)
    epochs = max(1, round(TIMED_SECONDS / second))
    return min(second, seconds(epochs) / epochs) / (steps * members)


def _busy_seconds() -> float:
    """A clock. Of a CPU, all of whose devices compute, it leaves out what other processes take of it: timings are kept,
    and a machine is not always as busy as when they were made."""
    if jax.local_devices()[0].platform != "cpu":
        return time.monotonic()
    return time.process_time() / min(jax.local_device_count(), devices.cores())


def group_of(config: Config) -> str:
    """Names the static fields: members of one group share timings."""
    return json.dumps(config.static(), sort_keys=True)


def _key(config: Config, dataset: Dataset, lowering: Lowering, members: int) -> str:
    device = jax.local_devices()[0]
    shapes = (config.model, *dataset.train_images.shape[1:], config.batch_size, config.dtype, config.optimizer)
    augmentation = (config.shift, config.flip)
    where = (device.device_kind, os.uname().nodename, jax.local_device_count(), jax.__version__)
    return json.dumps([*where, *shapes, *augmentation, config.width, members, *dataclasses.astuple(lowering)])


def lowering_for(choices: dict[str, Choice], platform: str, config: Config) -> Lowering:
    """The fastest lowering at the nearest width that was timed, else the usual one."""
    choice = choices.get(group_of(config))
    if choice is None:
        return lowerings(platform, config)[0]
    return choice.lowerings[min(choice.lowerings, key=lambda width: abs(math.log(width / config.width)))]


class TimedCost:
    """`cost.Cost.step_seconds`, corrected by timings: their ratio, interpolated over the logarithm of width."""

    def __init__(self, cost: packing.StepCost, choices: dict[str, Choice]):
        self._cost, self._choices = cost, choices
        self.compile_seconds = cost.compile_seconds

    def step_seconds(self, config: Config, width: int, members: Any = 1) -> Any:
        estimate = self._cost.step_seconds(config, width, members)
        choice = self._choices.get(group_of(config))
        if choice is None:
            return estimate
        widths = sorted(choice.seconds)
        ratios = [choice.seconds[w] / self._cost.step_seconds(config, w, choice.members[w]) for w in widths]
        return estimate * float(np.exp(np.interp(math.log(width), np.log(widths), np.log(ratios))))
