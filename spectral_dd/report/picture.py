"""What figures share: the setting they are of, the widths they show, curves of all its widths, words of captions.

The figures themselves are in `figures.py` and `spectrum_figures.py`.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spectral_dd.analysis import curves, words
from spectral_dd.report import axes

PEAK = (
    "Peak: the top between two descents over epochs, where the test error, smoothed over three recorded epochs, falls, "
    f"rises and falls again by at least {100 * curves.THRESHOLD:g} points each time."
)
# Seeds from which on a band is between percentiles.
MANY = 20
INTERPOLATION_THRESHOLD = (
    "interpolation threshold, the smallest width with a final training error (labels trained on) of at most "
    f"{curves.TOLERANCE:.0%}"
)


class Picture(NamedTuple):
    """A figure, the name of its file, and its caption (plain text)."""

    name: str
    figure: Figure
    caption: str


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """Members that differ in width and seed alone. None diverged.

    Attributes:
      values: what sets them apart from the other members, such as {"label_noise": 0.1}; empty if there are no others.
      members: a data set as `load_results` returns it, averaged over examples.
      threshold: the interpolation threshold in width, if there is one.
    """

    values: dict[str, Any]
    members: xr.Dataset
    threshold: int | None

    def of(self, members: xr.Dataset) -> "Setting":
        """The same setting with these of its members, or with parts of them."""
        return dataclasses.replace(self, members=members)

    def by_width(self) -> list[tuple[int, xr.Dataset]]:
        return [(values["width"], members) for values, members in curves.groups(self.members, ["width"])]

    def by_shown_width(self) -> list[tuple[int, xr.Dataset]]:
        """`by_width` for the few widths that a figure with panels for each has room for."""
        shown = shown_widths(self.members["width"].values.tolist(), self.threshold)
        return [(width, members) for width, members in self.by_width() if width in shown]

    def heading(self, figure: Figure, name_width: bool = False) -> None:
        """Names the setting above the panels, since the file has no caption; if asked, also a width that all share."""
        widths = np.unique(self.members["width"])
        width = {"width": int(widths[0])} if name_width and len(widths) == 1 else {}
        if text := words.describe(self.values | width):
            figure.suptitle(text)

    def picture(self, name: str, figure: Figure, caption: str) -> Picture:
        return Picture(re.sub(r"[^\w.]+", "-", f"{name}-{words.describe(self.values)}").strip("-"), figure, caption)

    def words(self, band: bool = True) -> str:
        """For captions: ', label noise 0.1, mean over 3 seeds (band: smallest to largest)'."""
        return (f", {words.describe(self.values)}" if self.values else "") + seeds([self], band)


def draw_by_width(
    ax: Axes,
    setting: Setting,
    colours: axes.WidthColours,
    curve: Callable[[xr.Dataset], xr.DataArray],
    mean: Callable[[xr.Dataset], xr.DataArray] | None = None,
) -> None:
    """Draws a curve and its band for each width over log epochs.

    Args:
      curve: members of one width -> (member, epoch).
      mean: members of one width -> (epoch,); by default the mean of `curve`.
    """
    by_width = setting.by_width()
    for width, members in by_width:
        each = curve(members)
        line = (mean(members) if mean else each.mean("member")).dropna("epoch")
        each = each.sel(epoch=line["epoch"])
        band = spread(each)
        look = {"color": colours(width), "marker": "o" if line.size < 3 else None}
        axes.draw_curve(ax, line["epoch"].values, line.values, *band, len(by_width), **look)
    axes.epoch_axis(ax, setting.members["epoch"].values)


def spread(each: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of the band of (member, ...): the extremes, which of many seeds would say little."""
    if each.sizes["member"] < MANY:
        return each.min("member").values, each.max("member").values
    low, high = each.quantile([0.05, 0.95], "member")
    return low.values, high.values


def seeds(settings: Sequence[Setting], band: bool = True) -> str:
    """Says over how many members a point of a curve is the mean, and what the band is if one is drawn."""
    counts = np.concatenate([np.unique(s.members["width"], return_counts=True)[1] for s in settings])
    low, high = counts.min(), counts.max()
    if high == 1:
        return ", a single seed"
    number = high if low == high else f"{low} to {high}"
    edges = "smallest to largest" if high < MANY else "5th to 95th percentile"
    if low < MANY <= high:
        edges += f", of fewer than {MANY} seeds smallest to largest"
    return f", mean over {number} seeds{f' (band: {edges})' if band else ''}"


def shown_widths(widths: Sequence[int], threshold: int | None) -> list[int]:
    """Returns up to four of the widths: the smallest, the interpolation threshold, one above it, the largest."""
    widths = sorted(set(widths))
    last = len(widths) - 1
    if len(widths) <= 4:
        return widths
    if threshold in widths[1:last]:
        at = widths.index(threshold)
        picks = {0, at, (at + last + 1) // 2, last}
    else:
        picks = {0, round(last / 3), round(2 * last / 3), last}
    return [widths[i] for i in sorted(picks)]


def has_spectra(ds: xr.Dataset, variable: str) -> bool:
    """Whether anything but NaN (not measured) and 0 (a network whose output is 0) was recorded."""
    return variable in ds and bool((ds[variable] > 0).any())
