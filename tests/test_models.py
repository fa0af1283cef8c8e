import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from spectral_dd.config import MODEL_NAMES, Config
from spectral_dd.models import MODELS, build_model, conv
from spectral_dd.models.conv import CONVOLUTIONS, draw_weights, tiny
from spectral_dd.models.network import BatchNorm, Dropout, global_max_pool, max_pool, on_segments


def known_conv(x, kernel, stride):
    padding = [(n // 2, n // 2) for n in kernel.shape[:2]]
    y = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0), kernel, (stride,) * 2, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y.transpose(3, 1, 2, 0)


def assert_all_convolutions_are_the_same(x, kernel, stride):
    def value_and_gradients(convolution):
        def loss(x, kernel):
            y = convolution(x, kernel, stride)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(x, kernel)

    expected = value_and_gradients(known_conv)
    for convolution in CONVOLUTIONS.values():
        found = value_and_gradients(convolution)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, expected)


@pytest.mark.parametrize("block_bytes", [0, 4000, 21_000, 10**6])  # blocks of a pixel, of three, of rows, of all
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (1, 1, 4, 2), (5, 3, 4, 1)])
def test_convolutions_and_their_gradients_are_the_same(shape, stride, block_bytes, monkeypatch, x64):
    monkeypatch.setattr(conv, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(conv, "BLOCK_KERNELS", 0)
    x = jax.random.normal(jax.random.key(0), (shape[2], 13, 9, 2))
    assert_all_convolutions_are_the_same(x, jax.random.normal(jax.random.key(1), shape), stride)


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5])
def test_convolutions_are_the_same_whatever_the_height(height, x64):
    x = jax.random.normal(jax.random.key(0), (3, height, 5, 2))
    assert_all_convolutions_are_the_same(x, jax.random.normal(jax.random.key(1), (3, 3, 3, 2)), stride=1)


def test_convolutions_of_large_batches_to_many_features_are_the_same(x64):
    x = jax.random.normal(jax.random.key(0), (3, 8, 4, 128))
    assert_all_convolutions_are_the_same(x, jax.random.normal(jax.random.key(1), (3, 3, 3, 16)), stride=1)


@pytest.mark.parametrize("name", ["blocks", "winograd"])
def test_convolutions_of_several_networks_at_once(name, x64):
    x = jax.random.normal(jax.random.key(0), (3, 2, 8, 4, 5))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 2, 4))

    def gradients(x, kernel):
        return jax.grad(lambda x, kernel: jnp.sum(jnp.sin(CONVOLUTIONS[name](x, kernel, 1))), argnums=(0, 1))(x, kernel)

    alone = [gradients(*one) for one in zip(x, kernel, strict=True)]
    expected = jax.tree.map(lambda *members: jnp.stack(members), *alone)
    found = jax.vmap(gradients)(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, expected)


def relative_error(found, expected):
    return np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))


def test_winograd_keeps_the_precision_of_float32(x64):
    x = jax.random.normal(jax.random.key(0), (64, 8, 8, 16))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 64, 8))
    y, pull_back = jax.vjp(lambda x, kernel: known_conv(x, kernel, 1), x, kernel)
    dy = jax.random.normal(jax.random.key(2), y.shape)
    exact = (y, *pull_back(dy))

    def errors(convolution):
        x32, kernel32, dy32 = (a.astype(jnp.float32) for a in (x, kernel, dy))
        y32, pull_back = jax.vjp(convolution, x32, kernel32)
        found = (y32, *pull_back(dy32))
        assert all(a.dtype == jnp.float32 for a in found)
        return np.array([relative_error(a, b) for a, b in zip(found, exact, strict=True)])

    # Those of sums of products are some units in the last place, 6e-8.
    assert np.all(errors(conv.winograd) < 1e-6)
    assert np.all(errors(conv.winograd) < 5 * errors(conv.im2col))


def test_winograd_leaves_half_precision_and_other_kernels_to_blocks():
    def uses_winograd(dtype, size, stride):
        x, kernel = jnp.zeros((2, 8, 8, 4), dtype), jnp.zeros((size, size, 2, 2), dtype)
        traced = [
            str(jax.make_jaxpr(lambda x, k, f=f: f(x, k, stride))(x, kernel)) for f in (conv.winograd, conv.blocks)
        ]
        return traced[0] != traced[1]

    assert uses_winograd(jnp.float32, 3, 1)
    for other in ((jnp.bfloat16, 3, 1), (jnp.float32, 3, 2), (jnp.float32, 1, 1), (jnp.float32, 5, 1)):
        assert not uses_winograd(*other)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_a_convolution_of_a_tiny_image_is_the_same(size, x64):
    x = jax.random.normal(jax.random.key(0), (4, *size, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 4, 5))

    def value_and_gradients(convolution):
        return jax.value_and_grad(lambda *args: jnp.sum(jnp.sin(convolution(*args))), argnums=(0, 1))(x, kernel)

    found, expected = value_and_gradients(tiny), value_and_gradients(lambda x, kernel: known_conv(x, kernel, 1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, expected)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dtype", "is_tiny"),
    [
        (2, 3, 1, jnp.float32, True),
        (1, 3, 1, jnp.float32, True),
        (3, 3, 1, jnp.float32, False),
        (2, 1, 1, jnp.float32, False),
        (2, 3, 2, jnp.float32, False),
        (2, 3, 1, jnp.bfloat16, False),
    ],
)
def test_which_layers_see_a_tiny_image(size, kernel, stride, dtype, is_tiny):
    layer = conv.Conv(2, kernel, stride, convolution="lax", dtype=dtype)
    x = jnp.zeros((3, size, size, 2))
    traced = str(jax.make_jaxpr(lambda x: layer.init_with_output(jax.random.key(0), x))(x))
    assert ("conv_general_dilated" not in traced) == is_tiny


def known_max_pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


@pytest.mark.parametrize("num_values", [1000, 2])  # of two, most tiles have several largest entries
def test_max_pool_equals_a_reduce_window_without_the_incomplete_tiles(num_values):
    x = jax.random.randint(jax.random.key(0), (3, 7, 9, 5), 0, num_values).astype(jnp.float32)
    dx = jax.random.normal(jax.random.key(1), x.shape)
    dy = jax.random.normal(jax.random.key(2), (3, 3, 4, 5))

    def value_and_derivatives(pool):
        y, pullback = jax.vjp(pool, x)
        return y, pullback(dy), jax.jvp(pool, (x,), (dx,))[1]

    jax.tree.map(np.testing.assert_array_equal, value_and_derivatives(max_pool), value_and_derivatives(known_max_pool))


POOLS = {"none": (None, lambda x: x), "tiles": (max_pool, known_max_pool), "all": (global_max_pool, global_max_pool)}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("pool", "known_pool"), POOLS.values(), ids=POOLS)
def test_batch_norm_equals_flaxs_own_before_the_pool(train, pool, known_pool, x64):
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 5, 6, 7))
    ours = BatchNorm(train, jnp.float64, jnp.float64, pool)
    theirs = nn.BatchNorm(not train, axis=0, momentum=0.9, dtype=jnp.float64, param_dtype=jnp.float64)
    bias_key, mean_key = jax.random.split(jax.random.key(1))
    variables = {
        "params": {"scale": jnp.array([0.5, -0.5, 2.0, -1.0]), "bias": jax.random.normal(bias_key, (4,))},
        "batch_stats": {"mean": jax.random.normal(mean_key, (4,)), "var": jnp.array([0.5, 1.0, 2.0, 3.0])},
    }

    def outputs_and_gradient(norm, pool):
        def loss(params, x):
            y, updated = norm.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            y = pool(y)
            return jnp.sum(jnp.sin(y)), (y, updated)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(variables["params"], x)

    found, expected = outputs_and_gradient(ours, lambda y: y), outputs_and_gradient(theirs, known_pool)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), found, expected)


@pytest.mark.parametrize("pool", [None, max_pool], ids=["none", "tiles"])
def test_the_gradient_of_batch_norm_is_rounded_to_half_precision_once(pool):
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 16), jnp.bfloat16)

    def gradient(dtype):
        norm = BatchNorm(True, dtype, jnp.float32, pool)
        variables = norm.init(jax.random.key(0), x)

        def outputs(x):
            return norm.apply(variables, x, mutable=["batch_stats"])[0]

        y, pullback = jax.vjp(outputs, x.astype(dtype))
        # A part that is the same for all entries of a channel cancels against the statistics.
        dy = jax.random.normal(jax.random.key(1), y.shape, jnp.bfloat16) + jnp.arange(1.0, 5).reshape(4, 1, 1, 1)
        return pullback(dy.astype(jnp.bfloat16).astype(dtype))[0].astype(jnp.float32)

    exact = gradient(jnp.float32)
    error = jnp.linalg.norm(gradient(jnp.bfloat16) - exact) / jnp.linalg.norm(exact)
    assert error < 2**-8  # half the distance of neighbouring numbers around 1


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("cnn5", [(1, lambda x: x), (1, known_max_pool), (1, known_max_pool), (1, global_max_pool)]),
        ("vgg11", [(count, known_max_pool) for count in (1, 1, 2, 2, 2)]),
    ],
)
def test_logits_are_those_of_the_published_order_of_layers(name, stages, x64):
    model = build_model(Config(model=name, width=2, dtype="float64"), 10)
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    variables = jax.jit(model.init, static_argnames="train")(jax.random.key(1), images, train=False)
    keys = iter(jax.random.split(jax.random.key(2), 100))
    # Among the scales of BatchNorm are negative ones then; its variances stay positive.
    variables = jax.tree.map(lambda leaf: leaf + 0.5 * jax.random.normal(next(keys), leaf.shape), variables)
    variables["batch_stats"] = jax.tree.map(jnp.abs, variables["batch_stats"])
    params, statistics = variables["params"], variables["batch_stats"]

    def normalised(x, i):
        scale, bias = params[f"BatchNorm_{i}"]["scale"], params[f"BatchNorm_{i}"]["bias"]
        mean, variance = statistics[f"BatchNorm_{i}"]["mean"], statistics[f"BatchNorm_{i}"]["var"]
        return ((x.T - mean) / jnp.sqrt(variance + 1e-5) * scale + bias).T

    def dense(x, i):
        layer = params[f"Dense_{i}"]["Dense_0"]
        return x @ layer["kernel"] + layer["bias"]

    x, i = images.transpose(3, 1, 2, 0), 0
    for count, pool in stages:
        for _ in range(count):
            layer = params[f"Conv_{i}"]
            x = known_conv(x, layer["kernel"], 1) + layer.get("bias", jnp.zeros(()))[..., None, None, None]
            x, i = nn.relu(normalised(x, i)), i + 1
        x = pool(x)
    x = x.reshape(len(x), -1).T
    hidden = len([layer for layer in params if layer.startswith("Dense")]) - 1
    for j in range(hidden):
        x = nn.relu(dense(x, j))
    np.testing.assert_allclose(model.apply(variables, images, train=False), dense(x, hidden), rtol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_logits_on_segments_are_those_at_each_point(name, x64):
    model = build_model(Config(model=name, width=1, dtype="float64"), 10)
    x, v = jax.random.normal(jax.random.key(0), (2, 2, 32, 32, 3))
    t = jnp.array([-0.5, 0.0, 0.25])
    variables = jax.jit(model.init, static_argnames="train")(jax.random.key(1), x, train=False)
    found = jax.jit(lambda: on_segments(model, variables, x, v, t))()
    points = (x[:, None] + t[:, None, None, None] * v[:, None]).reshape(-1, *x.shape[1:])
    expected = jax.jit(lambda: model.apply(variables, points, train=False))()
    np.testing.assert_allclose(found, expected.reshape(2, 3, 10), rtol=1e-10, atol=1e-12)


def shapes_of(name, width, image_size, channels=3, num_classes=10):
    """Abstract variables and logits of two images."""
    model = build_model(Config(model=name, width=width), num_classes)
    images = jnp.zeros((2, image_size, image_size, channels))
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=False), images)


def test_every_model_has_a_flag_value():
    assert tuple(MODELS) == MODEL_NAMES


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
    smallest = build_model(Config(model=name), 10).smallest_image
    for size, channels in ((smallest, 1), (smallest + 3, 3), (64, 2)):
        logits, _ = shapes_of(name, 2, size, channels, num_classes=7)
        assert logits.shape == (2, 7)


@pytest.mark.parametrize("name", ("mlp", "cnn5", "resnet18"))
def test_initial_weights_fill_their_bounds_as_the_papers_framework_draws_them(name):
    model = build_model(Config(model=name, width=16), num_classes=10)
    variables = jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))(jnp.ones((1, 8, 8, 1)))
    for path, kernel in jax.tree.leaves_with_path(variables["params"]):
        if path[-1].key == "kernel":
            bound = np.prod(kernel.shape[:-1]) ** -0.5
            assert 0.9 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6)
            assert abs(np.mean(kernel)) < 0.2 * bound
    last = variables["params"]["Dense_2" if name == "mlp" else "Dense_0"]["Dense_0"]
    bound = last["kernel"].shape[0] ** -0.5
    assert 0 < np.abs(last["bias"]).max() <= bound * (1 + 1e-6)


def test_he_normal_draws_with_variance_2_over_fan_in_and_no_biases():
    kernel = draw_weights("he_normal", 50)(jax.random.key(0), (50, 400), jnp.float32)
    assert np.var(kernel) == pytest.approx(2 / 50, rel=0.03)  # 20,000 draws: a standard error of 1 %
    assert not draw_weights("he_normal", 50, bias=True)(jax.random.key(0), (9,), jnp.float32).any()


def test_bfloat16_computes_in_8_bits_and_keeps_the_rest_in_float32():
    image = jax.random.uniform(jax.random.key(1), (20, 8, 8, 1))
    exact, rough = (build_model(Config(model="cnn5", width=4, dtype=d), 10) for d in ("float32", "bfloat16"))
    variables = jax.jit(lambda x: rough.init(jax.random.key(0), x, train=False))(image)

    def outputs(model):
        return jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))(variables, image)

    (logits, _), (rough_logits, rough_statistics) = outputs(exact), outputs(rough)
    for leaf in jax.tree.leaves((variables, rough_logits, rough_statistics)):
        assert leaf.dtype == jnp.float32
    # Five layers, each rounded to 2^-9 of its value.
    difference = np.abs(logits - rough_logits).max() / np.abs(logits).max()
    assert 1e-4 < difference < 0.05


def test_dropout_drops_the_same_of_a_network_with_more_channels():
    narrow, wide = jnp.ones((50, 40)), jnp.ones((50, 64))
    kept = [
        Dropout(0.5).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)}) for x in (narrow, wide)
    ]  # fmt: skip
    np.testing.assert_array_equal(kept[0], kept[1][:, :40])
    assert set(np.unique(kept[1])) == {0.0, 2.0}
    assert np.mean(kept[1]) == pytest.approx(1, abs=0.1)  # 3200 draws of 0 or 2: a standard error of 0.02
    np.testing.assert_array_equal(Dropout(0.5).apply({}, wide, train=False), wide)
