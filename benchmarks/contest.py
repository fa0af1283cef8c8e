"""Contestants side by side: what each of them works on, and how they are started, timed and compared.

A contestant is a class that is made from a `Setting` and options, and whose `work(times)` does some work so many times.
Each runs in a process of its own, and they work in turn, so that whatever else the machine does hits all alike.
"""

import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
from absl import flags

SECONDS = flags.DEFINE_float("seconds", 1.0, "time of one measurement, roughly")
REPEATS = flags.DEFINE_integer("repeats", 3, "measurements of each, in turn")

# Who has been measured for so many times SECONDS is not measured again: long work needs no repetition.
ENOUGH = 3

CORES = len(os.sched_getaffinity(0))

# PyTorch may have an environment of its own: its wheels for the CPU alone come later, or not at all, for a new Python.
TORCH_PYTHON = os.environ.get("TORCH_PYTHON", sys.executable)

# Training: what one piece of work is, for each network.
BATCH = 128
# Few, to measure quickly, but not so few that the first one counts too much, for which a call of this project gets its
# memory from the system: that is a fifth of two steps at 32x32, and next to nothing of an epoch of a real data set.
STEPS_PER_EPOCH = 4
# How long the training is that packs are planned for, which decides between padding and more programs to compile: as
# long as that of the five-layer networks of Nakkiran et al. (arXiv 1912.02292).
PLANNED_STEPS = 500_000

# Products of matrices: rows and columns of each.
SIDE = 2048

# Spectra: what one piece of work is, for each network.
EXAMPLES = 256
POINTS = 32
HALF_WIDTH = 0.5

# Several processes share an accelerator, of which the first JAX would otherwise take three quarters.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


class Setting(NamedTuple):
    """Networks of these widths, one each, on images of this size."""

    model: str  # cnn5, resnet18 or mlp
    widths: list[int]
    size: int

    @property
    def channels(self) -> int:
        return 1 if self.size == 8 else 3

    @property
    def shift(self) -> int:
        return 0 if self.model == "mlp" else 1 if self.size == 8 else 4

    @property
    def flip(self) -> bool:
        return self.size != 8

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        shape = (BATCH * STEPS_PER_EPOCH, self.size, self.size, self.channels)
        return rng.integers(0, 256, shape, np.uint8), rng.integers(0, 10, shape[0])


def serve(*contestants: type) -> None:
    """The program of a contestant: answers each line of its input with the seconds that so much work took."""
    setting, name, *options = sys.argv[1:]
    contestant = {c.__name__: c for c in contestants}[name](Setting(**json.loads(setting)), *options)
    contestant.work(1)
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        contestant.work(int(line))
        print(time.perf_counter() - start, flush=True)


class Running:
    """A contestant in its own process."""

    def __init__(self, program: str, setting: Setting):
        """
        Args:
          program: file beside this one, class in it and its options.
          setting: what the class is made from.
        """
        file, *contestant = program.split()
        python = TORCH_PYTHON if file.startswith("torch") else sys.executable
        command = [python, str(pathlib.Path(__file__).with_name(file)), json.dumps(setting._asdict()), *contestant]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._times = 0  # that it works in one measurement
        self.measured = 0.0  # seconds

    def wait_until_ready(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{shlex.join(map(str, self._process.args))} could not start")

    def seconds(self, times: int) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(times, file=self._process.stdin, flush=True)
        seconds = float(self._process.stdout.readline())
        self.measured += seconds
        return seconds

    def rate(self) -> float:
        """Pieces of work a second."""
        if not self._times:
            self._times = max(1, round(SECONDS.value / self.seconds(1)))
            if self._times == 1:
                return 1 / self.measured
            self.measured = 0.0
        return self._times / self.seconds(self._times)

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def median_rates(programs: dict[str, str], setting: Setting) -> dict[str, float]:
    """Pieces of work a second, of contestants that work in turn."""
    running = {name: Running(program, setting) for name, program in programs.items()}  # which compile side by side
    for contestant in running.values():
        contestant.wait_until_ready()
    rates: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(REPEATS.value):
        for name, contestant in running.items():
            if contestant.measured < ENOUGH * SECONDS.value:
                rates[name].append(contestant.rate())
    for contestant in running.values():
        contestant.stop()
    return {name: statistics.median(values) for name, values in rates.items()}


def against_best(rates: dict[str, float], ours: str) -> float:
    """The rate of one over that of the best other."""
    return rates[ours] / max(rate for name, rate in rates.items() if name != ours)


def print_section(title: str, text: str) -> None:
    """Opens a section of docs/benchmarks.md with what is measured and by which command."""
    print(f"## {title}\n\n{text.strip()}\n\n    {shlex.join(['python', *sys.argv])}\n")


def print_heading(names: list[str], values: list[str]) -> None:
    """The first two lines of a table that has values, aligned to the right, behind what they are of."""
    print(f"| {' | '.join(names + values)} |")
    print("|---" * len(names) + "|---:" * len(values) + "|", flush=True)


def print_mean(what: str, ratios: list[float]) -> None:
    print(f"Geometric mean of {what}: {statistics.geometric_mean(ratios):.2f}, the least {min(ratios):.2f}.")


def print_row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
