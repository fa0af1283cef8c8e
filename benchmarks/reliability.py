"""What it costs that a sweep can be stopped at any moment: saving beside training, and starting again. On the demo.

    python benchmarks/reliability.py --directory=/tmp/reliability    # a new directory; some minutes

1. Trains the demo twice; the second time, which counts, its programs are compiled already.
2. Saves all of its records and states once more, with their seals, while nothing else is done.
3. Stops the demo halfway, and starts the same command again. The start is over when each pack that was under way has
   trained further, and saved that.
"""

import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time

from absl import app, flags

from spectral_dd import checkpoint, sealed, stored
from spectral_dd.sweeps import read_sweep

SCRIPT = pathlib.Path(__file__).parents[1] / "experiments" / "train_sweep.py"
FLAGS = flags.FLAGS
flags.DEFINE_string("directory", None, "new directory for the sweeps", required=True)
flags.DEFINE_integer("restarts", 3, "how often the demo is stopped", lower_bound=1)


def start(workdir: pathlib.Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), f"--workdir={workdir}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def cpu_seconds(process: subprocess.Popen) -> float:
    """Of a process that runs, so far."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def train(workdir: pathlib.Path) -> tuple[float, float]:
    """Trains a sweep to its end. Returns wall and CPU seconds."""
    before, started = os.times(), time.monotonic()
    status = start(workdir).wait()
    after = os.times()
    if status:
        raise SystemExit(f"training ended with status {status}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - started, used


def save_again(source: pathlib.Path, target: pathlib.Path) -> tuple[float, float]:
    """Saves what a finished sweep has recorded. Returns wall and CPU seconds, of all threads."""
    sweep, wall, cpu = read_sweep(source), 0.0, 0.0
    for number in range(len(sweep.packs)):
        place = sweep.place(source, number)
        last = sealed.nested(stored.read_state(stored.stored_states(place)[0][1], place))
        records = []
        for epoch in stored.recorded_epochs(place):
            step = place.directory / "records" / str(epoch)
            variables = sealed.nested(sealed.read(step, sealed.read_seal(step, place)))["variables"]
            records.append((epoch, last | {"variables": variables}, stored.load_results(place, epoch)))
        if not number:  # What is imported and set up with the first record is a matter of the start.
            with checkpoint.PackWriter(place._replace(directory=target / "first")) as writer:
                writer.record(*records[0])
        before, started = os.times(), time.monotonic()
        with checkpoint.PackWriter(place._replace(directory=target / str(number))) as writer:
            for record in records:
                writer.record(*record)
            writer.finish()
        after = os.times()
        wall += time.monotonic() - started
        cpu += after.user + after.system - before.user - before.system
    return wall, cpu


def states(workdir: pathlib.Path) -> dict[str, int]:
    """The newest epoch that each pack can go on from."""
    found: dict[str, int] = {}
    for path in workdir.glob("packs/*/rolling/*.npz"):
        pack = path.parent.parent.name
        found[pack] = max(found.get(pack, 0), int(path.stem))
    return found


def restart(workdir: pathlib.Path) -> tuple[float, float, float]:
    """Starts a stopped sweep again and stops it. Returns wall and CPU seconds until all packs that were under way have
    trained further, and wall seconds from the signal to the end."""
    before, started = states(workdir), time.monotonic()
    process = start(workdir, "--save_minutes=0")  # so that the first epochs are seen
    unfinished = {pack for pack, epoch in before.items() if epoch < read_sweep(workdir).configs[0].epochs}
    if not unfinished:
        raise SystemExit("the sweep ended before it was stopped")
    while not all(states(workdir).get(pack, 0) > before[pack] for pack in unfinished):
        if process.poll() is not None:
            raise SystemExit("the sweep ended before it was stopped")
        time.sleep(0.02)
    wall, cpu, stopped = time.monotonic() - started, cpu_seconds(process), time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait()
    return wall, cpu, time.monotonic() - stopped


def main(argv: list[str]) -> None:
    directory = pathlib.Path(FLAGS.directory)
    directory.mkdir(parents=True)
    train(directory / "warm")  # compiles
    wall, cpu = train(directory / "demo")
    print(f"training: {wall:.1f} s, {cpu:.1f} s of CPU", flush=True)
    saving_wall, saving_cpu = save_again(directory / "demo", directory / "saved")
    print(
        f"all of its saves alone: {saving_wall:.1f} s, {saving_cpu:.1f} s of CPU, {saving_cpu / cpu:.1%} of training's",
        flush=True,
    )
    size = sum(path.lstat().st_blocks * 512 for path in (directory / "demo").rglob("*"))
    print(f"{size / 1e6:.1f} MB of the disk without the report", flush=True)
    process = start(directory / "stopped")
    while sum(states(directory / "stopped").values()) < 30:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.wait()
    times = [restart(directory / "stopped") for _ in range(FLAGS.restarts)]
    wall, cpu, stopping = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"a start until training goes on: {wall:.1f} s, {cpu:.1f} s of CPU; from a signal to the end {stopping:.1f} s"
    )
    for name in ("warm", "saved"):
        shutil.rmtree(directory / name)


if __name__ == "__main__":
    app.run(main)
