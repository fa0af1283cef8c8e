"""Writes docs/benchmarks.md: what was measured where, and what each benchmark prints.

An hour on two cores.

    python benchmarks/report.py [--seconds=2] [--repeats=3]
"""

import os
import pathlib
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence

import jax
import torch
from absl import app, flags
from side_by_side import CORES, REPEATS, SECONDS, STEPS_PER_EPOCH

from spectral_dd import devices
from spectral_dd.provenance import provenance

OUTPUT = flags.DEFINE_string("output", "docs/benchmarks.md", "file to write")

PROGRAMS = ["benchmarks/training.py", "benchmarks/spectrum.py", "benchmarks/conv.py", "benchmarks/sweep.py"]
CPU_PROGRAMS = ["benchmarks/operations.py"]
GPU_PROGRAMS = ["benchmarks/training.py --model=resnet18"]

HEADER = """# Benchmarks

Written by `make bench`. The contestants of a row, each a process of its own, work in turn, so that whatever else the
machine does hits all alike: medians of {repeats} measurements, each of about {seconds:g} seconds or, where that takes
longer, of one epoch of {steps} steps of every network, or of one spectrum of every network. Compiling is left out.
Other load hurts PyTorch most: each of its operations waits for all cores.

| | |
|---|---|
| processor | {processor}, {cores} cores |
| devices of JAX | {devices} |
| Python | {python} |
| packages | {packages} |
| revision | {revision} |
| date | {date}, {minutes:.0f} minutes |
| load before | {load:.2f} processes (mean of five minutes) |
"""


def processor() -> str:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return model.group(1) if model else platform.machine()


def header(minutes: float, load: float) -> str:
    about = provenance()
    versions = about["versions"] | {"torch": torch.__version__}
    return HEADER.format(
        repeats=REPEATS.value,
        steps=STEPS_PER_EPOCH,
        seconds=SECONDS.value,
        processor=processor(),
        cores=CORES,
        devices=", ".join(about["devices"]),
        python=about["python"],
        packages=", ".join(f"{name} {version}" for name, version in versions.items() if name != "spectral_dd"),
        revision=about["git_revision"],
        date=about["date"],
        minutes=minutes,
        load=load,
    )


def printed_by(program: str) -> str:
    """Runs a benchmark and shows its progress."""
    command = [sys.executable, *program.split(), f"--seconds={SECONDS.value}", f"--repeats={REPEATS.value}"]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        sys.exit(f"{program} failed")
    return "".join(lines)


def main(argv: Sequence[str]) -> None:
    start, load = time.monotonic(), os.getloadavg()[1]
    devices.set_up()
    on_gpu = jax.devices()[0].platform == "gpu"
    sections = [printed_by(program) for program in PROGRAMS + (GPU_PROGRAMS if on_gpu else CPU_PROGRAMS)]
    pathlib.Path(OUTPUT.value).write_text("\n".join([header((time.monotonic() - start) / 60, load), *sections]))


if __name__ == "__main__":
    app.run(main)
