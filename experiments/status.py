"""Says how far a sweep is, from its files alone: on any host, also while it is being trained elsewhere.

python experiments/status.py --workdir=runs/demo
python experiments/status.py --runs=runs          # a line for each sweep below a folder
"""

from absl import flags

import spectral_dd as sdd
from spectral_dd import cli, monitor
from spectral_dd.errors import InputError

FLAGS = flags.FlagValues()
own = {"flag_values": FLAGS}
flags.DEFINE_string("workdir", None, "directory of a sweep", **own)
flags.DEFINE_string("runs", None, "folder with the directories of sweeps", **own)


def main() -> None:
    if (FLAGS.workdir is None) == (FLAGS.runs is None):
        raise InputError("give --workdir=DIR of a sweep, or --runs=FOLDER with several")
    if FLAGS.workdir is not None:
        print(sdd.status(FLAGS.workdir))
        return
    for workdir, found in monitor.runs(FLAGS.runs).items():
        if isinstance(found, InputError):
            print(f"{workdir}:", f"    {found}", sep="\n")
        else:
            print(f"{workdir}: {found.line()}", *[f"    {problem}" for problem in found.problems], sep="\n")


if __name__ == "__main__":
    cli.main()
