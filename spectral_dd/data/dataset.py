"""`Dataset`, and the checks that arrays must pass to become one. Reading arrays from files is not here."""

import dataclasses
from typing import Any, Self

import numpy as np

from spectral_dd.errors import InputError

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled set of images on the host, perhaps memory-mapped; nobody writes to it."""

    name: str
    train_images: np.ndarray  # uint8 or float32 [example, height, width, channel]
    train_labels: np.ndarray  # int32 [example]
    test_images: np.ndarray  # the same type, height, width and channels
    test_labels: np.ndarray  # int32 [example]
    num_classes: int

    @classmethod
    def from_arrays(
        cls,
        train_images: Any,
        train_labels: Any,
        test_images: Any,
        test_labels: Any,
        name: str = "arrays",
        num_classes: int | None = None,
    ) -> Self:
        """Makes a data set of one's own arrays.

        Args:
          train_images: uint8 of 0 to 255, which networks see as 0 to 1, or floating point, which they see as it is,
            in float32. [example, height, width, channel], or [example, height, width] for one channel.
          train_labels: integers from 0 to num_classes - 1, [example].
          test_images, test_labels: the same, with images of the same type and size.
          name: of the data set; error messages begin with it.
          num_classes: at least 2. Default: the largest label + 1, or 2 if that is more.

        Raises:
          InputError: an array is not as above, or disagrees with another.
        """
        train_x, test_x = _images(name, "train_images", train_images), _images(name, "test_images", test_images)
        if train_x.dtype != test_x.dtype:
            raise InputError(f"{name}: test_images: must be {train_x.dtype} as train_images; they are {test_x.dtype}")
        if train_x.shape[1:] != test_x.shape[1:]:
            allowed, shape = size(train_x.shape[1:]), size(test_x.shape[1:])
            raise InputError(f"{name}: test_images: must be {allowed} as train_images; they are {shape}")
        train_y = _labels(name, "train_labels", train_labels, len(train_x))
        test_y = _labels(name, "test_labels", test_labels, len(test_x))
        largest = max(train_y.max(), test_y.max())
        classes = max(2, int(largest) + 1) if num_classes is None else num_classes
        if not isinstance(classes, int | np.integer) or classes < 2:
            raise InputError(f"{name}: num_classes={num_classes}: must be a whole number of at least 2")
        for array, labels in (("train_labels", train_y), ("test_labels", test_y)):
            if labels.min() < 0 or labels.max() >= classes:
                raise InputError(
                    f"{name}: {array}: must be from 0 to {classes - 1}; they are from {labels.min()} to {labels.max()}"
                )
        return cls(name, train_x, train_y.astype(np.int32), test_x, test_y.astype(np.int32), int(classes))


def size(shape: tuple[int, ...]) -> str:
    """A shape as people write it: 32x32x3."""
    return "x".join(map(str, shape))


def _images(name: str, array: str, values: Any) -> np.ndarray:
    images = _array(name, array, values)
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise InputError(f"{name}: {array}: must be uint8 or floating point; they are {images.dtype}")
    if images.ndim not in (3, 4):
        raise InputError(
            f"{name}: {array}: must be [example, height, width, channel] or [example, height, width]; "
            f"the shape is {images.shape}"
        )
    if not images.size:
        raise InputError(f"{name}: {array}: must not be empty; the shape is {images.shape}")
    if images.dtype != np.uint8:
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
