"""Block-diagonal packing: several networks' convolutions as one ordinary convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import fast_jit
from spectral_dd.kernels.convolution import lax_conv
from spectral_dd.kernels.packed import packed


def value_and_gradients(convolution, x, kernel, dy, stride):
    y, pullback = jax.vjp(lambda x, kernel: convolution(x, kernel, stride), x, kernel)
    return y, *pullback(dy)


@pytest.mark.parametrize(("features", "stride"), [(4, 1), (32, 2)])
def test_members_side_by_side_are_each_alone(features, stride, x64):
    rng, members = np.random.default_rng(0), 4
    x, dy = (
        rng.standard_normal((members, *shape, 2)) for shape in ((3, 5, 4), (features, -(-5 // stride), -(-4 // stride)))
    )
    kernel = rng.standard_normal((members, 3, 3, 3, features))

    @fast_jit
    def together_and_alone(x, kernel, dy):
        return [
            jax.vmap(lambda x, k, dy, f=f: value_and_gradients(f, x, k, dy, stride))(x, kernel, dy)
            for f in (packed, lax_conv)
        ]

    for ours, theirs in zip(*together_and_alone(x, kernel, dy), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-11)


def convolutions_of(members, features):
    shapes = jnp.zeros((members, 3, 8, 8, 2)), jnp.zeros((members, 3, 3, 3, features))
    text = jax.jit(jax.vmap(packed)).lower(*shapes).as_text()
    return text.count("stablehlo.convolution"), "feature_group_count = 1 " in text


def test_networks_of_any_width_make_one_ordinary_convolution():
    assert convolutions_of(16, 4) == (1, True)
    assert convolutions_of(4, 64) == (1, True)


@pytest.mark.parametrize(("array", "value"), [(0, np.nan), (0, np.inf), (1, -np.inf), (2, np.nan)])
def test_a_member_that_diverges_leaves_the_others_as_they_are_bit_for_bit(array, value, contents):
    arrays, of_members = contents
    wild = [a.copy() for a in arrays]
    wild[array][1].flat[0] = value
    for before, after in zip(of_members(*arrays), of_members(*wild), strict=True):
        np.testing.assert_array_equal(np.delete(before, 1, axis=0), np.delete(after, 1, axis=0))
    assert np.isnan(of_members(*wild)[1][1]).all()


@pytest.fixture(scope="module")
def contents():
    """x, kernel, dy of three members, and a function of them: value and gradients."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((3, 2, 4, 4, 2), (3, 3, 3, 2, 5), (3, 5, 4, 4, 2))]
    return arrays, jax.jit(jax.vmap(lambda x, k, dy: value_and_gradients(packed, x, k, dy, 1)))
