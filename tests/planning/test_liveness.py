"""What of a traced program is alive at once."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from spectral_dd.planning.liveness import peak_bytes

KB = 1000


@pytest.mark.parametrize(
    ("f", "kilobytes"),
    [
        (lambda x: x, 0),
        (lambda x: jnp.sin(jnp.sin(jnp.sin(x))), 2),  # a result and what it is made of
        (lambda x: (jnp.sin(x), jnp.cos(x), jnp.tan(x)), 3),
        (lambda x: jnp.sin(jnp.concatenate([x, x, x, x])).sum(), 8),
        (jax.jit(lambda x: jnp.sin(jnp.sin(jnp.sin(x)))), 2),
        # Each turn needs two and hands on one; the second result has a row a turn.
        (lambda x: lax.scan(lambda y, _: (jnp.sin(jnp.cos(y)), y), x, length=5), 8),
    ],
)
def test_what_is_alive_is_counted_until_its_last_use(f, kilobytes):
    x = jax.ShapeDtypeStruct((250,), jnp.float32)
    assert peak_bytes(jax.make_jaxpr(f)(x).jaxpr) == pytest.approx(kilobytes * KB, abs=8)


def test_a_gradient_keeps_what_the_way_back_needs():
    def f(x, layers):
        for _ in range(layers):
            x = jnp.sin(x)
        return x.sum()

    x = jax.ShapeDtypeStruct((250,), jnp.float32)
    eight, sixteen = (peak_bytes(jax.make_jaxpr(jax.grad(f), static_argnums=1)(x, n).jaxpr) for n in (8, 16))
    assert sixteen - eight == 8 * KB
