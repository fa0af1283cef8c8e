"""Writes report.html and the figures' files: collects what the page says and fills `page.html.jinja` with it.

What the figures show is in `figures.py`, what the numbers mean in `analysis`.
"""

import base64
import io
import os
import pathlib
from typing import Any

import jinja2
import matplotlib
import numpy as np
import xarray as xr

from spectral_dd.analysis import curves, verdict, words
from spectral_dd.config import FIELDS
from spectral_dd.files import write_whole
from spectral_dd.report.axes import STYLE
from spectral_dd.report.figures import pictures
from spectral_dd.report.picture import INTERPOLATION_THRESHOLD, PEAK, has_spectra
from spectral_dd.report.spectrum_figures import NormalisationName

NAMED = 10  # Of members that diverged, and of thresholds, at most: of more, their number says enough.


def draw_report(
    ds: xr.Dataset, directory: str | os.PathLike[str], title: str, normalisation: NormalisationName = "power"
) -> pathlib.Path:
    """Draws the figures into `directory`/figures and writes `directory`/report.html, which holds them all.

    Args:
      ds: a data set as `load_results` returns it; spectra may be absent, members unfinished or diverged.
      directory: made if it does not exist; each file is replaced in one step.
      title: heading of the page.
      normalisation: of the heat maps, see `spectrum_figures.log_ratio`.

    Returns:
      The path of report.html: one file without scripts or external resources.
    """
    directory = pathlib.Path(directory)
    figures, drawn = [], set()
    with matplotlib.rc_context(STYLE):
        for name, figure, caption in pictures(ds, normalisation):
            image = io.BytesIO()
            figure.savefig(image, format="png")
            write_whole(directory / "figures" / f"{name}.png", image.getvalue())
            drawn.add(name)
            # 100 pixels an inch, whatever the resolution: letters have one size in all figures.
            width = round(100 * figure.get_figwidth())
            figures.append({"width": width, "caption": caption, "data": base64.b64encode(image.getvalue()).decode()})
    for old in (directory / "figures").glob("*.png"):  # of an earlier call, on other data
        if old.stem not in drawn:
            old.unlink()
    path = directory / "report.html"
    write_whole(path, _page(ds, title=title, figures=figures))
    return path


def _page(ds: xr.Dataset, **content: Any) -> str:
    table = curves.summary(ds)
    varying = curves.varying(ds)
    # `spectral_dd.report` holds the template; autoescape, because a title or a command may hold any character.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spectral_dd.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.jinja").render(
        notes=notes(ds, table),
        facts=_facts(ds),
        command=ds.attrs.get("command"),
        varying={name: ", ".join(map(words.show, np.unique(ds[name]).tolist())) for name in varying},
        shared={name: words.show(ds[name].values.flat[0]) for name in FIELDS if name in ds.coords.keys() - varying},
        cells=words.summary_cells(table),
        table_caption=_table_caption(table),
        **_verdict(ds),
        **content,
    )


def _verdict(ds: xr.Dataset) -> dict[str, Any]:
    """The answer to the question, the table of measures and the details; no answer without spectra."""
    if not has_spectra(ds, "energy"):
        return {"answer": None}
    found = verdict.verdict(ds)
    return {
        "question": words.QUESTION,
        "answer": words.answer(found, ds.attrs.get("command", "")),
        "measures": words.verdict_cells(found),
        "meaning": words.MEANING,
        "details": words.verdict_details(found, ds),
    }


def notes(ds: xr.Dataset, table: xr.Dataset) -> list[str]:
    """Returns a note on the members that diverged and one on those that are unfinished, if there are any.

    Args:
      table: `curves.summary` of `ds`.
    """
    result, total = [], ds.sizes["member"]
    names = ["width", "seed", *curves.setting_names(ds)]

    def named(i: int) -> str:
        values = words.describe({name: ds[name].values[i].item() for name in names})
        return f"member {ds['member'].values[i]} ({values}) at epoch {ds['diverged'].values[i]}"

    diverged = np.flatnonzero(ds["diverged"] >= 0).tolist()
    if diverged:
        some = "; ".join(map(named, diverged[:NAMED])) + ("; ..." if len(diverged) > NAMED else "")
        result.append(
            f"{len(diverged)} of {total} members diverged. They are counted, but neither averaged nor drawn: {some}."
        )
    if incomplete := ds.attrs.get("incomplete"):
        result.append(f"Not all is here: {incomplete}.")
    if unfinished := int(table["unfinished"].sum()):
        result.append(
            f"{unfinished} of {total} members are unfinished. Their final values are those of the last epoch they "
            "recorded. The last epochs of a curve are the mean over the members that have them."
        )
    return result


def _facts(ds: xr.Dataset) -> str:
    """How many networks, epochs and wrong labels."""
    facts = ["1 network" if ds.sizes["member"] == 1 else f"{ds.sizes['member']} networks"]
    epochs = ds["epoch"].values[curves.measured(ds["test_error"], "epoch")]
    if epochs.size:
        facts.append(f"{epochs.size} recorded epochs from {epochs[0]} to {epochs[-1]}")
    if "noise_rate" in ds.coords and (ds["noise_rate"] > 0).any():
        low, high = f"{float(ds['noise_rate'].min()):.1%}", f"{float(ds['noise_rate'].max()):.1%}"
        facts.append(f"{low if low == high else f'{low} to {high}'} of the training labels wrong")
    return ", ".join(facts)


def _table_caption(table: xr.Dataset) -> str:
    """Defines the columns and names the interpolation thresholds."""
    return (
        "Means over seeds; (n/m): over the n of m members where it happened. Errors are in per cent of the test set; "
        f"the training error is on the labels trained on. Best: the lowest recorded. {PEAK} The second descent starts "
        "there; '-': no double descent. Final: the last recorded. Interpolation epoch: the first recorded one with a "
        f"training error of at most {curves.TOLERANCE:.0%}; '-': never. The {INTERPOLATION_THRESHOLD}, is "
        f"{_thresholds(table)}."
    )


def _thresholds(table: xr.Dataset) -> str:
    """The interpolation threshold of each setting, of many settings the smallest and the largest."""
    names = [str(name) for name in table.coords if table[name].dims == ("row",) and name != "width"]
    settings = curves.group_places(table, names, "row")
    found = [curves.interpolation_width(table.isel(row=rows)) for _, rows in settings]
    if len(settings) <= NAMED:
        about = [f"{words.describe(values)}: " if values else "" for values, _ in settings]
        return "; ".join(a + (f"width {width}" if width else "none") for a, width in zip(about, found, strict=True))
    widths = [width for width in found if width]
    there = f"width {min(widths)} to {max(widths)} in {len(widths)}" if widths else "none in any"
    return f"{there} of {len(settings)} settings"
