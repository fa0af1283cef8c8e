import itertools

import numpy as np
import pytest

from spectral_dd.config import Config
from spectral_dd.planning import packing
from spectral_dd.sweeps import Lowering, Pack


class Quadratic:
    """A member's training takes width^2 seconds: six steps of one epoch of 600 examples."""

    compile_seconds = 16.0

    @staticmethod
    def step_seconds(config, width, members=1):
        return width**2 / 600 * (10 if config.model == "mlp" else 1)


def configs_of(widths, **values):
    return [Config.of(width=w, seed=i, **{"train_size": 600, "batch_size": 100} | values) for i, w in enumerate(widths)]


def test_cheapest_cuts_are_as_cheap_as_the_best_of_all_cuts():
    i, j = np.indices((9, 9))
    costs = (7 * i + 13 * j) % 11 + np.abs(j - i) ** 1.5

    def total(bounds):
        return sum(costs[run] for run in itertools.pairwise(bounds))

    every = [(0, *cuts, 8) for n in range(8) for cuts in itertools.combinations(range(1, 8), n)]
    assert total(packing.cheapest_cuts(costs)) == min(map(total, every))


def test_of_equally_cheap_cuts_the_fewest_win():
    assert packing.cheapest_cuts(np.array([[0, 1, 2], [0, 0, 1], [0, 0, 0]])) == [0, 2]


@pytest.mark.parametrize("num_devices", [1, 2, 3, 8])
def test_costs_of_all_runs_are_those_of_single_packs(num_devices):
    """The table that the cuts are chosen from against the definition, with training sets of several sizes."""
    sizes = [600, 200, 600, 400, 200, 200, 600, 100]
    configs = [Config.of(width=w, train_size=size, batch_size=100) for w, size in enumerate(sizes, start=1)]
    places = range(len(configs) + 1)
    table = packing._run_seconds(configs, places, Quadratic, num_devices)
    for i, j in itertools.combinations(places, 2):
        alone = Quadratic.compile_seconds + packing.pack_seconds(configs[i:j], Quadratic, num_devices)
        assert table[i, j] == pytest.approx(alone)


def test_every_member_is_in_one_pack():
    configs = configs_of([1, 2, 3, 32, 8, 8, 4, 16]) + configs_of([4, 5], optimizer="sgd")
    packs = packing.cut(configs, Quadratic)
    assert sorted(i for pack in packs for i in pack) == list(range(len(configs)))


def test_members_of_a_pack_agree_on_what_shapes_the_program():
    configs = configs_of([4, 4, 4]) + configs_of([4, 4], optimizer="sgd") + configs_of([4], epochs=7)
    packs = packing.cut(configs, Quadratic)
    assert sorted(len({tuple(configs[i].static().items()) for i in pack}) for pack in packs) == [1, 1, 1]


def test_widths_share_a_pack_only_where_padding_costs_less_than_a_program():
    # 1 beside 2 wastes 3 s, less than a compilation; 2 beside 100 would waste 9996 s.
    assert packing.cut(configs_of([1, 2, 100], epochs=100), Quadratic) == [[0, 1], [2]]


def test_two_devices_make_a_pair_cheap():
    configs = configs_of([23, 32], epochs=100)
    assert packing.cut(configs, Quadratic, num_devices=1) == [[0], [1]]
    assert packing.cut(configs, Quadratic, num_devices=2) == [[0, 1]]


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 5])
def test_there_are_as_many_packs_as_tasks_if_there_are_members(num_tasks):
    packs = packing.cut(configs_of([4] * 4), Quadratic, min_packs=num_tasks)
    assert len(packs) == min(max(num_tasks, 1), 4)
    assert sorted(i for pack in packs for i in pack) == [0, 1, 2, 3]


def test_a_plan_takes_packs_apart_where_that_is_faster():
    """On two devices: width 100 keeps one busy while two of width 60 share the other; 36 of one width share both."""
    lowering = Lowering("im2col", 1)
    for widths, apart in (([60, 60, 100], True), ([50] * 36, False)):
        plan = packing.plan(configs_of(widths, epochs=100), Quadratic, lambda widest: lowering, num_devices=2)
        assert plan.apart == apart
        assert {pack.lowering for pack in plan.packs} == {lowering}
        longest = 100**2 if apart else 18 * 50**2
        assert plan.seconds(2) == pytest.approx(longest + Quadratic.compile_seconds)


def test_packs_that_run_apart_are_dealt_to_the_devices():
    packs = [Pack((i,), Lowering("im2col", 1), cost) for i, cost in enumerate((30.0, 20.0, 20.0))]
    assert packing.Plan(packs, True, 16.0).seconds(2) == 40 + 2 * Quadratic.compile_seconds
    assert packing.Plan(packs, False, 16.0).seconds(2) == 70 + 3 * Quadratic.compile_seconds


def test_shares_cover_all_packs_once_and_are_balanced():
    costs = [9, 7, 6, 5, 4, 3, 2]
    tasks = packing.shares(costs, 3)
    assert sorted(i for task in tasks for i in task) == list(range(7))
    loads = [sum(costs[i] for i in task) for task in tasks]
    assert max(loads) - min(loads) <= max(costs) / 2


def test_padding_waste_is_the_share_of_work_that_solo_training_would_not_do():
    assert packing.padding_waste(configs_of([2, 4]), Quadratic) == pytest.approx(1 - (4 + 16) / 32)
    assert packing.padding_waste(configs_of([4, 4]), Quadratic) == 0
