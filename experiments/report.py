"""Draws a sweep's report from its checkpoints: figures, report.html, and a table on the terminal.

Example: seconds, also while the sweep is running.

    python experiments/report.py --workdir=runs/demo
"""

import pathlib

from absl import flags

import spectral_dd as sdd
from spectral_dd import cli

FLAGS = flags.FlagValues()
own = {"flag_values": FLAGS}
flags.DEFINE_string("workdir", None, "directory of the sweep", required=True, **own)
flags.DEFINE_bool("skip_damaged", False, "leave damaged records out", **own)
flags.DEFINE_string("spectrum", None, "draw the spectra of this name, made by evaluate_spectrum.py", **own)
flags.DEFINE_enum(
    "normalisation", "power", ["power", "amplitude"], "power: log P_k / sum P_k; amplitude: log A_k / A_0", **own
)


def main() -> None:
    # Here, so that what is wrong with a flag is answered before JAX is imported.
    from spectral_dd.analysis import curves, words
    from spectral_dd.report import draw_report

    ds = sdd.load_results(FLAGS.workdir, FLAGS.spectrum, skip_damaged=FLAGS.skip_damaged, averaged=None)
    directory = pathlib.Path(FLAGS.workdir)
    page = draw_report(ds, directory, title=directory.resolve().name, normalisation=FLAGS.normalisation)
    print(words.format_summary(curves.summary(ds)))
    print(f"report: {page}")
    print(f"figures: {directory / 'figures'}")


if __name__ == "__main__":
    cli.main()
