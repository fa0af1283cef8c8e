"""What ten thousand networks cost besides their training: planning, files, status, results, report. docs/scaling.md.

Their records are made up: one is written, and every other is the same files under its own seal. Five minutes on two
cores; 100 GB as files count, 2 GB on the disk. Where Slurm and strace are installed, submitting and what the file
system sees are measured too.

    python benchmarks/scale.py --directory=/tmp/scale
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from absl import app, flags

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
    "planning": "import scale_records; scale_records.plan()",
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
        subprocess.run([sys.executable, str(ROOT / "benchmarks" / "scale_records.py"), str(workdir)], check=True)
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
