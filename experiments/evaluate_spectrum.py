"""Evaluates other spectrum settings on the checkpoints of a finished or running sweep, without touching it.

Example: twice the frequency range around more examples, for the demo; seconds to minutes on two cores.

    python experiments/evaluate_spectrum.py --workdir=runs/demo --name=fine --spectrum_points=64 \
        --spectrum_examples=90

`spectral_dd.load_results("runs/demo", "fine")` reads them, and report.py draws them with --spectrum=fine. The
same command again adds the epochs that were recorded meanwhile.
"""

from collections.abc import Sequence

from absl import flags

from spectral_dd import run, sweep
from spectral_dd.config import InputError

SETTINGS = [name for name in sweep.FIELDS if name.startswith("spectrum_")]

WORKDIR = flags.DEFINE_string("workdir", None, "directory of the sweep", required=True)
NAME = flags.DEFINE_string("name", None, "name of these spectra; they go to WORKDIR/spectra/NAME", required=True)
DATA_DIR = flags.DEFINE_string("data_dir", None, "where TFDS data sets are prepared")
sweep.define_flags(SETTINGS)
flags.adopt_module_key_flags(sweep)


def main(argv: Sequence[str]) -> None:
    settings = {}
    for name, values in sweep.given_flags(SETTINGS).items():
        if len(values) > 1:
            raise InputError(f"--{name}={','.join(map(str, values))}: must be one value; use a name for each")
        settings[name] = values[0]
    run.set_up_jax(x64=any(c.dtype == "float64" for c in sweep.read_sweep(WORKDIR.value).configs))
    run.evaluate_spectra(WORKDIR.value, NAME.value, settings, DATA_DIR.value)


if __name__ == "__main__":
    sweep.run_script(main)
