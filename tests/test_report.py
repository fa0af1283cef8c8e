"""The report's quantities against hand-written loops, and a page for each kind of sweep."""

import re

import numpy as np
import pytest
import xarray as xr

from spectral_dd import report
from spectral_dd.spectrum import slope_spectrum

NAN = np.nan
EPOCHS = np.array([0, 1, 2, 3, 4, 6, 10, 16])
NUM_FREQUENCIES = 17


def make_sweep(widths=(2, 4), seeds=(0, 1), noises=(0.2,)):
    """A small sweep with a test error that falls, rises and falls, and spectra that are a ramp's times noise."""
    rng = np.random.default_rng(0)
    fields = [(w, s, n) for w in widths for s in seeds for n in noises]
    members, epochs = len(fields), len(EPOCHS)
    width, seed, noise = (np.array(column) for column in zip(*fields, strict=True))
    test = np.array([0.9, 0.9, 0.2, 0.1, 0.3, 0.3, 0.1, 0.1]) + 0.1 / width[:, None]
    train = np.array([0.9, 0.8, 0.4, 0.2, 0.1, 0.0, 0.0, 0.0]) + np.where(width[:, None] < 4, 0.1, 0.0)
    noisy = np.where(noise[:, None] > 0, np.linspace(1, 0, epochs), NAN)
    energy = rng.random((members, epochs, 3, 6, NUM_FREQUENCIES)) + 0.5
    ramp = slope_spectrum(2 * NUM_FREQUENCIES - 2)
    energy *= np.concatenate([[ramp[1] * 1e3], ramp[1:]])
    energy[:, :, 1, 4:] = NAN  # fewer relabelled examples than asked for
    energy[noise == 0, :, 1] = NAN
    spectrum = ("member", "epoch", "split", "example", "frequency")
    share = rng.uniform(0.6, 1.1, (members, epochs, 3))
    relabelled = np.tile(np.array([[0, 1, 0, 0, 1, 0], [1] * 6, [0] * 6], float), (members, epochs, 1, 1))
    curve = ("member", "epoch")
    return xr.Dataset(
        {
            "test_error": (curve, test),
            "train_error": (curve, train),
            "noisy_error": (curve, noisy),
            "energy": (spectrum, energy),
            "amplitude": (spectrum, np.sqrt(energy)),
            "slope_share": (spectrum[:3], share),
            "slope_dominated": (spectrum[:3], share > 0.9),
            "relabelled": (spectrum[:4], relabelled),
            "diverged": ("member", np.full(members, -1)),
        },
        coords={
            "member": np.arange(members),
            "epoch": EPOCHS,
            "split": ["train", "noisy", "test"],
            "frequency": np.arange(NUM_FREQUENCIES) / 0.5,
            "width": ("member", width),
            "seed": ("member", seed),
            "label_noise": ("member", noise),
            "dataset": ("member", np.full(members, "digits", object)),
            "epochs": ("member", np.full(members, 16)),
            "parameters": ("member", width**2),
            "noise_rate": ("member", noise),
        },
    )


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    monkeypatch.setitem(report.STYLE, "savefig.dpi", 40)


def draw(ds, directory, **options):
    """Draws the report, checks what holds for every one, and returns the page without the images' data."""
    path = report.draw_report(ds, directory, "Sweep <1> & more", **options)
    assert path == directory / "report.html"
    page = path.read_text()
    files = sorted(p.name for p in (directory / "figures").iterdir())
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) == len(set(images)) == len(files)
    page = re.sub(r"base64,[^\"]+", "", page)
    assert "http" not in page and "<script" not in page and "nan" not in page.lower()
    assert "<h1>Sweep &lt;1&gt; &amp; more</h1>" in page
    assert not list(directory.rglob("*.tmp"))
    return page, files


def test_log_ratio_is_the_hand_written_loop():
    energy = make_sweep().energy.sel(split="noisy").isel(member=slice(0, 2))
    values = energy.values
    expected = np.empty((len(EPOCHS), NUM_FREQUENCIES))
    for e in range(len(EPOCHS)):
        power = np.zeros(NUM_FREQUENCIES)
        for member in range(2):
            for example in range(4):  # the others are NaN
                power += values[member, e, example] / 8
        expected[e] = np.log10(power / power.sum())
    result = report.log_ratio(energy)
    assert result.dims == ("epoch", "frequency")
    np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_log_ratio_of_amplitudes_is_relative_to_dc():
    amplitude = make_sweep().amplitude.sel(split="train")
    mean = amplitude.values.mean(axis=(0, 2))
    expected = np.log10(mean / mean[:, :1])
    np.testing.assert_allclose(report.log_ratio(amplitude, "amplitude"), expected, rtol=1e-12)


def test_log_ratio_is_nan_without_a_spectrum_and_where_the_power_is_zero():
    power = xr.DataArray([[1.0, 9.0, 0.0], [0.0, 0.0, 0.0], [NAN, NAN, NAN]], dims=("epoch", "frequency"))
    expected = [[-1, np.log10(0.9), NAN], [NAN] * 3, [NAN] * 3]
    np.testing.assert_allclose(report.log_ratio(power), expected)


def test_log_edges_are_geometric_means_with_symmetric_outer_cells():
    np.testing.assert_allclose(report.log_edges(np.array([1.0, 4.0, 64.0])), [0.5, 2, 16, 256])
    np.testing.assert_allclose(report.log_edges(np.array([10])), [10 / 2**0.5, 10 * 2**0.5])


def test_heat_map_cells_lie_around_their_epochs_and_frequencies():
    ax = report.Figure().subplots()
    ratio = report.log_ratio(make_sweep().energy.sel(split="test", epoch=EPOCHS[1:]))
    mesh = report._draw_heat_map(ax, ratio, report.Normalize(-4, 0))
    corners = mesh.get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], report.log_edges(EPOCHS[1:]))
    np.testing.assert_allclose(corners[:, 0, 1], [0, *(2 * np.arange(NUM_FREQUENCIES) + 1)])
    np.testing.assert_allclose(mesh.get_array().reshape(NUM_FREQUENCIES, -1), ratio.T)


def test_chosen_widths():
    assert report.chosen_widths([4, 1, 2, 2], 2) == [1, 2, 4]
    assert report.chosen_widths([1, 2, 4, 8, 16, 32, 64], 8) == [1, 8, 32, 64]
    assert report.chosen_widths([1, 2, 4, 8, 16, 32, 64], None) == [1, 4, 16, 64]
    assert report.chosen_widths([1, 2, 4, 8, 16, 32, 64], 1) == [1, 4, 16, 64]


def test_spread_keeps_ticks_apart_and_prefers_doublings():
    assert report.spread(np.array([1, 2, 3, 4, 8]), 20) == [1, 2, 3, 4, 8]
    assert report.spread(np.arange(1, 65), 6) == [1, 2, 4, 8, 16, 32, 64]
    assert report.spread(np.array([5]), 4) == [5]


def test_report_of_a_whole_sweep(tmp_path):
    page, files = draw(make_sweep().assign_attrs(command="train --width=2,4 --name=<x>"), tmp_path)
    figures = ("error_against_width", "error_over_epochs", "high_frequency", "memorisation", "spectrum")
    assert files == [f"{name}.png" for name in figures]
    captions = re.findall("<figcaption>(.*)</figcaption>", page)
    assert ["mean over 2 seeds" in caption for caption in captions] == [True] * len(files)
    assert "width</th><td>2, 4</td>" in page
    assert "<dt>dataset</dt><dd>digits</dd>" in page
    assert "<code>train --width=2,4 --name=&lt;x&gt;</code>" in page
    assert "20.0% of the training labels wrong" in page
    assert 'class="note"' not in page
    assert "Second descents of the test error in 4 members: 4 strong, 0 weak, 0 none" in page
    assert "at most that, is width 4." in page


def test_report_draws_each_setting_by_itself(tmp_path):
    page, files = draw(make_sweep(widths=(4,), seeds=(0,), noises=(0.0, 0.2)), tmp_path, normalisation="amplitude")
    assert "spectrum-label-noise-0.png" in files and "spectrum-label-noise-0.2.png" in files
    assert len(files) == 8
    assert "label noise 0: width 4; label noise 0.2: width 4" in page
    assert "log10(A_k / A_0)" in page and "a single seed" in page


def test_settings_with_different_segments_keep_their_own_frequencies():
    short = make_sweep(widths=(4,), seeds=(0,)).assign_coords(spectrum_half_width=("member", [0.25]))
    long = make_sweep(widths=(4,), seeds=(0,)).assign_coords(spectrum_half_width=("member", [0.3]))
    long = long.assign_coords(frequency=np.arange(NUM_FREQUENCIES) / 0.6)
    both = xr.concat([short, long], "member", join="outer")
    assert both.sizes["frequency"] > NUM_FREQUENCIES
    captions = [p.caption for p in report.pictures(both) if p.name.startswith("high_frequency")]
    assert ["k >= 4 (8 cycles" in captions[0], "k >= 4 (6.66667 cycles" in captions[1]] == [True, True]


@pytest.mark.parametrize("options", [{"widths": (8,)}, {"seeds": (3,), "noises": (0.0,)}], ids=str)
def test_report_of_one_width_or_of_one_seed_without_noise(tmp_path, options):
    _, files = draw(make_sweep(**options), tmp_path)
    assert len(files) == (4 if options.get("noises") == (0.0,) else 5)


def test_report_without_spectra(tmp_path):
    ds = make_sweep(widths=(4,))
    absent, empty, silent = ds.drop_dims("example"), ds.isel(example=slice(0)), ds.assign(energy=0 * ds.energy)
    for variant in (absent, empty, silent):
        assert [p.name for p in report.pictures(variant)] == ["error_against_width", "error_over_epochs"]
    draw(absent, tmp_path)


def test_report_of_unfinished_and_diverged_members(tmp_path):
    ds = make_sweep(widths=(2, 4, 8))
    not_started, stopped = ds.member == 1, (ds.member == 0) & (ds.epoch > 3)
    ds = ds.where(~(not_started | stopped)).assign(diverged=("member", [-1, -1, 6, -1, 1, 1]))
    page, files = draw(ds, tmp_path)
    assert len(files) == 5
    assert "member 2 (width 4, seed 0) at epoch 6; member 4 (width 8, seed 0) at epoch 1; member 5" in page
    assert "2 of 6 members are unfinished" in page


@pytest.mark.parametrize("epochs", [1, 2])
def test_report_of_a_sweep_that_has_just_begun(tmp_path, epochs):
    _, files = draw(make_sweep(widths=(4,)).isel(epoch=slice(epochs)), tmp_path)
    assert len(files) == (1 if epochs == 1 else 5)


def test_report_with_nothing_to_draw(tmp_path):
    ds = make_sweep()
    page, files = draw(ds.assign(diverged=ds.diverged * 0), tmp_path)
    assert files == [] and "No member has anything to draw." in page


def test_report_replaces_an_older_one_and_is_the_same_each_time(tmp_path):
    ds = make_sweep(widths=(4,)).drop_dims("example")
    first = report.draw_report(ds, tmp_path, "t").read_bytes()
    (tmp_path / "report.html").write_text("old")
    assert report.draw_report(ds, str(tmp_path), "t").read_bytes() == first
