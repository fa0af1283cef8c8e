"""Does the spectrum of the training set indicate when the second descent of the test error starts? Over a sweep.

Prints, in words and with intervals over seeds: how long before or after the peak of the test error each measure of the
training set has its own, the same for baselines and for shifted and exchanged curves, what an online detector would
have said, and how well measures around single examples tell relabelled ones from the others. Seconds.

    python experiments/train_sweep.py --workdir=runs/seeds --width=8,32 --seed=0,1,2,3,4 --label_noise=0,0.15
    python experiments/indicate.py --workdir=runs/seeds
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from absl import flags

from spectral_dd import claim, indicator, load_results, sweep
from spectral_dd.config import InputError

WORKDIR = flags.DEFINE_string("workdir", None, "directory of the sweep", required=True)
SPECTRUM = flags.DEFINE_string("spectrum", None, "use the spectra of this name, made by evaluate_spectrum.py")
FIRST_BIN = flags.DEFINE_integer(
    "first_bin", None, "first bin k0 of the high frequencies; by default a quarter of the highest"
)


def main(argv: Sequence[str]) -> None:
    ds = load_results(WORKDIR.value, SPECTRUM.value)
    if "energy" not in ds:
        raise InputError(f"--workdir={WORKDIR.value}: has no spectra; experiments/evaluate_spectrum.py makes them")
    highest = min(ds["spectrum_points"].values) // 2
    if FIRST_BIN.value is not None and not 1 <= FIRST_BIN.value <= highest:
        raise InputError(f"--first_bin={FIRST_BIN.value}: must be from 1 to {highest}, half of --spectrum_points")
    error = indicator.energy_error(ds["energy"].sel(split="train")).values
    print(
        f"Standard error of the mean energy: at most {np.nanmax(error):.1%} at a recorded epoch of a member, "
        f"{np.nanmedian(error):.1%} in the median."
    )
    for sentence in claim.verdict(ds, FIRST_BIN.value) + claim.memorisation_in_words(ds, FIRST_BIN.value):
        print(textwrap.fill(sentence, width=110, subsequent_indent="    "))


if __name__ == "__main__":
    sweep.run_script(main)
