"""The step inside a scanned epoch: `conv2d` of this project against a plain `lax.conv`.

Trains cnn5 with Adam on random 8x8 images, one member a device as the project does, with the convolution of
`spectral_dd.models.conv` and with `lax.conv_general_dilated` in its place, alternating. Minutes on two cores.

    python benchmarks/conv.py [--width=2,8,32]
"""

import dataclasses
import statistics
import time
from unittest import mock

import jax
import numpy as np
from absl import app, flags
from jax import lax

from spectral_dd import run
from spectral_dd.config import Config
from spectral_dd.data import Dataset
from spectral_dd.family import Family
from spectral_dd.models import conv

WIDTH = flags.DEFINE_list("width", ["2", "8"], "widths")
SIZE = flags.DEFINE_integer("size", 8, "height and width of the images")
SECONDS = flags.DEFINE_float("seconds", 2.0, "time of one measurement, roughly")
REPEATS = flags.DEFINE_integer("repeats", 5, "measurements of each, alternating")


def lax_conv(x, kernel, stride):
    padding = [(n // 2, n // 2) for n in kernel.shape[:2]]
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


class Trained:
    """A family that is compiled and has started to train."""

    def __init__(self, config: Config, dataset: Dataset, convolution):
        members = [dataclasses.replace(config, seed=i) for i in range(jax.local_device_count())]
        with mock.patch.object(conv, "conv2d", convolution):
            self.family = Family(members, dataset)
            self.state = self.family.train(self.family.initial_state(), 0, 1)
        self.epochs = 1
        self.epochs = max(1, round(SECONDS.value / self.seconds()))

    def seconds(self) -> float:
        """Time of one epoch of one member on each device."""
        start = time.perf_counter()
        self.state = jax.block_until_ready(self.family.train(self.state, 0, self.epochs))
        return (time.perf_counter() - start) / self.epochs


def main(argv) -> None:
    run.set_up_jax()
    rng = np.random.default_rng(0)
    shape = (200, SIZE.value, SIZE.value, 1)
    images = rng.integers(0, 256, shape, np.uint8)
    labels = rng.integers(0, 10, len(images)).astype(np.int32)
    dataset = Dataset("random", images, labels, images, labels, num_classes=10)
    devices = jax.local_devices()
    print(f"{len(devices)} x {devices[0].device_kind}, jax {jax.__version__}, {SIZE.value}x{SIZE.value} images")
    for width in map(int, WIDTH.value):
        config = Config(width=width, train_size=200, batch_size=100)
        ours, plain = Trained(config, dataset, conv.conv2d), Trained(config, dataset, lax_conv)
        times = [(ours.seconds(), plain.seconds()) for _ in range(REPEATS.value)]
        rates = [len(images) * len(devices) / statistics.median(column) for column in zip(*times, strict=True)]
        ratio = statistics.median(b / a for a, b in times)
        print(f"width {width}: {rates[0]:,.0f} examples/s, lax.conv {rates[1]:,.0f}, ratio {ratio:.1f}", flush=True)


if __name__ == "__main__":
    app.run(main)
