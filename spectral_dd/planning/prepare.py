"""Checks a sweep against its data and models, and draws what members draw from their seeds, once."""

import functools
from collections.abc import Sequence
from typing import NamedTuple, Self

from flax import linen as nn

from spectral_dd import models, own_measures
from spectral_dd.config import AUTO, Config
from spectral_dd.data import Dataset, Draws, Wanted, checksum, difference, draw_all, given_labels, load_dataset
from spectral_dd.errors import InputError, counted
from spectral_dd.own_measures import Measures
from spectral_dd.planning.contract import check_network
from spectral_dd.sweeps import DataFacts, Sweep


class Prepared(NamedTuple):
    """A sweep whose members are complete and possible."""

    configs: list[Config]  # train_size 0 is filled in
    datasets: dict[str, Dataset]  # by the name that Config.dataset gives
    draws: list[Draws]  # of each member; those that agree on what they draw share one

    def dataset(self, member: int) -> Dataset:
        return self.datasets[self.configs[member].dataset]

    def of_pack(self, members: Sequence[int]) -> tuple[list[Config], Dataset, list[Draws]]:
        """Members that have a data set in common, it, and what each draws."""
        return [self.configs[i] for i in members], self.dataset(members[0]), [self.draws[i] for i in members]

    def of(self, configs: Sequence[Config]) -> Self:
        """Some of the members, in the order given."""
        places = {config: i for i, config in enumerate(self.configs)}
        return self._replace(configs=list(configs), draws=[self.draws[places[config]] for config in configs])

    def described(self) -> list[str]:
        """A line a data set: what a glance shows to be another one than was meant."""
        return [dataset.described() for dataset in self.datasets.values()]

    def about_datasets(self) -> dict[str, DataFacts]:
        """`Dataset.about` of each data set, and sums of the labels that members train on instead, for sweep.json."""
        found = {}
        for name, dataset in self.datasets.items():
            asked = {c.train_labels for c in self.configs if c.dataset == name and c.train_labels}
            sums = {one: checksum(given_labels(dataset, one)) for one in sorted(asked)}
            found[name] = DataFacts(**dataset.about, train_labels=sums)  # type: ignore[typeddict-item]
        return found

    def check_datasets(self, there: Sweep) -> None:
        """Raises `InputError` if a data set is another one than the sweep was begun with."""
        for name, about in self.about_datasets().items():
            if name not in there.datasets:
                raise InputError(f"--dataset={name}: the sweep has {', '.join(there.datasets)}")
            if differs := difference(there.datasets[name], about):
                raise InputError(f"--dataset={name}: is another one than the sweep was begun with: {differs}")


def prepare(
    configs: Sequence[Config],
    data_dir: str | None = None,
    *,
    dataset: Dataset | None = None,
    model: type[nn.Module] | None = None,
    measure: Measures | None = None,
) -> Prepared:
    """Loads the data sets, checks and completes the members, and draws.

    Args:
      configs: the members.
      data_dir: of TFDS.
      dataset: for all members, in the place of the one that they name.
      model: class of the network of all members, in the place of the one that they name.
      measure: one or several of one's own, see `own_measures.measure`; of all members, in the place of what they name.

    Raises:
      InputError: there are no members, a data set or model cannot be had, a training set is larger than the data or
        smaller than a batch, or the images do not fit.
    """
    if not configs:
        raise InputError("a sweep must have at least one member")
    if model is not None:
        configs = [c.replace(model=models.register(model)) for c in configs]
    if measure is not None:
        configs = [c.replace(measure=own_measures.register(measure)) for c in configs]
    if dataset is not None:
        configs, datasets = [c.replace(dataset=dataset.name) for c in configs], {dataset.name: dataset}
    else:
        datasets = {name: load_dataset(name, data_dir, one) for name, one in _wanted(configs).items()}
    draws = draw_all(configs, datasets)
    check_images, check_code = functools.cache(_check_images), functools.cache(_check_code)
    resolved = []
    for config, drawn in zip(configs, draws, strict=True):
        dtype = config.param_dtype if config.dtype == AUTO else config.dtype
        check_images(config.model, dtype, config.initializer, datasets[config.dataset])
        _check_fields(config, datasets[config.dataset])
        check_code(config.model, config.width, config.measure, datasets[config.dataset])
        size = len(drawn.index)
        resolved.append(config if config.train_size == size else config.replace(train_size=size))
        if resolved[-1].steps >= 2**31:  # steps are counted in int32
            raise InputError(f"--epochs={config.epochs}: are {resolved[-1].steps:,} steps; must be below 2**31 of them")
    if len(set(resolved)) < len(resolved):
        raise InputError("--train_size=0: means all of the data, which the sweep names already")
    return Prepared(resolved, datasets, draws)


def _wanted(configs: Sequence[Config]) -> dict[str, Wanted]:
    """What the members want of each data set that they name."""
    found: dict[str, Wanted] = {}
    for config in configs:
        wanted = Wanted(**{name: getattr(config, name) for name in Wanted._fields})
        before = found.setdefault(config.dataset, wanted)
        for name, one, other in zip(Wanted._fields, before, wanted, strict=True):
            if one != other:
                raise InputError(f"--{name}={one},{other}: must be one value for all members of a data set")
    return found


def _check_images(model: str, dtype: str, initializer: str, dataset: Dataset) -> None:
    config = Config.of(model=model, dtype=dtype, initializer=initializer)
    height, width, _ = dataset.train_images.shape[1:]
    smallest = models.declared(models.build_model(config, dataset.num_classes), "smallest_image")
    if min(height, width) < smallest:
        raise InputError(f"{_about(dataset)}; --model={model} needs {smallest}x{smallest} at least")


def _check_code(model: str, width: int, measure: str, dataset: Dataset) -> None:
    """Code of one's own, as traced; nothing is computed."""
    shape = dataset.train_images.shape[1:]
    if model not in models.MODELS:
        check_network(model, width, shape, dataset.num_classes)
    if measure:
        network = models.build_model(Config.of(model=model, width=width), dataset.num_classes)
        own_measures.check(measure, network, shape, "float32")


def _check_fields(config: Config, dataset: Dataset) -> None:
    if config.measure and not (config.spectrum.examples and config.spectrum.measures):
        raise InputError(f"--measure={config.measure}: needs --spectrum_examples and --spectrum_measures above 0")
    height, width, channels = dataset.train_images.shape[1:]
    if config.channels not in (0, channels):
        raise InputError(f"{_about(dataset)}; --channels={config.channels}: must be {channels}, or 0 for any")
    if config.shift >= min(height, width):
        raise InputError(f"{_about(dataset)}; --shift={config.shift}: must be below {min(height, width)}")


def _about(dataset: Dataset) -> str:
    height, width, channels = dataset.train_images.shape[1:]
    return f"--dataset={dataset.name}: images are {height}x{width} with {counted(channels, 'channel')}"
