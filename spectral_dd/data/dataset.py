"""`Dataset`, and the checks that arrays must pass to become one. Reading arrays from files is not here."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from spectral_dd.data.on_device import SCALES
from spectral_dd.data.streams import Stream, generator
from spectral_dd.errors import InputError, counted

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled set of images on the host, perhaps memory-mapped; nobody writes to it."""

    name: str
    train_images: np.ndarray  # uint8, uint16 or float32 [example, height, width, channel]
    train_labels: np.ndarray  # int32 [example]
    test_images: np.ndarray  # the same type, height, width and channels
    test_labels: np.ndarray  # int32 [example]
    num_classes: int
    classes: tuple[int, ...] | None = None  # the label of each class in the source; None: they are the class numbers
    version: str = ""  # that the source gives itself
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)  # other labels of the source's examples
    # Places of the examples in the source [example], where it was split here.
    train_places: np.ndarray | None = None
    test_places: np.ndarray | None = None

    @classmethod
    def from_arrays(
        cls,
        train_images: Any,
        train_labels: Any,
        test_images: Any = None,
        test_labels: Any = None,
        name: str = "arrays",
        num_classes: int | None = None,
        *,
        test_fraction: float = 0.0,
        columns: Mapping[str, Any] | None = None,
        version: str = "",
    ) -> Self:
        """Makes a data set of one's own arrays.

        Args:
          train_images: uint8 or uint16, whose whole range networks see as 0 to 1, or floating point, which they see as
            it is, in float32. [example, height, width, channel], or [example, height, width] for one channel.
          train_labels: any integers, [example]; class numbers from 0 on stay as they are, others are numbered in their
            order (`classes`).
          test_images, test_labels: the same, with images of the same type and size; None with `test_fraction`.
          name: of the data set; error messages begin with it.
          num_classes: at least 2; the labels are then from 0 to num_classes - 1. Default: as many as there are labels.
          test_fraction: share of the training examples that becomes the test set, always the same ones.
          columns: other labels of the training examples, int [example], by the names that `train_labels` takes.
          version: of the data, for the record.

        Raises:
          InputError: an array is not as above, or disagrees with another.
        """
        train_x = _images(name, "train_images", train_images)
        train_y = _labels(name, "train_labels", train_labels, len(train_x))
        places: tuple[Any, Any] = (None, None)
        if test_images is None:
            places = _hold_out(name, len(train_x), test_fraction)
            (train_x, test_x), (train_y, test_y) = ([a[p] for p in places] for a in (train_x, train_y))
        elif test_fraction:
            raise InputError(f"{name}: has a test set; --test_fraction={test_fraction:g}: is for those without")
        else:
            test_x = _images(name, "test_images", test_images)
            test_y = _labels(name, "test_labels", test_labels, len(test_x))
        if train_x.dtype != test_x.dtype:
            raise InputError(f"{name}: test_images: must be {train_x.dtype} as train_images; they are {test_x.dtype}")
        if train_x.shape[1:] != test_x.shape[1:]:
            allowed, shape = size(train_x.shape[1:]), size(test_x.shape[1:])
            raise InputError(f"{name}: test_images: must be {allowed} as train_images; they are {shape}")
        labels = {"train_labels": train_y, "test_labels": test_y}
        classes, count = _classes(name, labels, num_classes)
        train_y, test_y = (class_numbers(y, classes) for y in labels.values())
        return cls(
            name, train_x, train_y, test_x, test_y, count, classes, version, dict(columns or {}), *places
        )  # fmt: skip

    @functools.cached_property
    def about(self) -> dict[str, Any]:
        """What sweep.json keeps of it, so that another data set of the same name is noticed.

        Sums are the first 16 digits of SHA-256 over type, shape and bytes of both splits: 0.15 s for the 184 MB of
        CIFAR-10 on a core of a server CPU.
        """
        return {
            "image_shape": list(self.train_images.shape[1:]),
            "image_type": str(self.train_images.dtype),
            "num_classes": self.num_classes,
            "classes": self.classes and list(self.classes),
            "version": self.version,
            "train_size": len(self.train_labels),
            "test_size": len(self.test_labels),
            "labels": checksum(self.train_labels, self.test_labels),
            "images": checksum(self.train_images, self.test_images),
        }

    def described(self) -> str:
        """Sizes, type and classes in words."""
        height, width, channels = self.train_images.shape[1:]
        kind = self.train_images.dtype
        values = f"{kind}, 0 to {SCALES[kind]} as 0 to 1" if kind in SCALES else f"{kind}, {self._range()}"
        return (
            f"data {self.name}: {len(self.train_labels):,} training and {len(self.test_labels):,} test images, "
            f"{height}x{width} with {counted(channels, 'channel')}, {values}; {self.num_classes} classes"
        )

    def _range(self) -> str:
        return f"{self.train_images.min():g} to {self.train_images.max():g} as they are"


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What two `Dataset.about` disagree on, in words; empty if on nothing. What only one of them has is passed over."""
    found = []
    for name in there:
        if name in here and there[name] != here[name]:
            if isinstance(there[name], Mapping):
                found.append(f"{name} of {difference(there[name], here[name])}")
            else:
                found.append(f"{name.replace('_', ' ')} {there[name]} there, {here[name]} here")
    return "; ".join(found)


def checksum(*arrays: np.ndarray) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return found.hexdigest()[:16]


def class_numbers(labels: np.ndarray, classes: tuple[int, ...] | None) -> np.ndarray:
    """Labels of the source -> class numbers, int32; -1 for one that is no class of it."""
    if classes is None:
        return np.clip(labels, -1, np.iinfo(np.int32).max).astype(np.int32)
    number = {label: i for i, label in enumerate(classes)}
    different, inverse = np.unique(labels, return_inverse=True)
    return np.array([number.get(label, -1) for label in different.tolist()], np.int32)[inverse]


def size(shape: tuple[int, ...]) -> str:
    """A shape as people write it: 32x32x3."""
    return "x".join(map(str, shape))


def _hold_out(name: str, examples: int, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Places of the training and of the test examples, both ascending; the same for the same number of examples."""
    if not fraction:
        raise InputError(f"{name}: has no test set; --test_fraction=0.2 takes a fifth of the training examples as one")
    test_size = round(fraction * examples)
    if not 0 < test_size < examples:
        raise InputError(f"{name}: --test_fraction={fraction:g}: leaves nothing on one side of {examples} examples")
    order = generator(Stream.TEST_SPLIT, 0).permutation(examples)
    return np.sort(order[test_size:]), np.sort(order[:test_size])


def _classes(
    name: str, labels: Mapping[str, np.ndarray], num_classes: int | None
) -> tuple[tuple[int, ...] | None, int]:
    """The label of each class, None if they are class numbers already, and how many classes there are."""
    if num_classes is None:
        found = tuple(sorted({label for y in labels.values() for label in np.unique(y).tolist()}))
        return (None if found == tuple(range(len(found))) else found), max(2, len(found))
    if not isinstance(num_classes, int | np.integer) or num_classes < 2:
        raise InputError(f"{name}: num_classes={num_classes}: must be a whole number of at least 2")
    for array, y in labels.items():
        if y.min() < 0 or y.max() >= num_classes:
            raise InputError(
                f"{name}: {array}: must be from 0 to {num_classes - 1}; they are from {y.min()} to {y.max()}"
            )
    return None, int(num_classes)


def _images(name: str, array: str, values: Any) -> np.ndarray:
    images = _array(name, array, values)
    if images.dtype not in SCALES and images.dtype.kind != "f":
        raise InputError(f"{name}: {array}: must be uint8, uint16 or floating point; they are {images.dtype}")
    if images.ndim not in (3, 4):
        raise InputError(
            f"{name}: {array}: must be [example, height, width, channel] or [example, height, width]; "
            f"the shape is {images.shape}"
        )
    if not images.size:
        raise InputError(f"{name}: {array}: must not be empty; the shape is {images.shape}")
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[2] == images.shape[3] > 4:
        raise InputError(
            f"{name}: {array}: must be [example, height, width, channel]; {images.shape} is with channels first, "
            "which np.moveaxis(images, 1, -1) mends"
        )
    if images.dtype.kind == "f":
        with np.errstate(over="ignore"):
            images = images.astype(np.float32, copy=False)
        if not np.isfinite(images).all():
            raise InputError(f"{name}: {array}: must be finite in float32; {_not_finite(images)}")
    return images if images.ndim == 4 else images[..., None]


def _not_finite(images: np.ndarray) -> str:
    place = np.argwhere(~np.isfinite(images))[0]
    return f"it is {images[tuple(place)]} at [{', '.join(map(str, place))}]"


def _labels(name: str, array: str, values: Any, examples: int) -> np.ndarray:
    labels = _array(name, array, values)
    if labels.dtype.kind not in "iu":
        raise InputError(f"{name}: {array}: must be integers; they are {labels.dtype}")
    if labels.shape != (examples,):
        raise InputError(
            f"{name}: {array}: must be one for each of {examples} images, [example]; the shape is {labels.shape}"
        )
    return labels


def _array(name: str, array: str, values: Any) -> np.ndarray:
    try:
        return values if isinstance(values, np.ndarray) else np.asarray(values)
    except ValueError as error:  # lists of different lengths
        raise InputError(f"{name}: {array}: must be an array of numbers; {error}") from error
