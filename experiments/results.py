"""Runs again what docs/results.md reports, and prints its tables; also the figures that README and that page show.

About an hour on two cores. Parts that are finished are not trained again.

    python experiments/results.py --runs=runs            # all parts
    python experiments/results.py --runs=runs --part=demo,mnist1d
"""

import pathlib
import shutil
import time

from absl import flags

from spectral_dd import cli
from spectral_dd.errors import InputError

HERE = pathlib.Path(__file__).parent

# Part -> what it takes on two cores, and its commands; {dir} is its directory.
PARTS = {
    "demo": (
        "6 minutes",
        ["train_sweep.py --workdir={dir} --preset=digits", "report.py --workdir={dir}"],
    ),
    "mnist1d": (
        "1 minute",
        [
            "train_sweep.py --workdir={dir} --preset=mnist1d_mlp --spectrum_examples=0",
            "report.py --workdir={dir}",
        ],
    ),
    "seeds": (
        "45 minutes",
        [
            "train_sweep.py --workdir={dir} --width=8,16,23,32 --seed=0,1,2,3,4,5,6,7,8,9 --label_noise=0,0.15",
            "report.py --workdir={dir}",
            "indicate.py --workdir={dir}",
        ],
    ),
}
# Figures of a part that the documentation shows.
FIGURES = {
    "demo": {"error_over_epochs.png": "demo-epochs.png"},
    "mnist1d": {"error_against_width.png": "mnist1d-widths.png"},
}

FLAGS = flags.FlagValues()
own = {"flag_values": FLAGS}
flags.DEFINE_string("runs", "runs", "directory that the sweeps are below", **own)
flags.DEFINE_list("part", list(PARTS), f"which of {', '.join(PARTS)}", **own)


def main() -> int:
    for part in FLAGS.part:
        if part not in PARTS:
            raise InputError(f"--part={part}: must be among {', '.join(PARTS)}")
    for part in FLAGS.part:
        minutes, commands = PARTS[part]
        directory, started = pathlib.Path(FLAGS.runs) / part, time.monotonic()
        print(f"== {part}: about {minutes} on two cores", flush=True)
        for command in commands:
            command = command.format(dir=directory)
            print(f"python experiments/{command}", flush=True)
            script, *arguments = command.split()
            status = cli.run_script([str(HERE / script), *arguments])
            if status:
                return status
        for source, target in FIGURES.get(part, {}).items():
            shutil.copy(directory / "figures" / source, HERE.parent / "docs" / target)
        print(f"== {part}: {(time.monotonic() - started) / 60:.1f} minutes, trained before or now", flush=True)
    return 0


if __name__ == "__main__":
    cli.main()
