import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from spectral_dd.config import Config
from spectral_dd.models import MODELS, build_model
from spectral_dd.models.cnn5 import max_pool
from spectral_dd.models.conv import conv2d


def lax_conv(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (1, 1, 4, 2), (5, 3, 4, 1)])
def test_conv2d_and_its_gradients_equal_lax_conv(shape, x64):
    x = jax.random.normal(jax.random.key(0), (2, 6, 7, shape[2]))
    kernel = jax.random.normal(jax.random.key(1), shape)

    def loss(conv):
        return lambda x, kernel: jnp.sum(jnp.sin(conv(x, kernel)))

    np.testing.assert_allclose(conv2d(x, kernel), lax_conv(x, kernel), atol=1e-12)
    ours, theirs = (jax.grad(loss(conv), argnums=(0, 1))(x, kernel) for conv in (conv2d, lax_conv))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), ours, theirs)


def test_max_pool_equals_a_reduce_window_without_the_incomplete_tiles():
    x = jax.random.normal(jax.random.key(0), (2, 7, 9, 3))
    expected = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    np.testing.assert_array_equal(max_pool(x, 2), expected)


@pytest.mark.parametrize("size", [4, 7, 8, 28, 32])
def test_cnn5_takes_images_of_any_size_from_4(size):
    model = build_model(Config(model="cnn5", width=2), num_classes=7)
    image = jnp.ones((3, size, size, 1))
    logits = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0], image)
    assert logits.shape == (3, 7)


@pytest.mark.parametrize("name", MODELS)
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
