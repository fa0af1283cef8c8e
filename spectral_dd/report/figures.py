"""Which figures a data set gives, and those of errors over widths and epochs and of memorisation.

Members that diverged are left out of every figure. A curve is the mean over the members of one width and setting,
that is over seeds, of those that have the epoch.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spectral_dd.analysis import curves, memorisation, words
from spectral_dd.records import SPLITS, VARIABLES
from spectral_dd.report import axes, spectrum_figures
from spectral_dd.report.axes import BLUE, GREEN, GREY, ORANGE, PINK, WidthColours
from spectral_dd.report.picture import (
    INTERPOLATION_THRESHOLD,
    PEAK,
    Picture,
    Setting,
    draw_by_width,
    has_spectra,
    seeds,
    spread,
)

# Variables of `curves.statistics`: label, colour, marker, line.
ERRORS = {
    "peak_error": ("peak test error", ORANGE, "^", "-"),
    "final_error": ("final test error", BLUE, "o", "-"),
    "best_error": ("best test error", GREEN, "v", "-"),
    "final_train_error": ("final training error", GREY, "s", "--"),
}
# Of `curves.summary`, in figures of many settings.
OVERVIEW = {
    "final_error": "final test error",
    "peak_error": "peak test error",
    "final_train_error": "final training error",
}
# So many are drawn each by itself; of more there is an overview, and as many are picked from all over it.
MOST_SETTINGS = 6
# Variables of `memorisation.memorisation`: label, colour.
MEMORISATION = {
    "high_frequency_share": ("high-frequency share", ORANGE),
    "jacobian_norm": ("Jacobian norm", BLUE),
    "loss": ("loss", GREEN),
    "loss_curvature": ("curvature of the loss", PINK),
    "negative_margin": ("negative margin", GREY),
    "negative_area_under_margin": ("negative area under the margin", "black"),
}


def pictures(ds: xr.Dataset, normalisation: spectrum_figures.NormalisationName = "power") -> Iterator[Picture]:
    """Yields what can be drawn of `ds`: errors always, each setting by itself; spectra where there are any."""
    drawable = ((ds["diverged"] < 0) & ds["test_error"].notnull().any("epoch")).values
    spectra = [name for name in ("energy", "amplitude") if has_spectra(ds, name)]
    # Examples are averaged once, here: all that follows is small.
    own = [str(name) for name in ds if name not in VARIABLES and "example" in ds[name].dims]
    averaged = {name: ds[name].mean("example", keep_attrs=True).compute() for name in (*spectra, *own)}
    means = ds.drop_dims("example", errors="ignore").assign(averaged)
    if spectra:
        means = means.assign(memorisation.memorisation(ds))
    means = means.isel(member=np.flatnonzero(drawable))
    if not means.sizes["member"]:
        return
    names, table = curves.setting_names(ds), curves.summary(means)
    found = curves.group_places(means, names)
    shown: Sequence[int] = range(len(found))
    if len(found) > MOST_SETTINGS:
        yield overview_picture(table, names)
        shown = np.linspace(0, len(found) - 1, MOST_SETTINGS).round().astype(int).tolist()
    rows = curves.group_places(table, names, "row")
    settings = [
        Setting(found[i][0], means.isel(member=found[i][1]), curves.interpolation_width(table.isel(row=rows[i][1])))
        for i in shown
    ]
    yield width_picture(settings)
    colours = WidthColours(ds["width"].values)
    for setting in settings:
        members = setting.members.sel(epoch=setting.members["epoch"] > 0)
        if spectra:  # `frequency` is the union over settings of different segments
            members = members.isel(frequency=curves.measured(members[spectra[0]], "frequency"))
        if not members["test_error"].notnull().any():
            continue
        trained = setting.of(members)
        yield epoch_picture(trained, colours)
        if has_spectra(members, spectrum_figures.NORMALISATIONS[normalisation].variable):
            yield spectrum_figures.spectrum_picture(trained, normalisation)
        if "slope_share" in members and has_spectra(members, "energy"):
            yield spectrum_figures.high_frequency_picture(trained, colours)
        if any(name in members and members[name].notnull().any() for name in MEMORISATION):
            yield memorisation_picture(trained)
        for name in own:
            if members[name].notnull().any():
                yield own_picture(trained, colours, name)


def overview_picture(table: xr.Dataset, names: Sequence[str]) -> Picture:
    """Errors of all settings as heat maps, a row a setting and a column a width.

    Args:
      table: `curves.summary` of all members.
      names: of the fields that tell settings apart.
    """
    rows = curves.group_places(table, names, "row")
    widths = np.unique(table["width"].values)
    figure = Figure(figsize=(10.5, 1.5 + min(6.5, 0.2 * len(rows))), layout="constrained")
    panels = figure.subplots(1, len(OVERVIEW), sharex=True, sharey=True)
    for ax, (name, label) in zip(panels, OVERVIEW.items(), strict=True):
        matrix = np.full((len(rows), len(widths)), np.nan)
        for number, (_, places) in enumerate(rows):
            columns = np.searchsorted(widths, table["width"].values[places])
            matrix[number, columns] = table[name].values[places]
        axes.heat_map(figure, ax, matrix, label)
        axes.few_ticks(ax.xaxis, [str(width) for width in widths], 8)
        ax.set_xlabel("width")
    axes.few_ticks(panels[0].yaxis, [words.describe(values) for values, _ in rows], 30)
    caption = (
        f"All {len(rows)} settings, a row each; a cell is the mean over the seeds of one width. {PEAK} Grey: there is "
        f"none. The figures below show {MOST_SETTINGS} of the settings, evenly picked from the first to the last; a "
        "data set of some members, ds.isel(member=...), gives a page of its own with report.draw_report."
    )
    return Picture("overview", figure, caption)


def width_picture(settings: Sequence[Setting]) -> Picture:
    """Error against width, a panel for each setting."""
    columns = 2 if len(settings) == 4 else min(len(settings), 3)
    rows = -(-len(settings) // columns)
    size = (7.5 if columns == 1 else 10.5, 4.2 if columns == 1 else 0.5 + 3.0 * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    lines: dict[str, Line2D] = {}
    for ax, setting in zip(panels.flat, settings, strict=False):
        lines |= _draw_widths(ax, setting)
        ax.set_title(words.describe(setting.values))
    for ax in panels.flat[len(settings) :]:
        ax.remove()
    for ax in panels[:, 0]:
        ax.set_ylabel("error")
    # All panels share these; set after drawing, because a lower limit fixes the upper one too.
    axes.percent_axis(panels[0, 0])
    widths = np.unique(np.concatenate([setting.members["width"] for setting in settings]))
    axes.width_axis(panels[0, 0], widths, ticks=20 if columns == 1 else 8)
    for i in range(columns):
        bottom = (len(settings) - 1 - i) // columns
        panels[bottom, i].set_xlabel("width")
        panels[bottom, i].tick_params(labelbottom=True)
    axes.explain_lines(figure, lines, columns=3 if columns == 1 else 5)
    caption = (
        f"Error against width{seeds(settings)}. Final: the last recorded epoch. Best: the lowest recorded test error. "
        f"{PEAK} The mark is the mean over the seeds that have a peak. Dotted line: the {INTERPOLATION_THRESHOLD}."
    )
    return Picture("error_against_width", figure, caption)


def _draw_widths(ax: Axes, setting: Setting) -> dict[str, Line2D]:
    """Draws one panel of `width_picture`; returns its lines by label."""
    by_width = curves.groups(curves.statistics(setting.members), ["width"])
    widths = np.array([values["width"] for values, _ in by_width])
    lines = {}
    for name, (label, colour, marker, style) in ERRORS.items():
        each = [members[name] for _, members in by_width]
        mean = np.array([float(s.mean()) for s in each])
        low, high = np.transpose([spread(s) for s in each])
        if np.isfinite(mean).any():
            look = {"color": colour, "marker": marker, "linestyle": style, "markersize": 4, "clip_on": False}
            lines[label] = axes.draw_curve(ax, widths, mean, low, high, len(ERRORS), **look)
    if setting.threshold is not None:
        lines["interpolation threshold"] = ax.axvline(setting.threshold, color="black", linestyle=":", linewidth=1)
    return lines


def epoch_picture(setting: Setting, colours: WidthColours) -> Picture:
    """Test and training error over epochs, all widths of one setting."""
    figure = Figure(figsize=(10.5, 3.9), layout="constrained")
    setting.heading(figure, name_width=True)
    left, right = figure.subplots(1, 2, sharex=True)
    draw_by_width(left, setting, colours, lambda members: members["test_error"])
    draw_by_width(right, setting, colours, lambda members: members["train_error"])
    left.set_ylabel("test error")
    right.set_ylabel("training error (labels trained on)")
    axes.log_axis(left, axes.percent())
    axes.percent_axis(right)
    colours.explain(figure, (left, right))
    caption = (
        f"Error over epochs for each width{setting.words()}. Left: test error, on a log axis. Right: training error on "
        "the labels trained on. Epoch 0, before training, is left out."
    )
    return setting.picture("error_over_epochs", figure, caption)


def memorisation_picture(setting: Setting) -> Picture:
    """How well relabelled training examples are told from the others, over epochs, a panel a width."""
    by_width = setting.by_shown_width()
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    setting.heading(figure)
    panels = figure.subplots(1, len(by_width), sharex=True, sharey=True, squeeze=False)[0]
    lines = {}
    for ax, (width, members) in zip(panels, by_width, strict=True):
        for name, (label, colour) in MEMORISATION.items():
            if name in members and members[name].notnull().any():
                mean = members[name].mean("member").dropna("epoch")
                each = members[name].sel(epoch=mean["epoch"])
                x, bands = mean["epoch"].values, len(MEMORISATION)
                lines[label] = axes.draw_curve(ax, x, mean.values, *spread(each), bands, color=colour)
        ax.axhline(0.5, color="black", linestyle=":", linewidth=1)
        ax.set_title(f"width {width}")
        ax.set_ylim(0, 1)
        axes.epoch_axis(ax, setting.members["epoch"].values)
    panels[0].set_ylabel("AUC")
    axes.explain_lines(figure, lines, columns=len(lines))
    caption = (
        f"Detection of relabelled training examples{setting.words()}. AUC, the area under the ROC curve, is "
        "the probability that a relabelled example has a higher value than one with its true label. Each value is "
        "measured around a single example. Dotted: chance, 0.5."
    )
    return setting.picture("memorisation", figure, caption)


def own_picture(setting: Setting, colours: WidthColours, name: str) -> Picture:
    """A measure of one's own over epochs, a panel a split."""
    values = setting.members[name]
    splits = [split for split in SPLITS if values.sel(split=split).notnull().any()]
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    setting.heading(figure, name_width=True)
    panels = figure.subplots(1, len(splits), sharex=True, sharey=True, squeeze=False)[0]
    for ax, split in zip(panels, splits, strict=True):
        draw_by_width(ax, setting.of(setting.members.sel(split=split)), colours, lambda members: members[name])
        ax.set_title(SPLITS[split])
    about = values.attrs
    long_name, units = about.get("long_name", name), about.get("units", "1")
    panels[0].set_ylabel(long_name if units == "1" else f"{long_name} ({units})")
    colours.explain(figure, panels)
    caption = f"{long_name.capitalize()}, mean over examples{setting.words()}. {about.get('description', '')}"
    return setting.picture(name, figure, caption.strip())
