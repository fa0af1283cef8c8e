"""What ten thousand networks cost besides their training: planning, files, status, results, report. docs/scaling.md.

Their records are made up: one is written, and every other is the same files under its own seal. About ten minutes.

    python benchmarks/scale.py --directory=/tmp/scale
"""

import os
import pathlib
import subprocess
import sys
import time

import numpy as np
from absl import app, flags

import spectral_dd as sdd
from spectral_dd import checkpoint, devices, files, sealed, states, strict_json, summary
from spectral_dd.files import Place
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.epochs import recorded_epochs
from spectral_dd.planning.plan import plan_sweep
from spectral_dd.planning.prepare import prepare
from spectral_dd.records import MEASURED, METRICS, SPLITS
from spectral_dd.sweeps import Sweep, write_sweep

TASKS = 64
AXES = {
    "width": list(range(1, 21)),
    "seed": range(25),
    "label_noise": [0, 0.05, 0.1, 0.2],
    "learning_rate": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2],
    "epochs": 1000,
    "records_per_decade": 21,
    "spectrum_examples": 400,
    "spectrum_points": 16,
}
# What is measured, each in a process of its own.
LOOKS = {
    "status": "print(sdd.status(DIR))",
    "load_results": "ds = sdd.load_results(DIR); print(dict(ds.sizes))",
    "one spectrum": "ds = sdd.load_results(DIR); ds.energy.isel(member=77, epoch=-1).values",
    "averages": "ds = sdd.load_results(DIR, averaged=True)",
    "report.py": "from spectral_dd import cli; cli.run_script(['experiments/report.py', '--workdir=' + DIR])",
    "indicate.py": "from spectral_dd import cli; cli.run_script(['experiments/indicate.py', '--workdir=' + DIR])",
}
FLAGS = flags.FLAGS
flags.DEFINE_string("directory", None, "new directory for the sweep", required=True)
flags.DEFINE_list("look", list(LOOKS), f"which of {', '.join(LOOKS)}")


def results(members: int, epoch: int) -> dict[str, np.ndarray]:
    """As of a record: the error falls, rises and falls, and energies have as many numbers as in a real one."""
    rng, at = np.random.default_rng(0), np.log10(max(epoch, 1))
    error = 0.4 - 0.1 * at + 0.12 * np.exp(-((at - 1.5) ** 2) / 0.1)
    made = {name: np.full(members, error, np.float32) for name in METRICS} | {"finite": np.ones(members)}
    for name, about in MEASURED.items():
        shape = (members, len(SPLITS), AXES["spectrum_examples"], *[9] * ("frequency" in about.dims))
        made[name] = np.broadcast_to(rng.random(shape[1:], np.float32) + 0.1, shape)
    return made


def make_records(workdir: pathlib.Path, sweep: Sweep) -> None:
    epochs = recorded_epochs(sweep.configs[0])
    first: dict[int, tuple[pathlib.Path, dict]] = {}  # of each number of members: a record, and what it is sealed with
    for number, pack in enumerate(sweep.packs):
        members, place = len(pack.members), sweep.place(workdir, number)
        if members not in first:
            first[members] = write_first(place, members, epochs[0])
        source, flat = first[members]
        for epoch in epochs:
            target = place.directory / "records" / str(epoch)
            if target != source:
                link(source, target, place, epoch, flat)
        averaged = {epoch: summary.averaged(results(1, epoch)) for epoch in epochs}
        arrays = {}
        for name in averaged[epochs[0]]:
            stacked = np.stack([averaged[epoch][name] for epoch in epochs])
            arrays |= {name: np.repeat(stacked, members, axis=1), f"{name}.epochs": np.array(epochs)}
        states.write_sealed(place.directory / "summary.npz", place, 0, arrays)
        about = {"state": "done", "error": "", "process": "made up", "time": time.time(), "epoch": 1000}
        about |= {"examples_per_second": 1e5, "diverged": 0, "seconds_left": 0.0, "bytes": 10**9}
        files.write_whole(place.directory / "status.json", strict_json.dump(about))


def write_first(place: Place, members: int, epoch: int) -> tuple[pathlib.Path, dict]:
    kernels = {f"kernel{i}": np.zeros((members, 3, 3, 20, 20), np.float32) for i in range(5)}
    variables = {"variables": {"params": kernels}}
    recorded = results(members, epoch)
    with checkpoint.PackWriter(place) as writer:
        writer.record(epoch, variables, recorded)
    flat = sealed.to_host(variables)
    flat |= sealed.joined({sealed.RESULTS + name: array for name, array in recorded.items()})
    return place.directory / "records" / str(epoch), sealed.make_seal(place, epoch, flat)["arrays"]


def link(source: pathlib.Path, target: pathlib.Path, place: Place, epoch: int, crcs: dict) -> None:
    for path in source.rglob("*"):
        if path.is_file() and path.name != sealed.METADATA:
            other = target / path.relative_to(source)
            other.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, other)
    import json

    metadata = json.loads((source / sealed.METADATA).read_text())
    seal = {"sweep": place.sweep, "pack": place.pack, "epoch": epoch, "arrays": crcs}
    metadata["custom_metadata"]["seal"] = strict_json.seal(seal)
    (target / sealed.METADATA).write_text(json.dumps(metadata))


def look(name: str, workdir: pathlib.Path) -> None:
    code = f"""import pathlib, time, spectral_dd as sdd
DIR, started = {str(workdir)!r}, time.process_time()
{LOOKS[name]}
peak = [line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line][0]
print(f"{{time.process_time() - started:.1f}} s of CPU,", peak)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    print(f"{name}: {out.stdout.strip().splitlines()[-1] if out.returncode == 0 else out.stderr}", flush=True)


def main(argv: list[str]) -> None:
    workdir = pathlib.Path(FLAGS.directory)
    if not workdir.exists():
        devices.set_up()
        started = time.monotonic()
        prepared = prepare(sdd.sweep("digits", **AXES))
        sweep = plan_sweep(prepared, Cost(prepared.configs, prepared.datasets), TASKS)
        print(f"planning: {time.monotonic() - started:.1f} s, {len(sweep.configs)} members, {len(sweep.packs)} packs")
        sweep = write_sweep(workdir, sweep)
        make_records(workdir, sweep)
    paths = [path.stat() for path in workdir.rglob("*") if path.is_file()]
    print(f"{len(paths)} files, {sum(stat.st_size for stat in paths) / 1e9:.1f} GB", flush=True)
    for name in FLAGS.look:
        look(name, workdir)
    page = workdir / "report.html"
    print(f"report.html: {page.stat().st_size / 1e6:.1f} MB" if page.exists() else "no report.html")


if __name__ == "__main__":
    app.run(main)
