import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import fast_jit
from spectral_dd.config import Config
from spectral_dd.models import MODELS, build_model, declared


def known_conv(x, kernel):
    """Cross-correlation of (example, height, width, channel) with a 3x3 kernel, zero-padded by one."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    return sum(padded[:, r : r + height, c : c + width] @ kernel[r, c] for r, c in np.ndindex(3, 3))


def halved(x):
    """Maximum over 2x2 tiles."""
    examples, height, width, channels = x.shape
    return x.reshape(examples, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def whole(x):
    return x.max(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("cnn5", [(1, lambda x: x), (1, halved), (1, halved), (1, whole)]),
        ("vgg11", [(count, halved) for count in (1, 1, 2, 2, 2)]),
    ],
)
def test_logits_are_those_of_the_published_order_of_layers(name, stages, random_variables, x64):
    model = build_model(Config(model=name, width=2, dtype="float64"), 10)
    x = images = np.random.default_rng(1).standard_normal((2, 32, 32, 3))
    variables = random_variables(model, images)
    params, statistics = variables["params"], variables["batch_stats"]

    def normalised(x, i):
        learned, seen = params[f"BatchNorm_{i}"], statistics[f"BatchNorm_{i}"]
        return (x - seen["mean"]) / np.sqrt(seen["var"] + 1e-5) * learned["scale"] + learned["bias"]

    def dense(x, i):
        layer = params[f"Dense_{i}"]["Dense_0"]
        return x @ layer["kernel"] + layer["bias"]

    i = 0
    for count, pool in stages:
        for _ in range(count):
            layer = params[f"Conv_{i}"]
            x = known_conv(x, layer["kernel"]) + layer.get("bias", 0)
            x, i = np.maximum(normalised(x, i), 0), i + 1
        x = pool(x)
    x = x.reshape(len(x), -1)
    hidden = len([layer for layer in params if layer.startswith("Dense")]) - 1
    for j in range(hidden):
        x = np.maximum(dense(x, j), 0)
    logits = fast_jit(lambda variables, images: model.apply(variables, images, train=False))(variables, images)
    np.testing.assert_allclose(logits, dense(x, hidden), rtol=1e-10)


def shapes_of(name, width, image_size, channels=3, num_classes=10):
    """Abstract logits and variables of two images."""
    model = build_model(Config(model=name, width=width), num_classes)
    images = jax.ShapeDtypeStruct((2, image_size, image_size, channels), jnp.float32)
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=False), images)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_173_962),
        ("resnet34", 21_282_122),
        ("vgg11", 28_149_514),
        ("vgg13", 28_334_410),
        ("vgg16", 33_646_666),
        ("preact_resnet18", 11_171_146),
    ],
)
def test_networks_of_width_64_have_the_published_sizes(name, parameters):
    _, variables = shapes_of(name, 64, 32)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters


@pytest.mark.parametrize("name", MODELS)
def test_networks_take_images_of_any_size_from_their_smallest_and_any_number_of_channels(name):
    smallest = declared(build_model(Config(model=name), 10), "smallest_image")
    for size, channels in ((smallest, 1), (smallest + 3, 3), (64, 2)):
        logits, _ = shapes_of(name, 2, size, channels, num_classes=7)
        assert logits.shape == (2, 7)


def test_bfloat16_computes_in_8_bits_and_keeps_the_rest_in_float32(random_variables):
    images = np.random.default_rng(1).random((20, 8, 8, 1), np.float32)
    exact, rough = (build_model(Config(model="cnn5", width=4, dtype=d), 10) for d in ("float32", "bfloat16"))
    initial = jax.eval_shape(lambda x: rough.init(jax.random.key(0), x, train=False), images)
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), random_variables(rough, images))

    @fast_jit
    def outputs(variables, images):
        return [model.apply(variables, images, train=True, mutable=["batch_stats"]) for model in (exact, rough)]

    (logits, _), (rough_logits, rough_statistics) = outputs(variables, images)
    for leaf in jax.tree.leaves((initial, rough_logits, rough_statistics)):
        assert leaf.dtype == jnp.float32
    # Five layers, each rounded to 2^-9 of its value.
    difference = np.abs(logits - rough_logits).max() / np.abs(logits).max()
    assert 1e-4 < difference < 0.05
