"""Training throughput of this project against what one would use instead, side by side.

Starts the contestants of `contestants.py` as processes and lets them train in turn, so that whatever else the machine
does hits all alike; reports medians. Needs PyTorch (`pip install torch==2.13.0`). About half an hour on two cores.

    python benchmarks/training.py [--size=8,32] [--width=2,4,8,16,32,mixed]
"""

import json
import pathlib
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence

from absl import app, flags
from contestants import BATCH, CONTESTANTS, STEPS_PER_EPOCH, Setting

from spectral_dd.sweep import PRESETS

SIZE = flags.DEFINE_list("size", ["8", "32"], "heights and widths of the images")
WIDTH = flags.DEFINE_list("width", ["2", "4", "8", "16", "32", "mixed"], "widths; mixed: one network each of 1 to 32")
MEMBERS = flags.DEFINE_integer("members", 8, "networks of a width")
SECONDS = flags.DEFINE_float("seconds", 2.0, "time of one measurement, roughly")
REPEATS = flags.DEFINE_integer("repeats", 5, "measurements of each, in turn")

MIXED = list(PRESETS["digits"]["width"])


class Running:
    """A contestant in its own process, ready to train."""

    def __init__(self, name: str, setting: Setting):
        program = pathlib.Path(__file__).parent / "contestants.py"
        command = [sys.executable, str(program), name, json.dumps(setting.widths), str(setting.size)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{name} with widths {setting.widths} at {setting.size} could not start")
        # Enough steps for one measurement, in whole epochs.
        seconds = self.seconds(STEPS_PER_EPOCH)
        self.steps = STEPS_PER_EPOCH * max(1, round(SECONDS.value / seconds))

    def seconds(self, steps: int) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(steps, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def rate(self, networks: int) -> float:
        """Examples a second, over all networks."""
        return networks * self.steps * BATCH / self.seconds(self.steps)

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare(setting: Setting) -> dict[str, float]:
    """Median rates of the contestants."""
    names = [n for n in CONTESTANTS if n != "torch.func.vmap" or len(set(setting.widths)) == 1]
    running = {name: Running(name, setting) for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(REPEATS.value):
        for name, contestant in running.items():
            rates[name].append(contestant.rate(len(setting.widths)))
    for contestant in running.values():
        contestant.stop()
    return {name: statistics.median(values) for name, values in rates.items()}


def main(argv: Sequence[str]) -> None:
    print(f"{platform.machine()}, {MEMBERS.value} networks, examples a second over all networks\n")
    print("| size | width | " + " | ".join(CONTESTANTS) + " | against the best other |")
    print("|---" * (len(CONTESTANTS) + 3) + "|")
    ratios = []
    for size in map(int, SIZE.value):
        for width in WIDTH.value:
            rates = compare(Setting(MIXED if width == "mixed" else [int(width)] * MEMBERS.value, size))
            ratios.append(rates["spectral_dd"] / max(r for name, r in rates.items() if name != "spectral_dd"))
            cells = [f"{rates[name]:,.0f}" if name in rates else "-" for name in CONTESTANTS]
            print(f"| {size}x{size} | {width} | {' | '.join(cells)} | {ratios[-1]:.2f} |", flush=True)
    print(f"\ngeometric mean of the last column: {statistics.geometric_mean(ratios):.2f}")


if __name__ == "__main__":
    app.run(main)
