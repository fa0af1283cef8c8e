"""What is measured around a member is what the plain network alone gives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax

from helpers import SHORT_CNN, family_of, fast_jit, logits_of, members_of
from spectral_dd import data, measures, models, padding, probe, records, spectrum
from spectral_dd.config import Config
from spectral_dd.models import build_model
from test_family import BATCH, epoch_order, mixed_pack

pytestmark = pytest.mark.usefixtures("fast_compile")


def test_metrics_and_spectra_are_those_of_the_plain_networks(digits, random_variables, x64):
    family = family_of(mixed_pack(model=SHORT_CNN, dtype="float64", spectrum_points=8, spectrum_directions=2), digits)
    first = [variables["params"] for _, _, variables in members_of(family, family.initial_state())]
    image, wide = digits.train_images[:1] / 255, family.programs.abstract_variables()
    drawn = [padding.pad(random_variables(build_model(c, 10), image), wide) for c in family.configs]
    state = family.load_variables(jax.tree.map(lambda *members: np.stack(members), *drawn))
    metrics = family.evaluate(family.initial_state()._replace(variables=state.variables))
    spectra = family.probe(state, 0)
    segment = {"num_points": 8, "half_width": 0.5}

    @fast_jit
    def points_of_planes(corners):
        x, v = (a.reshape(-1, 8, 8, 1) for a in measures.plane_segments(corners, 12, **segment))  # in two parts each
        return 255 * spectrum.points_on_segments(x, v, spectrum.offsets(**segment)).reshape(-1, 8, 8, 1)

    on_planes = points_of_planes(digits.test_images[probe.planes(digits)] / 255)
    for i, (config, _, variables) in enumerate(members_of(family, state)):
        model = models.with_fields(build_model(config, 10), convolution="lax")
        own = data.draw(digits, config)

        def plain(images, m=model, v=variables):
            return m.apply(v, jnp.float64(images) / 255, train=False)

        def loss(z, labels):
            return -np.mean(log_softmax(z, axis=1)[np.arange(len(labels)), labels])

        images = np.concatenate([digits.train_images[own.index], digits.test_images, on_planes])
        z = np.asarray(fast_jit(plain)(images))
        z, z_test, z_planes = np.split(z, np.cumsum([len(own.index), len(digits.test_images)]))
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
        expected["distance_from_initialisation"] = np.sqrt(
            sum(
                np.sum((a - b) ** 2)
                for a, b in zip(*map(jax.tree.leaves, (variables["params"], first[i])), strict=True)
            )
        )
        assert metrics.keys() == expected.keys() == {*records.METRICS, "finite"}
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name][i], value, rtol=1e-9, err_msg=name)

        relabelled = own.index[own.relabelled][:4]
        seed = jax.random.fold_in(jax.random.key(config.seed), 1)
        test_order = data.draw(digits, config).test_order[:4]
        tests = digits.test_images[test_order]
        examples = (digits.train_images[own.index[:4]], digits.train_images[relabelled], tests)
        labels = (own.labels[:4], own.labels[own.relabelled][:4], digits.test_labels[test_order])
        relabels = (own.relabelled[:4], [True] * len(relabelled), [False] * 4)
        for s, x in enumerate(examples):
            if len(x) == 0:
                assert all(np.isnan(values[i, s]).all() for name, values in spectra.items() if name != "plane_label")
            if s != (1, 0, 2)[i]:  # a split of each member: every plain network compiles anew
                continue
            x, n = x / 255, len(x)

            @fast_jit
            def alone(x, seed, s, f=plain):
                def network(x):
                    return f(255 * x)

                v = spectrum.random_directions(jax.random.fold_in(seed, s), 2, x)
                u = measures.orthonormal_directions(jax.random.fold_in(seed, 4), 4, 64, x.dtype)

                z, products = measures.output_products(network, x)
                shifted = x + 0.05 / 8 * v[:, 0]  # a twentieth of the distance of points
                at = [spectrum.points_on_segments(x, v[:, 0], spectrum.offsets(**segment)) for x in (x, shifted)]
                nearby = network(jnp.stack(at, axis=1).reshape(-1, 8, 8, 1)).reshape(len(x), 2, 8, 10)
                return z, spectrum.line_spectra(network, x, v, window="hann", **segment)._asdict() | {
                    "jacobian_norm": measures.jacobian_norm(products),
                    "loss_curvature": measures.loss_curvature(z, products),
                    **measures.kinks(network, x, v, u, **segment, radius=0.005)._asdict(),
                    "noise_energy": measures.rounding_energy(nearby, "hann"),
                }

            z, expected = alone(x, seed, s)
            z, y, places = np.asarray(z), labels[s], (own.index[:4], relabelled, None)[s]
            expected |= {
                "logit_norm": np.linalg.norm(z, axis=1),
                "loss": [loss(z[[i]], y[[i]]) for i in range(n)],
                "margin": fast_jit(measures.margin)(z, y),
                "relabelled": relabels[s],
                "label": y,
                "true_label": digits.test_labels[test_order] if s == 2 else digits.train_labels[places],
                "index": digits.test_places[test_order] if s == 2 else digits.train_places[places],
            }
            for name, theirs in expected.items():
                atol = 1e-20 if name == "noise_energy" else 0  # of rounding itself, no two programs have the same
                np.testing.assert_allclose(spectra[name][i, s, :n], theirs, rtol=1e-8, atol=atol, err_msg=name)
                assert np.isnan(spectra[name][i, s, n:]).all()
            assert expected.keys() | {"plane_label"} == spectra.keys()
            assert spectra.keys() | {"optimization_variance"} == records.MEASURED.keys()  # which needs an optimiser
        labels = z_planes.argmax(axis=1).reshape(4, 12, 16)[:, :, :12]
        np.testing.assert_array_equal(spectra["plane_label"][i], labels.reshape(4, 144))


def test_optimization_variance_is_over_single_steps_of_the_plain_network(digits, x64):
    """With SGD without momentum a step is -rate x the gradient of a batch; batches and their augmentation as drawn."""
    config = Config.of(
        model="mlp", width=4, dtype="float64", optimizer="sgd", momentum=0, learning_rate=0.1, shift=1, train_size=40,
        batch_size=BATCH, spectrum_examples=4, spectrum_points=4, spectrum_updates=7,
    )  # fmt: skip
    family = family_of([config], digits)
    state = family.initial_state()
    found = family.probe(state, 0)["optimization_variance"][0]
    model, params = family.model, jax.tree.map(lambda leaf: leaf[0], jax.device_get(state.variables["params"]))
    own = data.draw(digits, config)
    tests = digits.test_images[own.test_order[:4]]

    @fast_jit
    def updated(params, key, images, y):
        def loss(params):
            x = data.augment(jax.random.fold_in(key, 0), images, 1, False)
            z = model.apply({"params": params}, jnp.float64(x) / 255, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(z, y).mean()

        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))

    logits = []
    for i in range(7):
        seed = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), config.epochs + i)
        order_key, augment_key, _ = jax.random.split(seed, 3)
        batch = np.asarray(epoch_order(order_key, 40, 40))[:BATCH]
        after = updated(params, augment_key, digits.train_images[own.index[batch]], own.labels[batch])
        logits.append(logits_of(model, {"params": after}, tests / 255))
    expected = fast_jit(measures.optimization_variance)(np.stack(logits))
    np.testing.assert_allclose(found[2], expected, rtol=1e-9)
    assert np.isnan(found[1]).all()


def test_directions_towards_another_example_end_in_one_of_the_asked_class(digits):
    for kind in ("same_class", "other_class"):
        config = Config.of(**TRAINED, spectrum_direction=kind, spectrum_directions=2)
        own = data.draw(digits, config)
        true_label = dict(zip(own.index, own.true_labels, strict=True))
        splits, _ = probe.probes(config, own, digits, 0)
        for number, split in enumerate(splits):
            labels = digits.train_labels if number < 2 else digits.test_labels
            for image, partners in zip(split.images, split.partners, strict=True):
                for partner in partners:
                    assert (true_label[partner] == labels[image]) == (kind == "same_class")
                    assert number == 2 or partner != image


@pytest.mark.parametrize("direction", ["adversarial", "same_class"])
def test_spectra_along_other_directions_are_those_of_the_plain_network(digits, direction):
    settings = {"spectrum_output": "softmax", "spectrum_points": 8, "spectrum_measures": 0}
    family, state = trained(digits, **settings, spectrum_direction=direction)
    variables = jax.tree.map(lambda leaf: leaf[0], jax.device_get(state.variables))
    (train, *_), _ = probe.probes(family.config, data.draw(digits, family.config), digits, 0)
    x, partners = (digits.train_images[places] / np.float32(255) for places in (train.images, train.partners))

    @fast_jit
    def energy_alone(x, partners):
        def logits(x):
            return family.model.apply(variables, x, train=False)

        if direction == "adversarial":
            v = spectrum.adversarial_directions(logits, x)
        else:
            v = spectrum.directions_towards(x, partners)
        return spectrum.line_spectra(lambda x: jax.nn.softmax(logits(x)), x, v, num_points=8, half_width=0.5).energy

    # Of float32 outputs of size 1, whose rounding every bin has.
    found = family.probe(state, 0)["energy"][0, 0]
    np.testing.assert_allclose(found[: len(x)], energy_alone(x, partners), rtol=1e-4, atol=1e-10)


TRAINED = {"model": "mlp", "train_size": 60, "batch_size": 8, "label_noise": 0.2, "shift": 1}


def of_one(dataset, **fields):
    return family_of([Config.of(**TRAINED | fields)], dataset)


def trained(dataset, **fields):
    family = of_one(dataset, **fields)
    return family, family.train(family.initial_state(), 0, 2)


def test_spectra_of_a_bfloat16_network_are_of_its_float32_function(digits):
    family, state = trained(digits, dtype="bfloat16")
    state = state._replace(optimizer=None)  # no optimization variance, which is of steps as training computes them
    found, expected = family.probe(state, 0), of_one(digits).probe(state, 0)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def test_augmented_spectra_are_around_augmented_examples_of_the_training_split_alone(digits, x64):
    settings = {"spectrum_points": 8, "spectrum_measures": 0, "dtype": "float64"}
    plain, state = trained(digits, **settings)
    augmented = of_one(digits, **settings, spectrum_augment=True)
    before, after = (f.probe(state, 0)["energy"][0] for f in (plain, augmented))
    np.testing.assert_array_equal(before[1:], after[1:])

    seed = jax.random.fold_in(jax.random.key(0), 1)
    examples = digits.train_images[data.draw(digits, augmented.config).index]
    variables = jax.tree.map(lambda leaf: leaf[0], jax.device_get(state.variables))

    @fast_jit
    def energy_of(examples, seed):
        x = jnp.float64(data.augment(jax.random.fold_in(seed, 3), examples, 1, False)) / 255
        v = spectrum.random_directions(jax.random.fold_in(seed, 0), 1, x)
        network = functools.partial(plain.model.apply, variables, train=False)
        return spectrum.line_spectra(network, x, v, num_points=8, half_width=0.5).energy

    energy = np.asarray(energy_of(examples, seed))
    np.testing.assert_allclose(after[0, : len(energy)], energy, rtol=1e-8)
    assert np.mean(np.abs(energy / before[0, : len(energy)] - 1) > 1e-3) > 0.5


def test_resampled_spectra_change_with_the_epoch_and_else_they_do_not(digits):
    for resample in (False, True):
        settings = {"spectrum_points": 8, "spectrum_examples": 8, "spectrum_measures": 0}
        family, state = trained(digits, **settings, spectrum_resample=resample)
        first, again, later = (family.probe(state, epoch)["energy"] for epoch in (3, 3, 4))
        np.testing.assert_array_equal(first, again)
        assert np.array_equal(first, later) == (not resample)


def test_examples_and_directions_depend_on_the_seed_alone(digits):
    """Common random numbers: two widths of one seed are measured around the same examples."""
    pack = [
        Config.of(width=w, seed=s, train_size=60, batch_size=8, label_noise=0.2) for w, s in ((1, 0), (4, 0), (4, 1))
    ]
    narrow, wide, other = (probe.probes(c, data.draw(digits, c), digits, 0) for c in pack)
    jax.tree.map(np.testing.assert_array_equal, narrow, wide)
    for split in range(3):
        assert not np.array_equal(wide[0][split].images, other[0][split].images)
