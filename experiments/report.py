"""Draws a sweep's report from its checkpoints: figures, report.html, and a table on the terminal.

Example: seconds, also while the sweep is running.

    python experiments/report.py --workdir=runs/demo

Several sweeps are compared in one report, --workdir=runs/a,runs/b; it goes to runs/a+b.
"""

import pathlib

from absl import flags

import spectral_dd as sdd
from spectral_dd import cli, files

FLAGS = flags.FlagValues()
own = {"flag_values": FLAGS}
flags.DEFINE_string("workdir", None, "directory of the sweep, or of several, A,B", required=True, **own)
flags.DEFINE_bool("skip_damaged", False, "leave damaged records out", **own)
flags.DEFINE_string("spectrum", None, "draw the spectra of this name, made by evaluate_spectrum.py", **own)
flags.DEFINE_enum(
    "normalisation", "power", ["power", "amplitude"], "power: log P_k / sum P_k; amplitude: log A_k / A_0", **own
)


def workdirs_of(text: str) -> list[pathlib.Path]:
    """The directories of a list; one whose own name has a comma is one."""
    whole = files.expanded(text)
    return [whole] if whole.exists() or "," not in text else [pathlib.Path(part) for part in text.split(",")]


def main() -> None:
    # Here, so that what is wrong with a flag is answered before JAX is imported.
    from spectral_dd.analysis import curves, words
    from spectral_dd.progress import going_on
    from spectral_dd.report import draw_report

    workdirs = [files.workdir_path(workdir) for workdir in workdirs_of(FLAGS.workdir)]
    found = workdirs if len(workdirs) > 1 else workdirs[0]
    with going_on(lambda: f"reading {FLAGS.workdir}"):
        ds = sdd.load_results(found, FLAGS.spectrum, skip_damaged=FLAGS.skip_damaged, averaged=None)
    directory = workdirs[0]
    if len(workdirs) > 1:  # beside the first: runs/a and runs/b give runs/a+b
        directory = directory.parent / "+".join(workdir.name for workdir in workdirs)
    title = directory.name
    if FLAGS.spectrum is not None:  # a page of its own, beside these spectra
        directory, title = files.spectrum_directory(directory, FLAGS.spectrum), f"{title}: spectra {FLAGS.spectrum}"
    with going_on(lambda: "drawing the report"):
        page = draw_report(ds, directory, title=title, normalisation=FLAGS.normalisation)
    print(words.format_summary(curves.summary(ds)))
    print(f"report: {page}")
    print(f"figures: {directory / 'figures'}")


if __name__ == "__main__":
    cli.main()
