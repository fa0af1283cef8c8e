"""The step inside a scanned epoch with each of the convolutions of `spectral_dd.kernels.convolution`.

Minutes on two cores.

    python benchmarks/conv.py [--size=8,32] [--width=2,8]
"""

import dataclasses
import statistics
import time

import jax
from absl import app, flags
from contest import BATCH, REPEATS, SECONDS, Setting, against_best, print_heading, print_row, print_section
from jax_contestants import family_of

from spectral_dd import devices
from spectral_dd.config import Config
from spectral_dd.data import Dataset
from spectral_dd.kernels.convolution import CONVOLUTIONS
from spectral_dd.programs import lowerings

SIZE = flags.DEFINE_list("size", ["8", "32"], "heights and widths of the images")
WIDTH = flags.DEFINE_list("width", ["2", "8"], "widths")

METHOD = """
Examples a second over all networks: cnn5, Adam, batch {batch}, random images, one network on each of {devices}
({kind}), all in one process, with one or the other implementation of the convolution. By default spectral_dd uses
`{used}` here; the last column is its rate over the best other one.
"""


class Trained:
    """A family that is compiled and has started to train."""

    def __init__(self, config: Config, dataset: Dataset, convolution: str):
        members = [config.replace(seed=i) for i in range(jax.local_device_count())]
        lowering = dataclasses.replace(usual(config), convolution=convolution)
        self.family = family_of(members, dataset, lowering=lowering)
        self.state = self.family.train(self.family.initial_state(), 0, 1)
        self.epochs = 1
        self.epochs = max(1, round(SECONDS.value / self.seconds()))

    def seconds(self) -> float:
        """Time of one epoch of one member on each device."""
        start = time.perf_counter()
        self.state = jax.block_until_ready(self.family.train(self.state, 0, self.epochs))
        return (time.perf_counter() - start) / self.epochs


def usual(config: Config):
    """How this project would train here."""
    return lowerings(jax.local_devices()[0].platform, config)[0]


def main(argv) -> None:
    devices.set_up()
    here, used = jax.local_devices(), usual(Config()).convolution
    number = f"{len(here)} device{'s' * (len(here) > 1)}"
    print_section("Convolutions", METHOD.format(batch=BATCH, devices=number, kind=here[0].device_kind, used=used))
    print_heading(["size", "width"], [*CONVOLUTIONS, "against the best other"])
    for size in map(int, SIZE.value):
        images, labels = Setting("cnn5", [], size).data()
        labels = labels.astype("int32")
        dataset = Dataset("random", images, labels, images, labels, num_classes=10)
        for width in map(int, WIDTH.value):
            config = Config(width=width, train_size=len(images), batch_size=BATCH)
            trained = {name: Trained(config, dataset, name) for name in CONVOLUTIONS}
            times = [{name: t.seconds() for name, t in trained.items()} for _ in range(REPEATS.value)]
            examples = len(images) * len(here)
            rates = {name: examples / statistics.median(t[name] for t in times) for name in CONVOLUTIONS}
            cells = [f"{rate:,.0f}" for rate in rates.values()]
            print_row(f"{size}x{size}", width, *cells, f"{against_best(rates, used):.2f}")


if __name__ == "__main__":
    app.run(main)
