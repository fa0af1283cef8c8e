"""The five-layer convolutional network of Nakkiran et al., "Deep Double Descent" (arXiv 1912.02292)."""

import flax.linen as nn
from jaxtyping import Array, Float

from spectral_dd.kernels.norm import global_max_pool, max_pool
from spectral_dd.models.network import Network, channel_major


class CNN5(Network):
    """Convolution, BatchNorm, ReLU and max-pool, four times with [k, 2k, 4k, 8k] channels, then a dense layer.

    The pools are 1, 2, 2 and the whole image that is left, 8 at 32x32 as in the paper.
    """

    smallest_image = 4

    @nn.compact
    def __call__(
        self, images: Float[Array, "example height width channel"], train: bool
    ) -> Float[Array, "example class"]:
        x = channel_major(images)
        for factor, pool in ((1, None), (2, max_pool), (4, max_pool), (8, global_max_pool)):
            # The pool first, which commutes with ReLU and leaves fewer entries to it.
            x = nn.relu(self.norm(train, pool)(self.conv(factor * self.width)(x)))
        return self.logits(x.T)
