"""Second descents and measures with a known answer: curves (simulation, cell, seed, record), as `evidence.judge` takes
their peaks. benchmarks/verdict.py asks more of it than the tests beside this file."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import xarray as xr

from spectral_dd.analysis import curves, evidence

# log10 of the epoch where a measure always peaks that knows nothing of the member.
FIXED = 1.7


def cosine(places, peak, low, high, end, rise, fall):
    """Falls from 0.9 to `low`, rises to `high` at `peak` within `rise` decades, falls to `end` within `fall`: straight
    lines and half waves, on which the constants of `peaks.py` were fitted."""
    u = places - peak[..., None]
    up = low + (high - low) * 0.5 * (1 + np.cos(np.pi * np.clip(u / rise, -1, 0)))
    down = end + (high - end) * 0.5 * (1 + np.cos(np.pi * np.clip(u / fall, 0, 1)))
    first = low + (0.9 - low) * np.clip(-(u + rise) / 1.2, 0, 1)
    return np.where(u < -rise, first, np.where(u < 0, up, down))


def logistic(places, peak, low, high, end, rise, fall):
    """The same in another shape, on which nothing was fitted: two logistic steps of log epochs."""

    def step(u):
        return 0.5 * (1 + np.tanh(4 * u))

    def hill(u):
        up = low + (high - low) * step((u + rise / 2) / rise)
        first = (0.9 - low) * np.clip(-(u + rise) / 1.2, 0, 1)
        return first + up * (1 - (1 - end / high) * step((u - fall / 2) / fall))

    near = np.linspace(-rise, fall, 20001)
    return hill(places - peak[..., None] + near[hill(near).argmax()])


@dataclasses.dataclass(frozen=True)
class Sweeps:
    """Many sweeps of `cells` widths and `seeds` seeds; all widths have a second descent.

    Attributes:
      epochs: recorded, without 0; `spectra`: those with the measure.
      spread: of the peaks over seeds in a cell: uniform, so far to both sides.
      shared: share of that variance that the cells of a seed have in common.
      shape: of the curves, `cosine` or `logistic`.
      error_noise: standard deviation of the test error; measure_noise: of the measure, relative. Records differ.
    """

    epochs: tuple[int, ...]
    spectra: tuple[int, ...]
    seeds: int
    cells: int = 1
    number: int = 400
    middle: float = FIXED
    spread: float = 0.2
    shared: float = 0.0
    error_noise: float = 0.004
    measure_noise: float = 0.02
    seed: int = 0
    shape: Callable = cosine

    @property
    def sizes(self):
        return self.number, self.cells, self.seeds

    def rng(self, what):
        return np.random.default_rng([self.seed, self.seeds, self.cells, *map(ord, what)])

    def draw_peaks(self, what):
        rng, middle = self.rng(what), np.linspace(0.1, -0.1, self.cells) if self.cells > 1 else np.zeros(1)
        own, common = rng.uniform(-1, 1, self.sizes), rng.uniform(-1, 1, (self.number, 1, self.seeds))
        part = np.sqrt(1 - self.shared) * own + np.sqrt(self.shared) * common
        return self.middle + middle[:, None] + self.spread * part

    @functools.cached_property
    def peaks(self):
        return self.draw_peaks("test error")

    @functools.cached_property
    def errors(self):
        clean = self.shape(np.log10(self.epochs), self.peaks, 0.07, 0.16, 0.08, 0.6, 0.7)
        return clean + self.error_noise * self.rng("error noise").standard_normal(clean.shape)

    @functools.cached_property
    def peak_epochs(self):
        """What `curves.descents` finds, log10; NaN without a second descent."""
        flat = self.errors.reshape(-1, len(self.epochs))
        found = curves.descents(xr.DataArray(flat, dims=("member", "epoch"), coords={"epoch": list(self.epochs)}))
        peak = np.where(curves.is_double_descent(found), np.maximum(found["peak_epoch"], 1), np.nan)
        return np.log10(peak).reshape(self.sizes)

    def measure(self, kind):
        """Curves of a measure that follows the peak to 0.03 decades at a given lead, or knows nothing of the member."""
        places, rng = np.log10(self.spectra), self.rng(str(kind))
        noise = np.exp(self.measure_noise * rng.standard_normal((*self.sizes, len(places))))
        if kind == "same curve":
            return self.errors[..., np.isin(self.epochs, self.spectra)]
        if kind == "white noise":
            return noise ** (0.3 / self.measure_noise)
        if kind in ("falls", "rises"):
            return noise * np.exp((1 if kind == "rises" else -1) * places)
        peak = {
            "constant": lambda: np.full(self.sizes, FIXED),
            "independent": lambda: self.draw_peaks("independent"),
            "independent, wide": lambda: rng.uniform(1.2, 2.2, self.sizes),
        }.get(kind, lambda: self.peaks + self.leads(kind))()
        return noise * self.shape(places, peak, 0.05, 0.2, 0.06, 0.6, 0.9)

    def leads(self, lead):
        return lead + 0.03 * self.rng(f"lead {lead}").standard_normal(self.sizes)

    def judged(self, kind):
        """`evidence.judge` of all sweeps, with the located leads, (simulation, cell, seed), as `leads`."""
        located = evidence.locate(
            self.measure(kind).reshape(-1, len(self.spectra)),
            np.log10(self.spectra),
            self.errors.reshape(-1, len(self.epochs)),
            np.log10(self.epochs),
            self.peak_epochs.reshape(-1),
        )
        located = evidence.Located(*(values.reshape(self.sizes) for values in located))
        return evidence.judge(located) | {"leads": located.measure_place - located.test_place}


NOTHING = ("constant", "independent", "independent, wide", "falls", "rises", "white noise")


def thinned(epochs, every):
    """Every so many of the epochs, from the last one back."""
    return tuple(epochs[::-1][::every][::-1])
