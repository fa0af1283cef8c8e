"""Does the spectrum of the training set indicate when the second descent of the test error starts? Over a sweep.

Prints the answer first, in one sentence: yes, no, or that this sweep could not have told, with the command that would
do; then a table of the measures of the training set, what yes and no mean, and details. Seconds.

    python experiments/train_sweep.py --workdir=runs/question --width=16,32 --seed=0,1,2,3,4 --label_noise=0.15
    python experiments/indicate.py --workdir=runs/question
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
    from spectral_dd.analysis import words
    from spectral_dd.progress import going_on

    with going_on(lambda: f"reading {FLAGS.workdir}"):
        ds = sdd.load_results(FLAGS.workdir, FLAGS.spectrum, skip_damaged=FLAGS.skip_damaged, averaged=None)
    if "energy" not in ds:
        raise InputError(f"--workdir={FLAGS.workdir}: has no spectra; experiments/evaluate_spectrum.py makes them")
    highest, first = min(ds["spectrum_points"].values) // 2, FLAGS.first_bin
    if first is not None and not 1 <= first <= highest:
        raise InputError(f"--first_bin={first}: must be from 1 to {highest}, half of --spectrum_points")
    verdict = sdd.verdict(ds, first)
    print(_filled(words.answer(verdict, ds.attrs["command"])), words.aligned(words.verdict_cells(verdict)), sep="\n\n")
    print(f"\n{_filled(words.MEANING)}\n\nDetails:")
    error = ds["energy_error"].sel(split="train").values
    spectra = (
        f"Standard error of the mean energy: at most {np.nanmax(error):.1%} at a recorded epoch of a member, "
        f"{np.nanmedian(error):.1%} in the median."
    )
    for sentence in [*words.verdict_details(verdict, ds), spectra, *words.memorisation_in_words(ds, first)]:
        print(_filled(sentence))


def _filled(text: str) -> str:
    return textwrap.fill(text, width=110, subsequent_indent="    ", break_on_hyphens=False)


if __name__ == "__main__":
    cli.main()
