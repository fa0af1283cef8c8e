"""A sweep as a whole: how it is planned, how its time grows with members and devices, and how busy it keeps a CPU.

About eight minutes on two cores.

    python benchmarks/sweep.py
"""

import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import jax
from absl import app
from contest import CORES, REPEATS, SECONDS, print_heading, print_row, print_section
from jax_contestants import family_of

import spectral_dd as sdd
from spectral_dd import data, devices
from spectral_dd.config import Config
from spectral_dd.planning import packing
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.prepare import prepare
from spectral_dd.presets import PRESETS
from spectral_dd.programs import lowerings

# Log grids of widths, of one seed and of several.
GRIDS = {
    "digits preset": list(PRESETS["digits"]["width"]),
    "1 to 64": [1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64],
}
SEEDS = [1, 2, 5]

METHOD = """
The digits preset's network and images on {devices}.

**Plans.** Without measurements (`--tune=off`), for a log grid of widths, one member for each width and seed, {epochs}
epochs: packs, which are as many training programs; whether each pack has a device of its own or all of them; and the
share of the steps' estimated time that goes into padding.

**Members and devices.** Time of training with so many members of width {width}, {examples} examples each, over the
time with a quarter of them, and with one device over that with all: medians of {repeats}, in turn.
"""
IDLE_METHOD = """
**Idle cores.** Share of the time of all cores that a process did not use: while it does nothing but train the family of
the first row above, and in the preset's whole sweep (`train_sweep.py --preset=digits --tune=off`: data, spectra,
checkpoints), the first time with whatever the compilation cache has, and again with all programs in it.
"""

WIDTH = 8
MEMBERS_OF_A_DEVICE = 4


def members(dataset: data.Dataset, widths: Sequence[int], seeds: int) -> list[Config]:
    return prepare(sdd.sweep("digits", width=widths, seed=range(seeds)), dataset=dataset).configs


def plans(dataset: data.Dataset) -> None:
    print_heading(["widths", "seeds"], ["members", "packs", "apart", "padding"])
    platform = jax.local_devices()[0].platform
    for name, widths in GRIDS.items():
        for seeds in SEEDS:
            configs = members(dataset, widths, seeds)
            cost = Cost(configs, {"digits": dataset})
            plan = packing.plan(configs, cost, lambda widest: lowerings(platform, widest)[0], jax.local_device_count())
            padded = alone = 0.0
            for pack in plan.packs:
                own = [configs[i] for i in pack.members]
                padded += sum(c.steps * cost.step_seconds(c, packing.widest(own).width) for c in own)
                alone += sum(c.steps * cost.step_seconds(c, c.width) for c in own)
            cells = (len(configs), len(plan.packs), "yes" if plan.apart else "no", f"{1 - alone / padded:.0%}")
            print_row(name, seeds, *cells)


class Training:
    """A family that is compiled and trains."""

    def __init__(self, dataset: data.Dataset, number: int, on: Sequence[jax.Device]):
        self.family = family_of(members(dataset, [WIDTH], number), dataset, on)
        self.state = self.family.train(self.family.initial_state(), 0, 1)

    def seconds(self, epochs: int) -> float:
        start = time.perf_counter()
        self.state = jax.block_until_ready(self.family.train(self.state, 0, epochs))
        return time.perf_counter() - start


def growth(dataset: data.Dataset, few: Training) -> None:
    here, number = jax.local_devices(), len(few.family.configs)
    trained = {
        "members": few,
        "four times the members": Training(dataset, 4 * number, here),
        "one device": Training(dataset, number, here[:1]),
    }
    epochs = max(1, round(SECONDS.value / trained["members"].seconds(1)))
    times = [{name: t.seconds(epochs) for name, t in trained.items()} for _ in range(REPEATS.value)]
    medians = {name: statistics.median(t[name] for t in times) for name in trained}
    ratios = {name: seconds / medians["members"] for name, seconds in medians.items() if name != "members"}
    print_heading(["", "members", "devices"], ["time, relative"])
    print_row("", number, len(here), "1.00")
    print_row("four times the members", 4 * number, len(here), f"{ratios['four times the members']:.2f}")
    print_row("one device", number, 1, f"{ratios['one device']:.2f}")


def idle(trained: Training) -> None:
    epochs = max(1, round(10 * SECONDS.value / trained.seconds(1)))
    used = time.process_time()
    seconds = trained.seconds(epochs)
    rows = {"training alone": (seconds, time.process_time() - used)}
    for name in ("whole sweep", "whole sweep, again"):
        rows[name] = whole_sweep()
    print_heading([""], ["seconds", "idle"])
    for name, (seconds, used) in rows.items():
        print_row(name, f"{seconds:.0f}", f"{1 - used / (seconds * CORES):.0%}")


def whole_sweep() -> tuple[float, float]:
    """Seconds of the preset's sweep, and of its processor time."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    script = pathlib.Path(__file__).parents[1] / "experiments" / "train_sweep.py"
    with tempfile.TemporaryDirectory() as workdir:
        start, before = time.perf_counter(), used()
        command = [sys.executable, str(script), "--preset=digits", "--tune=off", f"--workdir={workdir}/sweep"]
        subprocess.run(command, check=True)
        return time.perf_counter() - start, used() - before


def main(argv: Sequence[str]) -> None:
    devices.set_up()
    dataset, here = data.load_dataset("digits"), jax.local_devices()
    (config,) = members(dataset, [WIDTH], 1)
    on_cpu = here[0].platform == "cpu"
    text = (METHOD + IDLE_METHOD if on_cpu else METHOD).format(
        devices=f"{len(here)} x {here[0].device_kind}",
        epochs=config.epochs,
        width=WIDTH,
        examples=config.train_size,
        repeats=REPEATS.value,
    )
    print_section("Sweeps", text)
    plans(dataset)
    print(flush=True)
    trained = Training(dataset, MEMBERS_OF_A_DEVICE * len(here), here)
    growth(dataset, trained)
    if on_cpu:
        print(flush=True)
        idle(trained)


if __name__ == "__main__":
    app.run(main)
