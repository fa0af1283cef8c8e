"""The five-layer convolutional network of Nakkiran et al., "Deep Double Descent" (arXiv 1912.02292)."""

import flax.linen as nn
from jaxtyping import Array, Float

from spectral_dd.models.network import Network, channel_major, global_max_pool, max_pool


class CNN5(Network):
    """Four times convolution, BatchNorm, ReLU, max-pool with [k, 2k, 4k, 8k] channels, then a dense layer.

    The pools are 1, 2, 2 and all that remains: the paper's 8 at 32x32.
    """

    smallest_image = 4

    @nn.compact
    def __call__(
        self, images: Float[Array, "example height width channel"], train: bool
    ) -> Float[Array, "example class"]:
        x = channel_major(images)
        for factor, pool in ((1, None), (2, max_pool), (4, max_pool), (8, global_max_pool)):
            # max-pool commutes with ReLU, which has fewer entries behind it
            x = nn.relu(self.norm(train, pool)(self.conv(factor * self.width)(x)))
        return self.logits(x.T)
