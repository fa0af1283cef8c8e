"""Draws a sweep's report from its checkpoints: figures, report.html, and a table on the terminal.

Example: seconds, also while the sweep is running.

    python experiments/report.py --workdir=runs/demo
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from spectral_dd import indicator, load_results, report, sweep

WORKDIR = flags.DEFINE_string("workdir", None, "directory of the sweep", required=True)
SPECTRUM = flags.DEFINE_string("spectrum", None, "draw the spectra of this name, made by evaluate_spectrum.py")
NORMALISATION = flags.DEFINE_enum(
    "normalisation", "power", ["power", "amplitude"], "power: log P_k / sum P_k; amplitude: log A_k / A_0"
)


def main(argv: Sequence[str]) -> None:
    ds = load_results(WORKDIR.value, SPECTRUM.value)
    directory = pathlib.Path(WORKDIR.value)
    page = report.draw_report(ds, directory, title=directory.resolve().name, normalisation=NORMALISATION.value)
    print(indicator.format_summary(indicator.summary(ds)))
    print(f"report: {page}")
    print(f"figures: {directory / 'figures'}")


if __name__ == "__main__":
    sweep.run_script(main)
