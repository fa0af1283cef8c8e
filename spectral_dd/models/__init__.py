"""The architectures, stock Linen modules with a `width`.

Zero-padding every weight of a narrow one gives a wide one that computes the same function (see `padding.py`), so an
activation must have f(0) = 0, and what is drawn during training must not depend on the number of channels.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp

from spectral_dd.config import Config
from spectral_dd.models.cnn5 import CNN5
from spectral_dd.models.mlp import MLP
from spectral_dd.models.network import Network
from spectral_dd.models.resnet import ResNet
from spectral_dd.models.vgg import VGG

MODELS: dict[str, Callable[..., Network]] = {
    "mlp": MLP,
    "cnn5": CNN5,
    "resnet18": ResNet,
    "resnet34": functools.partial(ResNet, blocks=(3, 4, 6, 3)),
    "preact_resnet18": functools.partial(ResNet, preactivation=True),
    "preact_resnet34": functools.partial(ResNet, blocks=(3, 4, 6, 3), preactivation=True),
    "vgg11": VGG,
    "vgg13": functools.partial(VGG, convolutions=(2, 2, 2, 2, 2)),
    "vgg16": functools.partial(VGG, convolutions=(2, 2, 3, 3, 3)),
}


def build_model(config: Config, num_classes: int) -> Network:
    """The network of one member, at the member's own width."""
    return MODELS[config.model](
        width=config.width,
        num_classes=num_classes,
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.dtype(config.param_dtype),
        initializer=config.initializer,
    )
