from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import ShortCNN, fast_jit
from spectral_dd import padding
from spectral_dd.models import MLP, VGG, ResNet

# The architectures with every kind of layer that they have, but no deeper than that needs.
KINDS = {
    "mlp": MLP,
    "cnn5": ShortCNN,
    "resnet": partial(ResNet, blocks=(1, 1)),
    "preactivation resnet": partial(ResNet, blocks=(1, 1), preactivation=True),
    "vgg": partial(VGG, convolutions=(1, 1, 0, 0, 0)),
}
DROPOUT = {"dropout": jax.random.key(7)}


def narrow_and_wide(name, narrow, wide, draw):
    """Two networks, variables of the narrow one, shapes of the wide one's, and images."""
    exact = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    models = [KINDS[name](width=width, num_classes=10, **exact) for width in (narrow, wide)]
    size = max(8, models[0].smallest_image)
    image = np.random.default_rng(1).uniform(size=(5, size, size, 1))
    shapes = jax.eval_shape(lambda x: models[1].init(jax.random.key(0), x, train=False), image)
    return models, (draw(models[0], image), shapes), image


@pytest.mark.parametrize("name", KINDS)
def test_a_padded_network_computes_the_narrow_networks_function(name, x64, random_variables):
    (narrow, wide), (variables, wide_variables), image = narrow_and_wide(name, 3, 8, random_variables)
    padded = padding.pad(variables, wide_variables)

    @fast_jit
    def outputs(variables, padded):
        return [
            [m.apply(v, image, train=train, mutable=["batch_stats"], rngs=DROPOUT)[0] for train in (False, True)]
            for m, v in ((narrow, variables), (wide, padded))
        ]

    for ours, theirs in zip(*outputs(variables, padded), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", KINDS)
def test_the_gradient_of_every_padded_entry_is_exactly_zero(name, x64, random_variables):
    (_, wide), (variables, wide_variables), image = narrow_and_wide(name, 3, 8, random_variables)
    padded = padding.pad(variables, wide_variables)
    is_padding = padding.pad(jax.tree.map(np.ones_like, variables["params"]), wide_variables["params"])

    def loss(params):
        logits, _ = wide.apply({**padded, "params": params}, image, train=True, rngs=DROPOUT, mutable=["batch_stats"])
        return jnp.sum(logits**2)

    gradient = jax.device_get(fast_jit(jax.grad(loss))(padded["params"]))
    for g, real in zip(jax.tree.leaves(gradient), jax.tree.leaves(is_padding), strict=True):
        assert not np.any(g[real == 0])
    assert any(np.any(g) for g in jax.tree.leaves(gradient))


def test_unpad_is_the_inverse_of_pad(x64, random_variables):
    _, (variables, wide_variables), _ = narrow_and_wide("cnn5", 2, 5, random_variables)
    back = padding.unpad(padding.pad(variables, wide_variables), variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_a_leaf_that_does_not_fit_is_refused():
    with pytest.raises(ValueError):
        padding.pad({"w": np.ones((3, 3))}, {"w": np.ones((2, 4))})
