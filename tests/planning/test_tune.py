import json

import jax
import pytest

from spectral_dd.config import Config
from spectral_dd.planning import packing, tune
from spectral_dd.planning.cost import Cost
from spectral_dd.programs import lowerings
from spectral_dd.sweeps import Lowering, Pack

CONFIGS = [Config.of(model="mlp", width=w, seed=s, train_size=200, epochs=10**9) for w in (2, 8) for s in (0, 1)]


@pytest.fixture(scope="module")
def datasets(digits):
    return {"digits": digits}


@pytest.fixture(scope="module")
def cost(datasets):
    return Cost(CONFIGS, datasets)


def plan_of(configs, cost):
    """A pack a width, on all devices."""
    packs = []
    for width in dict.fromkeys(c.width for c in configs):
        members = tuple(i for i, c in enumerate(configs) if c.width == width)
        seconds = packing.pack_seconds([configs[i] for i in members], cost, jax.local_device_count())
        packs.append(Pack(members, Lowering("im2col", 1), seconds))
    return packing.Plan(packs, False, 16.0)


@pytest.mark.usefixtures("fast_compile")
def test_lowerings_of_a_long_sweep_are_timed_and_another_process_reads_it(datasets, cost, tmp_path):
    path = tmp_path / "cache" / "step_seconds.json"
    choices = tune.tune(CONFIGS, plan_of(CONFIGS, cost), datasets, tune.Timings(path))
    (choice,) = choices.values()
    assert set(choice.seconds) == {2, 8} and all(seconds > 0 for seconds in choice.seconds.values())
    candidates = lowerings(jax.local_devices()[0].platform, CONFIGS[0])
    assert all(choice.lowerings[width] in candidates for width in (2, 8))
    assert len(json.loads(path.read_text())) == 2 * len(candidates)
    # A sweep that is too short to time anything finds them on disk.
    short = [c.replace(epochs=1) for c in CONFIGS]
    (again,) = tune.tune(short, plan_of(short, cost), datasets, tune.Timings(path)).values()
    assert again == choice


def test_nothing_is_timed_for_a_short_sweep(datasets, cost, tmp_path):
    short = [c.replace(epochs=100) for c in CONFIGS]
    timings = tune.Timings(tmp_path / "timings.json")
    assert tune.tune(short, plan_of(short, cost), datasets, timings) == {}
    assert tune.lowering_for({}, "cpu", short[0]) == lowerings(jax.local_devices()[0].platform, CONFIGS[0])[0]


@pytest.mark.parametrize("damaged", ['{"a": [1', '{"a": [0.5, 3.0]}', "[1]"])
def test_a_damaged_file_of_timings_is_as_good_as_none(tmp_path, damaged):
    path = tmp_path / "timings.json"
    path.write_text(damaged)
    timings = tune.Timings(path)
    assert timings.get("a") is None
    timings.put("a", 0.5)
    assert tune.Timings(path).get("a") == 0.5


def test_estimates_are_corrected_by_what_was_timed_and_interpolated_between(cost):
    config = CONFIGS[0]

    def step(width):
        return cost.step_seconds(config, width)

    # Twice the estimate at width 2, eight times at width 8: four times half-way on the logarithmic scale.
    choice = tune.Choice(
        {2: Lowering("im2col", 1), 8: Lowering("lax", 1)}, {2: 2 * step(2), 8: 8 * step(8)}, {2: 1, 8: 1}
    )
    choices = {tune.group_of(config): choice}
    timed = tune.TimedCost(cost, choices)
    for width, factor in ((1, 2), (2, 2), (4, 4), (8, 8), (64, 8)):
        assert timed.step_seconds(config, width) == pytest.approx(factor * step(width))
    other = config.replace(batch_size=50)
    assert timed.step_seconds(other, 4) == cost.step_seconds(other, 4)
    for width, convolution in ((1, "im2col"), (3, "im2col"), (5, "lax"), (9, "lax")):
        assert tune.lowering_for(choices, "cpu", config.replace(width=width)).convolution == convolution


def test_members_that_were_timed_together_say_what_one_alone_takes(datasets):
    """On an accelerator, where what members share is most of a step."""
    cost, config = Cost(CONFIGS, datasets, "gpu"), CONFIGS[0].replace(width=4)
    timed_together = tune.Choice({4: Lowering("packed", 16)}, {4: 2 * cost.step_seconds(config, 4, 16)}, {4: 16})
    timed = tune.TimedCost(cost, {tune.group_of(config): timed_together})
    for members in (1, 16, 64):
        assert timed.step_seconds(config, 4, members) == pytest.approx(2 * cost.step_seconds(config, 4, members))


def test_packs_follow_timed_steps(cost):
    config = CONFIGS[0].replace(epochs=1000)
    configs = [config.replace(width=w) for w in (2, 3)]
    assert packing.cut(configs, cost) == [[0, 1]]
    # Were width 3 a million times slower, width 2 would not wait for it.
    seconds = {w: cost.step_seconds(config, w) * factor for w, factor in ((2, 1), (3, 1e6))}
    choices = {
        tune.group_of(config): tune.Choice(
            dict.fromkeys(seconds, Lowering("im2col", 1)), seconds, dict.fromkeys(seconds, 1)
        )
    }
    assert packing.cut(configs, tune.TimedCost(cost, choices)) == [[0], [1]]
