"""Computes other spectra from the checkpoints of a finished or running sweep, without touching it.

Example: four times the frequency range, for the demo; some minutes on two cores.

    python experiments/evaluate_spectrum.py --workdir=runs/demo --name=fine --spectrum_points=64

`sdd.load_results("runs/demo", "fine")` reads them, and report.py draws them with --spectrum=fine. The same command
again adds the epochs that were recorded meanwhile. Several half widths, --spectrum_half_width=0.25,0.5,1, are evaluated
one after another, under the names fine-h0.25, fine-h0.5, fine-h1.

Several processes or jobs share the work as those of train_sweep.py do, with --task_index=0 --task_count=4, or by what
a launcher such as Slurm says. Each writes what it evaluates beside the others.
"""

import sys

from absl import flags

import spectral_dd as sdd
from spectral_dd import cli, provenance
from spectral_dd.config import FIELDS
from spectral_dd.errors import InputError

SCHEDULE = ("spectrum_from_epoch", "spectrum_budget")  # all records are evaluated
SETTINGS = ["measure", *(name for name in FIELDS if name.startswith("spectrum_") and name not in SCHEDULE)]

FLAGS = flags.FlagValues()
own = {"flag_values": FLAGS}
flags.DEFINE_string("workdir", None, "directory of the sweep", required=True, **own)
flags.DEFINE_string("name", None, "name of these spectra; they go to WORKDIR/spectra/NAME", required=True, **own)
flags.DEFINE_string("data_dir", None, "where TFDS data sets are prepared", **own)
cli.define_task(FLAGS)
cli.define_fields(FLAGS, SETTINGS, lambda name: "default: as in training")


def main() -> None:
    given = cli.given(FLAGS, SETTINGS)
    half_widths = given.pop("spectrum_half_width", [None])
    for name, values in given.items():
        if len(values) > 1:
            raise InputError(f"--{name}={','.join(map(str, values))}: must be one value; use a name for each")
    settings = {name: values[0] for name, values in given.items()}
    names = [FLAGS.name if len(half_widths) == 1 else f"{FLAGS.name}-h{h:g}" for h in half_widths]
    if len(set(names)) < len(names):
        raise InputError(f"--spectrum_half_width={','.join(map(str, half_widths))}: must be different to six digits")
    for name, h in zip(names, half_widths, strict=True):
        half_width = {} if h is None else {"spectrum_half_width": h}
        sdd.evaluate_spectra(
            FLAGS.workdir,
            name,
            settings | half_width,
            data_dir=FLAGS.data_dir,
            task_index=FLAGS.task_index,
            task_count=FLAGS.task_count,
        )
        print(f"spectra {name}: {provenance.command('report', workdir=FLAGS.workdir, spectrum=name)}", file=sys.stderr)


if __name__ == "__main__":
    cli.main()
