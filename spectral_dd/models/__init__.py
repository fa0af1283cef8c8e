"""The architectures, stock Linen modules with a `width`.

Each is called as `model.apply(variables, images, train=...)` with images `(example, height, width, channel)`
in [0, 1] and returns logits `(example, class)`. Zero-padding every weight of a narrow one gives a wide one
that computes the same function (see `padding.py`), so an activation must have f(0) = 0.
"""

import flax.linen as nn
import jax.numpy as jnp

from spectral_dd.config import Config
from spectral_dd.models.cnn5 import CNN5
from spectral_dd.models.mlp import MLP

MODELS: dict[str, type[nn.Module]] = {"mlp": MLP, "cnn5": CNN5}


def build_model(config: Config, num_classes: int) -> nn.Module:
    """The network of one member, at the member's own width."""
    return MODELS[config.model](width=config.width, num_classes=num_classes, dtype=jnp.dtype(config.dtype))
