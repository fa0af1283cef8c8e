"""The central law: every member of a mixed pack equals the same network trained alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import SHORT_CNN, family_of, fast_jit, initial_variables, members_of
from spectral_dd import data, models, padding, training
from spectral_dd.config import Config
from spectral_dd.errors import InputError
from spectral_dd.family import member_arrays
from spectral_dd.models import VGG, ResNet, build_model
from spectral_dd.programs import deal
from spectral_dd.sweeps import Lowering

BATCH = 8
STEPS = 50
OPTIMIZERS = {
    "adam": lambda c, lr: optax.chain(optax.add_decayed_weights(c.weight_decay), optax.adam(lr)),
    "adamw": lambda c, lr: optax.adamw(lr, weight_decay=c.weight_decay),
    "sgd": lambda c, lr: optax.chain(optax.add_decayed_weights(c.weight_decay), optax.sgd(lr, momentum=c.momentum)),
}
SCHEDULES = {
    "constant": lambda c: c.learning_rate,
    "inverse_sqrt": lambda c: lambda step: c.learning_rate / jnp.sqrt(1.0 + step // c.schedule_steps),
    "cosine": lambda c: optax.cosine_decay_schedule(c.learning_rate, c.epochs * c.steps_per_epoch),
}


def mixed_pack(**static):
    """Three members that differ in every per-member field; the widest is neither first nor last."""
    rate = 0.1 if static.get("optimizer") == "sgd" else 1.0
    permuted = {"label_noise": 1.0, "noise_kind": "permute"}
    noisy, common = (
        {"label_noise": 0.3},
        {"epochs": 10, "batch_size": BATCH, "shift": 1, "flip": True, "spectrum_examples": 4} | static,
    )
    return [
        Config.of(width=2, seed=3, train_size=40, learning_rate=3e-2 * rate, weight_decay=1e-2, **noisy, **common),
        Config.of(width=5, seed=1, train_size=83, learning_rate=1e-2 * rate, weight_decay=0, momentum=0.5, **common),
        Config.of(width=3, seed=2, train_size=56, learning_rate=2e-2 * rate, **permuted, **common),
    ]  # fmt: skip


epoch_order = fast_jit(data.epoch_order, static_argnums=2)


def train_alone(config, dataset, initial, steps):
    """The same network in a plain loop: one model at its own width, with JAX's own convolutions, and optax's own
    optimisers, a step at a time."""
    model = models.with_fields(build_model(config, dataset.num_classes), convolution="lax")
    training_set = data.draw(dataset, config)
    optimizer = OPTIMIZERS[config.optimizer](config, SCHEDULES[config.schedule](config))
    params, statistics = initial["params"], {k: v for k, v in initial.items() if k != "params"}
    state = fast_jit(optimizer.init)(params)

    @fast_jit
    def step(params, statistics, state, key, dropout_key, x, y):
        x = data.augment(key, x, config.shift, config.flip).astype(config.dtype) / 255

        def loss(params):
            variables, rngs = {"params": params, **statistics}, {"dropout": dropout_key}
            logits, updated = model.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), updated

        gradient, statistics = jax.grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), statistics, state

    seed, done, epoch = jax.random.fold_in(jax.random.key(config.seed), 0), 0, 0
    while done < steps:
        order_key, augment_key, dropout_key = jax.random.split(jax.random.fold_in(seed, epoch), 3)
        order = np.asarray(epoch_order(order_key, config.train_size, config.train_size))
        for i in range(config.steps_per_epoch):
            if done == steps:
                break
            batch = order[i * BATCH : (i + 1) * BATCH]
            x, y = dataset.train_images[training_set.index[batch]], training_set.labels[batch]
            keys = [jax.random.fold_in(key, i) for key in (augment_key, dropout_key)]
            params, statistics, state = step(params, statistics, state, *keys, x, y)
            done += 1
        epoch += 1
    return model, jax.device_get({"params": params, **statistics})


def assert_trees_close(ours, theirs, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, theirs)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimisers_and_schedules_are_those_of_optax(digits, x64, optimizer, schedule):
    config = mixed_pack(optimizer=optimizer, schedule=schedule, schedule_steps=7, dtype="float64")[0]
    member = jax.tree.map(lambda leaf: leaf[0], member_arrays([config], [data.draw(digits, config)]))
    ours, theirs = training.optimizer(config, member), OPTIMIZERS[optimizer](config, SCHEDULES[schedule](config))
    rng = np.random.default_rng(0)
    params, gradients = rng.standard_normal((2, 3)), rng.standard_normal((20, 2, 3))

    def updates(rule):
        return jax.lax.scan(lambda state, g: rule.update(g, state, params)[::-1], rule.init(params), gradients)[1]

    np.testing.assert_allclose(updates(ours), updates(theirs), rtol=1e-12)


# What works on each parameter alone needs one network with convolutions.
@pytest.mark.parametrize(
    ("model", "optimizer", "schedule", "lowering"),
    [(SHORT_CNN, "adam", "constant", None), ("mlp", "sgd", "cosine", Lowering("im2col", None))],
    ids=["one member after another", "vmap over members"],
)
def test_float64_50_steps(digits, x64, fast_compile, model, optimizer, schedule, lowering):
    """To 1e-9: 50 steps amplify the rounding of differently ordered sums, about 1e-16, by far less."""
    static = {"model": model, "optimizer": optimizer, "schedule": schedule, "schedule_steps": 7, "dtype": "float64"}
    family = family_of(mixed_pack(**static), digits, lowering=lowering)
    # The smallest training set has 5 steps an epoch; whole epochs that hold at least 50 steps for each.
    state = family.train(family.initial_state(), 0, 10)
    for config, wide, narrow in members_of(family, state):
        assert config.steps_per_epoch * 10 >= STEPS
        start = initial_variables(config, digits)
        _, alone = train_alone(config, digits, start, config.steps_per_epoch * 10)
        assert_trees_close(narrow, alone, 1e-9)
        assert max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (narrow, start)), strict=True)) > 1e-2
        padded = padding.pad(narrow, wide)
        jax.tree.map(np.testing.assert_array_equal, padded, wide)  # what is not the narrow network is zero


class ShortResNet(ResNet):
    blocks: tuple = (1, 1)


class ShortVGG(VGG):
    convolutions: tuple = (1, 1, 0, 0, 0)
    smallest_image = 4


@pytest.mark.parametrize("model", [ShortResNet, ShortVGG])
def test_float64_of_the_deep_networks(digits, x64, fast_compile, model):
    """Residual sums, strides, biases and dropout, every kind of layer once; a tenth of the rates, since deeper networks
    amplify more."""
    small = [
        c.replace(learning_rate=c.learning_rate / 10, train_size=16 + 8 * i)
        for i, c in enumerate(mixed_pack(model=models.register(model), optimizer="sgd", dtype="float64")[:2])
    ]
    family = family_of(small, digits)
    starts = [*members_of(family, family.initial_state())]
    trained = members_of(family, family.train(family.initial_state(), 0, 5))
    for (config, wide, narrow), (_, _, start) in zip(trained, starts, strict=True):
        _, alone = train_alone(config, digits, start, 5 * config.steps_per_epoch)
        assert_trees_close(narrow, alone, 1e-9)
        jax.tree.map(np.testing.assert_array_equal, padding.pad(narrow, wide), wide)


def one_step_pack():
    mixed = mixed_pack(model=SHORT_CNN, optimizer="sgd")
    return [c.replace(train_size=BATCH, learning_rate=1e-3 * (i + 1)) for i, c in enumerate(mixed)]


def test_float32_one_step_and_all_ways_to_map_over_members(digits, fast_compile):
    """To 1e-5, a hundred times the rounding of a weight."""
    configs = one_step_pack()
    lowerings = Lowering("im2col", None), Lowering("lax", 2), Lowering("packed", None)
    families = [family_of(configs, digits, jax.local_devices()[:1], lowering=lowering) for lowering in lowerings]
    starts = members_of(families[0], families[0].initial_state())
    alone = [train_alone(config, digits, start, 1)[1] for config, _, start in starts]
    for family in families:
        trained = members_of(family, family.train(family.initial_state(), 0, 1))
        for (_, _, narrow), expected in zip(trained, alone, strict=True):
            assert_trees_close(narrow, expected, 1e-5)


def test_a_state_with_more_than_a_hundred_arrays_comes_back_in_order(digits):
    family = family_of(mixed_pack(model="mlp"), digits)
    state = family.initial_state()
    many = state._replace(optimizer=[np.full(3, i) for i in range(120)])
    family.programs.abstract_state = lambda: many
    tree = family.save_tree(many._replace(optimizer=family.to_devices(many.optimizer)))
    restored = family.to_host(family.load_tree(dict(reversed(tree.items()))))
    assert [int(leaf[0]) for leaf in restored.optimizer] == list(range(120))


def test_a_diverging_member_leaves_the_others_bit_identical(digits, fast_compile):
    """Of the same programs, so that it does not matter how they are compiled."""

    def pack(rate):
        sane = mixed_pack(model=SHORT_CNN, optimizer="sgd", spectrum_points=8)
        return [sane[0], sane[1].replace(learning_rate=rate), sane[2]]

    outcomes = []
    for rate in (1e-3, 1e9):
        family = family_of(pack(rate), digits)
        state = family.train(family.initial_state(), 0, 4)
        outcomes.append((family.to_host(state), family.evaluate(state), family.probe(state, 0)))
    sane, wild = outcomes
    assert list(sane[1]["finite"]) == [True, True, True]
    assert list(wild[1]["finite"]) == [True, False, True]
    assert np.isnan(wild[1]["test_error"][1])
    for others in (0, 2):
        jax.tree.map(lambda a, b, i=others: np.testing.assert_array_equal(a[i], b[i]), sane, wild)


def test_the_number_of_devices_changes_nothing(digits, fast_compile):
    """Also where members do not divide evenly; bit for bit, since each runs the same program."""
    members = mixed_pack(model="mlp")
    pack = [*members, members[0].replace(seed=9)]
    outcomes = []
    for num_devices in (1, 3, 4):
        family = family_of(pack, digits, jax.devices()[:num_devices])
        state = family.train(family.initial_state(), 0, 2)
        assert len(jax.tree.leaves(state)[0].sharding.device_set) == num_devices
        outcomes.append((family.to_host(state), family.evaluate(state)))
    jax.tree.map(np.testing.assert_array_equal, outcomes[0], outcomes[1])
    jax.tree.map(np.testing.assert_array_equal, outcomes[0], outcomes[2])


@pytest.mark.parametrize(("members", "devices"), [(1, 1), (5, 2), (7, 4), (4, 4)])
def test_deal_gives_each_member_a_slot_and_balances_the_work(members, devices):
    work = [3.0**i for i in range(members)]
    dealt = deal(work, devices)
    rows = -(-members // devices)
    assert set(dealt) == set(range(members)) and len(dealt) == rows * devices
    loads = [sum(work[i] for i in set(dealt[r * rows : (r + 1) * rows])) for r in range(devices)]
    assert max(loads) <= work[-1] * 1.5


def test_fewer_members_are_computed_at_once_where_memory_is_short(digits, fast_compile):
    configs, device = one_step_pack(), jax.local_devices()[:1]
    at_once = Lowering("im2col", None)

    def trained(**options):
        family = family_of(configs, digits, device, **options)
        return family, family.to_host(family.train(family.initial_state(), 0, 1))

    roomy, expected = trained(lowering=at_once)
    needed = roomy.programs["training"].memory
    tight, found = trained(lowering=at_once, memory_limit=needed - 1)
    assert tight.programs["training"].memory < needed
    assert_trees_close(found.variables, expected.variables, 1e-5)
    with pytest.raises(InputError, match=r"--width=.* needs .* GiB of a device that has .*--batch_size"):
        trained(lowering=at_once, memory_limit=1000)


def test_seeds_of_initialisation_and_order(digits, fast_compile):
    """Of one pack: what agrees in a seed agrees in what it draws, bit for bit."""
    same = {"data_seed": 3, "noise_seed": 3, "init_seed": 3, "order_seed": 3}
    seeds = [{"seed": 3}, same, {"seed": 3, "order_seed": 4}, {"seed": 3, "init_seed": 4}]
    fields = {"model": "mlp", "width": 2, "train_size": 64, "batch_size": 32, "label_noise": 0.2, "shift": 1}
    family = family_of([Config.of(**fields, **own) for own in seeds], digits)
    state = family.initial_state()
    first = jax.tree.leaves(family.to_host(state).variables)
    last = jax.tree.leaves(family.to_host(family.train(state, 0, 2)).variables)

    def agree(leaves, one, other):
        return all(np.array_equal(leaf[one], leaf[other]) for leaf in leaves)

    assert [agree(first, 0, other) for other in (1, 2, 3)] == [True, True, False]
    assert [agree(last, 0, other) for other in (1, 2, 3)] == [True, False, False]
