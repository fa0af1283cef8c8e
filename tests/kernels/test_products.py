import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import fast_jit
from spectral_dd.kernels.blocks import blocks
from spectral_dd.kernels.products import matmul, matmuls

CONTRACT = [(0, 0), (0, 1), (1, 0), (1, 1)]


def factors(contract, dtype):
    """a and b of 3 products of 4x5 with 5x6, the axes in the order that `contract` says, and dy."""
    rng = np.random.default_rng(0)
    a, b, dy = (rng.standard_normal(shape).astype(dtype) for shape in ((3, 4, 5), (3, 5, 6), (3, 4, 6)))
    return a if contract[0] else a.swapaxes(1, 2), b.swapaxes(1, 2) if contract[1] else b, dy


@pytest.mark.parametrize("contract", CONTRACT)
def test_products_of_half_precision_and_their_derivatives_are_rounded_once(contract):
    a, b, dy = factors(contract, jnp.bfloat16)

    @fast_jit
    def value_and_derivatives(a, b, dy):
        y, pullback = jax.vjp(lambda a, b: matmuls(a, b, contract), a, b)
        return y, pullback(dy)

    dy = dy.astype(np.float32)
    y, derivatives = value_and_derivatives(a, b, dy)
    exact, exact_derivatives = value_and_derivatives(a.astype(np.float32), b.astype(np.float32), dy)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, exact, rtol=1e-6)
    for found, expected in zip(derivatives, exact_derivatives, strict=True):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.float32(found), expected, rtol=2**-8)


def test_sums_of_half_precision_lose_no_terms():
    ones = np.ones((1, 1000), jnp.bfloat16)  # where 256 + 1 is 256
    assert np.asarray(jax.jit(matmul)(ones, ones.T)) == [[1000]]


@pytest.mark.parametrize("features", [4, 16])
def test_a_convolution_in_bfloat16_multiplies_bfloat16_and_sums_in_float32(features):
    """As compiled: XLA makes float32 of the factors of some products."""
    x, kernel = (jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((4, 8, 8, 16), (3, 3, 4, features)))
    dy = jax.ShapeDtypeStruct((features, 8, 8, 16), jnp.float32)

    def all_products(x, kernel, dy):
        y, pullback = jax.vjp(blocks, x, kernel)
        return y, pullback(dy)

    text = jax.jit(all_products).lower(x, kernel, dy).compile().as_text()
    types = dict(re.findall(r"%([\w.]+) = (\w+)\[", text))
    products = re.findall(r"= (\w+)\[\S* dot\(%([\w.]+), %([\w.]+)\)", text)
    assert len(products) == 3
    assert {(result, types[a], types[b]) for result, a, b in products} == {("f32", "bf16", "bf16")}
