"""VGG with BatchNorm (Simonyan and Zisserman, arXiv 1409.1556) and its classifier of two hidden layers."""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from spectral_dd.kernels.norm import max_pool
from spectral_dd.models.network import Dropout, Network, channel_major


class VGG(Network):
    """Five stages of 3x3 convolutions with [k, 2k, 4k, 8k, 8k] channels, each halved by a max-pool, then a
    classifier: twice 64k units, ReLU and dropout, and a dense layer.

    Images larger than 32x32 leave several pixels after the pools, which are averaged.
    """

    convolutions: Sequence[int] = (1, 1, 2, 2, 2)

    smallest_image = 32

    @nn.compact
    def __call__(
        self, images: Float[Array, "example height width channel"], train: bool
    ) -> Float[Array, "example class"]:
        x = channel_major(images)
        for factor, count in zip((1, 2, 4, 8, 8), self.convolutions, strict=True):
            for i in range(count):
                pool = max_pool if i == count - 1 else None  # before ReLU, with which it commutes
                x = nn.relu(self.norm(train, pool)(self.conv(factor * self.width, use_bias=True)(x)))
        x = x.mean(axis=(1, 2)).T
        for _ in range(2):
            x = Dropout(0.5)(nn.relu(self.dense(64 * self.width)(x)), train)
        return self.logits(x)
