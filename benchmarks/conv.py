"""The step inside a scanned epoch with each of the convolutions of `spectral_dd.models.conv`.

Trains cnn5 with Adam on random images, one member after another on each device as the project does on a CPU, with each
of `CONVOLUTIONS`, alternating. Minutes on two cores.

    python benchmarks/conv.py [--size=8 --width=2,8,32]
"""

import dataclasses
import statistics
import time

import jax
import numpy as np
from absl import app, flags

from spectral_dd import run
from spectral_dd.config import Config
from spectral_dd.data import Dataset
from spectral_dd.family import Family
from spectral_dd.models.conv import CONVOLUTIONS

WIDTH = flags.DEFINE_list("width", ["2", "8"], "widths")
SIZE = flags.DEFINE_integer("size", 8, "height and width of the images")
SECONDS = flags.DEFINE_float("seconds", 2.0, "time of one measurement, roughly")
REPEATS = flags.DEFINE_integer("repeats", 5, "measurements of each, alternating")


class Trained:
    """A family that is compiled and has started to train."""

    def __init__(self, config: Config, dataset: Dataset, convolution: str):
        members = [dataclasses.replace(config, seed=i) for i in range(jax.local_device_count())]
        self.family = Family(members, dataset, convolution=convolution)
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
        trained = {name: Trained(config, dataset, name) for name in CONVOLUTIONS}
        times = [{name: t.seconds() for name, t in trained.items()} for _ in range(REPEATS.value)]
        rates = {name: len(images) * len(devices) / statistics.median(t[name] for t in times) for name in CONVOLUTIONS}
        print(
            f"width {width}: " + ", ".join(f"{name} {rate:,.0f} examples/s" for name, rate in rates.items()), flush=True
        )


if __name__ == "__main__":
    app.run(main)
