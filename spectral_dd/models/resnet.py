"""Residual networks in their CIFAR form (He et al., arXiv 1512.03385 and 1603.05027)."""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from spectral_dd.models.network import Network, channel_major


class ResNet(Network):
    """A 3x3 stem, four stages of basic blocks with [k, 2k, 4k, 8k] channels and strides 1, 2, 2, 2, the mean over
    pixels, and a dense layer.

    With `preactivation`, BatchNorm and ReLU come before each convolution, and neither follows the last block:
    the network of Nakkiran et al. (arXiv 1912.02292), as in the implementation that they name.
    """

    blocks: Sequence[int] = (2, 2, 2, 2)
    preactivation: bool = False

    @nn.compact
    def __call__(
        self, images: Float[Array, "example height width channel"], train: bool
    ) -> Float[Array, "example class"]:
        x = self.conv(self.width)(channel_major(images))
        block = self._block
        if self.preactivation:
            block = self._preactivation_block
        else:
            x = nn.relu(self.norm(train)(x))
        for stage, count in enumerate(self.blocks):
            for i in range(count):
                x = block(x, self.width * 2**stage, 2 if stage and not i else 1, train)
        return self.logits(x.mean(axis=(1, 2)).T)

    @nn.nowrap
    def _block(self, x: Array, features: int, stride: int, train: bool) -> Array:
        y = nn.relu(self.norm(train)(self.conv(features, stride=stride)(x)))
        y = self.norm(train)(self.conv(features)(y))
        if x.shape != y.shape:
            x = self.norm(train)(self.conv(features, size=1, stride=stride)(x))
        return nn.relu(x + y)

    @nn.nowrap
    def _preactivation_block(self, x: Array, features: int, stride: int, train: bool) -> Array:
        y = nn.relu(self.norm(train)(x))
        if stride > 1 or x.shape[0] != features:
            x = self.conv(features, size=1, stride=stride)(y)
        y = self.conv(features, stride=stride)(y)
        return x + self.conv(features)(nn.relu(self.norm(train)(y)))
