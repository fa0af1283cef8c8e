import dataclasses
import json

import jax
import pytest

from spectral_dd import data, packing, run, tune
from spectral_dd.config import Config
from spectral_dd.family import Lowering, lowerings
from spectral_dd.sweep import read_sweep

CONFIGS = [Config(model="mlp", width=w, seed=s, train_size=200, epochs=10**7) for w in (2, 8) for s in (0, 1)]


@pytest.fixture(scope="module")
def datasets():
    return {"digits": data.load_dataset("digits")}


def plan_of(configs, datasets):
    """A pack a width, on all devices."""
    packs = [[i for i, c in enumerate(configs) if c.width == w] for w in dict.fromkeys(c.width for c in configs)]
    seconds, devices = run.work_of(datasets).seconds, jax.local_device_count()
    return packing.Plan(packs, [packing.pack_seconds([configs[i] for i in p], seconds, devices) for p in packs], False)


def test_a_long_sweep_is_measured_and_another_process_reads_it(datasets, tmp_path):
    path = tmp_path / "cache" / "timings.json"
    choices = tune.tune(CONFIGS, plan_of(CONFIGS, datasets), datasets, tune.Measurements(path))
    (choice,) = choices.values()
    assert set(choice.seconds) == {2, 8} and all(seconds > 0 for seconds in choice.seconds.values())
    candidates = lowerings(jax.local_devices()[0].platform)
    assert all(choice.lowerings[width] in candidates for width in (2, 8))
    assert len(json.loads(path.read_text())) == 2 * len(candidates)
    # A sweep that is too short to measure anything finds them on disk.
    short = [dataclasses.replace(c, epochs=1) for c in CONFIGS]
    (again,) = tune.tune(short, plan_of(short, datasets), datasets, tune.Measurements(path)).values()
    assert again == choice


def test_nothing_is_measured_for_a_short_sweep(datasets, tmp_path):
    short = [dataclasses.replace(c, epochs=100) for c in CONFIGS]
    measurements = tune.Measurements(tmp_path / "timings.json")
    assert tune.tune(short, plan_of(short, datasets), datasets, measurements) == {}
    assert tune.lowering_for({}, short[0]) == lowerings(jax.local_devices()[0].platform)[0]


def test_a_damaged_file_of_timings_is_as_good_as_none(tmp_path):
    path = tmp_path / "timings.json"
    path.write_text('{"a": [1')
    measurements = tune.Measurements(path)
    assert measurements.get("a") is None
    measurements.put("a", tune.Timing(0.5, 3.0))
    assert tune.Measurements(path).get("a") == tune.Timing(0.5, 3.0)


def test_estimates_are_corrected_by_what_was_measured_and_interpolated_between(datasets):
    work, config = run.work_of(datasets), CONFIGS[0]
    steps = config.epochs * config.steps_per_epoch

    def step(width):
        return work.seconds(config, width) / steps

    # Twice the estimate at width 2, eight times at width 8: four times half-way on the logarithmic scale.
    choice = tune.Choice({2: Lowering("im2col", 1), 8: Lowering("lax", 1)}, {2: 2 * step(2), 8: 8 * step(8)})
    choices = {tune.group_of(config): choice}
    measured = tune.MeasuredWork(work, choices)
    for width, factor in ((1, 2), (2, 2), (4, 4), (8, 8), (64, 8)):
        assert measured.seconds(config, width) == pytest.approx(factor * work.seconds(config, width))
    other = dataclasses.replace(config, batch_size=50)
    assert measured.seconds(other, 4) == work.seconds(other, 4)
    for width, convolution in ((1, "im2col"), (3, "im2col"), (5, "lax"), (9, "lax")):
        assert tune.lowering_for(choices, dataclasses.replace(config, width=width)).convolution == convolution


def test_the_lowering_of_sweep_json_is_kept_when_a_run_resumes(datasets, tmp_path, monkeypatch):
    configs = [Config(model="mlp", width=2, train_size=200, epochs=2, spectrum_examples=0)]
    used = []
    train_pack = run.train_pack

    def note(*args, lowering, **options):
        used.append(lowering)
        return train_pack(*args, lowering=lowering, **options)

    monkeypatch.setattr(run, "train_pack", note)
    monkeypatch.setattr(tune, "lowering_for", lambda choices, config: Lowering("lax", 1))
    run.run_sweep(tmp_path, configs)
    monkeypatch.undo()
    monkeypatch.setattr(run, "train_pack", note)
    run.run_sweep(tmp_path, configs, measure=True)
    assert used == [Lowering("lax", 1)] * 2
    # Another platform has its own ways.
    sweep = read_sweep(tmp_path)
    (entry,) = sweep.lowerings
    other = dataclasses.replace(sweep, lowerings=[entry | {"platform": "tpu"}])
    assert run._lowering(other, 0) is None


def test_packs_follow_measured_times(datasets):
    work = run.work_of(datasets)
    config = dataclasses.replace(CONFIGS[0], epochs=1000)
    configs = [dataclasses.replace(config, width=w) for w in (2, 3)]
    assert packing.plan(configs, work.seconds) == [[0, 1]]
    # Were width 3 a million times slower, width 2 would not wait for it.
    steps = config.epochs * config.steps_per_epoch
    seconds = {w: work.seconds(config, w) / steps * factor for w, factor in ((2, 1), (3, 1e6))}
    choices = {tune.group_of(config): tune.Choice(dict.fromkeys(seconds, Lowering("im2col", 1)), seconds)}
    assert packing.plan(configs, tune.MeasuredWork(work, choices).seconds) == [[0], [1]]
