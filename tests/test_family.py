"""The central law: every member of a mixed pack equals the same network trained alone."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spectral_dd import data, measures, padding, spectrum
from spectral_dd.config import Config, InputError
from spectral_dd.family import Family, Lowering, _memory_needed, around, deal
from spectral_dd.models import build_model

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
    common = {"epochs": 10, "batch_size": BATCH, "shift": 1, "flip": True, "spectrum_examples": 4} | static
    return [
        Config(width=2, seed=3, train_size=40, learning_rate=3e-2 * rate, weight_decay=1e-2, label_noise=0.3, **common),
        Config(width=5, seed=1, train_size=83, learning_rate=1e-2 * rate, weight_decay=0, momentum=0.5, **common),
        Config(width=3, seed=2, train_size=56, learning_rate=2e-2 * rate, **permuted, **common),
    ]  # fmt: skip


def train_alone(config, dataset, initial, steps):
    """The same network in a plain loop: one model at its own width, optax's own optimisers, a step at a time."""
    model = build_model(config, dataset.num_classes)
    training_set = data.draw(dataset, config)
    optimizer = OPTIMIZERS[config.optimizer](config, SCHEDULES[config.schedule](config))
    params, statistics = initial["params"], {k: v for k, v in initial.items() if k != "params"}
    state = optimizer.init(params)

    @jax.jit
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
        order = np.asarray(data.epoch_order(order_key, config.train_size, config.train_size))
        for i in range(config.steps_per_epoch):
            if done == steps:
                break
            batch = order[i * BATCH : (i + 1) * BATCH]
            x, y = dataset.train_images[training_set.index[batch]], training_set.labels[batch]
            keys = [jax.random.fold_in(key, i) for key in (augment_key, dropout_key)]
            params, statistics, state = step(params, statistics, state, *keys, x, y)
            done += 1
        epoch += 1
    return model, {"params": params, **statistics}


def initial_variables(config, dataset):
    image = jnp.zeros((1, *dataset.train_images.shape[1:]), config.dtype)
    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    variables = jax.jit(build_model(config, dataset.num_classes).init, static_argnames="train")(key, image, train=False)
    return jax.tree.map(lambda leaf: leaf.astype(config.dtype), variables)


def members_of(family, state):
    """The plain networks inside a family's state."""
    host = family.fetch(state)
    for i, config in enumerate(family.configs):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], host.variables)
        shapes = jax.eval_shape(lambda config=config: initial_variables(config, family.dataset))
        yield config, own, padding.unpad(own, shapes)


def assert_trees_close(ours, theirs, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, theirs)


@pytest.mark.parametrize(
    ("model", "optimizer", "schedule"),
    [
        ("cnn5", "adam", "constant"),
        ("cnn5", "adamw", "cosine"),
        ("cnn5", "sgd", "inverse_sqrt"),
        ("mlp", "adam", "cosine"),
        ("mlp", "adamw", "inverse_sqrt"),
        ("mlp", "sgd", "constant"),
    ],
)
def test_float64_50_steps(digits, x64, model, optimizer, schedule):
    """To 1e-9: 50 steps amplify the rounding of differently ordered sums, about 1e-16, by far less."""
    static = {"model": model, "optimizer": optimizer, "schedule": schedule, "schedule_steps": 7, "dtype": "float64"}
    family = Family(mixed_pack(**static), digits)
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


@pytest.fixture(scope="module")
def large_digits(digits):
    """The digits as 32x32 images."""
    train, test = (x.repeat(4, axis=1).repeat(4, axis=2) for x in (digits.train_images, digits.test_images))
    return dataclasses.replace(digits, train_images=train, test_images=test)


@pytest.mark.parametrize("model", ["resnet18", "vgg11"])
def test_float64_of_the_deep_networks(digits, large_digits, x64, model):
    """Residual sums, strides, biases and dropout; a tenth of the rates, since deeper networks amplify more."""
    dataset = large_digits if model == "vgg11" else digits
    small = [
        dataclasses.replace(c, learning_rate=c.learning_rate / 10, train_size=16 + 8 * i)
        for i, c in enumerate(mixed_pack(model=model, dtype="float64")[:2])
    ]
    family = Family(small, dataset)
    for config, wide, narrow in members_of(family, family.train(family.initial_state(), 0, 5)):
        start = initial_variables(config, dataset)
        _, alone = train_alone(config, dataset, start, 5 * config.steps_per_epoch)
        assert_trees_close(narrow, alone, 1e-9)
        jax.tree.map(np.testing.assert_array_equal, padding.pad(narrow, wide), wide)


@pytest.mark.parametrize(
    ("model", "optimizer", "lowering"),
    [
        ("cnn5", "adam", Lowering("im2col", None)),
        ("cnn5", "sgd", Lowering("lax", 2)),
        ("mlp", "sgd", Lowering("im2col", 1)),
    ],
)
def test_float32_one_step_and_all_ways_to_map_over_members(digits, model, optimizer, lowering):
    """To 1e-5, a hundred times the rounding of a weight. Adam divides by the gradient's size, so its epsilon
    decides where a gradient is nearly zero: a step of 1e-3 keeps that below the tolerance."""
    configs = [
        dataclasses.replace(c, train_size=BATCH, learning_rate=1e-3 * (i + 1))
        for i, c in enumerate(mixed_pack(model=model, optimizer=optimizer))
    ]
    family = Family(configs, digits, jax.local_devices()[:1], lowering=lowering)
    for config, _, narrow in members_of(family, family.train(family.initial_state(), 0, 1)):
        _, alone = train_alone(config, digits, initial_variables(config, digits), 1)
        assert_trees_close(narrow, alone, 1e-5)


def test_vmap_over_members_with_training_sets_of_different_size(digits, x64):
    family = Family(mixed_pack(model="mlp", dtype="float64"), digits, lowering=Lowering("im2col", None))
    for config, _, narrow in members_of(family, family.train(family.initial_state(), 0, 2)):
        _, alone = train_alone(config, digits, initial_variables(config, digits), 2 * config.steps_per_epoch)
        assert_trees_close(narrow, alone, 1e-9)


def test_metrics_and_spectra_are_those_of_the_plain_networks(digits, x64):
    family = Family(mixed_pack(dtype="float64", spectrum_points=8, spectrum_directions=2), digits)
    state = family.train(family.initial_state(), 0, 3)
    metrics, spectra = family.evaluate(state), family.spectra(state, 0)
    for i, (config, _, variables) in enumerate(members_of(family, state)):
        model = build_model(config, 10)
        own = data.draw(digits, config)

        logits = jax.jit(lambda images, m=model, v=variables: m.apply(v, jnp.float64(images) / 255, train=False))

        def loss(z, labels):
            return -np.mean(np.asarray(nn.log_softmax(z))[np.arange(len(labels)), labels])

        z, z_test = (np.asarray(logits(x)) for x in (digits.train_images[own.index], digits.test_images))
        wrong = z.argmax(1) != own.labels
        expected = {
            "train_loss": loss(z, own.labels),
            "train_error": wrong.mean(),
            "clean_error": (z.argmax(1) != own.true_labels).mean(),
            "noisy_error": wrong[own.relabelled].mean() if own.relabelled.any() else np.nan,
            "test_loss": loss(z_test, digits.test_labels),
            "test_error": (z_test.argmax(1) != digits.test_labels).mean(),
            "finite": True,
        }
        assert metrics.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name][i], value, rtol=1e-9, err_msg=name)

        relabelled = own.index[own.relabelled][:4]
        seed = jax.random.fold_in(jax.random.key(config.seed), 1)
        segment = {"num_points": 8, "half_width": 0.5}
        test_order = data.draw(digits, config).test_order[:4]
        tests = digits.test_images[test_order]
        examples = (digits.train_images[own.index[:4]], digits.train_images[relabelled], tests)
        labels = (own.labels[:4], own.labels[own.relabelled][:4], digits.test_labels[test_order])
        relabels = (own.relabelled[:4], [True] * len(relabelled), [False] * 4)
        for s, x in enumerate(examples):
            if len(x) == 0:
                assert all(np.isnan(values[i, s]).all() for values in spectra.values())
            if s != (1, 0, 2)[i]:  # a split of each member: every plain network compiles anew
                continue
            x, n = jnp.asarray(x / 255), len(x)
            v = spectrum.random_directions(jax.random.fold_in(seed, s), 2, x)

            def network(x, f=logits):
                return f(255 * x)

            alone = jax.jit(
                lambda x, v, f=network, s=segment: spectrum.line_spectra(f, x, v, window="hann", **s)._asdict()
            )(x, v)
            z, y = np.asarray(network(x)), labels[s]
            alone |= {
                "jacobian_norm": measures.jacobian_norm(network, x),
                "logit_norm": np.linalg.norm(z, axis=1),
                "linear_regions": measures.linear_regions(network, x, v, **segment),
                "loss": [loss(z[[i]], y[[i]]) for i in range(n)],
                "margin": measures.margin(z, y),
                "relabelled": relabels[s],
            }
            for name, theirs in alone.items():
                np.testing.assert_allclose(spectra[name][i, s, :n], theirs, rtol=1e-8, err_msg=name)
                assert np.isnan(spectra[name][i, s, n:]).all()
            assert alone.keys() | {"optimization_variance"} == spectra.keys()


def test_optimization_variance_is_over_single_steps_of_the_plain_network(digits, x64):
    """With SGD without momentum a step is -rate x the gradient of a batch; batches and their augmentation as drawn."""
    config = Config(
        model="mlp", width=4, dtype="float64", optimizer="sgd", momentum=0, learning_rate=0.1, shift=1, train_size=40,
        batch_size=BATCH, spectrum_examples=4, spectrum_points=4, spectrum_updates=7,
    )  # fmt: skip
    family = Family([config], digits)
    state = family.initial_state()
    found = family.spectra(state, 0)["optimization_variance"][0]
    model, params = family.model, jax.tree.map(lambda leaf: leaf[0], state.variables["params"])
    own = data.draw(digits, config)
    tests = digits.test_images[own.test_order[:4]]
    logits = []
    for i in range(7):
        seed = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), config.epochs + i)
        order_key, augment_key, _ = jax.random.split(seed, 3)
        batch = np.asarray(data.epoch_order(order_key, 40, 40))[:BATCH]
        x = data.augment(jax.random.fold_in(augment_key, 0), digits.train_images[own.index[batch]], 1, False)
        x = jnp.float64(x) / 255

        def loss(params, x=x, y=own.labels[batch]):
            z = model.apply({"params": params}, x, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(z, y).mean()

        updated = jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.jit(jax.grad(loss))(params))
        logits.append(model.apply({"params": updated}, tests / 255, train=False))
    np.testing.assert_allclose(found[2], measures.optimization_variance(jnp.stack(logits)), rtol=1e-9)
    assert np.isnan(found[1]).all()


def test_directions_towards_another_example_end_in_one_of_the_asked_class(digits):
    for kind in ("same_class", "other_class"):
        family, _ = trained(digits, spectrum_direction=kind, spectrum_directions=2, spectrum_measures=0)
        own = family._draws[0]
        true_label = dict(zip(own.index, own.true_labels, strict=True))
        splits, _ = around([family.config], digits, [own], 0)
        for number, split in enumerate(splits):
            labels = digits.train_labels if number < 2 else digits.test_labels
            for image, partners in zip(split.images[0], split.partners[0], strict=True):
                for partner in partners:
                    assert (true_label[partner] == labels[image]) == (kind == "same_class")
                    assert number == 2 or partner != image


@pytest.mark.parametrize("direction", ["adversarial", "same_class"])
def test_spectra_along_other_directions_are_those_of_the_plain_network(digits, direction):
    settings = {"spectrum_output": "softmax", "spectrum_points": 8, "spectrum_measures": 0}
    family, state = trained(digits, **settings, spectrum_direction=direction)
    variables = jax.tree.map(lambda leaf: leaf[0], state.variables)

    def logits(x):
        return family.model.apply(variables, x, train=False)

    (train, *_), _ = around([family.config], digits, family._draws, 0)
    x = digits.train_images[train.images[0]] / np.float32(255)
    if direction == "adversarial":
        v = spectrum.adversarial_directions(logits, x)
    else:
        v = spectrum.directions_towards(x, digits.train_images[train.partners[0]] / np.float32(255))
    alone = spectrum.line_spectra(lambda x: jax.nn.softmax(logits(x)), x, v, num_points=8, half_width=0.5)
    # Of float32 outputs of size 1, whose rounding every bin has.
    found = family.spectra(state, 0)["energy"][0, 0]
    np.testing.assert_allclose(found[: len(x)], alone.energy, rtol=1e-4, atol=1e-10)


def trained(dataset, **fields):
    family = Family(
        [Config(**{"model": "mlp", "train_size": 60, "batch_size": 8, "label_noise": 0.2, "shift": 1} | fields)],
        dataset,
    )
    return family, family.train(family.initial_state(), 0, 2)


def test_spectra_of_a_bfloat16_network_are_of_its_float32_function(digits):
    family, state = trained(digits, dtype="bfloat16")
    exact, _ = trained(digits)
    found, expected = family.spectra(state, 0), exact.spectra(state, 0)
    for name in expected.keys() - {"optimization_variance"}:  # which is of steps as training computes them
        np.testing.assert_array_equal(found[name], expected[name])


def test_augmented_spectra_are_around_augmented_examples_of_the_training_split_alone(digits):
    settings = {"spectrum_points": 8, "spectrum_measures": 0}
    plain, state = trained(digits, **settings)
    augmented, _ = trained(digits, **settings, spectrum_augment=True)
    before, after = (f.spectra(state, 0)["energy"][0] for f in (plain, augmented))
    np.testing.assert_array_equal(before[1:], after[1:])

    seed = jax.random.fold_in(jax.random.key(0), 1)
    examples = digits.train_images[data.draw(digits, augmented.config).index]
    x = data.augment(jax.random.fold_in(seed, 3), jnp.asarray(examples), 1, False) / 255
    v = spectrum.random_directions(jax.random.fold_in(seed, 0), 1, x)
    variables = jax.tree.map(lambda leaf: leaf[0], state.variables)
    energy, *_ = spectrum.line_spectra(
        lambda x: plain.model.apply(variables, x, train=False), x, v, num_points=8, half_width=0.5
    )
    # To 1e-4: a sum of 8 float32 logits that nearly cancel in the high bins.
    np.testing.assert_allclose(after[0, : len(energy)], energy, rtol=1e-4)
    assert np.mean(np.abs(energy / before[0, : len(energy)] - 1) > 1e-3) > 0.5


def test_resampled_spectra_change_with_the_epoch_and_else_they_do_not(digits):
    for resample in (False, True):
        settings = {"spectrum_points": 8, "spectrum_examples": 8, "spectrum_measures": 0}
        family, state = trained(digits, **settings, spectrum_resample=resample)
        first, again, later = (family.spectra(state, epoch)["energy"] for epoch in (3, 3, 4))
        np.testing.assert_array_equal(first, again)
        assert np.array_equal(first, later) == (not resample)


def test_examples_and_directions_depend_on_the_seed_alone(digits):
    """Common random numbers: two widths of one seed are measured around the same examples."""
    pack = [Config(width=w, seed=s, train_size=60, batch_size=8, label_noise=0.2) for w, s in ((1, 0), (4, 0), (4, 1))]
    splits, _ = around(pack, digits, [data.draw(digits, c) for c in pack], 0)
    for images, *_ in splits:
        np.testing.assert_array_equal(images[0], images[1])
        assert not np.array_equal(images[1], images[2])


def test_a_state_with_more_than_a_hundred_arrays_comes_back_in_order(digits):
    family = Family(mixed_pack(), digits)
    state = family.initial_state()
    many = state._replace(optimizer=[np.full(3, i) for i in range(120)])
    family._abstract_state = lambda: many
    tree = family.save_tree(many._replace(optimizer=family.place(many.optimizer)))
    restored = family.fetch(family.load_tree(dict(reversed(tree.items()))))
    assert [int(leaf[0]) for leaf in restored.optimizer] == list(range(120))


def test_a_diverging_member_leaves_the_others_bit_identical(digits):
    def pack(rate):
        sane = mixed_pack(optimizer="sgd", spectrum_points=8)
        return [sane[0], dataclasses.replace(sane[1], learning_rate=rate), sane[2]]

    outcomes = []
    for rate in (1e-3, 1e9):
        family = Family(pack(rate), digits)
        state = family.train(family.initial_state(), 0, 4)
        outcomes.append((family.fetch(state), family.evaluate(state), family.spectra(state, 0)))
    sane, wild = outcomes
    assert list(sane[1]["finite"]) == [True, True, True]
    assert list(wild[1]["finite"]) == [True, False, True]
    assert np.isnan(wild[1]["test_error"][1])
    for others in (0, 2):
        jax.tree.map(lambda a, b, i=others: np.testing.assert_array_equal(a[i], b[i]), sane, wild)


@pytest.mark.parametrize("num_devices", [1, 3])
def test_the_number_of_devices_changes_nothing(digits, num_devices):
    """Also where members do not divide evenly; bit for bit, since each runs the same program."""
    members = mixed_pack(model="mlp")
    pack = [*members, dataclasses.replace(members[0], seed=9, width=4)]
    outcomes = []
    for devices in (jax.devices()[:num_devices], jax.devices()):
        family = Family(pack, digits, devices)
        state = family.train(family.initial_state(), 0, 2)
        assert len(jax.tree.leaves(state)[0].sharding.device_set) == len(devices)
        outcomes.append((family.fetch(state), family.evaluate(state)))
    jax.tree.map(np.testing.assert_array_equal, *outcomes)


@pytest.mark.parametrize(("members", "shards"), [(1, 1), (5, 2), (7, 4), (4, 4)])
def test_deal_gives_each_member_a_slot_and_balances_the_work(members, shards):
    work = [3.0**i for i in range(members)]
    slots = deal(work, shards)
    rows = -(-members // shards)
    assert set(slots) == set(range(members)) and len(slots) == rows * shards
    loads = [sum(work[i] for i in set(slots[r * rows : (r + 1) * rows])) for r in range(shards)]
    assert max(loads) <= work[-1] * 1.5


def test_fewer_members_are_computed_at_once_where_memory_is_short(digits):
    configs = mixed_pack(model="cnn5")
    device = jax.local_devices()[:1]
    at_once = Lowering("im2col", None)

    def trained(**options):
        family = Family(configs, digits, device, **options)
        return family, family.fetch(family.train(family.initial_state(), 0, 1))

    roomy, expected = trained(lowering=at_once)
    needed = _memory_needed(roomy._train)
    tight, found = trained(lowering=at_once, memory_limit=needed - 1)
    assert _memory_needed(tight._train) < needed
    assert_trees_close(found.variables, expected.variables, 1e-5)
    with pytest.raises(InputError, match=r"--width=.* needs .* GiB of a device that has .*--batch_size"):
        trained(lowering=at_once, memory_limit=1000)
