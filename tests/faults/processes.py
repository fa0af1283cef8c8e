"""Scripts in processes of their own, which tests stop in every way."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np

SCRIPTS = pathlib.Path(__file__).parents[2] / "experiments"

# What no stopped process may say.
TRACES = re.compile(r"Traceback|Fatal Python error|Exception ignored|core dumped|Event loop is closed")


def flags_of(axes):
    return [f"--{name}={','.join(map(str, np.atleast_1d(axis)))}" for name, axis in axes.items()]


def start(script, *arguments, devices=None):
    environment = dict(os.environ) if devices is None else {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
    return subprocess.Popen(
        [sys.executable, str(SCRIPTS / script), *map(str, arguments)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def wait(process, seconds):
    """Waits so long, or until the process ends."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=max(0.0, seconds))


def wait_for_imports(process):
    """Waits until JAX is being imported, which is after the flags were read."""
    maps = pathlib.Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and "jaxlib" not in maps.read_text():
        time.sleep(0.01)


def wait_for_files(process, workdir, pattern):
    while process.poll() is None and not list(workdir.glob(pattern)):
        time.sleep(0.02)


def wait_for_records(process, workdir, number):
    """Waits until so many records of all packs are there, or under way."""
    while process.poll() is None and sum(1 for _ in workdir.glob("packs/*/records/*")) < number:
        time.sleep(0.01)


def wait_for_a_moment(process, workdir, rng, records):
    """Waits until a random one: while it starts and its programs are loaded or, mostly, while it records. It is no time
    of a clock, so that a machine with other work comes to the same moments."""
    wait_for_imports(process)
    if rng.random() < 0.4:
        wait(process, rng.uniform(0, 6))
    else:
        there = sum(1 for _ in workdir.glob("packs/*/records/*"))
        wait_for_records(process, workdir, rng.randint(there, max(there, records)))
        wait(process, rng.uniform(0, 0.2))


def interrupt(process, delay, number=signal.SIGINT):
    wait(process, delay)
    if process.poll() is None:
        process.send_signal(number)


def end(process):
    """Exit status and stderr."""
    _, errors = process.communicate(timeout=3600)
    return process.returncode, errors
