"""The whole digits preset, from the command to the figure, against a PyTorch script that does the same.

Needs PyTorch (`make bench` installs it). About a quarter of an hour on two cores.

    python benchmarks/job.py [--epochs=400]
"""

import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence

from absl import app, flags
from arithmetic import PASSES_OF_A_STEP, pass_flops, print_product_rates
from contest import CORES, TORCH_PYTHON, Setting, print_heading, print_row, print_section

import spectral_dd as sdd
from spectral_dd import devices
from spectral_dd.planning.epochs import recorded_epochs, spectrum_epochs
from spectral_dd.planning.prepare import prepare

EPOCHS = flags.DEFINE_integer("epochs", 400, "of each network; the preset's are 400")
COMPILE = flags.DEFINE_bool("torch_compile", False, "PyTorch with torch.compile as well")
JOBS = flags.DEFINE_integer("jobs", 1, "times that each job is done, in turn")

METHOD = """
The preset `digits` ({widths} widths of `cnn5`, {epochs} epochs, test and training error at {recorded} of them, spectra
of three splits at {spectra}), each a fresh process: seconds from the command to the end of the last figure, medians of
{jobs}, in turn; and until the first errors are on disk.

- PyTorch: `benchmarks/torch_digits.py` in {cores} single-threaded processes that take the widest network left, channels
  last, its fastest way: with torch.compile (`--torch_compile`) it takes a fifth longer, to compile ten networks. It
  writes no checkpoints, cannot go on after an interruption, and measures nothing beside the errors and the paper's
  spectrum.
- spectral_dd: `train_sweep.py --preset=digits` and `report.py`. Cold: with an empty compilation cache. Warm: again,
  with the programs of the time before in it.

The training alone is {tflop:.1f} TFLOP at the networks' own widths, with convolutions as sums of products.
"""

OTHERS = {
    "PyTorch, a process a core, channels last": (CORES, "channels_last"),
    "PyTorch, a process a core, torch.compile": (CORES, "compile"),
}
HERE = pathlib.Path(__file__).parent


def job() -> dict:
    """What both sides do."""
    prepared = prepare(sdd.sweep("digits", epochs=EPOCHS.value))
    configs, asked = prepared.configs, prepared.configs[0].spectrum
    return {
        "epochs": EPOCHS.value,
        "widths": [config.width for config in configs],
        "recorded": recorded_epochs(configs[0]),
        "spectra": spectrum_epochs(configs, prepared.dataset(0), prepared.draws),
        "examples": asked.examples,
        "points": asked.points,
        "half_width": asked.half_width,
    }


def training_flops() -> float:
    """Of all networks and epochs, at their own widths."""
    configs = sdd.sweep("digits", epochs=EPOCHS.value)
    examples = configs[0].steps * configs[0].batch_size
    return PASSES_OF_A_STEP * examples * pass_flops(Setting("cnn5", [config.width for config in configs], 8))


def with_torch(processes: int, options: str, asked: dict, folder: pathlib.Path) -> float:
    command = [TORCH_PYTHON, str(HERE / "torch_digits.py"), str(folder / "figure.png"), f"--processes={processes}"]
    start = time.perf_counter()
    subprocess.run([*command, f"--options={options}", f"--job={json.dumps(asked)}"], check=True, stdout=sys.stderr)
    return time.perf_counter() - start


def with_ours(cache: pathlib.Path, folder: pathlib.Path) -> tuple[float, float]:
    """Seconds of the whole job, and until the first record is complete."""
    run, environment = folder / "run", os.environ | {"XDG_CACHE_HOME": str(cache)}
    scripts = HERE.parent / "experiments"
    start, first, over = time.perf_counter(), [], threading.Event()

    def watch() -> None:
        while not first and not over.wait(0.1):
            # A record is complete when it has its final name.
            if any(re.fullmatch(r"\d+", path.name) for path in run.glob("**/records/*")):
                first.append(time.perf_counter() - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for script, more in (("train_sweep.py", ["--preset=digits", f"--epochs={EPOCHS.value}"]), ("report.py", [])):
        command = [sys.executable, str(scripts / script), f"--workdir={run}", *more]
        subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
    seconds = time.perf_counter() - start
    over.set()
    watcher.join()
    return seconds, first[0]


def main(argv: Sequence[str]) -> None:
    devices.set_up()
    asked = job()
    counts = {name: len(asked[name]) for name in ("widths", "recorded", "spectra")}
    flops = training_flops()
    about = counts | {"epochs": EPOCHS.value, "jobs": JOBS.value, "cores": CORES, "tflop": flops / 1e12}
    print_section("The whole job", METHOD.format(**about))
    products = print_product_rates("float32")
    seconds: dict[str, list[float]] = {}
    firsts: dict[str, list[float]] = {"spectral_dd, cold": [], "spectral_dd, warm": []}
    others = {name: way for name, way in OTHERS.items() if COMPILE.value or "compile" not in name}
    for _ in range(JOBS.value):
        for name, (processes, options) in others.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds.setdefault(name, []).append(with_torch(processes, options, asked, pathlib.Path(folder)))
        with tempfile.TemporaryDirectory() as cache:
            for name, first in firsts.items():
                with tempfile.TemporaryDirectory() as folder:
                    whole, until = with_ours(pathlib.Path(cache), pathlib.Path(folder))
                seconds.setdefault(name, []).append(whole)
                first.append(until)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = min(medians[name] for name in others)
    print_heading([""], ["seconds", "first errors on disk", "times as fast as the best PyTorch"])
    for name, value in medians.items():
        first = f"{statistics.median(firsts[name]):.0f}" if name in firsts else "-"
        print_row(name, f"{value:.0f}", first, f"{best / value:.2f}")
    print_row("the training alone, at the rate of products", f"{flops / products:.0f}", "-", "-")


if __name__ == "__main__":
    app.run(main)
