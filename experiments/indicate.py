"""Does the spectrum of the training set indicate when the second descent of the test error starts? Over a sweep.

Prints, in words and with intervals over seeds: how long before or after the peak of the test error each measure of the
training set has its own, the same for baselines and for shifted and exchanged curves, what an online detector would
have said, and how well measures around single examples tell relabelled ones from the others. Seconds.

    python experiments/train_sweep.py --workdir=runs/seeds --width=8,32 --seed=0,1,2,3,4 --label_noise=0,0.15
    python experiments/indicate.py --workdir=runs/seeds
"""

import textwrap

import numpy as np
from absl import flags

import spectral_dd as sdd
from spectral_dd import cli
from spectral_dd.errors import InputError

FLAGS = flags.FlagValues()
own = {"flag_values": FLAGS}
flags.DEFINE_string("workdir", None, "directory of the sweep", required=True, **own)
flags.DEFINE_bool("skip_damaged", False, "leave damaged records out", **own)
flags.DEFINE_string("spectrum", None, "use the spectra of this name, made by evaluate_spectrum.py", **own)
flags.DEFINE_integer(
    "first_bin", None, "first bin k0 of the high frequencies; default: a quarter of the highest", **own
)


def main() -> None:
    # Here, so that what is wrong with a flag is answered before JAX is imported.
    from spectral_dd.analysis import frequency, words

    ds = sdd.load_results(FLAGS.workdir, FLAGS.spectrum, skip_damaged=FLAGS.skip_damaged)
    if "energy" not in ds:
        raise InputError(f"--workdir={FLAGS.workdir}: has no spectra; experiments/evaluate_spectrum.py makes them")
    highest, first = min(ds["spectrum_points"].values) // 2, FLAGS.first_bin
    if first is not None and not 1 <= first <= highest:
        raise InputError(f"--first_bin={first}: must be from 1 to {highest}, half of --spectrum_points")
    error = frequency.energy_error(ds["energy"].sel(split="train")).values
    print(
        f"Standard error of the mean energy: at most {np.nanmax(error):.1%} at a recorded epoch of a member, "
        f"{np.nanmedian(error):.1%} in the median."
    )
    for sentence in words.verdict(ds, first) + words.memorisation_in_words(ds, first):
        print(textwrap.fill(sentence, width=110, subsequent_indent="    "))


if __name__ == "__main__":
    cli.main()
