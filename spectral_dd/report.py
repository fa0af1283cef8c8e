"""xarray.Dataset -> figures and report.html. What a curve means is defined in `indicator.py`; here it is drawn.

Members that diverged are left out of every figure. A curve is the mean over the members of one width and setting,
that is over seeds, of those that have the epoch.
"""

import base64
import dataclasses
import html
import io
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import matplotlib
import matplotlib.patheffects
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    Formatter,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from spectral_dd import claim, indicator
from spectral_dd.config import Config

Normalisation = Literal["power", "amplitude"]
VARIABLE = {"power": "energy", "amplitude": "amplitude"}
RATIO = {"power": "log10(P_k / sum_k P_k)", "amplitude": "log10(A_k / A_0)"}
MATH = {"power": r"$\log_{10}(P_k\,/\,\sum_k P_k)$", "amplitude": r"$\log_{10}(A_k\,/\,A_0)$"}
SPLITS = {"train": "training set", "noisy": "relabelled examples", "test": "test set"}

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "savefig.dpi": 160,
}
# The last tenth of viridis is too light for lines on white.
WIDTH_COLOURS = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.9, 256)))
# The measures of `claim.memorisation`.
MEMORISATION = {
    "high_frequency_share": "high-frequency share",
    "jacobian_norm": "Jacobian norm",
    "loss": "loss",
    "negative_margin": "negative margin",
}
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#555555"


class Picture(NamedTuple):
    """A figure, the name of its file, and its caption (plain text)."""

    name: str
    figure: Figure
    caption: str


def draw_report(
    ds: xr.Dataset, directory: str | os.PathLike[str], title: str, normalisation: Normalisation = "power"
) -> pathlib.Path:
    """Draws the figures into `directory`/figures and writes `directory`/report.html, which holds them all.

    Args:
      ds: a data set as `load_results` returns it; spectra may be absent, members unfinished or diverged.
      directory: made if it does not exist; each file is replaced in one step.
      title: heading of the page.
      normalisation: of the heat maps, see `log_ratio`.

    Returns:
      The path of report.html: one file without scripts or external resources.
    """
    directory = pathlib.Path(directory)
    (directory / "figures").mkdir(parents=True, exist_ok=True)
    figures = []
    with matplotlib.rc_context(STYLE):
        for name, figure, caption in pictures(ds, normalisation):
            image = io.BytesIO()
            figure.savefig(image, format="png")
            _write(directory / "figures" / f"{name}.png", image.getvalue())
            figures.append(_figure_html(image.getvalue(), figure.get_figwidth(), caption))
    path = directory / "report.html"
    _write(path, _page(ds, title, figures).encode())
    return path


def pictures(ds: xr.Dataset, normalisation: Normalisation = "power") -> Iterator[Picture]:
    """Yields what can be drawn of `ds`: errors always, each setting by itself; spectra where there are any."""
    drawable = ((ds["diverged"] < 0) & ds["test_error"].notnull().any("epoch")).values
    variables = [name for name in ("energy", "amplitude") if has_spectra(ds, name)]
    # Examples are averaged once, here: all that follows is small.
    means = ds.drop_dims("example", errors="ignore").assign({n: ds[n].mean("example") for n in variables})
    if variables:
        means = means.assign(claim.memorisation(ds))
    settings = indicator.groups(means.isel(member=np.flatnonzero(drawable)), indicator.setting_names(ds))
    if not settings:
        return
    yield width_picture(settings)
    colours = WidthColours(ds["width"].values)
    for values, setting in settings:
        trained = setting.sel(epoch=setting["epoch"] > 0)
        for variable in variables[:1]:  # `frequency` is the union over settings of different segments
            trained = trained.isel(frequency=np.flatnonzero(_any_but(trained[variable], "frequency")))
        if not trained["test_error"].notnull().any():
            continue
        yield epoch_picture(values, trained, colours)
        if has_spectra(trained, VARIABLE[normalisation]):
            yield spectrum_picture(values, trained, normalisation)
        if "slope_share" in trained and has_spectra(trained, "energy"):
            yield high_frequency_picture(values, trained, colours)
        if any(name in trained and trained[name].notnull().any() for name in MEMORISATION):
            yield memorisation_picture(values, trained)


# Quantities.


def has_spectra(ds: xr.Dataset, variable: str) -> bool:
    """Whether anything but NaN (not measured) and 0 (a network whose output is 0) was recorded."""
    return variable in ds and bool((ds[variable] > 0).any())


def mean_spectrum(values: xr.DataArray) -> xr.DataArray:
    """Mean over examples, then over members, skipping NaN (examples or epochs without a spectrum).

    Args:
      values: (..., frequency), with or without the dimensions `example` and `member`: energy or amplitude.

    Returns:
      (..., frequency) without these two, float64.
    """
    for dim in ("example", "member"):
        if dim in values.dims:
            values = values.mean(dim).astype(np.float64)
    return values


def log_ratio(values: xr.DataArray, normalisation: Normalisation = "power") -> xr.DataArray:
    """The matrix of the heat maps, (..., epoch, frequency); NaN where there is no spectrum or the ratio is 0.

    "power", the figures of arXiv 2004.13954: log10(P_k / sum_k P_k), DC in the sum, with P_k the mean of
    |F_c[k]|^2 over examples, classes and directions (`mean_spectrum` of `energy`). "amplitude", an earlier version
    of that paper: log10(A_k / A_0), A_k the same mean of |F_c[k]| (pass `amplitude`).
    """
    mean = mean_spectrum(values)
    whole = mean.sum("frequency") if normalisation == "power" else mean.isel(frequency=0)
    ratio = mean / whole.where(whole > 0)
    return xr.apply_ufunc(np.log10, ratio.where(ratio > 0))


def log_edges(centres: np.ndarray) -> np.ndarray:
    """Returns the n + 1 edges of cells around n increasing positive centres, midway on a log axis.

    The outer cells are symmetric about their centres; a single one reaches a factor of sqrt(2) either way.
    """
    x = np.log(centres)
    half = np.diff(x) / 2 if len(x) > 1 else np.array([np.log(2) / 2])
    return np.exp(np.concatenate([[x[0] - half[0]], x[:-1] + half[: len(x) - 1], [x[-1] + half[-1]]]))


def chosen_widths(widths: Sequence[int], threshold: int | None) -> list[int]:
    """Returns up to four widths to show: the smallest, the interpolation threshold, one above it, the largest."""
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


# Figures.


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
        bar.ax.yaxis.set_major_locator(FixedLocator(spread(self.widths, 20)))
        bar.ax.yaxis.set_major_formatter(_number())
        bar.ax.yaxis.set_minor_locator(NullLocator())


def width_picture(settings: list[tuple[dict[str, Any], xr.Dataset]]) -> Picture:
    """Error against width, a panel for each setting."""
    columns = 2 if len(settings) == 4 else min(len(settings), 3)
    rows = -(-len(settings) // columns)
    size = (7.5 if columns == 1 else 10.5, 4.2 if columns == 1 else 0.5 + 3.0 * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    lines: dict[str, Any] = {}
    for ax, (values, setting) in zip(panels.flat, settings, strict=False):
        lines |= _draw_widths(ax, setting)
        ax.set_title(describe(values))
    for ax in panels.flat[len(settings) :]:
        ax.remove()
    for ax in panels[:, 0]:
        ax.set_ylabel("error")
    # All panels share these; set after drawing, because a lower limit fixes the upper one too.
    _percent_axis(panels[0, 0])
    widths = np.unique(np.concatenate([setting["width"] for _, setting in settings]))
    _width_axis(panels[0, 0], widths, ticks=20 if columns == 1 else 8)
    for i in range(columns):
        bottom = (len(settings) - 1 - i) // columns
        panels[bottom, i].set_xlabel("width")
        panels[bottom, i].tick_params(labelbottom=True)
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=3 if columns == 1 else 5)
    caption = (
        f"Error against width{_seeds(settings)}; band: smallest to largest of the seeds. Final: last recorded epoch. "
        "Best: lowest recorded test error. Peak: the top between the two descents over epochs, smoothed over three "
        "recorded epochs, where test error falls, rises and falls again, each by at least "
        f"{100 * indicator.THRESHOLD:g} points (mean of the seeds where it does; no mark: none). Dotted line: the "
        "interpolation threshold, the smallest width whose final training error (labels trained on) is at most "
        f"{indicator.TOLERANCE:.0%}."
    )
    return Picture("error_against_width", figure, caption)


def _draw_widths(ax: Axes, setting: xr.Dataset) -> dict[str, Any]:
    """Draws one panel of `width_picture`; returns its lines by label."""
    by_width = indicator.groups(indicator.statistics(setting), ["width"])
    widths = np.array([values["width"] for values, _ in by_width])
    lines = {}
    for name, label, colour, style in (
        ("peak_error", "peak test error", ORANGE, "^-"),
        ("final_error", "final test error", BLUE, "o-"),
        ("best_error", "best test error", GREEN, "v-"),
        ("final_train_error", "final training error", GREY, "s--"),
    ):
        seeds = [members[name] for _, members in by_width]
        mean, low, high = (np.array([float(getattr(s, f)()) for s in seeds]) for f in ("mean", "min", "max"))
        if np.isfinite(mean).any():
            (lines[label],) = ax.plot(widths, mean, style, color=colour, markersize=4, clip_on=False)
            ax.fill_between(widths, low, high, color=colour, alpha=0.18, linewidth=0)
    threshold = indicator.interpolation_width(indicator.summary(setting))
    if threshold is not None:
        lines["interpolation threshold"] = ax.axvline(threshold, color="black", linestyle=":", linewidth=1)
    return lines


def _width_axis(ax: Axes, widths: np.ndarray, ticks: int) -> None:
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(spread(widths, ticks)))
    ax.xaxis.set_major_formatter(_number())
    ax.xaxis.set_minor_locator(NullLocator())
    if len(widths) == 1:
        ax.set_xlim(widths[0] / 2, widths[0] * 2)


def epoch_picture(values: dict[str, Any], setting: xr.Dataset, colours: WidthColours) -> Picture:
    """Test and training error over epochs, all widths of one setting."""
    figure = Figure(figsize=(10.5, 3.9), layout="constrained")
    _head(figure, values, setting)
    panels = figure.subplots(1, 2, sharex=True)
    for ax, name, label in zip(
        panels, ("test_error", "train_error"), ("test error", "training error (labels trained on)"), strict=True
    ):
        _draw_by_width(ax, setting, lambda members, name=name: members[name].mean("member"), colours)
        ax.set_ylabel(label)
    _log_axis(panels[0], _number(100, "%"))
    _percent_axis(panels[1])
    colours.explain(figure, panels)
    caption = (
        f"Test error (log axis) and training error over epochs (initialisation left out) for each width{_in(values)}"
        f"{_seeds([(values, setting)])}."
    )
    return Picture(_name("error_over_epochs", values), figure, caption)


def spectrum_picture(values: dict[str, Any], setting: xr.Dataset, normalisation: Normalisation = "power") -> Picture:
    """The figure of arXiv 2004.13954: heat maps over epochs and frequency, a row a width and a column a split."""
    variable = VARIABLE[normalisation]
    threshold = indicator.interpolation_width(indicator.summary(setting))
    measured = np.flatnonzero(_any_but(setting[variable], "epoch"))
    with_spectra = setting.isel(member=np.flatnonzero(_any_but(setting[variable], "member")))
    chosen = chosen_widths(with_spectra["width"].values.tolist(), threshold)
    by_width = [members for v, members in indicator.groups(with_spectra, ["width"]) if v["width"] in chosen]
    ratios = [log_ratio(members[variable].isel(epoch=measured), normalisation) for members in by_width]
    splits = [s for s in setting["split"].values.tolist() if any(r.sel(split=s).notnull().any() for r in ratios)]
    finite = np.concatenate([r.values[np.isfinite(r.values)] for r in ratios])
    norm = Normalize(*np.percentile(finite, [1, 100]))
    figure = Figure(figsize=(10.5, 0.8 + 2.3 * len(chosen)), layout="constrained")
    panels = figure.subplots(len(chosen), len(splits), sharex=True, sharey=True, squeeze=False)
    for row, members, ratio in zip(panels, by_width, ratios, strict=True):
        for ax, split in zip(row, splits, strict=True):
            mesh = _draw_heat_map(ax, ratio.sel(split=split), norm)
            right = _draw_errors(ax, members, labelled=ax is row[-1])
            ax.set_title(f"width {int(members['width'][0])}, {SPLITS.get(split, split)}")
        row[0].set_ylabel("frequency\n(cycles per unit L2)")
    for ax in panels[-1]:
        ax.set_xlabel("epoch")
    figure.colorbar(mesh, ax=panels, label=MATH[normalisation], extend="min", pad=0.01, aspect=12 * len(chosen))
    lines = right.get_lines()
    figure.legend(lines, [str(line.get_label()) for line in lines], loc="outside lower center", ncols=2)
    if values:
        figure.suptitle(describe(values), fontsize=9)
    return Picture(_name("spectrum", values), figure, _spectrum_caption(values, setting, normalisation))


def _spectrum_caption(values: dict[str, Any], setting: xr.Dataset, normalisation: Normalisation) -> str:
    mean = "P_k the mean of |F_c[k]|^2" if normalisation == "power" else "A_k the mean of |F_c[k]|"
    return (
        f"Spectrum over epochs{_in(values)}{_seeds([(values, setting)])}. Colour: {RATIO[normalisation]} along lines "
        f"through the examples of each split, {mean} over examples, classes, directions and seeds, F_c the DFT of the "
        "output for class c, DC included (arXiv 2004.13954); one scale for all panels, the lowest hundredth clipped. "
        "Left axis: frequency in cycles per unit L2 distance in input space, DC at the bottom, linear up to the first "
        "bin and logarithmic above. Lines, right axis: test error and, where there is label noise, the error on the "
        "relabelled examples against the labels trained on (100 %: not memorised)."
    )


def _draw_heat_map(ax: Axes, ratio: xr.DataArray, norm: Normalize) -> Any:
    """Draws (epoch, frequency) with cells around the recorded epochs and the bins; returns the mesh."""
    step = float(ratio["frequency"][1] - ratio["frequency"][0])
    edges = np.concatenate([[0.0], ratio["frequency"].values + step / 2])
    matrix = np.ma.masked_invalid(ratio.transpose("frequency", "epoch").values)
    mesh = ax.pcolormesh(log_edges(ratio["epoch"].values), edges, matrix, norm=norm, cmap="magma", rasterized=True)
    ax.grid(False)
    ax.set_facecolor("0.75")
    # A log axis gives an octave as much room as the next; it is linear below the first bin so that DC has a place.
    ax.set_yscale("symlog", base=2, linthresh=step, linscale=1)
    ax.yaxis.set_major_locator(FixedLocator([0.0, *spread(ratio["frequency"].values[1:], 4, base=4)]))
    ax.yaxis.set_major_formatter(_number())
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylim(0, edges[-1])
    _epoch_axis(ax, ratio["epoch"].values)
    ax.set_xlabel("")
    return mesh


def _draw_errors(ax: Axes, members: xr.Dataset, labelled: bool) -> Axes:
    """Draws test and noisy error over a heat map against an axis on the right; returns that axis."""
    right = ax.twinx()
    right.grid(False)
    outline = [matplotlib.patheffects.withStroke(linewidth=3, foreground="black")]
    for name, label, style, colour in (
        ("test_error", "test error", "-", "white"),
        ("noisy_error", "error on relabelled examples", "--", "#66e0ff"),
    ):
        error = members[name].mean("member") if name in members else xr.DataArray(np.nan)
        if error.notnull().any():
            right.plot(error["epoch"], error, style, color=colour, label=label, path_effects=outline)
    right.set_ylim(0, 1.02)
    right.spines["right"].set_visible(labelled)
    right.yaxis.set_major_formatter(_number(100, "%"))
    right.tick_params(right=labelled, labelright=labelled)
    if labelled:
        right.set_ylabel("error")
    return right


def high_frequency_picture(values: dict[str, Any], setting: xr.Dataset, colours: WidthColours) -> Picture:
    """The share of high frequencies on the training set, how much of it the slope explains, and the test error."""
    frequency = setting["frequency"].values
    first = indicator.first_high_bin(len(frequency))
    train = setting.sel(split="train")
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    _head(figure, values, setting)
    panels = figure.subplots(1, 3, sharex=True)

    def share(members):
        return indicator.high_frequency_share(mean_spectrum(members["energy"]))

    _draw_by_width(panels[0], train, share, colours)
    panels[0].set_ylabel(rf"$\sum_{{k\geq {first}}} P_k\,/\,\sum_k P_k$, training set")
    _draw_by_width(panels[1], train, lambda m: m["slope_share"].mean("member"), colours)
    panels[1].set_ylabel("of that, a straight line's")
    panels[1].axhline(indicator.SLOPE_DOMINATED, color="black", linestyle="--", linewidth=1)
    _draw_by_width(panels[2], train, lambda m: m["test_error"].mean("member"), colours)
    panels[2].set_ylabel("test error")
    for ax, formatter in zip(panels[::2], (_number(), _number(100, "%")), strict=True):
        _log_axis(ax, formatter)
    _percent_axis(panels[1])
    colours.explain(figure, panels)

    marked = train["slope_dominated"].where(train["slope_share"].notnull())
    caption = (
        f"High frequencies on the training set{_in(values)}{_seeds([(values, setting)])}. Left: the share of power in "
        f"bins k >= {first} ({frequency[first]:g} cycles per unit L2 distance and above), DC in the sum. Middle: how "
        "much of that power a straight line with the measured slope has. The DFT takes the segment as periodic, so a "
        "function linear along it leaks P_k ~ 1/sin^2(pi k/N) into every bin. Above the dashed line "
        f"({indicator.SLOPE_DOMINATED:.0%}) a spectrum is slope-dominated: its high frequencies show the slope and "
        f"nothing else, which holds for {float(marked.mean()):.0%} of the spectra. Above 100 %, the line and what else "
        "there is cancel. Right: test error."
    )
    return Picture(_name("high_frequency", values), figure, caption)


def memorisation_picture(values: dict[str, Any], setting: xr.Dataset) -> Picture:
    """How well relabelled training examples are told from the others, over epochs, a panel a width."""
    chosen = chosen_widths(setting["width"].values.tolist(), indicator.interpolation_width(indicator.summary(setting)))
    by_width = [members for v, members in indicator.groups(setting, ["width"]) if v["width"] in chosen]
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    _head(figure, values, setting)
    panels = figure.subplots(1, len(by_width), sharex=True, sharey=True, squeeze=False)[0]
    lines = {}
    for ax, members in zip(panels, by_width, strict=True):
        for name, colour in zip(MEMORISATION, (ORANGE, BLUE, GREEN, GREY), strict=True):
            if name in members and (curve := members[name].mean("member").dropna("epoch")).size:
                (lines[MEMORISATION[name]],) = ax.plot(curve["epoch"], curve, color=colour)
        ax.axhline(0.5, color="black", linestyle=":", linewidth=1)
        ax.set_title(f"width {members['width'].values[0]}", fontsize=10)
        ax.set_ylim(0, 1)
        _epoch_axis(ax, setting["epoch"].values)
    panels[0].set_ylabel("AUC")
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=len(lines))
    caption = (
        f"Detection of relabelled training examples{_in(values)}{_seeds([(values, setting)])}: the probability that "
        "one has a higher value than one with its true label (area under the ROC curve; 0.5, dotted: chance), from "
        "what is measured around single examples."
    )
    return Picture(_name("memorisation", values), figure, caption)


def _draw_by_width(ax: Axes, setting: xr.Dataset, curve: Any, colours: WidthColours) -> None:
    """Draws curve(members of a width), (epoch,), for each width over log epochs."""
    for values, members in indicator.groups(setting, ["width"]):
        line = curve(members).dropna("epoch")
        ax.plot(line["epoch"], line, color=colours(values["width"]), marker="o" if line.size < 3 else None)
    _epoch_axis(ax, setting["epoch"].values)


def _epoch_axis(ax: Axes, epochs: np.ndarray) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if epochs[-1] >= 30 * epochs[0] else (1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(_number())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("epoch")


def _log_axis(ax: Axes, formatter: Formatter) -> None:
    ax.set_yscale("log", nonpositive="mask")
    low, high = ax.dataLim.intervaly
    ax.yaxis.set_major_locator(MaxNLocator(6) if high < 4 * low else LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(formatter)
    ax.yaxis.set_minor_formatter(NullFormatter())


def _head(figure: Figure, values: dict[str, Any], setting: xr.Dataset) -> None:
    """Names the setting, and the width if there is one only: the file has no caption."""
    widths = np.unique(setting["width"])
    heading = describe(values | ({"width": int(widths[0])} if len(widths) == 1 else {}))
    if heading:
        figure.suptitle(heading, fontsize=9)


def _percent_axis(ax: Axes) -> None:
    ax.yaxis.set_major_formatter(_number(100, "%"))
    ax.set_ylim(bottom=0)


def _number(scale: float = 1, unit: str = "") -> Formatter:
    """Ticks as plain numbers; a formatter belongs to one axis."""
    return FuncFormatter(lambda x, _: f"{scale * x:g}{unit}")


def _any_but(values: xr.DataArray, dim: str) -> np.ndarray:
    return values.notnull().any([d for d in values.dims if d != dim]).values


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


# Words.


def describe(values: dict[str, Any]) -> str:
    """Returns a setting as text: 'label noise 0.1, train size 4000'."""
    return ", ".join(f"{name.replace('_', ' ')} {indicator.show(value)}" for name, value in values.items())


def _in(values: dict[str, Any]) -> str:
    return f", {describe(values)}" if values else ""


def _name(name: str, values: dict[str, Any]) -> str:
    return re.sub(r"[^\w.]+", "-", "-".join([name, describe(values)]).strip("-"))


def _seeds(settings: list[tuple[dict[str, Any], xr.Dataset]]) -> str:
    """Says over how many members a point of the curves is the mean."""
    counts = {members.sizes["member"] for _, s in settings for _, members in indicator.groups(s, ["width"])}
    if counts == {1}:
        return ", a single seed"
    return (
        f", mean over {min(counts)} seeds" if len(counts) == 1 else f", mean over {min(counts)} to {max(counts)} seeds"
    )


# The page.

CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto; max-width: 1080px;
       padding: 1rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; margin: 1rem 0 .5rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
code { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; } th, td { padding: .22rem .7rem .22rem 0; vertical-align: top; }
.summary th, .summary td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid #e5e5e5; }
.summary th { border-bottom: 1.5px solid #555; vertical-align: bottom; }
.constants { columns: 16rem; column-gap: 2rem; font-size: .85rem; margin: 0; }
.constants div { display: flex; justify-content: space-between; border-bottom: 1px solid #eee; break-inside: avoid; }
.constants dt { color: #555; } .constants dd { margin: 0; }
figure { margin: 2rem 0; } img { display: block; max-width: max(100%, 640px); height: auto; margin: 0 auto; }
figcaption, .small { font-size: .85rem; color: #444; margin-top: .5rem; }
.note { border-left: 3px solid #d55e00; background: #fdf5ef; padding: .5rem .9rem; margin: 1rem 0; font-size: .9rem; }
"""


def _page(ds: xr.Dataset, title: str, figures: list[str]) -> str:
    table = indicator.summary(ds)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
{"".join(f'<p class="note">{html.escape(note)}</p>' for note in notes(ds))}
<h2>The sweep</h2>
{_sweep_html(ds)}
<h2>Results</h2>
{_table_html(indicator.summary_cells(table))}
<p class="small">{html.escape(_table_caption(table))}</p>
{_verdict_html(ds)}<h2>Figures</h2>
{"".join(figures) or "<p>No member has anything to draw.</p>"}
</body>
</html>
"""


def _verdict_html(ds: xr.Dataset) -> str:
    if not has_spectra(ds, "energy"):
        return ""
    sentences = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in claim.verdict(ds))
    return (
        f'<h2>Does the training set indicate when the second descent starts?</h2>\n<ul class="small">{sentences}</ul>\n'
    )


def notes(ds: xr.Dataset) -> list[str]:
    """Returns a sentence for the members that diverged and one for those that are unfinished, if there are any."""
    result = []
    diverged = np.flatnonzero(ds["diverged"].values >= 0)
    if diverged.size:
        members = (f"{_member(ds, i)} at epoch {ds['diverged'].values[i]}" for i in diverged)
        result.append(f"Diverged, counted but neither averaged nor drawn: {'; '.join(members)}.")
    unfinished = np.flatnonzero(indicator.statistics(ds)["unfinished"].values)
    if unfinished.size:
        result.append(
            f"{unfinished.size} of {ds.sizes['member']} members are unfinished; their final values are those of the "
            "last epoch they recorded, and the last epochs of a curve are the mean over those that have them."
        )
    return result


def _member(ds: xr.Dataset, i: np.intp) -> str:
    values = {name: ds[name].values[i].item() for name in ("width", "seed", *indicator.setting_names(ds))}
    return f"member {ds['member'].values[i]} ({describe(values)})"


def _sweep_html(ds: xr.Dataset) -> str:
    """The axes with their values, and what all members share."""
    axes = indicator.varying(ds)
    rows = [
        (name.replace("_", " "), ", ".join(indicator.show(v) for v in np.unique(ds[name]).tolist())) for name in axes
    ]
    facts = "1 network" if ds.sizes["member"] == 1 else f"{ds.sizes['member']} networks"
    recorded = ds["epoch"].values[_any_but(ds["test_error"], "epoch")]
    if recorded.size:
        facts += f", {recorded.size} recorded epochs from {recorded[0]} to {recorded[-1]}"
    if "noise_rate" in ds.coords and (ds["noise_rate"] > 0).any():
        low, high = (f"{rate:.1%}" for rate in (float(ds["noise_rate"].min()), float(ds["noise_rate"].max())))
        facts += f", {low if low == high else f'{low} to {high}'} of the training labels wrong"
    fixed = [f.name for f in dataclasses.fields(Config) if f.name in ds.coords and f.name not in axes]
    constants = "".join(
        f"<div><dt>{name.replace('_', ' ')}</dt><dd>{html.escape(indicator.show(ds[name].values.flat[0]))}</dd></div>"
        for name in fixed
    )
    cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(values)}</td></tr>" for name, values in rows)
    return (
        f"<p>{facts}.</p>"
        + (f'<p class="small"><code>{html.escape(ds.attrs["command"])}</code></p>' if "command" in ds.attrs else "")
        + (f'<p>What varies:</p><div class="scroll"><table>{cells}</table></div>' if cells else "")
        + f'<p>What all of them share:</p><dl class="constants">{constants}</dl>'
    )


def _table_html(cells: list[list[str]]) -> str:
    rows = (
        "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in row)
        for tag, row in zip(["th"] + ["td"] * (len(cells) - 1), cells, strict=True)
    )
    lines = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return f'<div class="scroll"><table class="summary">{lines}</table></div>'


def _table_caption(table: xr.Dataset) -> str:
    """Defines the columns and names the interpolation thresholds."""
    names = [str(name) for name in table.coords if table[name].dims == ("row",) and name != "width"]
    thresholds = []
    for values, rows in indicator.groups(table, names, dim="row"):
        width = indicator.interpolation_width(rows)
        thresholds.append((f"{describe(values)}: " if values else "") + ("none" if width is None else f"width {width}"))
    return (
        "Means over seeds; (n/m): over n of m members, the ones where it happened. Errors in per cent of the test set, "
        "training error on the labels trained on. Best: lowest recorded. Peak: between the two descents over epochs, "
        f"smoothed over three recorded epochs, each of at least {100 * indicator.THRESHOLD:g} points; the second "
        "descent starts there; '-': no double descent. Final: last recorded. Interpolation epoch: the first recorded "
        f"one with a training error of at most {indicator.TOLERANCE:.0%}; '-': never. The interpolation "
        f"threshold, the smallest width whose final training error is at most that, is {'; '.join(thresholds)}."
    )


def _figure_html(image: bytes, inches: float, caption: str) -> str:
    data = base64.b64encode(image).decode()
    text = html.escape(caption)
    # 100 pixels an inch, whatever the resolution: letters have one size in all figures.
    return (
        f'<figure><div class="scroll"><img width="{100 * inches:.0f}" alt="{text.split(". ")[0]}" '
        f'src="data:image/png;base64,{data}"></div><figcaption>{text}</figcaption></figure>\n'
    )


def _write(path: pathlib.Path, content: bytes) -> None:
    """Replaces the file in one step: a reader sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
