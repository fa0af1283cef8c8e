"""What ten thousand networks cost besides their training: planning, files, status, results, report. docs/scaling.md.

Their records are made up: one is written, and every other is the same files under its own seal. Five minutes on two
cores; 100 GB as files count, 2 GB on the disk. Where Slurm and strace are installed, submitting and what the file
system sees are measured too.

    python benchmarks/scale.py --directory=/tmp/scale
"""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

from spectral_dd import checkpoint, files, sealed, strict_json, summary
from spectral_dd.files import Place
from spectral_dd.members import expand
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.epochs import recorded_epochs
from spectral_dd.planning.plan import plan_sweep
from spectral_dd.planning.prepare import prepare
from spectral_dd.records import MEASURED, METRICS, SPLITS
from spectral_dd.sweeps import Sweep, write_sweep

ROOT = pathlib.Path(__file__).resolve().parent.parent
TASKS = 64
AXES = {
    "width": list(range(1, 21)),
    "seed": list(range(25)),
    "label_noise": [0, 0.05, 0.1, 0.2],
    "learning_rate": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2],
    "epochs": [1000],
    "records_per_decade": [21],
    "spectrum_examples": [400],
    "spectrum_points": [16],
}
# A training whose calls are counted.
TINY = ["--model=mlp", "--width=1", "--epochs=100", "--spectrum_examples=4", "--spectrum_measures=0", "--tune=off"]
# What is measured, each in a process of its own; Python is started and all is imported in it.
LOAD = "import spectral_dd as sdd; ds = sdd.load_results(DIR); "
LOOKS = {
    "planning": "import scale; scale.plan()",
    "submit.py": "scripts/submit.py",
    "status.py": "scripts/status.py",
    "load_results": LOAD + "dict(ds.sizes)",
    "load_results, and one spectrum": LOAD + "ds.energy.isel(member=77, epoch=-1).values",
    "load_results(averaged=True)": "import spectral_dd as sdd; sdd.load_results(DIR, averaged=True)",
    "indicate.py": "scripts/indicate.py",
    "report.py": "scripts/report.py",
}
FLAGS = flags.FLAGS
flags.DEFINE_string("directory", None, "new directory for the sweep, or one that this script has made", required=True)
flags.DEFINE_list("look", ["all"], "which of: " + "; ".join([*LOOKS, "calls"]))


def plan() -> Sweep:
    prepared = prepare(expand(AXES))
    return plan_sweep(prepared, Cost(prepared.configs, prepared.datasets), TASKS)


def results(members: int, epoch: int) -> dict[str, np.ndarray]:
    """As of a record: errors fall, rise and fall, each member's at its own epoch; spectra as large as real ones."""
    rng, at = np.random.default_rng(0), np.log10(max(epoch, 1))
    top = 1.5 + 0.1 * np.sin(np.arange(members))
    bump = np.exp(-((at - top) ** 2) / 0.1)
    made = {name: (0.4 - 0.1 * at + 0.12 * bump).astype(np.float32) for name in METRICS} | {"finite": np.ones(members)}
    for name, about in MEASURED.items():
        shape = (len(SPLITS), AXES["spectrum_examples"][0], *[9] * ("frequency" in about.dims))
        made[name] = np.multiply.outer(1 + bump, rng.random(shape, np.float32) + 0.1).astype(np.float32)
    made["relabelled"] = np.broadcast_to((rng.random(shape) < 0.1).astype(np.float32), made["margin"].shape)
    return made


def make_records(workdir: pathlib.Path, sweep: Sweep) -> None:
    epochs = recorded_epochs(sweep.configs[0])
    first: dict[int, tuple[pathlib.Path, dict]] = {}  # of each number of members: a record, and what it is sealed with
    # Of some members, and again of others.
    averaged = {epoch: summary.averaged(found := results(40, epoch), found["margin"]) for epoch in epochs}

    def few(of_some: dict[str, np.ndarray], members: int) -> dict[str, np.ndarray]:
        return {name: values[np.arange(members) % 40] for name, values in of_some.items()}

    for number, pack in enumerate(sweep.packs):
        members, place = len(pack.members), sweep.place(workdir, number)
        if members not in first:
            first[members] = write_first(place, members, epochs[0])
        source, flat = first[members]
        for epoch in epochs:
            target = place.directory / "records" / str(epoch)
            if target != source:
                link(source, target, place, epoch, flat)
        averages = summary.Summary(place)
        averages.found = {epoch: few(averaged[epoch], members) for epoch in epochs}
        averages.write()
        about = {"state": "done", "error": "", "process": "made up", "time": time.time(), "epoch": epochs[-1]}
        about |= {"examples_per_second": 1e5, "diverged": 0, "seconds_left": 0.0, "bytes": 10**9}
        files.write_whole(place.directory / "status.json", strict_json.dump(about))


def write_first(place: Place, members: int, epoch: int) -> tuple[pathlib.Path, dict]:
    kernels = {f"kernel{i}": np.zeros((members, 3, 3, 20, 20), np.float32) for i in range(5)}
    variables = {"variables": {"params": kernels}}
    recorded = {name: np.repeat(values, members, axis=0) for name, values in results(1, epoch).items()}
    with checkpoint.PackWriter(place) as writer:
        writer.record(epoch, variables, recorded)
    flat = sealed.to_host(variables) | {sealed.RESULTS + name: array for name, array in recorded.items()}
    return place.directory / "records" / str(epoch), sealed.make_seal(place, epoch, flat)["arrays"]


def link(source: pathlib.Path, target: pathlib.Path, place: Place, epoch: int, crcs: dict) -> None:
    for path in source.rglob("*"):
        if path.is_file() and path.name != sealed.METADATA:
            other = target / path.relative_to(source)
            other.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, other)
    metadata = json.loads((source / sealed.METADATA).read_text())
    seal = {"sweep": place.sweep, "pack": place.pack, "epoch": epoch, "arrays": crcs}
    metadata["custom_metadata"]["seal"] = strict_json.seal(seal)
    (target / sealed.METADATA).write_text(json.dumps(metadata))


def script(name: str, workdir: pathlib.Path) -> list[str]:
    options = [f"--{axis}={','.join(map(str, values))}" for axis, values in AXES.items()]
    options = [*options, f"--tasks={TASKS}", "--sbatch=--hold"] if name == "submit.py" else []
    return [sys.executable, str(ROOT / "experiments" / name), f"--workdir={workdir}", *options]


def look(name: str, workdir: pathlib.Path) -> None:
    code = LOOKS[name]
    command = [sys.executable, "-c", f"DIR = {str(workdir)!r}; {code}"]
    if code.startswith("scripts/"):
        command = script(code.removeprefix("scripts/"), workdir)
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=os.environ | {"PYTHONPATH": path})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        said.seek(0)
        last = "" if status == 0 else f": failed: {said.read()[-1000:]}"
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    print(f"{name}: {seconds:.1f} s, {cpu:.1f} s of CPU, {peak:.0f} MiB at most{last}", flush=True)


@contextlib.contextmanager
def slurm():
    """A Slurm of this benchmark's own; none where it cannot be."""
    sys.path.append(str(ROOT / "tests"))
    import slurm

    if missing := slurm.missing():
        print(f"no submitting: {missing}")
        yield False
        return
    with tempfile.TemporaryDirectory() as here, slurm.Slurm(here) as cluster:
        yield True
        cluster.ask("scancel", "--user=root")


def calls(command: list[str], directory: pathlib.Path) -> int:
    """System calls of a command, all its processes and threads, that name something in a directory."""
    with tempfile.NamedTemporaryFile("r") as log:
        strace = ["strace", "-f", "-qq", "-y", "--seccomp-bpf", "-e", "trace=%file,%desc", "-o", log.name]
        subprocess.run([*strace, *command], check=True, capture_output=True)
        return sum(str(directory) in line and "unfinished" not in line for line in log)


def count_calls(workdir: pathlib.Path) -> None:
    if shutil.which("strace") is None:
        print("no calls: strace is not installed")
        return
    print(f"status.py: {calls(script('status.py', workdir), workdir)} calls", flush=True)
    with tempfile.TemporaryDirectory() as below:
        found = []
        for records_per_decade in (4, 16):
            run = pathlib.Path(below) / str(records_per_decade)
            count = calls([*script("train_sweep.py", run), *TINY, f"--records_per_decade={records_per_decade}"], run)
            found.append((len([*run.glob("packs/000/records/*")]), count))
    (few, fewer), (many, more) = found
    each = (more - fewer) / (many - few)
    print(f"a task: {fewer - few * each:.0f} calls at its start and end, {each:.0f} a record", flush=True)


def main(argv: list[str]) -> None:
    workdir, wanted = pathlib.Path(FLAGS.directory).absolute(), FLAGS.look
    if not workdir.exists():
        make_records(workdir, write_sweep(workdir, plan()))
    paths = [path.stat() for path in workdir.rglob("*") if path.is_file()]
    print(f"{len(paths)} files, {sum(stat.st_size for stat in paths) / 1e9:.1f} GB", flush=True)
    for name in (name for name in LOOKS if name in wanted or "all" in wanted):
        with slurm() if name == "submit.py" else contextlib.nullcontext(True) as possible:
            if possible:
                look(name, workdir)
    page = workdir / "report.html"
    print(f"report.html: {page.stat().st_size / 1e6:.1f} MB" if page.exists() else "no report.html")
    if {"calls", "all"} & {*wanted}:
        count_calls(workdir)


if __name__ == "__main__":
    app.run(main)
