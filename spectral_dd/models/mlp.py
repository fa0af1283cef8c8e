"""Multilayer perceptron with two hidden layers."""

import flax.linen as nn
from jaxtyping import Array, Float

from spectral_dd.models.network import Network


class MLP(Network):
    """Input, `width` units, `width` units, classes; ReLU."""

    convolutional = False

    @nn.compact
    def __call__(
        self, images: Float[Array, "example height width channel"], train: bool
    ) -> Float[Array, "example class"]:
        x = images.reshape(images.shape[0], -1)
        for _ in range(2):
            x = nn.relu(self.dense(self.width)(x))
        return self.logits(x)
