"""Image classification sets that TFDS prepared, read without TensorFlow."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import logging

from spectral_dd.data import source
from spectral_dd.data.builtin import BUILTIN
from spectral_dd.data.dataset import Dataset, size
from spectral_dd.data.on_device import SCALES
from spectral_dd.errors import InputError, nearest
from spectral_dd.files import expanded


def load_tfds(name: str, data_dir: str | None, wanted: source.Wanted) -> Dataset:
    """Loads an image classification set that TFDS prepared, in a file format that needs no TensorFlow.

    The images are decoded once, into the cache directory, and memory-mapped from then on. The test set is the split
    'test' or, where there is none, 'validation', or a `test_fraction` of the split 'train'.

    Raises:
      InputError: the data set is unknown, not prepared, in a format that only TensorFlow reads, damaged, or not one of
        images of one size, uint8, uint16 or floating point, each with one class.
    """
    if data_dir is not None:
        data_dir = str(expanded(data_dir))
    with source.one_line_errors(name, "TFDS"):
        builder = _prepared_builder(name, data_dir)
        features, num_classes = _features(name, builder.info.features, wanted)
        directory = os.path.realpath(builder.data_dir)
        folder = source.folder_of(
            builder.info.full_name.replace("/", "-"), directory, (e.path for e in os.scandir(directory)), features
        )
        arrays = source.cached(folder, name, lambda: _decode(name, builder, features))
        return source.dataset_of(arrays, name, num_classes, wanted, str(builder.version))


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Mutes TFDS's advice to install OpenCV."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _prepared_builder(name: str, data_dir: str | None) -> Any:
    """Returns the `tfds.core.DatasetBuilder` of a data set whose files are there."""
    import tensorflow_datasets as tfds  # here, because digits do not need it

    try:
        if not name:
            raise tfds.core.DatasetNotFoundError
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        # Community data sets are left out: listing them needs TensorFlow and the network.
        known = [*tfds.list_builders(with_community_datasets=False), *BUILTIN]
        raise InputError(
            f"{name}: must be {', '.join(BUILTIN)}, FILE.npz, hf:NAME or a data set of TFDS, from its list or "
            f"prepared in {data_dir or tfds.core.constants.DATA_DIR}.{nearest(name, known)}"
        ) from error
    if not os.path.exists(os.path.join(builder.data_dir, "dataset_info.json")):
        raise InputError(
            f"{name}: not prepared in {builder.data_dir}. Prepare it with {_prepare_command(name, data_dir)}"
        )
    formats = builder.info.available_file_formats()
    if not formats & tfds.core.FileFormat.with_random_access():
        raise InputError(
            f"{name}: {builder.data_dir} is in the format {', '.join(f.value for f in formats)}, which "
            f"cannot be read without TensorFlow. Move it away and prepare it with {_prepare_command(name, data_dir)}"
        )
    return builder


def _prepare_command(name: str, data_dir: str | None) -> str:
    where = "" if data_dir is None else f"data_dir={data_dir!r}, "
    call = f"tfds.builder({name!r}, {where}file_format='array_record').download_and_prepare()"
    return (
        f'`python -c "import tensorflow_datasets as tfds; {call}"` (TensorFlow is needed for that step alone: '
        "`pip install tensorflow-cpu`, or the extra spectral_dd[tfds])"
    )


def _features(name: str, features: Any, wanted: source.Wanted) -> tuple[source.Features, int | None]:
    """Returns the features to read, and the number of classes; None if it must be counted."""
    import tensorflow_datasets as tfds

    kinds = dict(features.items())

    def is_label(feature: Any) -> bool:  # a ClassLabel is one
        tensor = isinstance(feature, tfds.features.Tensor) and not feature.shape
        return tensor and np.issubdtype(feature.np_dtype, np.integer)

    def is_image(feature: Any) -> bool:
        tensor = isinstance(feature, tfds.features.Tensor) and len(feature.shape) in (2, 3)
        return isinstance(feature, tfds.features.Image) or tensor

    chosen = source.choose(
        name,
        wanted,
        (key for key, kind in kinds.items() if is_image(kind)),
        (key for key, kind in kinds.items() if is_label(kind)),
        {key: type(kind).__name__ for key, kind in kinds.items()},
    )
    image, label = kinds[chosen.image], kinds[chosen.label]
    if np.dtype(image.np_dtype) not in SCALES and not np.issubdtype(image.np_dtype, np.floating):
        raise InputError(f"{name}: images must be uint8, uint16 or floating point; they are {image.np_dtype.__name__}")
    if not isinstance(label, tfds.features.ClassLabel):
        return chosen, None
    if not label.num_classes or label.num_classes < 2:
        raise InputError(f"{name}: must have at least 2 classes; it has {label.num_classes or 0}")
    return chosen, label.num_classes


def _decode(name: str, builder: Any, features: source.Features) -> source.Arrays:
    """Decodes the splits into memory: a full disk then raises, where writing to a memory map would kill us."""
    splits = list(builder.info.splits)
    test_split = "validation" if "validation" in splits and "test" not in splits else "test"
    if "train" not in splits:
        raise InputError(f"{name}: must have a split train; it has {', '.join(splits)}")
    with _muted():
        train = builder.as_data_source("train")
        shape = np.atleast_3d(train[0][features.image]).shape
        images, labels, *others = _decode_split(name, train, shape, features, features.columns)
        columns = {source.COLUMN + key: column for key, column in zip(features.columns, others, strict=True)}
        arrays = {"train_images": images, "train_labels": labels} | columns
        if test_split in splits:
            test = _decode_split(name, builder.as_data_source(test_split), shape, features)
            arrays |= {"test_images": test[0], "test_labels": test[1]}
        return arrays


def _decode_split(
    name: str, examples: Any, shape: tuple[int, ...], features: source.Features, columns: tuple[str, ...] = ()
) -> list[np.ndarray]:
    """Images, labels and the other columns of a split."""
    images: Any = None
    integers = np.empty((1 + len(columns), len(examples)), np.int64)
    for start in range(0, len(examples), 1024):  # reading in blocks halves the time
        block = range(start, min(start + 1024, len(examples)))
        for i, example in zip(block, examples.__getitems__(block), strict=True):
            image = np.atleast_3d(example[features.image])
            if image.shape != shape:
                raise InputError(f"{name}: images must have one size; there are {size(shape)} and {size(image.shape)}")
            if images is None:
                images = np.empty((len(examples), *shape), image.dtype)
            images[i] = image
            integers[:, i] = [example[key] for key in (features.label, *columns)]
    return [images, *integers]
