import functools
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import ShortCNN, fast_jit
from spectral_dd.errors import InputError
from spectral_dd.models import MLP, MODELS, VGG, ResNet, declared
from spectral_dd.models.network import Network, channel_major
from spectral_dd.segments import on_segments
from spectral_dd.spectrum import spectra_of

HALF_WIDTH, POINTS = 0.5, 8


class Own(nn.Module):
    """A network of the user's own, in the type of its input."""

    width: int
    num_classes: int

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(self.num_classes, param_dtype=jnp.float64)(self.features(images))

    def conv(self, features=None):
        return nn.Conv(features or self.width, (3, 3), param_dtype=jnp.float64)


class ConvFirst(Own):
    def features(self, images):
        return nn.relu(self.conv()(images)).mean(axis=(1, 2))


class NonlinearFirst(Own):
    def features(self, images):
        return nn.relu(self.conv()(jnp.tanh(images))).mean(axis=(1, 2))


class SquareFirst(Own):
    def features(self, images):
        return nn.relu(self.conv()(images**2)).mean(axis=(1, 2))


class ReshapeFirst(Own):
    def features(self, images):
        rows = images.reshape(-1, images.shape[2] * images.shape[3])
        hidden = nn.relu(nn.Dense(self.width, param_dtype=jnp.float64)(rows))
        return hidden.reshape(len(images), -1)


class SeveralOutputs(Own):
    def features(self, images):
        first = self.conv()
        a, b = first(images), first(jnp.abs(images))
        gate, value = jnp.split(self.conv(2 * self.width)(images), 2, axis=-1)
        return (nn.relu(a) * jnp.tanh(b) + nn.sigmoid(gate) * value + images.mean(axis=-1, keepdims=True)).sum(
            axis=(1, 2)
        )


class OwnLayerFirst(Own):
    def features(self, images):
        kernel = self.param("kernel", nn.initializers.normal(), (images[0].size, self.width), jnp.float64)
        hidden = nn.relu(images.reshape(len(images), -1) @ kernel)
        return nn.relu(nn.Dense(self.width, param_dtype=jnp.float64)(hidden))


UNDECLARED = (ConvFirst, NonlinearFirst, SquareFirst, ReshapeFirst, SeveralOutputs, OwnLayerFirst)


class DeclaredConv(ConvFirst):
    affine_first_layer: ClassVar[bool] = True


class DeclaredDense(Own):
    affine_first_layer: ClassVar[bool] = True

    def features(self, images):
        x = 2 * images.reshape(len(images), -1) - 1
        return jnp.tanh(nn.Dense(self.width, param_dtype=jnp.float64)(x))


class DeclaredChannelMajor(Network):
    @nn.compact
    def __call__(self, images, train):
        x = self.conv(self.width, use_bias=True)(channel_major(images))
        return self.logits(jnp.tanh(x).mean(axis=(1, 2)).T)


EXACT = {"dtype": jnp.float64, "param_dtype": jnp.float64}
DECLARED = {
    **{cls.__name__: cls for cls in (DeclaredConv, DeclaredDense)},
    "DeclaredChannelMajor": functools.partial(DeclaredChannelMajor, **EXACT),
    "mlp": functools.partial(MLP, **EXACT),
    "cnn5": functools.partial(ShortCNN, **EXACT),
    "resnet": functools.partial(ResNet, blocks=(1, 1), **EXACT),
    "preactivation resnet": functools.partial(ResNet, blocks=(1, 1), preactivation=True, **EXACT),
    "vgg": functools.partial(VGG, convolutions=(1, 1, 1, 1, 1), **EXACT),
}
NETWORKS = {cls.__name__: cls for cls in UNDECLARED} | DECLARED


def segments(shape=(4, 5, 2)):
    """x, v of norm 1 and t: two segments."""
    x, v = np.random.default_rng(0).standard_normal((2, 2, *shape))
    v /= np.sqrt((v**2).sum(axis=(1, 2, 3), keepdims=True))
    return x, v, HALF_WIDTH * (2 * np.arange(POINTS) / POINTS - 1)


def spectrum_of(outputs):
    """Energy, amplitude and energy of slope by NumPy, outputs (segment, point, class)."""
    magnitude = np.abs(np.fft.rfft(outputs, axis=1))
    slopes = np.polyfit(np.arange(POINTS), np.moveaxis(outputs, 1, 0).reshape(POINTS, -1), 1)[0]
    line = np.arange(POINTS) - (POINTS - 1) / 2
    slope_energy = POINTS * np.sum(line**2) * slopes.reshape(len(outputs), -1) ** 2
    return np.mean(magnitude**2, axis=-1), np.mean(magnitude, axis=-1), np.mean(slope_energy, axis=-1)


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_on_segments_and_spectra_of_ones_own_networks_are_those_of_each_point(name, random_variables, x64):
    network = NETWORKS[name](width=2, num_classes=4)
    size = max(4, declared(network, "smallest_image"))
    x, v, t = segments((size, size + 1, 2))
    variables = random_variables(network, x)

    @fast_jit
    def logits_and_spectra(variables, x, v):
        logits = on_segments(network, variables, x, v, jnp.asarray(t))
        return logits, spectra_of(logits[:, None], "none", 2) if isinstance(network, Own) else None

    at_a_point = fast_jit(lambda variables, x: network.apply(variables, x, train=False))
    expected = np.stack([at_a_point(variables, x + t_n * v) for t_n in t], axis=1)
    found, spectra = logits_and_spectra(variables, x, v)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    if spectra:
        of_each = (spectra.energy, spectra.amplitude, spectra.slope_energy)
        for of_segments, of_points in zip(of_each, spectrum_of(expected), strict=True):
            np.testing.assert_allclose(of_segments, of_points, rtol=1e-9, atol=1e-12)


def trace(network, shape=(4, 5, 2)):
    """Abstract logits on two segments, and how many inputs each convolution and dense layer of flax gets."""
    x, v, t = segments(shape)
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), x)
    sizes = []

    def count(method, args, kwargs, context):
        if isinstance(context.module, nn.Dense | nn.Conv):
            sizes.append(len(args[0]))
        return method(*args, **kwargs)

    with nn.intercept_methods(count):
        logits = jax.eval_shape(lambda variables: on_segments(network, variables, x, v, jnp.asarray(t)), variables)
    return logits, sizes


def test_only_a_declared_first_layer_is_computed_at_two_points_of_a_segment(x64):
    assert trace(ConvFirst(3, 4))[1] == [2 * POINTS, 2 * POINTS]
    assert trace(DeclaredConv(3, 4))[1][-2:] == [2 * 2, 2 * POINTS]


@pytest.mark.parametrize("name", MODELS)
def test_the_declaration_of_every_network_of_ours_is_true(name):
    network = MODELS[name](width=1, num_classes=10)
    assert declared(network, "affine_first_layer")
    logits, _ = trace(network, (32, 32, 3))
    assert logits.shape == (2, POINTS, 10)


class WithoutLayers(Own):
    @nn.compact
    def __call__(self, images, train):
        return images.reshape(len(images), -1)[:, : self.num_classes]


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (NonlinearFirst, "what its first layer gets is not an affine function of the images"),
        (OwnLayerFirst, "what its first layer gets is not an affine function of the images"),
        (ReshapeFirst, "its first layer mixes examples with another axis"),
        (WithoutLayers, "it has no convolution and no dense layer"),
    ],
)
def test_a_declaration_that_is_not_true_is_refused(cls, reason, x64):
    class Declared(cls):
        affine_first_layer: ClassVar[bool] = True

    with pytest.raises(InputError) as error:
        trace(Declared(3, 4))
    assert str(error.value) == f"--model: Declared declares affine_first_layer, but {reason}; remove the declaration"
