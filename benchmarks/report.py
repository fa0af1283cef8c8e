"""Writes docs/benchmarks.md: what was measured where, and what each benchmark prints.

Half an hour on two cores, five minutes with --quick. TORCH_PYTHON is the Python of an environment with PyTorch.

    python benchmarks/report.py [--quick] [--seconds=1] [--repeats=3]
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
from absl import app, flags
from contest import CORES, ENOUGH, REPEATS, SECONDS, STEPS_PER_EPOCH, TORCH_PYTHON

from spectral_dd import devices
from spectral_dd.provenance import provenance

OUTPUT = flags.DEFINE_string("output", "docs/benchmarks.md", "file to write")
QUICK = flags.DEFINE_bool("quick", False, "a few rows of training, spectra and the whole job only, once each")

PROGRAMS = ["benchmarks/training.py", "benchmarks/spectrum.py", "benchmarks/job.py"]
QUICK_PROGRAMS = [
    "benchmarks/training.py --width=2,32",
    "benchmarks/spectrum.py --size=8",
    "benchmarks/job.py --jobs=1 --epochs=60",
]
GPU_PROGRAMS = ["benchmarks/training.py --model=resnet18"]

HEADER = """# Benchmarks

Written by `make bench`. The contestants of a row, each a process of its own, work in turn, so that whatever else the
machine does hits all alike: medians of {repeats} measurements, each of about {seconds:g} seconds or, where that takes
longer, of one epoch of {steps} steps of every network, or of one spectrum of every network; who has been measured for
{enough:g} seconds is not measured again. Compiling is left out.
Other load hurts PyTorch most: each of its operations waits for all cores. Left out here, and run by hand: each of our
convolutions (`benchmarks/conv.py`), single operations (`operations.py`), and how a sweep's time grows (`sweep.py`).

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
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"model name\s*: (.*)", text)
    units = sorted({"avx2", "avx512f", "avx512_bf16", "amx_bf16"} & set(text.split()))
    return f"{model.group(1) if model else platform.machine()} ({', '.join(units)})"


def header(minutes: float, load: float) -> str:
    about = provenance()
    printed = subprocess.run(
        [TORCH_PYTHON, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True
    )
    versions = about["versions"] | {"torch": printed.stdout.strip()}
    return HEADER.format(
        repeats=REPEATS.value,
        steps=STEPS_PER_EPOCH,
        seconds=SECONDS.value,
        enough=ENOUGH * SECONDS.value,
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
    if QUICK.value:
        SECONDS.value, REPEATS.value, programs = 0.5, 1, QUICK_PROGRAMS
    else:
        programs = PROGRAMS + (GPU_PROGRAMS if on_gpu else [])
    sections = [printed_by(program) for program in programs]
    pathlib.Path(OUTPUT.value).write_text("\n".join([header((time.monotonic() - start) / 60, load), *sections]))


if __name__ == "__main__":
    app.run(main)
