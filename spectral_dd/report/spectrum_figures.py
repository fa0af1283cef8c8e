"""The figures of spectra: heat maps over epochs and frequency, and the share of high frequencies over epochs.

The spectra's quantities that only these figures need are here too; those that the analysis shares are in
`analysis.frequency`.
"""

from typing import Literal, NamedTuple

import matplotlib.patheffects
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spectral_dd.analysis import curves, frequency
from spectral_dd.records import SPLITS
from spectral_dd.report import axes
from spectral_dd.report.picture import Picture, Setting, draw_by_width
from spectral_dd.spectrum import first_high_bin

NormalisationName = Literal["power", "amplitude"]


class Normalisation(NamedTuple):
    """What the heat maps show: of which variable, the ratio in text and in TeX, and the mean in it."""

    variable: str
    ratio: str
    math: str
    mean: str


NORMALISATIONS: dict[str, Normalisation] = {
    "power": Normalisation(
        "energy", "log10(P_k / sum_k P_k)", r"$\log_{10}(P_k\,/\,\sum_k P_k)$", "P_k is the mean of |F_c[k]|^2"
    ),
    "amplitude": Normalisation(
        "amplitude", "log10(A_k / A_0)", r"$\log_{10}(A_k\,/\,A_0)$", "A_k is the mean of |F_c[k]|"
    ),
}
# Drawn over the heat maps: label, line, colour.
ERRORS = {
    "test_error": ("test error", "-", "white"),
    "noisy_error": ("error on relabelled examples", "--", "#66e0ff"),
}


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


def log_ratio(values: xr.DataArray, normalisation: NormalisationName = "power") -> xr.DataArray:
    """The matrix of the heat maps, (..., epoch, frequency); NaN where there is no spectrum or the ratio is 0.

    "power", the figures of arXiv 2004.13954: log10(P_k / sum_k P_k), DC in the sum, with P_k the mean of
    |F_c[k]|^2 over examples, classes and directions (`mean_spectrum` of `energy`). "amplitude", an earlier version
    of that paper: log10(A_k / A_0), A_k the same mean of |F_c[k]| (pass `amplitude`).
    """
    mean = mean_spectrum(values)
    whole = mean.sum("frequency") if normalisation == "power" else mean.isel(frequency=0)
    ratio = mean / whole.where(whole > 0)
    return xr.apply_ufunc(np.log10, ratio.where(ratio > 0))


def spectrum_picture(setting: Setting, normalisation: NormalisationName = "power") -> Picture:
    """The figure of arXiv 2004.13954: heat maps over epochs and frequency, a row a width and a column a split."""
    variable, _, math, _ = NORMALISATIONS[normalisation]
    spectra = setting.members[variable]
    by_width = setting.of(setting.members.isel(member=curves.measured(spectra, "member"))).by_shown_width()
    epochs = curves.measured(spectra, "epoch")
    ratios = [log_ratio(members[variable].isel(epoch=epochs), normalisation) for _, members in by_width]
    splits = [s for s in spectra["split"].values.tolist() if any(r.sel(split=s).notnull().any() for r in ratios)]
    finite = np.concatenate([r.values[np.isfinite(r.values)] for r in ratios])
    norm = Normalize(*np.percentile(finite, [1, 100]))
    figure = Figure(figsize=(10.5, 0.8 + 2.3 * len(by_width)), layout="constrained")
    setting.heading(figure)
    panels = figure.subplots(len(by_width), len(splits), sharex=True, sharey=True, squeeze=False)
    lines: dict[str, Line2D] = {}
    for row, (width, members), ratio in zip(panels, by_width, ratios, strict=True):
        for ax, split in zip(row, splits, strict=True):
            mesh = _draw_heat_map(ax, ratio.sel(split=split), norm)
            lines |= _draw_errors(ax, members, labelled=ax is row[-1])
            ax.set_title(f"width {width}, {SPLITS[split]}")
        row[0].set_ylabel("frequency\n(cycles per unit L2)")
    for ax in panels[-1]:
        ax.set_xlabel("epoch")
    figure.colorbar(mesh, ax=panels, label=math, extend="min", pad=0.01, aspect=12 * len(by_width))
    axes.explain_lines(figure, lines, columns=2)
    return setting.picture("spectrum", figure, _spectrum_caption(setting, normalisation))


def _spectrum_caption(setting: Setting, normalisation: NormalisationName) -> str:
    _, ratio, _, mean = NORMALISATIONS[normalisation]
    return (
        f"Spectrum over epochs{setting.words(band=False)}. Colour: {ratio}, DC included (arXiv 2004.13954). {mean} "
        "over examples, classes, directions and seeds; F_c is the DFT of the output for class c along lines through "
        "the examples of the split. All panels share one scale; its lowest hundredth is clipped. Grey: no spectrum. "
        "Left axis: frequency in cycles per unit L2 distance in input space, DC at the bottom. It is linear up to the "
        "first bin and logarithmic above. Lines, right axis: the test error and, with label noise, the error on the "
        "relabelled examples against the labels trained on (100%: none memorised)."
    )


def _draw_heat_map(ax: Axes, ratio: xr.DataArray, norm: Normalize) -> QuadMesh:
    """Draws (epoch, frequency) with cells around the recorded epochs and the bins; returns the mesh."""
    step = float(ratio["frequency"][1] - ratio["frequency"][0])
    edges = np.concatenate([[0.0], ratio["frequency"].values + step / 2])
    matrix = np.ma.masked_invalid(ratio.transpose("frequency", "epoch").values)
    mesh = ax.pcolormesh(axes.log_edges(ratio["epoch"].values), edges, matrix, norm=norm, cmap="magma", rasterized=True)
    ax.grid(False)
    ax.set_facecolor("0.75")
    # A log axis gives an octave as much room as the next; it is linear below the first bin so that DC has a place.
    ax.set_yscale("symlog", base=2, linthresh=step, linscale=1)
    axes.fixed_ticks(ax.yaxis, [0.0, *axes.spread(ratio["frequency"].values[1:], 4, base=4)])
    ax.set_ylim(0, edges[-1])
    axes.epoch_axis(ax, ratio["epoch"].values)
    ax.set_xlabel("")
    return mesh


def _draw_errors(ax: Axes, members: xr.Dataset, labelled: bool) -> dict[str, Line2D]:
    """Draws test and noisy error over a heat map against an axis on the right; returns the lines by label."""
    right = ax.twinx()
    right.grid(False)
    outline = [matplotlib.patheffects.withStroke(linewidth=3, foreground="black")]
    lines = {}
    for name, (label, style, colour) in ERRORS.items():
        if name in members and members[name].notnull().any():
            error = members[name].mean("member")
            (lines[label],) = right.plot(error["epoch"], error, style, color=colour, path_effects=outline)
    right.set_ylim(0, 1.02)
    right.spines["right"].set_visible(labelled)
    right.yaxis.set_major_formatter(axes.percent())
    right.tick_params(right=labelled, labelright=labelled)
    if labelled:
        right.set_ylabel("error")
    return lines


def high_frequency_picture(setting: Setting, colours: axes.WidthColours) -> Picture:
    """The share of high frequencies on the training set, how much of it the slope explains, and the test error."""
    train = setting.of(setting.members.sel(split="train"))
    bins = train.members["frequency"].values
    first = first_high_bin(len(bins))
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    setting.heading(figure, name_width=True)
    panels = figure.subplots(1, 3, sharex=True)

    def share(members: xr.Dataset) -> xr.DataArray:
        return frequency.high_frequency_share(members["energy"].astype(np.float64))

    def share_of_mean(members: xr.Dataset) -> xr.DataArray:
        return frequency.high_frequency_share(mean_spectrum(members["energy"]))

    draw_by_width(panels[0], train, colours, share, mean=share_of_mean)
    panels[0].set_ylabel(rf"$\sum_{{k\geq {first}}} P_k\,/\,\sum_k P_k$, training set")
    draw_by_width(panels[1], train, colours, lambda members: members["slope_share"])
    panels[1].set_ylabel("of that, a straight line's")
    panels[1].axhline(frequency.SLOPE_DOMINATED, color="black", linestyle="--", linewidth=1)
    draw_by_width(panels[2], train, colours, lambda members: members["test_error"])
    panels[2].set_ylabel("test error")
    for ax, formatter in zip(panels[::2], (axes.number(), axes.percent()), strict=True):
        axes.log_axis(ax, formatter)
    axes.percent_axis(panels[1])
    colours.explain(figure, panels)

    dominated = train.members["slope_dominated"].where(train.members["slope_share"].notnull())
    rounding = ""
    if "noise_share" in train.members:
        noise = train.members["noise_share"].isel(frequency=slice(first, None))
        too_much = float((noise > frequency.NOISE_DOMINATED).where(noise.notnull()).mean())
        rounding = (
            f" What the straight line leaves is rounding by more than {frequency.NOISE_DOMINATED:.0%} in {too_much:.0%}"
            " of these bins and epochs: there, it says little of the function."
        )
    caption = (
        f"High frequencies on the training set{setting.words()}. Left: the share of the power that lies in bins "
        f"k >= {first} ({bins[first]:g} cycles per unit L2 distance and above), DC included in the whole. Middle: how "
        "much of that power a straight line with the measured slope has. The DFT takes the segment as periodic, so a "
        "straight line leaks P_k ~ 1/sin^2(pi k/N) into every bin. Above the dashed line "
        f"({frequency.SLOPE_DOMINATED:.0%}) a spectrum is slope-dominated: its high frequencies show the slope and "
        f"nothing else. That holds for {float(dominated.mean()):.0%} of the spectra. Above 100%, the line and the rest "
        f"cancel in part. Right: test error.{rounding}"
    )
    return setting.picture("high_frequency", figure, caption)
