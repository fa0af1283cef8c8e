"""Evaluates other spectrum settings on the checkpoints of a finished or running sweep, without touching it.

Example: four times the frequency range, for the demo; some minutes on two cores.

    python experiments/evaluate_spectrum.py --workdir=runs/demo --name=fine --spectrum_points=64

`spectral_dd.load_results("runs/demo", "fine")` reads them, and report.py draws them with --spectrum=fine. The
same command again adds the epochs that were recorded meanwhile. Several half widths, --spectrum_half_width=0.25,0.5,1,
are evaluated one after another, under the names fine-h0.25, fine-h0.5, fine-h1.
"""

from collections.abc import Sequence

from absl import flags

from spectral_dd import run, sweep
from spectral_dd.config import InputError

SETTINGS = [name for name in sweep.FIELDS if name.startswith("spectrum_") and name != "spectrum_budget"]

WORKDIR = flags.DEFINE_string("workdir", None, "directory of the sweep", required=True)
NAME = flags.DEFINE_string("name", None, "name of these spectra; they go to WORKDIR/spectra/NAME", required=True)
DATA_DIR = flags.DEFINE_string("data_dir", None, "where TFDS data sets are prepared")
sweep.define_flags(SETTINGS)
flags.adopt_module_key_flags(sweep)


def main(argv: Sequence[str]) -> None:
    given, settings = sweep.given_flags(SETTINGS), {}
    half_widths = given.get("spectrum_half_width", [])
    for name, values in given.items():
        if len(values) > 1 and name != "spectrum_half_width":
            raise InputError(f"--{name}={','.join(map(str, values))}: must be one value; use a name for each")
        settings[name] = values[0]
    run.set_up_jax(x64=any(c.dtype == "float64" for c in sweep.read_sweep(WORKDIR.value).configs))
    if len(half_widths) < 2:
        run.evaluate_spectra(WORKDIR.value, NAME.value, settings, DATA_DIR.value)
        return
    for h in half_widths:
        settings["spectrum_half_width"] = h
        run.evaluate_spectra(WORKDIR.value, f"{NAME.value}-h{h:g}", settings, DATA_DIR.value)


if __name__ == "__main__":
    sweep.run_script(main)
