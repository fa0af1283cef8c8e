"""Curves -> when does what happen; statistics over seeds. Nothing here draws.

The definitions, used by the table and every figure of the report:

- *Error* is a share in [0, 1]; a *point* is 0.01. "Final" is the last recorded epoch of a member, "best" the
  lowest recorded value.
- A network *interpolates* when its error on the training set, with the labels trained on, is at most
  `TOLERANCE`. The *interpolation threshold* in width is the smallest width that does so in the end.
- *Double descent* over epochs: the smoothed test error falls, rises and falls again, each time by at least
  `THRESHOLD` (`descents`). The second descent starts at the peak between them.
- That second descent is *strong* if the error after the peak falls below the first minimum, *weak* if it stays
  at or above it (`second_descent`).
- The *high-frequency ratio* is the share of the power, summed over bins, in those from `first_high_bin` on, DC in
  the sum; the power of a bin is the mean over examples (`high_frequency_ratio`).
- *Online*, a second descent has started once a measure of the training set has risen by the factor 1 + `PROMINENCE`
  from its lowest value and then fallen by that factor from its highest since (`OnlineStart`); it started at that
  highest value. Epoch 0, the network as initialised, does not count.
- Statistics are means over the members that differ in nothing but the seed. Members that diverged are counted
  but not averaged: what they computed before says nothing about how they would have ended.
"""

import collections
import dataclasses
import functools
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from spectral_dd.config import Config
from spectral_dd.spectrum import slope_spectrum

# One wrong example in a hundred. Exactly zero would miss networks that memorised everything: at a constant
# learning rate single examples keep flipping. It lies far below any label noise worth studying, so that a
# network which only learned the clean examples does not count. (The definition of Nakkiran et al., arXiv
# 1912.02292, has the same free constant; they use 0.1 with up to 20 % noise.)
TOLERANCE = 0.01

# Three points: above the wiggles between neighbouring recorded epochs, below the double descents of the literature.
THRESHOLD = 0.03

# Share of the raw high-frequency power beyond which it says nothing but the slope.
SLOPE_DOMINATED = 0.9

# A tenth: what `THRESHOLD` is of an error of 30 %. Not fitted to the results of any sweep.
PROMINENCE = 0.1


def varying(ds: xr.Dataset) -> list[str]:
    """Returns the `Config` fields in which the members differ, in the order of `Config`."""
    names = [f.name for f in dataclasses.fields(Config) if f.name in ds.coords]
    return [name for name in names if len(set(ds[name].values.reshape(-1).tolist())) > 1]


def groups(ds: xr.Dataset, names: Sequence[str], dim: str = "member") -> list[tuple[dict[str, Any], xr.Dataset]]:
    """Splits the members by the values of the coordinates `names` along `dim`.

    Returns (values by name, the members that have them) for each combination that occurs, sorted; all members
    as one group where `names` is empty; nothing where there are no members.
    """
    keys = list(zip(*(ds[name].values.tolist() for name in names), strict=True)) if names else [()] * ds.sizes[dim]
    return [
        (dict(zip(names, key, strict=True)), ds.isel({dim: [i for i, k in enumerate(keys) if k == key]}))
        for key in sorted(set(keys))
    ]


def setting_names(ds: xr.Dataset) -> list[str]:
    """Returns what varies beside width and seed (label noise, size of the training set ...).

    Members that agree on all of it are of one *setting*; widths are compared within a setting.
    """
    return [name for name in varying(ds) if name not in ("width", "seed")]


def smooth(curve: xr.DataArray, window: int = 3) -> xr.DataArray:
    """Centred moving average over `window` (odd) neighbouring recorded epochs.

    Recorded epochs are log-spaced, so the window is one in log epochs. It is shorter at the ends. Neighbours are
    those that the curve itself has: NaN, such as an epoch that only other members recorded, is passed over and
    remains NaN.

    Args:
      curve: (..., epoch).
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window={window}: must be odd and at least 1")

    def smooth_one(values: np.ndarray) -> np.ndarray:
        smoothed, own = np.full(len(values), np.nan), np.flatnonzero(~np.isnan(values))
        for place, i in enumerate(own):
            smoothed[i] = values[own[max(0, place - window // 2) : place + window // 2 + 1]].mean()
        return smoothed

    return xr.apply_ufunc(smooth_one, curve, input_core_dims=[["epoch"]], output_core_dims=[["epoch"]], vectorize=True)


def interpolation_epoch(train_error: xr.DataArray, tolerance: float = TOLERANCE) -> xr.DataArray:
    """Returns (...): the first recorded epoch at which the training error is at most `tolerance`; -1: never.

    Args:
      train_error: (..., epoch), in [0, 1], with the labels trained on.
    """
    reached = train_error <= tolerance
    ever = reached.any("epoch")
    first = train_error["epoch"].values[reached.argmax("epoch")]
    return ever.copy(data=np.where(ever, first, -1)).rename("interpolation_epoch")


def descents(test_error: xr.DataArray) -> xr.Dataset:
    """Finds the fall, rise and second fall of each curve, smoothed with `smooth`.

    Of all (start, best before, peak, best after) in this order it takes those that maximise the smallest of the
    three differences between neighbours, the earliest if several do. A curve that does not fall, rise and fall has
    first_fall = rise = fall = 0 and nothing else: errors NaN, epochs -1.

    Args:
      test_error: (..., epoch), in [0, 1]; NaN is skipped.

    Returns:
      Variables of dimensions (...): `first_fall` = start - best before, `rise` = peak - best before, `fall` =
      peak - best after (NaN where the whole curve is); `before_error`, `peak_error`, `after_error`;
      `before_epoch`, `peak_epoch`, `after_epoch`.
    """
    # Rounded, because means of equal numbers differ in the last bits: a constant curve must have no peak.
    smoothed = smooth(test_error.astype(np.float64)).round(12)
    sizes = ("first_fall", "rise", "fall")
    names = (*sizes, "before_error", "peak_error", "after_error", "before_epoch", "peak_epoch", "after_epoch")
    values = xr.apply_ufunc(
        _descents,
        smoothed,
        smoothed["epoch"],
        input_core_dims=[["epoch"], ["epoch"]],
        output_core_dims=[[]] * len(names),
        vectorize=True,
    )
    return xr.Dataset(dict(zip(names, values, strict=True)))


def _descents(error: np.ndarray, epochs: np.ndarray) -> tuple[float | int, ...]:
    """`descents` of one curve, (epoch,)."""
    if np.isnan(error).all():
        return (np.nan,) * 6 + (-1,) * 3
    start = np.fmax.accumulate(error)
    after = np.fmin.accumulate(error[::-1])[::-1]
    falls_and_rises = np.minimum((start - error)[:, None], error - error[:, None])  # by best before and peak
    falls_and_rises = np.triu(np.nan_to_num(falls_and_rises))
    smallest = np.minimum(falls_and_rises.max(axis=0), np.nan_to_num(error - after))
    peak = int(smallest.argmax())
    if smallest[peak] <= 0:
        return (0.0,) * 3 + (np.nan,) * 3 + (-1,) * 3
    before, last = falls_and_rises[:, peak].argmax(), peak + np.nanargmin(error[peak:])
    first_fall, rise, fall = start[before] - error[before], error[peak] - error[before], error[peak] - error[last]
    return (
        *(first_fall, rise, fall),
        *(error[before], error[peak], error[last]),
        *(epochs[before], epochs[peak], epochs[last]),
    )


def is_double_descent(found: xr.Dataset, threshold: float = THRESHOLD) -> xr.DataArray:
    """Returns (...) bool: both falls and the rise, as `descents` found them, are at least `threshold`."""
    # A difference such as 0.10 - 0.07 lies below 0.03 in floating point.
    smallest = found[["first_fall", "rise", "fall"]].to_array().min("variable")
    return smallest.round(9) >= threshold


def second_descent(found: xr.Dataset, threshold: float = THRESHOLD) -> xr.DataArray:
    """Returns (...) of "none", "weak" and "strong": the kind of the second descent that `descents` found.

    none: no double descent (`is_double_descent`); strong: the error after the peak falls below the first minimum;
    weak: it does not.
    """
    below = (found["before_error"] - found["after_error"]).round(9) > 0
    kind = xr.where(below, "strong", "weak")
    return kind.where(is_double_descent(found, threshold), "none").rename("second_descent")


def last_recorded(curve: xr.DataArray) -> xr.DataArray:
    """Returns (...): the last value of each curve (..., epoch) that is not NaN, or NaN."""
    return curve.isel(epoch=curve.notnull().cumsum("epoch").argmax("epoch")).drop_vars("epoch")


def first_high_bin(num_bins: int) -> int:
    """Returns k0 = max(1, (num_bins - 1) // 4), the first *high* bin of 0 .. num_bins - 1: a quarter of the Nyquist."""
    return max(1, (num_bins - 1) // 4)


def high_frequency_share(power: xr.DataArray, first: int | None = None) -> xr.DataArray:
    """Returns (...): sum_{k >= first} P_k / sum_k P_k of P (..., frequency), DC in the lower sum; NaN if that is 0.

    Args:
      power: (..., frequency), bins 0 .. N/2 of a real FFT.
      first: by default `first_high_bin`.

    Raises:
      ValueError: there is no bin from `first` on, or none below it.
    """
    last = power.sizes["frequency"] - 1
    first = first_high_bin(last + 1) if first is None else first
    if not 1 <= first <= last:
        raise ValueError(f"first={first}: must be a bin from 1 to {last}, the last of this spectrum")
    whole = power.sum("frequency", skipna=False)
    high = power.isel(frequency=slice(first, None)).sum("frequency", skipna=False)
    return high / whole.where(whole > 0)


def high_frequency_ratio(energy: xr.DataArray, first: int | None = None) -> xr.DataArray:
    """`high_frequency_share` of the mean over examples: a ratio of means, in which large outputs count more.

    Args:
      energy: (..., example, frequency), bins 0 .. N/2 of a real FFT. Examples that are NaN are passed over.
      first: by default `first_high_bin`.

    Returns:
      (...), float64; NaN where there are no examples or their power is 0.

    Raises:
      ValueError: there is no bin from `first` on, or none below it.
    """
    return high_frequency_share(energy.mean("example", dtype=np.float64), first).rename("high_frequency_ratio")


def slope_share(
    energy: xr.DataArray, slope_energy: xr.DataArray, num_points: int, first: int | None = None
) -> xr.DataArray:
    """How much of the high-frequency power a straight line with the measured slope has: its leakage.

    The DFT takes the segment as periodic, so a function linear along it has power in every bin (see
    `spectrum.slope_spectrum`). Above `SLOPE_DOMINATED`, the raw spectrum shows the slope and nothing else.

    Args:
      energy: (..., example, frequency), bins 0 .. N/2.
      slope_energy: (..., example), see `spectrum.LineSpectra`.
      num_points: N.
      first: by default `first_high_bin`.

    Returns:
      (...): above 1 where the line and what else there is cancel.
    """
    first = first_high_bin(energy.sizes["frequency"]) if first is None else first
    of_line = float(slope_spectrum(num_points)[first:].sum()) * slope_energy.mean("example", dtype=np.float64)
    high = energy.mean("example", dtype=np.float64).isel(frequency=slice(first, None)).sum("frequency", skipna=False)
    return (of_line / high.where(high > 0)).rename("slope_share")


def bootstrap_error(
    energy: xr.DataArray, first: int | None = None, num_resamples: int = 200, seed: int = 0
) -> xr.Dataset:
    """Standard errors over examples: how far the spectrum of these examples may lie from that of all.

    Bootstrap: examples are drawn with replacement, as many as there are. Curves with equally many examples share the
    draws, so that their errors can be compared.

    Args:
      energy: (..., example, frequency), bins 0 .. N/2 of a real FFT. Examples that are NaN are passed over.
      first: as in `high_frequency_ratio`.
      seed: of the draws.

    Returns:
      `ratio_error` (...), the standard error of `high_frequency_ratio`, and `relative_energy_error`
      (..., frequency), that of the mean energy divided by it. NaN where there are fewer than two examples.

    Raises:
      ValueError: there is no bin from `first` on, or none below it.
    """

    @functools.cache
    def draws(n: int) -> np.ndarray:
        return np.random.default_rng([seed, n]).multinomial(n, np.full(n, 1 / n), num_resamples) / n

    def errors(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own = rows[~np.isnan(rows).any(axis=1)].astype(np.float64)
        if len(own) < 2:
            return np.array(np.nan), np.full(rows.shape[1], np.nan)
        means = xr.DataArray(draws(len(own)) @ own, dims=("resample", "frequency"))
        mean = own.mean(axis=0)
        relative = np.divide(means.std("resample", ddof=1).values, mean, out=np.full(len(mean), np.nan), where=mean > 0)
        return high_frequency_share(means, first).std("resample", ddof=1, skipna=False).values, relative

    ratio_error, relative = xr.apply_ufunc(
        errors,
        energy,
        input_core_dims=[["example", "frequency"]],
        output_core_dims=[[], ["frequency"]],
        output_dtypes=[float, float],
        vectorize=True,
    )
    return xr.Dataset({"ratio_error": ratio_error, "relative_energy_error": relative})


def energy_error(energy: xr.DataArray) -> xr.DataArray:
    """Returns (...): relative standard error of the mean over examples of the whole energy, all bins together.

    Args:
      energy: (..., example, frequency). Examples that are NaN are passed over; fewer than two give NaN.
    """
    whole = energy.sum("frequency", skipna=False, dtype=np.float64)
    error = whole.std("example", ddof=1) / np.sqrt(whole.notnull().sum("example"))
    mean = whole.mean("example")
    return (error / mean.where(mean > 0)).rename("energy_error")


class Start(NamedTuple):
    """The second descent started at `epoch`, which was noticed at epoch `noticed`."""

    epoch: int
    noticed: int


class OnlineStart:
    """Says during training when the second descent started, from the past of one measure of the training set.

    Causal smoothing: the mean over `window` neighbouring recorded epochs (`smooth`) is known `window // 2` records
    after its middle, and not used earlier. It is compared on a log scale. A rise by the factor 1 + `prominence` from
    the lowest value so far opens the search for the highest since; a fall from that by the same factor is the notice.
    What was said is final. Epoch 0 is ignored: a rise from the network as initialised is no end of a first descent.

    Args:
      prominence: above 0.
      window: odd and at least 1.

    Raises:
      ValueError: an argument is not that.
    """

    def __init__(self, prominence: float = PROMINENCE, window: int = 3) -> None:
        if prominence <= 0:
            raise ValueError(f"prominence={prominence}: must be above 0")
        if window < 1 or window % 2 == 0:
            raise ValueError(f"window={window}: must be odd and at least 1")
        self.start: Start | None = None
        self._step = np.log1p(prominence)
        self._half = window // 2
        self._recent: collections.deque[tuple[int, float]] = collections.deque(maxlen=window)
        self._lowest = np.inf
        self._highest: tuple[float, int] | None = None  # value and epoch, since the rise

    def update(self, epoch: int, value: float) -> Start | None:
        """Takes the measure at the next recorded epoch; returns the start, or None as long as it is not noticed.

        Values that are not positive and finite have no logarithm and are passed over, like epoch 0.

        Raises:
          ValueError: `epoch` is not after the last one that was not passed over.
        """
        if self._recent and epoch <= self._recent[-1][0]:
            raise ValueError(f"epoch={epoch}: must be after {self._recent[-1][0]}, the last one")
        if self.start is None and epoch > 0 and np.isfinite(value) and value > 0:
            self._recent.append((int(epoch), float(value)))
            if len(self._recent) > self._half:
                middle = self._recent[len(self._recent) - 1 - self._half][0]
                self._follow(middle, float(np.log(np.mean([v for _, v in self._recent]))), int(epoch))
        return self.start

    def _follow(self, epoch: int, level: float, now: int) -> None:
        if self._highest is None:
            self._lowest = min(self._lowest, level)
            if self._at_least_a_step(level - self._lowest):
                self._highest = (level, epoch)
        elif level > self._highest[0]:
            self._highest = (level, epoch)
        elif self._at_least_a_step(self._highest[0] - level):
            self.start = Start(self._highest[1], now)

    def _at_least_a_step(self, difference: float) -> bool:
        return bool(round(difference - self._step, 9) >= 0)  # a step of exactly the prominence counts


def online_start(
    values: np.ndarray, epochs: np.ndarray, prominence: float = PROMINENCE, window: int = 3
) -> Start | None:
    """What `OnlineStart` has said by the end of a curve.

    Args:
      values: (epoch,), a measure of the training set; NaN and the value at epoch 0 are passed over.
      epochs: (epoch,), increasing.

    Raises:
      ValueError: as `OnlineStart`, or `values` and `epochs` differ in length.
    """
    online = OnlineStart(prominence, window)
    for epoch, value in zip(epochs, values, strict=True):
        online.update(epoch, value)
    return online.start


def statistics(ds: xr.Dataset, tolerance: float = TOLERANCE, threshold: float = THRESHOLD) -> xr.Dataset:
    """What happened to each member.

    Args:
      ds: a data set as `load_results` returns it.

    Returns:
      Variables along `member`: `best_error`, `final_error` of the test set and `final_train_error`;
      `interpolation_epoch` (NaN: never); `double_descent`; `peak_error`, `peak_epoch` (NaN without double descent);
      `diverged`; `unfinished`, true if it neither diverged nor has its last epoch. Errors and epochs are NaN for
      members that diverged.
    """
    diverged = ds["diverged"] >= 0
    found = descents(ds["test_error"])
    double_descent = is_double_descent(found, threshold) & ~diverged
    reached = interpolation_epoch(ds["train_error"], tolerance)
    last_epoch = ds["epoch"].where(ds["test_error"].notnull(), -1).max("epoch")
    wanted = ds["epochs"] if "epochs" in ds.coords else ds["epoch"].max()
    return xr.Dataset(
        {
            "best_error": ds["test_error"].min("epoch").where(~diverged),
            "peak_error": found["peak_error"].where(double_descent),
            "peak_epoch": found["peak_epoch"].where(double_descent),
            "final_error": last_recorded(ds["test_error"]).where(~diverged),
            "final_train_error": last_recorded(ds["train_error"]).where(~diverged),
            "interpolation_epoch": reached.where((reached >= 0) & ~diverged),
            "double_descent": double_descent,
            "diverged": diverged,
            "unfinished": ~diverged & (last_epoch < wanted),
        },
        coords=ds["diverged"].coords,
    )


def summary(ds: xr.Dataset, tolerance: float = TOLERANCE, threshold: float = THRESHOLD) -> xr.Dataset:
    """Means over seeds: a row for each width, within each setting where other fields vary as well.

    Args:
      ds: a data set as `load_results` returns it.

    Returns:
      Dimension `row`; coordinates `width` and each other field that varies (not `seed`). Variables: `parameters`;
      the means over members of `best_error`, `final_error`, `final_train_error`; of `interpolation_epoch` over the
      members that interpolate, of `peak_error` and `peak_epoch` over those with double descent (NaN: none); the
      numbers of `members` and, among them, of `interpolating`, `double_descent`, `diverged`, `unfinished`.
    """
    names = [*setting_names(ds), "width"]
    rows, keys = [], []
    for values, members in groups(statistics(ds, tolerance, threshold), names):
        means = members.mean("member")
        counts = members[["double_descent", "diverged", "unfinished"]].sum("member")
        rows.append(
            means.assign(counts).assign(
                interpolating=members["interpolation_epoch"].notnull().sum("member"),
                members=members.sizes["member"],
                parameters=members["parameters"].values[0],
            )
        )
        keys.append(values)
    coords: dict[Hashable, Any] = {name: ("row", [key[name] for key in keys]) for name in names}
    return xr.concat(rows, "row").assign_coords(coords)


def interpolation_width(table: xr.Dataset, tolerance: float = TOLERANCE) -> int | None:
    """Returns the interpolation threshold in width: the smallest with mean final training error <= `tolerance`.

    Args:
      table: `summary` of one setting (members that differ in width and seed alone).

    Returns:
      The width, or None if no width interpolates.
    """
    widths = table["width"].values[table["final_train_error"].values <= tolerance]
    return int(widths.min()) if widths.size else None


def summary_cells(table: xr.Dataset) -> list[list[str]]:
    """Returns `summary` as text: a row of headings, then the rows. Errors in per cent.

    '-' stands for what did not happen; '82 (1/3)' for what happened to one of three members, at epoch 82.
    """
    fields = [str(name) for name in table.coords if table[name].dims == ("row",)]
    columns = [[name.replace("_", " "), *map(show, table[name].values.tolist())] for name in fields]
    columns.append(["parameters", *(f"{n:,}" for n in table["parameters"].values)])
    everyone = table["members"] - table["diverged"]
    for heading, name, number, count in (
        ("best %", "best_error", "{:.1%}", everyone),
        ("peak %", "peak_error", "{:.1%}", table["double_descent"]),
        ("peak epoch", "peak_epoch", "{:.0f}", table["double_descent"]),
        ("final %", "final_error", "{:.1%}", everyone),
        ("final train %", "final_train_error", "{:.1%}", everyone),
        ("interpolation epoch", "interpolation_epoch", "{:.0f}", table["interpolating"]),
    ):
        cells = [heading]
        for value, n, of in zip(table[name].values, count.values, everyone.values, strict=True):
            share = f" ({n}/{of})" if n < of else ""
            cells.append("-" if np.isnan(value) else number.format(value).rstrip("%") + share)
        columns.append(cells)
    for name in ("members", "diverged", "unfinished"):
        if name == "members" or table[name].any():
            columns.append([name, *map(str, table[name].values)])
    return [list(row) for row in zip(*columns, strict=True)]


def format_summary(table: xr.Dataset) -> str:
    """Returns `summary` as aligned lines for the terminal."""
    cells = summary_cells(table)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(text.rjust(n) for text, n in zip(row, widths, strict=True)) for row in cells)


def show(value: Any) -> str:
    """Returns the value of a `Config` field as text."""
    return f"{value:g}" if isinstance(value, float) else str(value)
