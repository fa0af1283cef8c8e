"""How every figure looks: style, colours, axes, ticks, headings, legends, curves with their bands.

Nothing here knows what is drawn; that is in `figures.py` and `spectrum_figures.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedLocator,
    Formatter,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "savefig.dpi": 160,
}
BLUE, ORANGE, GREEN, PINK, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555"
# The last tenth of viridis is too light for lines on white.
WIDTH_COLOURS = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.9, 256)))


class WidthColours:
    """One colour a width, the same in every figure: perceptually uniform in log width."""

    def __init__(self, widths: np.ndarray):
        self.widths = np.unique(widths)
        self.norm = LogNorm(self.widths[0], max(self.widths[-1], self.widths[0] + 1))

    def __call__(self, width: int) -> Any:
        return WIDTH_COLOURS(self.norm(width))

    def explain(self, figure: Figure, axes: Sequence[Axes]) -> None:
        """Adds the colour bar, unless there is a single width."""
        if len(self.widths) == 1:
            return
        bar = figure.colorbar(ScalarMappable(self.norm, WIDTH_COLOURS), ax=list(axes), label="width", pad=0.01)
        fixed_ticks(bar.ax.yaxis, spread(self.widths, 20))


def explain_lines(figure: Figure, lines: Mapping[str, Line2D], columns: int) -> None:
    """Adds the legend, label -> line. It is below the panels, because a heading may be above them."""
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=columns)


def draw_curve(
    ax: Axes, x: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray, bands: int, **line: Any
) -> Line2D:
    """Draws a line and a band from low to high, all of them (x,); NaN is a gap. The more bands in `ax`, the lighter."""
    if (high > low).any():
        ax.fill_between(x, low, high, color=line["color"], alpha=0.3 / np.sqrt(bands), linewidth=0)
    return ax.plot(x, mean, **line)[0]


def width_axis(ax: Axes, widths: np.ndarray, ticks: int) -> None:
    """A log axis with about `ticks` of the widths written out."""
    ax.set_xscale("log", base=2)
    fixed_ticks(ax.xaxis, spread(widths, ticks))
    if len(widths) == 1:
        ax.set_xlim(widths[0] / 2, widths[0] * 2)


def epoch_axis(ax: Axes, epochs: np.ndarray) -> None:
    """A log axis for `epochs`, increasing and positive."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if epochs[-1] >= 30 * epochs[0] else (1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(number())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("epoch")


def log_axis(ax: Axes, formatter: Formatter) -> None:
    """Makes the upright axis logarithmic, unless all is 0, as of a network whose units are dead; call it after drawing.
    A value of 0 lies below the axis."""
    if not np.isfinite(ax.dataLim.minposy):
        return
    ax.set_yscale("log", nonpositive="clip")
    low, high = ax.dataLim.minposy, ax.dataLim.ymax
    ax.yaxis.set_major_locator(MaxNLocator(6) if high < 4 * low else LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(formatter)
    ax.yaxis.set_minor_formatter(NullFormatter())


def percent_axis(ax: Axes) -> None:
    """Makes the upright axis one of shares from 0 on; call it after drawing."""
    ax.yaxis.set_major_formatter(percent())
    ax.set_ylim(bottom=0)


def fixed_ticks(axis: Any, ticks: Sequence[float]) -> None:
    """Ticks at these numbers and no others."""
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(number())
    axis.set_minor_locator(NullLocator())


def few_ticks(axis: Any, labels: Sequence[str], at_most: int) -> None:
    """Labels of the cells 0, 1, ... of a heat map, of many only some."""
    places = np.unique(np.linspace(0, len(labels) - 1, min(at_most, len(labels))).round().astype(int)).tolist()
    axis.set_ticks(places, [labels[place] for place in places])


def heat_map(figure: Figure, ax: Axes, shares: np.ndarray, label: str) -> None:
    """Draws a matrix of shares, NaN grey, with a colour bar above."""
    image = ax.imshow(shares, aspect="auto", interpolation="nearest", cmap="viridis")
    ax.grid(False)
    ax.set_facecolor("0.75")
    figure.colorbar(image, ax=ax, label=label, format=percent(), location="top", pad=0.02)


def number() -> Formatter:
    """Ticks as plain numbers; a formatter belongs to one axis."""
    return FuncFormatter(lambda x, _: f"{x:g}")


def percent() -> Formatter:
    """Ticks as per cent of 1; a formatter belongs to one axis."""
    return FuncFormatter(lambda x, _: f"{100 * x:g}%")


def spread(values: np.ndarray, at_most: int, base: float = 1.0) -> list[float]:
    """Returns which `values` become ticks of a log axis: about `at_most`, neighbours at least a factor of `base` apart.

    The smallest value times a power of two goes before others.
    """
    x = np.log2(np.sort(values) / np.min(values))
    apart = max(x[-1] / at_most, np.log2(base)) * (1 - 1e-9)
    kept: list[float] = []
    for candidate in sorted(x.tolist(), key=lambda octave: (octave % 1 != 0, octave)):
        if all(abs(candidate - other) >= apart for other in kept):
            kept.append(candidate)
    return [float(np.min(values) * 2**octave) for octave in sorted(kept)]


def log_edges(centres: np.ndarray) -> np.ndarray:
    """Returns the n + 1 edges of cells around n increasing positive centres, midway on a log axis.

    The outer cells are symmetric about their centres; a single one reaches a factor of sqrt(2) either way.
    """
    x = np.log(centres)
    half = np.diff(x) / 2 if len(x) > 1 else np.array([np.log(2) / 2])
    return np.exp(np.concatenate([[x[0] - half[0]], x[:-1] + half[: len(x) - 1], [x[-1] + half[-1]]]))
