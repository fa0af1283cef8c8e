"""Checks a sweep against its data and models, and draws what members draw from their seeds, once."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

from flax import linen as nn

from spectral_dd import models
from spectral_dd.config import Config
from spectral_dd.data import Dataset, Draws, draw_all, load_dataset
from spectral_dd.errors import InputError


class Prepared(NamedTuple):
    """A sweep whose members are complete and possible."""

    configs: list[Config]  # train_size 0 is filled in
    datasets: dict[str, Dataset]  # by the name that Config.dataset gives
    draws: list[Draws]  # of each member; those that agree on what they draw share one

    def dataset(self, member: int) -> Dataset:
        return self.datasets[self.configs[member].dataset]


def prepare(
    configs: Sequence[Config],
    data_dir: str | None = None,
    *,
    dataset: Dataset | None = None,
    model: type[nn.Module] | None = None,
) -> Prepared:
    """Loads the data sets, checks and completes the members, and draws.

    Args:
      configs: the members.
      data_dir: of TFDS.
      dataset: for all members, in the place of the one that they name.
      model: class of the network of all members, in the place of the one that they name.

    Raises:
      InputError: there are no members, a data set or model cannot be had, a training set is larger than the data or
        smaller than a batch, or the images do not fit.
    """
    if not configs:
        raise InputError("a sweep must have at least one member")
    if model is not None:
        configs = [c.replace(model=models.register(model)) for c in configs]
    if dataset is not None:
        configs, datasets = [c.replace(dataset=dataset.name) for c in configs], {dataset.name: dataset}
    else:
        datasets = {name: load_dataset(name, data_dir) for name in dict.fromkeys(c.dataset for c in configs)}
    draws = draw_all(configs, datasets)
    check_images = functools.cache(_check_images)
    resolved = []
    for config, drawn in zip(configs, draws, strict=True):
        check_images(config.model, config.dtype, config.initializer, datasets[config.dataset])
        _check_fields(config, datasets[config.dataset])
        size = len(drawn.index)
        resolved.append(config if config.train_size == size else config.replace(train_size=size))
    if len(set(resolved)) < len(resolved):
        raise InputError("--train_size=0: means all of the data, which the sweep names already")
    return Prepared(resolved, datasets, draws)


def _check_images(model: str, dtype: str, initializer: str, dataset: Dataset) -> None:
    config = Config.of(model=model, dtype=dtype, initializer=initializer)
    height, width, _ = dataset.train_images.shape[1:]
    smallest = models.declared(models.build_model(config, dataset.num_classes), "smallest_image")
    if min(height, width) < smallest:
        raise InputError(f"{_about(dataset)}; --model={model} needs {smallest}x{smallest} at least")


def _check_fields(config: Config, dataset: Dataset) -> None:
    height, width, channels = dataset.train_images.shape[1:]
    if config.channels not in (0, channels):
        raise InputError(f"{_about(dataset)}; --channels={config.channels}: must be {channels}, or 0 for any")
    if config.shift >= min(height, width):
        raise InputError(f"{_about(dataset)}; --shift={config.shift}: must be below {min(height, width)}")


def _about(dataset: Dataset) -> str:
    height, width, channels = dataset.train_images.shape[1:]
    plural = "s" if channels > 1 else ""
    return f"--dataset={dataset.name}: images are {height}x{width} with {channels} channel{plural}"
