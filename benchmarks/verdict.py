"""The verdict's table of known answers: how often it is right on simulated sweeps. The tests have a short version.

Second descents of the test error with known peaks, and measures that follow them or know nothing of the member, at the
records of the digits preset (400 epochs) and of the paper's (1000). Ten minutes on a core.

    python benchmarks/verdict.py [--simulations=2000]
"""

import itertools
import pathlib
import sys
from collections.abc import Callable

import numpy as np
from absl import app, flags

# The simulator is the tests' own.
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests" / "analysis"))

from planted_descents import NOTHING, Sweeps, cosine, logistic, thinned

from spectral_dd.config import Config
from spectral_dd.planning.epochs import recorded_epochs

SIMULATIONS = flags.DEFINE_integer("simulations", 2000, "sweeps of each kind", lower_bound=1)


def sweeps_of(
    epochs: int, seeds: int, cells: int = 1, every: int = 1, shared: float = 0.0, shape: Callable = cosine
) -> Sweeps:
    records = tuple(recorded_epochs(Config(epochs=epochs))[1:])
    middle = {400: 1.7, 1000: 1.9}[epochs]
    spectra = thinned(tuple(epoch for epoch in records if epoch >= 8), every)
    return Sweeps(records, spectra, seeds, cells, SIMULATIONS.value, middle, shared=shared, shape=shape)


def share(judged: dict, answer: str) -> str:
    return f"{(judged['answer'] == answer).mean():.1%}"


def main(_) -> None:
    print("Answers; widths: with a second descent. No more than 5 % of yes for what knows nothing.\n")
    print("| epochs | seeds | widths | measure | yes | no | power said |\n|---|---|---|---|---|---|---|")
    for epochs, seeds, cells in itertools.product((400, 1000), (3, 5, 10), (1, 3)):
        sweeps = sweeps_of(epochs, seeds, cells, shared=0.5)
        for kind in (0.0, -0.1, *NOTHING):
            judged, name = sweeps.judged(kind), f"lead {kind:+.1f}" if isinstance(kind, float) else kind
            answers = f"{share(judged, 'yes')} | {share(judged, 'no')}"
            print(f"| {epochs} | {seeds} | {cells} | {name} | {answers} | {judged['power'].mean():.0%} |")
    print("\nIntervals and bias; every: of the records that has a spectrum.\n")
    print("| shape | epochs | seeds | every | measure | bias, records | 95 % interval holds the lead | yes |")
    print("|---|---|---|---|---|---|---|---|")
    shapes = (cosine, logistic)
    for shape, epochs, seeds, every in itertools.product(shapes, (400, 1000), (3, 5, 10), (1, 2, 3)):
        sweeps = sweeps_of(epochs, seeds, every=every, shape=shape)
        for kind, lead in (("lead +0.0", 0.0), ("lead -0.1", -0.1), ("same curve", 0.0)):
            judged = sweeps.judged(kind if kind == "same curve" else lead)
            bias = (np.nanmean(judged["leads"]) - lead) / (0.1 * every)
            held = ((judged["low"] <= lead) & (judged["high"] >= lead)).mean()
            about = f"{shape.__name__} | {epochs} | {seeds} | {every} | {kind}"
            print(f"| {about} | {bias:+.2f} | {held:.1%} | {share(judged, 'yes')} |", flush=True)


if __name__ == "__main__":
    app.run(main)
