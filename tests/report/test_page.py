"""A page for each kind of sweep: what it says, that it is one file, and that text in it stays text."""

import collections
import html.parser
import re

import pytest
import xarray as xr
from small_sweep import make_sweep

from spectral_dd.analysis import words
from spectral_dd.analysis.verdict import verdict
from spectral_dd.report import draw_report, page


class Page(html.parser.HTMLParser):
    """The parts of a page: its tags with their attributes, and the text in each kind of element."""

    def __init__(self, path):
        super().__init__()
        self.html = path.read_text()
        self.tags, self.text, self.open = [], collections.defaultdict(list, {"": [""]}), ""
        self.feed(self.html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.text[tag].append("")
        self.open = tag

    def handle_endtag(self, tag):
        self.open = ""

    def handle_data(self, data):
        self.text[self.open][-1] += data


def draw(ds, directory, **options):
    """Draws the report, checks what holds for every one, and returns the page and the names of its figures' files."""
    path = draw_report(ds, directory, "Sweep <1> & more", **options)
    assert path == directory / "report.html"
    drawn = Page(path)
    files = sorted(p.name for p in directory.glob("figures/*"))
    sources = [attributes["src"] for tag, attributes in drawn.tags if tag == "img"]
    assert len(sources) == len(set(sources)) == len(files)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in drawn.tags}
    assert not any({"href", "srcset", "onload", "onclick"} & attributes.keys() for _, attributes in drawn.tags)
    words = re.sub(r"base64,[^\"]+", "", drawn.html)
    assert "http" not in words and "url(" not in words and "@import" not in words and "nan" not in words.lower()
    assert drawn.text["h1"] == drawn.text["title"] == ["Sweep <1> & more"]
    assert not list(directory.rglob("*.tmp"))
    return drawn, files


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    ds = make_sweep().assign_attrs(command="train --width=2,4 --name=<x> & 'y'")
    return draw(ds, tmp_path_factory.mktemp("whole"))


def test_a_whole_sweep_has_every_figure_with_its_caption(whole):
    drawn, files = whole
    figures = ("error_against_width", "error_over_epochs", "high_frequency", "memorisation", "spectrum")
    assert files == [f"{name}.png" for name in figures]
    assert ["mean over 2 seeds" in caption for caption in drawn.text["figcaption"]] == [True] * len(files)
    alternatives = [attributes["alt"] for tag, attributes in drawn.tags if tag == "img"]
    assert [c.startswith(a) and a for a, c in zip(alternatives, drawn.text["figcaption"], strict=True)] == alternatives


def test_a_whole_sweep_is_described(whole):
    drawn, _ = whole
    assert dict(zip(drawn.text["dt"], drawn.text["dd"], strict=True))["dataset"] == "digits"
    assert "<th>width</th><td>2, 4</td>" in drawn.html
    assert drawn.text["code"] == ["train --width=2,4 --name=<x> & 'y'"]
    assert "20.0% of the training labels wrong" in drawn.html
    assert not any(attributes.get("class") == "note" for _, attributes in drawn.tags)
    assert any("in 4 members: 4 strong, 0 weak, 0 none" in sentence for sentence in drawn.text["li"])
    assert "at most 1%, is width 4." in drawn.html


def test_the_question_is_answered_first_then_the_table_then_the_details(whole):
    drawn, _ = whole
    found = verdict(make_sweep())
    question = drawn.html.index(f"<h2>{words.QUESTION}".replace("'", "&#39;"))
    answer = drawn.html.index(f'<p class="answer">{words.UNTOLD}: it has 2 seeds', question)
    table = drawn.html.index(f"<th>{words.verdict_cells(found)[0][3]}</th>", answer)
    assert drawn.html.index("<summary>Details</summary>", table) < drawn.html.index("<h2>Figures")
    assert drawn.text["li"] == words.verdict_details(found, make_sweep())


def test_text_is_escaped_wherever_it_comes_from(tmp_path):
    ds = make_sweep(widths=(4,), seeds=(0,)).drop_dims("example")
    both = xr.concat([ds.assign_coords(dataset=("member", [name])) for name in ('a<i>"', "b&amp;")], "member")
    drawn, files = draw(both.assign_coords(model=("member", ["<script>"] * 2)), tmp_path)
    assert not {"i", "script"} & {tag for tag, _ in drawn.tags}
    assert drawn.text["dd"][0] == "<script>"
    assert 'dataset a<i>"' in drawn.text["figcaption"][1] and "dataset b&amp;" in drawn.text["figcaption"][2]
    assert files[1:] == ["error_over_epochs-dataset-a-i.png", "error_over_epochs-dataset-b-amp.png"]


def test_each_setting_is_drawn_by_itself(tmp_path):
    drawn, files = draw(make_sweep(widths=(4,), seeds=(0,), noises=(0.0, 0.2)), tmp_path, normalisation="amplitude")
    assert "spectrum-label-noise-0.png" in files and "spectrum-label-noise-0.2.png" in files
    assert len(files) == 8
    assert "label noise 0: width 4; label noise 0.2: width 4" in drawn.html
    assert "log10(A_k / A_0)" in drawn.html and "a single seed" in drawn.html


@pytest.mark.parametrize("options", [{"widths": (8,)}, {"seeds": (3,), "noises": (0.0,)}], ids=str)
def test_one_width_or_one_seed_without_noise(tmp_path, options):
    _, files = draw(make_sweep(**options), tmp_path)
    assert len(files) == (4 if options.get("noises") == (0.0,) else 5)


def test_a_sweep_without_spectra_has_no_verdict(tmp_path):
    drawn, files = draw(make_sweep(widths=(4,)).drop_dims("example"), tmp_path)
    assert len(files) == 2 and drawn.text["h2"] == ["The sweep", "Results", "Figures"]


def test_unfinished_and_diverged_members_are_named(tmp_path):
    ds = make_sweep(widths=(2, 4, 8))
    not_started, stopped = ds.member == 1, (ds.member == 0) & (ds.epoch > 3)
    ds = ds.where(~(not_started | stopped)).assign(diverged=("member", [-1, -1, 6, -1, 1, 1]))
    drawn, files = draw(ds, tmp_path)
    assert len(files) == 5
    assert "member 2 (width 4, seed 0) at epoch 6; member 4 (width 8, seed 0) at epoch 1; member 5" in drawn.html
    assert "3 of 6 members diverged" in drawn.html and "2 of 6 members are unfinished" in drawn.html


def test_of_many_diverged_members_only_some_are_named(tmp_path):
    ds = make_sweep(seeds=range(20)).drop_dims("example")
    drawn, _ = draw(ds.assign(diverged=0 * ds.diverged + 3), tmp_path)
    (note,) = [text for text in drawn.text["p"] if "diverged" in text]
    assert "40 of 40 members diverged" in note and note.count("at epoch 3") == page.NAMED and note.endswith("; ....")


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_sweep_that_has_just_begun(tmp_path, epochs):
    _, files = draw(make_sweep(widths=(4,)).isel(epoch=slice(epochs)), tmp_path)
    assert len(files) == (1 if epochs == 1 else 5)


def test_nothing_to_draw(tmp_path):
    ds = make_sweep()
    drawn, files = draw(ds.assign(diverged=ds.diverged * 0), tmp_path)
    assert files == [] and "No member has anything to draw." in drawn.text["p"]


def test_a_report_replaces_an_older_one_and_is_the_same_each_time(tmp_path):
    ds = make_sweep(widths=(4,)).drop_dims("example")
    first = draw_report(ds, tmp_path, "t").read_bytes()
    (tmp_path / "report.html").write_text("old")
    assert draw_report(ds, str(tmp_path), "t").read_bytes() == first
