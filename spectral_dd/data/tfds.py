"""Image classification sets that TFDS prepared, read without TensorFlow, and their decoded images in the cache."""

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from spectral_dd.data.builtin import BUILTIN
from spectral_dd.data.dataset import ARRAYS, Dataset, size
from spectral_dd.errors import InputError, nearest
from spectral_dd.files import TEMPORARY, cache_directory, expanded


def load_tfds(name: str, data_dir: str | None = None) -> Dataset:
    """Loads an image classification set that TFDS prepared, in a file format that needs no TensorFlow.

    The images are decoded once, into the cache directory, and memory-mapped from then on. The test set is the split
    'test' or, where there is none, 'validation'.

    Raises:
      InputError: the data set is unknown, not prepared, in a format that only TensorFlow reads, damaged, or not one of
        uint8 images of one size, each with one class.
    """
    if data_dir is not None:
        data_dir = str(expanded(data_dir))
    with _one_line_errors(name):
        builder = _prepared_builder(name, data_dir)
        num_classes = _check_features(name, builder.info.features)
        folder = _cache_folder(builder)
        arrays = _read_cache(folder)
        if arrays is None:
            logging.info("decoding %s into %s, once", name, folder)
            with _muted():
                arrays = _decode(name, builder)
            arrays = _write_cache(folder, arrays)
        return Dataset.from_arrays(**arrays, name=name, num_classes=num_classes)


@contextlib.contextmanager
def _one_line_errors(name: str) -> Iterator[None]:
    """Turns what TFDS and its readers raise, which can be of nearly any type, into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{name}: cannot be read by TFDS: {reason}") from error


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
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        # Community data sets are left out: listing them needs TensorFlow and the network.
        known = [*tfds.list_builders(with_community_datasets=False), *BUILTIN]
        raise InputError(
            f"{name}: must be {', '.join(BUILTIN)}, FILE.npz or a data set of TFDS, from its list or prepared in "
            f"{data_dir or tfds.core.constants.DATA_DIR}.{nearest(name, known)}"
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


def _check_features(name: str, features: Any) -> int:
    """Returns the number of classes of a data set that has images and one class for each."""
    import tensorflow_datasets as tfds

    has = dict(features.items())
    image, label = has.get("image"), has.get("label")
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        raise InputError(
            f"{name}: must have the features image (Image) and label (ClassLabel); it has "
            + ", ".join(f"{key} ({type(feature).__name__})" for key, feature in sorted(has.items()))
        )
    if image.np_dtype != np.uint8:
        raise InputError(f"{name}: images must be uint8; they are {np.dtype(image.np_dtype)}")
    if not label.num_classes or label.num_classes < 2:
        raise InputError(f"{name}: must have at least 2 classes; it has {label.num_classes or 0}")
    return label.num_classes


def _decode(name: str, builder: Any) -> dict[str, np.ndarray]:
    """Decodes both splits into memory: a full disk then raises, where writing to a memory map would kill us."""
    splits = list(builder.info.splits)
    test_split = "validation" if "validation" in splits and "test" not in splits else "test"
    if not {"train", test_split} <= set(splits):
        raise InputError(f"{name}: must have the splits train and test (or validation); it has {', '.join(splits)}")
    train, test = builder.as_data_source(["train", test_split])
    shape = train[0]["image"].shape
    arrays = (*_decode_split(name, train, shape), *_decode_split(name, test, shape))
    return dict(zip(ARRAYS, arrays, strict=True))


def _decode_split(name: str, examples: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    images = np.empty((len(examples), *shape), np.uint8)
    labels = np.empty(len(examples), np.int32)
    for start in range(0, len(examples), 1024):  # reading in blocks halves the time
        block = range(start, min(start + 1024, len(examples)))
        for i, example in zip(block, examples.__getitems__(block), strict=True):
            if (other := example["image"].shape) != shape:
                raise InputError(f"{name}: images must have one size; there are {size(shape)} and {size(other)}")
            images[i], labels[i] = example["image"], example["label"]
    return images, labels


# The decoded cache: a directory of four .npy files. Its name says what they were decoded from, so what is found under
# a name is right, whoever wrote it.


def _cache_folder(builder: Any) -> Path:
    """Where a prepared data set is cached: NAME-VERSION-DIRECTORY/FILES, the latter two as hashes."""
    directory = os.path.realpath(builder.data_dir)
    # Times and sizes change if the data set is prepared again in the same directory.
    files = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in os.scandir(directory))
    return cache_directory() / f"{builder.info.full_name.replace('/', '-')}-{_digest(directory)}" / _digest(repr(files))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_cache(folder: Path) -> dict[str, np.ndarray] | None:
    """Returns the arrays, memory-mapped, or None if they are absent or damaged."""
    try:
        return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    except (OSError, ValueError, EOFError):
        return None


def _write_cache(folder: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Writes the cache and returns its arrays, memory-mapped; where it cannot be written, those in memory."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=TEMPORARY, ignore_cleanup_errors=True) as work:
            new = Path(work) / "new"
            new.mkdir()
            for name, array in arrays.items():
                np.save(new / f"{name}.npy", array)
            mapped = _read_cache(new)  # stays valid, even if another process removes the files
            for outdated in folder.parent.glob("[!.]*"):
                with contextlib.suppress(FileNotFoundError):  # another process removed it
                    os.replace(outdated, Path(work) / outdated.name)
            _rename(new, folder)
        return mapped or arrays
    except OSError as error:
        logging.warning("the decoded images cannot be kept and are decoded at each start: %s", error)
        return arrays


def _rename(new: Path, folder: Path) -> None:
    try:
        os.replace(new, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # Another process decoding the same files was faster: its result is as good.
