import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import fast_jit
from spectral_dd.kernels.norm import BatchNorm, global_max_pool, max_pool


def known_max_pool(x):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def by_tile(x):
    """(channel, row, column, example, place in the tile) of an array without incomplete tiles."""
    channels, height, width, examples = x.shape
    tiles = x.reshape(channels, height // 2, 2, width // 2, 2, examples)
    return tiles.transpose(0, 1, 3, 5, 2, 4).reshape(channels, height // 2, width // 2, examples, 4)


def test_max_pool_and_its_derivatives_are_those_of_the_first_maximum_of_each_complete_tile():
    @fast_jit
    def value_and_derivatives(x, dx, dy):
        y, pullback = jax.vjp(max_pool, x)
        return y, *pullback(dy), jax.jvp(max_pool, (x,), (dx,))[1]

    rng = np.random.default_rng(0)
    for num_values in (1000, 2):  # with two values, most tiles have several maxima
        x = rng.integers(0, num_values, (3, 7, 9, 5)).astype(np.float32)
        dx, dy = rng.standard_normal(x.shape, np.float32), rng.standard_normal((3, 3, 4, 5), np.float32)
        y, x_gradient, y_tangent = value_and_derivatives(x, dx, dy)
        tiles, first = by_tile(x[:, :6, :8]), by_tile(x[:, :6, :8]).argmax(-1)[..., None]
        np.testing.assert_array_equal(y, tiles.max(-1))
        np.testing.assert_array_equal(y_tangent, np.take_along_axis(by_tile(dx[:, :6, :8]), first, -1)[..., 0])
        there = np.where(np.arange(4) == first, dy[..., None], 0)
        np.testing.assert_array_equal(by_tile(x_gradient[:, :6, :8]), there)
        assert not x_gradient[:, 6:].any() and not x_gradient[:, :, 8:].any()


POOLS = {"none": (None, lambda x: x), "tiles": (max_pool, known_max_pool), "all": (global_max_pool, global_max_pool)}


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_equals_flaxs_own_before_the_pool(train, x64):
    rng = np.random.default_rng(0)
    x = 3 + 2 * rng.standard_normal((4, 5, 6, 7))
    variables = {
        "params": {"scale": np.array([0.5, -0.5, 2.0, -1.0]), "bias": rng.standard_normal(4)},
        "batch_stats": {"mean": rng.standard_normal(4), "var": np.array([0.5, 1.0, 2.0, 3.0])},
    }

    def outputs_and_gradient(norm, pool, variables, x):
        def loss(params, x):
            y, updated = norm.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            y = pool(y)
            return jnp.sum(jnp.sin(y)), (y, updated)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(variables["params"], x)

    @jax.jit  # Not `fast_jit`, with which XLA's derivative of `reduce_window` is wrong.
    def of_all(variables, x):
        theirs = nn.BatchNorm(not train, axis=0, momentum=0.9, dtype=jnp.float64, param_dtype=jnp.float64)
        return {
            name: (
                outputs_and_gradient(BatchNorm(train, jnp.float64, jnp.float64, pool), lambda y: y, variables, x),
                outputs_and_gradient(theirs, known_pool, variables, x),
            )
            for name, (pool, known_pool) in POOLS.items()
        }

    for found, expected in of_all(variables, x).values():
        statistics = expected[1][1]["batch_stats"]
        if train:  # Flax averages the variance with the divisor n; ours is PyTorch's, see below
            statistics["var"] = 0.9 * variables["batch_stats"]["var"] + 0.1 * x.var(axis=(1, 2, 3), ddof=1)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), found, expected)


@fast_jit
def normalised(x):
    """From the first variables on."""
    norm = BatchNorm(True)
    return norm.apply(norm.init(jax.random.key(0), x), x, mutable=["batch_stats"])


def test_the_running_variance_is_that_of_pytorch():
    """torch.nn.BatchNorm2d(1), with momentum 0.1, after a batch of the entries 1, 2, 3 and 6: mean 3, squares 14, so
    running_mean = 0.9 * 0 + 0.1 * 3 and running_var = 0.9 * 1 + 0.1 * 14 / 3. What it returns has the variance 14 / 4.
    """
    x = np.array([1, 2, 3, 6], np.float32).reshape(1, 2, 1, 2)
    y, updated = normalised(x)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], [0.3], rtol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["var"], [0.9 + 0.1 * 14 / 3], rtol=1e-6)
    np.testing.assert_allclose(y.ravel(), (x.ravel() - 3) / np.sqrt(14 / 4 + 1e-5), rtol=1e-5)


def test_one_entry_a_channel_leaves_a_finite_running_variance():
    _, updated = normalised(np.ones((2, 1, 1, 1), np.float32))
    np.testing.assert_allclose(updated["batch_stats"]["var"], [0.9, 0.9], rtol=1e-6)


def test_the_gradient_of_batch_norm_is_rounded_to_half_precision_once():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 8, 8, 16)).astype(jnp.bfloat16)
    # The part of it that is the same for all entries of a channel cancels against the statistics.
    dy = (rng.standard_normal(x.shape) + np.arange(1.0, 5).reshape(4, 1, 1, 1)).astype(jnp.bfloat16)
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    variables = {"params": {"scale": ones, "bias": zeros}, "batch_stats": {"mean": zeros, "var": ones}}

    @jax.jit
    def gradients(x, dy):
        def gradient(dtype, pool):
            norm = BatchNorm(True, dtype, jnp.float32, pool)
            y, pullback = jax.vjp(lambda x: norm.apply(variables, x, mutable=["batch_stats"])[0], x.astype(dtype))
            return pullback(dy[:, : y.shape[1], : y.shape[2]].astype(dtype))[0].astype(jnp.float32)

        return [[gradient(dtype, pool) for dtype in (jnp.bfloat16, jnp.float32)] for pool in (None, max_pool)]

    for rounded, exact in jax.device_get(gradients(x, dy)):
        error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
        assert 0 < error < 2**-8  # half the distance of neighbouring numbers around 1
