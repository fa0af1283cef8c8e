import itertools

import jax
import jax.numpy as jnp
import pytest

from spectral_dd import packing
from spectral_dd.config import Config
from spectral_dd.models import MODELS, build_model

SIZE = {"train_size": 600, "batch_size": 100}


def quadratic(config, width):
    return float(width**2) * config.steps_per_epoch / 6


def configs_of(widths, **values):
    return [Config(width=w, seed=i, **SIZE | values) for i, w in enumerate(widths)]


def test_cheapest_cuts_are_as_cheap_as_the_best_of_all_cuts():
    costs = {(i, j): ((7 * i + 13 * j) % 11) + (j - i) ** 1.5 for i in range(9) for j in range(i + 1, 9)}

    def total(bounds):
        return sum(costs[run] for run in itertools.pairwise(bounds))

    inner = range(1, 8)
    every = [(0, *cuts, 8) for n in range(8) for cuts in itertools.combinations(inner, n)]
    found = packing.cheapest_cuts(range(9), lambda i, j: costs[i, j])
    assert total(found) == min(map(total, every))


def test_every_member_is_in_one_pack():
    configs = configs_of([1, 2, 3, 32, 8, 8, 4, 16]) + configs_of([4, 5], optimizer="sgd")
    packs = packing.plan(configs, quadratic)
    assert sorted(i for pack in packs for i in pack) == list(range(len(configs)))


def test_members_of_a_pack_agree_on_what_shapes_the_program():
    configs = configs_of([4, 4, 4]) + configs_of([4, 4], optimizer="sgd") + configs_of([4], epochs=7)
    packs = packing.plan(configs, quadratic)
    assert sorted(len({tuple(configs[i].static().items()) for i in pack}) for pack in packs) == [1, 1, 1]


def test_widths_share_a_pack_only_where_padding_costs_less_than_a_program():
    configs = configs_of([1, 2, 100])
    # 1 beside 2 wastes 3 s, less than a compilation; 2 beside 100 would waste 9996 s.
    assert packing.plan(configs, quadratic) == [[0, 1], [2]]


def test_two_devices_make_a_pair_cheap():
    configs = configs_of([23, 32])
    assert packing.plan(configs, quadratic, num_devices=1) == [[0], [1]]
    assert packing.plan(configs, quadratic, num_devices=2) == [[0, 1]]


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 5])
def test_there_are_as_many_packs_as_tasks_if_there_are_members(num_tasks):
    packs = packing.plan(configs_of([4] * 4), quadratic, min_packs=num_tasks)
    assert len(packs) == min(max(num_tasks, 1), 4)
    assert sorted(i for pack in packs for i in pack) == [0, 1, 2, 3]


def test_shares_cover_all_packs_once_and_are_balanced():
    costs = [9, 7, 6, 5, 4, 3, 2]
    tasks = packing.shares(costs, 3)
    assert sorted(i for task in tasks for i in task) == list(range(7))
    loads = [sum(costs[i] for i in task) for task in tasks]
    assert max(loads) - min(loads) <= max(costs) / 2


def test_padding_waste_is_the_share_of_work_that_solo_training_would_not_do():
    assert packing.padding_waste(configs_of([2, 4]), quadratic) == pytest.approx(1 - (4 + 16) / 32)
    assert packing.padding_waste(configs_of([4, 4]), quadratic) == 0


def test_parameters_and_flops_are_those_of_the_network():
    work = packing.Work({"digits": (8, 8, 1)}, {"digits": 10})
    mlp = Config(model="mlp", width=5, epochs=2, **SIZE)
    assert work.parameters(mlp) == 64 * 5 + 5 + 5 * 5 + 5 + 5 * 10 + 10
    products = 2 * (64 * 5 + 5 * 5 + 5 * 10)  # a multiplication and an addition each
    assert work.train_flops(mlp) == pytest.approx(3 * products * 1200, rel=0.1)
    assert work.train_flops(mlp, 10) > work.train_flops(mlp)


@pytest.mark.parametrize("model", MODELS)
def test_parameters_of_any_width_follow_from_three(model):
    work = packing.Work({"digits": (32, 32, 3)}, {"digits": 10})
    for width in (1, 4, 9):
        network = build_model(Config(model=model, width=width), 10)
        variables = jax.eval_shape(
            lambda network=network: network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
        )
        parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        assert work.parameters(Config(model=model, width=width)) == parameters
