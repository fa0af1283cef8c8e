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
from side_by_side import CORES, REPEATS, SECONDS, print_heading, print_row, print_section
from spectral_dd.sweep import PRESETS

from spectral_dd import data, packing, run
from spectral_dd.config import Config
from spectral_dd.family import Family

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
    fields = {name: values[0] for name, values in PRESETS["digits"].items()}
    configs = [Config(**fields | {"width": width, "seed": seed}) for width in widths for seed in range(seeds)]
    return run.resolve(configs, {"digits": dataset})


def plans(dataset: data.Dataset) -> None:
    print_heading(["widths", "seeds"], ["members", "packs", "apart", "padding"])
    work = run.work_of({"digits": dataset})
    for name, widths in GRIDS.items():
        for seeds in SEEDS:
            configs = members(dataset, widths, seeds)
            plan = packing.plan_for(configs, work.seconds, jax.local_device_count())
            widest = [max(configs[i].width for i in pack) for pack in plan.packs]
            padded = sum(work.seconds(configs[i], w) for w, pack in zip(widest, plan.packs, strict=True) for i in pack)
            alone = sum(work.seconds(config, config.width) for config in configs)
            cells = (len(configs), len(plan.packs), "yes" if plan.apart else "no", f"{1 - alone / padded:.0%}")
            print_row(name, seeds, *cells)


class Training:
    """A family that is compiled and trains."""

    def __init__(self, dataset: data.Dataset, number: int, devices: Sequence[jax.Device]):
        self.family = Family(members(dataset, [WIDTH], number), dataset, devices)
        self.state = self.family.train(self.family.initial_state(), 0, 1)

    def seconds(self, epochs: int) -> float:
        start = time.perf_counter()
        self.state = jax.block_until_ready(self.family.train(self.state, 0, epochs))
        return time.perf_counter() - start


def growth(dataset: data.Dataset, few: Training) -> None:
    devices, number = jax.local_devices(), len(few.family.configs)
    trained = {
        "members": few,
        "four times the members": Training(dataset, 4 * number, devices),
        "one device": Training(dataset, number, devices[:1]),
    }
    epochs = max(1, round(SECONDS.value / trained["members"].seconds(1)))
    times = [{name: t.seconds(epochs) for name, t in trained.items()} for _ in range(REPEATS.value)]
    medians = {name: statistics.median(t[name] for t in times) for name in trained}
    ratios = {name: seconds / medians["members"] for name, seconds in medians.items() if name != "members"}
    print_heading(["", "members", "devices"], ["time, relative"])
    print_row("", number, len(devices), "1.00")
    print_row("four times the members", 4 * number, len(devices), f"{ratios['four times the members']:.2f}")
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
    run.set_up_jax()
    dataset, devices = data.load_dataset("digits"), jax.local_devices()
    (config,) = members(dataset, [WIDTH], 1)
    on_cpu = devices[0].platform == "cpu"
    text = (METHOD + IDLE_METHOD if on_cpu else METHOD).format(
        devices=f"{len(devices)} x {devices[0].device_kind}",
        epochs=config.epochs,
        width=WIDTH,
        examples=config.train_size,
        repeats=REPEATS.value,
    )
    print_section("Sweeps", text)
    plans(dataset)
    print(flush=True)
    trained = Training(dataset, MEMBERS_OF_A_DEVICE * len(devices), devices)
    growth(dataset, trained)
    if on_cpu:
        print(flush=True)
        idle(trained)


if __name__ == "__main__":
    app.run(main)
