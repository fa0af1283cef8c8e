"""What a member draws from its seed on the host: training examples, label noise, order of the test examples.

It is drawn here alone, once for all members that agree on what it depends on. Weights, batches and directions are
drawn on the devices.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spectral_dd.config import Config
from spectral_dd.data.dataset import Dataset
from spectral_dd.data.given import given_labels
from spectral_dd.data.streams import Stream, generator
from spectral_dd.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Draws:
    """What one member drew. Members share the arrays, so these are read-only."""

    index: np.ndarray  # int32 [example], the training set: places in `Dataset.train_images`
    labels: np.ndarray  # int32 [example], trained on
    true_labels: np.ndarray  # int32 [example]
    test_order: np.ndarray  # int32 [test example], a permutation of the test set
    noisy: np.ndarray  # bool [example], those of the noisy split, see `Config.noisy_split`

    @functools.cached_property
    def relabelled(self) -> np.ndarray:
        """bool [example]: the label trained on is wrong."""
        return _frozen(self.labels != self.true_labels)

    @property
    def noise_rate(self) -> float:
        """Share of the labels that are wrong: `label_noise` if symmetric, else less, as noise can draw the truth."""
        return float(self.relabelled.mean())


def draw(dataset: Dataset, config: Config) -> Draws:
    """Draws a member's examples and label noise from its seed.

    Subsets of one seed are nested: a smaller one is the beginning of a larger one. So is symmetric and uniform noise:
    an example that is relabelled in both subsets gets the same label, and on one subset a higher noise level relabels
    all that a lower one does. `permute` shuffles labels among the chosen examples. With `train_labels` nothing is drawn
    but the examples. No other field changes a draw.

    Raises:
      InputError: the data set has fewer than `train_size` examples, or a batch is larger than the training set.
    """
    return draw_all([config], {config.dataset: dataset})[0]


def draw_all(configs: Sequence[Config], datasets: Mapping[str, Dataset]) -> list[Draws]:
    """The draws of many members, see `draw`; those that agree on all that a draw depends on share one.

    Args:
      configs: the members.
      datasets: by the name that `Config.dataset` gives.

    Raises:
      InputError: as in `draw`.
    """

    @functools.cache
    def permutation(stream: Stream, seed: int, length: int) -> np.ndarray:
        return _frozen(generator(stream, seed).permutation(length).astype(np.int32))

    @functools.cache
    def given(name: str, train_labels: str) -> np.ndarray:
        return given_labels(datasets[name], train_labels)

    @functools.cache
    def drawn(name: str, seed: int, size: int, train_labels: str, noisy_split: str, *noise: Any) -> Draws:
        dataset = datasets[name]
        index = permutation(Stream.SUBSET, seed, len(dataset.train_labels))[:size]
        true_labels = _frozen(dataset.train_labels[index].astype(np.int32))
        if train_labels:
            labels = given(name, train_labels)[index]
            noisy = labels != true_labels
        else:
            labels, chosen = _with_noise(dataset, true_labels, seed, *noise)
            noisy = chosen if noisy_split == "drawn" else labels != true_labels
        test_order = permutation(Stream.TEST_ORDER, seed, len(dataset.test_labels))
        return Draws(index, _frozen(labels), true_labels, test_order, _frozen(noisy))

    def of_member(c: Config) -> Draws:
        noise = (c.label_noise, c.noise_kind, c.noise_map)
        return drawn(c.dataset, c.seed, _train_size(datasets[c.dataset], c), c.train_labels, c.noisy_split, *noise)

    return [of_member(c) for c in configs]


def _train_size(dataset: Dataset, config: Config) -> int:
    available = len(dataset.train_labels)
    size = config.train_size or available
    if size > available:
        raise InputError(f"--train_size={size}: {dataset.name} has {available} training examples")
    if config.batch_size > size:
        raise InputError(f"--batch_size={config.batch_size}: larger than the training set ({size} examples)")
    return size


def _with_noise(
    dataset: Dataset, true_labels: np.ndarray, seed: int, label_noise: float, noise_kind: str, noise_map: str
) -> tuple[np.ndarray, np.ndarray]:
    """The labels trained on, int32 [example], and which of them noise was applied to, bool."""
    labels, is_chosen = true_labels.copy(), np.zeros(len(true_labels), bool)
    if not label_noise:
        return labels, is_chosen
    available, size = len(dataset.train_labels), len(true_labels)
    noise = generator(Stream.NOISE, seed)
    # Drawn for all examples there are, so that a smaller training set gets the beginning of a larger one's noise.
    rank, place = noise.random(available)[:size], noise.random(available)[:size]
    chosen = np.argsort(rank, kind="stable")[: round(label_noise * size)]
    is_chosen[chosen] = True
    if noise_kind == "permute":
        labels[chosen] = noise.permutation(labels[chosen])
    elif noise_kind == "symmetric":
        step = 1 + (place[chosen] * (dataset.num_classes - 1)).astype(np.int32)
        labels[chosen] = (labels[chosen] + step) % dataset.num_classes
    elif noise_kind == "asymmetric":
        labels[chosen] = _mapped(noise_map, dataset)[labels[chosen]]
    else:  # uniform
        labels[chosen] = (place[chosen] * dataset.num_classes).astype(np.int32)
    return labels, is_chosen


# Patrini et al., "Making Deep Neural Networks Robust to Label Noise" (arXiv 1609.03683): truck -> automobile,
# bird -> airplane, deer -> horse, cat <-> dog.
_CIFAR10_MAP = "9:1/2:0/4:7/3:5/5:3"


def _mapped(noise_map: str, dataset: Dataset) -> np.ndarray:
    """The label that asymmetric noise gives to each class, int32 [class].

    Raises:
      InputError: `noise_map` is none, or names a class that the data set does not have.
    """
    count = dataset.num_classes
    if noise_map == "next":
        return ((np.arange(count) + 1) % count).astype(np.int32)
    labels = np.arange(count, dtype=np.int32)
    for pair in (_CIFAR10_MAP if noise_map == "cifar10" else noise_map).split("/"):
        ends = pair.split(":")
        if len(ends) != 2 or not all(end.strip().isdecimal() and int(end) < count for end in ends):
            raise InputError(
                f"--noise_map={noise_map}: must be next, cifar10, or FROM:TO/FROM:TO... with classes of "
                f"{dataset.name}, 0 to {count - 1}; {pair!r} is not"
            )
        labels[int(ends[0])] = int(ends[1])
    return labels


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


# What may be drawn anew at each epoch, with `spectrum_resample`.


def resample(index: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The entries of `index`, in another order for each seed and epoch."""
    return generator(Stream.RESAMPLE, seed, epoch).permutation(index)


def partners(
    draws: Draws, *, own_index: np.ndarray, classes: np.ndarray, same: bool, num: int, seed: Sequence[int]
) -> np.ndarray:
    """Draws, for each of some examples, training examples of its class or of the others.

    Args:
      draws: of the member.
      own_index: int [example], the place of each example in `Dataset.train_images`, which it is not its own partner
        at; -1: none.
      classes: int [example], their true classes.
      same: whether partners are of the same (true) class, or of another.
      num: partners of each example, drawn with replacement.
      seed: of the draws.

    Returns:
      int32 [example, num], places in `Dataset.train_images`; -1 where no example fits.
    """
    shares = generator(Stream.PARTNERS, *seed).random((len(classes), num))
    drawn = np.full(shares.shape, -1, np.int32)
    for row, (own, label) in enumerate(zip(own_index, classes, strict=True)):
        fits = ((draws.true_labels == label) == same) & (draws.index != own)
        candidates = draws.index[fits]
        if len(candidates):
            drawn[row] = candidates[(shares[row] * len(candidates)).astype(int)]
    return drawn
