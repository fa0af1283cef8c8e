"""Image classification sets of the Hugging Face hub, or in a folder of their files, by the library `datasets`."""

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from spectral_dd.data import source
from spectral_dd.data.dataset import Dataset, size
from spectral_dd.errors import InputError
from spectral_dd.files import expanded

PREFIX = "hf:"


def load_hugging_face(name: str, wanted: source.Wanted) -> Dataset:
    """Loads 'hf:NAME' from the hub, or 'hf:FOLDER' of parquet or arrow files, or of what `save_to_disk` wrote.

    The order of the examples is that of the files. Images are decoded once, into the cache directory. The test set is
    the split 'test' or, where there is none, 'validation', or a `test_fraction` of the split 'train'.

    Raises:
      InputError: the library is missing, there is no such data set, or it is not one of images of one size, each with
        one class.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"{name}: needs the library datasets: `pip install datasets`, or spectral_dd[hf]") from error
    with source.one_line_errors(name, "Hugging Face's datasets"), _quiet(datasets):
        splits = _open(name.removeprefix(PREFIX), datasets)
        if "train" not in splits:
            raise InputError(f"{name}: must have a split train; it has {', '.join(splits)}")
        train, test = splits["train"], splits.get("test", splits.get("validation"))
        features, num_classes = _features(name, train.features, wanted, datasets)
        files = [file["filename"] for split in (train, test) if split is not None for file in split.cache_files]
        folder = source.folder_of("hf", name, files, features)
        arrays = source.cached(folder, name, lambda: _decode(name, train, test, features, datasets))
        return source.dataset_of(arrays, name, num_classes, wanted, str(train.info.version or ""))


@contextlib.contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Without the library's bars of progress, and lines about what it then raises."""
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


def _open(place: str, datasets: Any) -> Any:
    """The splits of a data set, by name; no code that comes with it is run."""
    folder = expanded(place)
    if not place or (not folder.is_dir() and (place[0] in "./~" or folder.exists())):
        raise InputError(f"{PREFIX}{place}: must be {PREFIX}NAME of the hub or {PREFIX}FOLDER; there is no such folder")
    if not folder.is_dir():
        return datasets.load_dataset(place)
    place = str(folder)
    here = os.listdir(place)
    if "dataset_dict.json" in here or "state.json" in here:
        found = datasets.load_from_disk(place)
        return found if hasattr(found, "values") else {"train": found}
    return datasets.load_dataset(place)


def _features(
    name: str, kinds: Any, wanted: source.Wanted, datasets: Any
) -> tuple[source.Features, int | None]:  # fmt: skip
    """Returns the features to read, and the number of classes; None if it must be counted."""

    def is_label(kind: Any) -> bool:  # a ClassLabel has a dtype too
        return "int" in str(getattr(kind, "dtype", ""))

    def is_image(kind: Any) -> bool:
        encoded = (isinstance(kind, dict) and "bytes" in kind) or getattr(kind, "dtype", None) == "binary"
        return encoded or isinstance(kind, datasets.Image | datasets.Array2D | datasets.Array3D | datasets.List)

    chosen = source.choose(
        name,
        wanted,
        (key for key, kind in kinds.items() if is_image(kind)),
        (key for key, kind in kinds.items() if is_label(kind) and not is_image(kind)),
        {key: kind.dtype if isinstance(kind, datasets.Value) else type(kind).__name__ for key, kind in kinds.items()},
    )
    label = kinds[chosen.label]
    return chosen, label.num_classes if isinstance(label, datasets.ClassLabel) else None


def _decode(name: str, train: Any, test: Any, features: source.Features, datasets: Any) -> source.Arrays:
    arrays: source.Arrays = {}
    for split, examples in (("train", train), ("test", test)):
        if examples is not None:
            if isinstance(
                examples.features[features.image], datasets.Image
            ):  # the bytes, which we decode for all alike
                examples = examples.cast_column(features.image, datasets.Image(decode=False))
            arrays[f"{split}_images"] = _images(name, examples, features.image)
            arrays[f"{split}_labels"] = np.asarray(examples.with_format("numpy")[features.label][:])
    columns = train.with_format("numpy")
    return arrays | {source.COLUMN + key: np.asarray(columns[key][:]) for key in features.columns}


def _images(name: str, examples: Any, feature: str) -> np.ndarray:
    images: Any = None
    for i, value in enumerate(examples.select_columns([feature])):
        image = np.atleast_3d(_image(value[feature]))
        if images is None:
            images = np.empty((len(examples), *image.shape), image.dtype)
        if image.shape != images.shape[1:] or image.dtype != images.dtype:
            one, other = (f"{size(a.shape)} {a.dtype}" for a in (images[0], image))
            raise InputError(f"{name}: images must have one size and type; there are {one} and {other}")
        images[i] = image
    if images is None:
        raise InputError(f"{name}: a split has no examples")
    return images


def _image(value: Any) -> np.ndarray:
    """One image, from the bytes of an image file, a path to one, or numbers."""
    if isinstance(value, dict):
        value = value["bytes"] if value["bytes"] is not None else value["path"]
    if not isinstance(value, bytes | str):
        image = np.asarray(value)
        # Lists of whole numbers are int64; bytes are what images of files have.
        return image.astype(np.uint8) if image.dtype.kind == "i" and 0 <= image.min() <= image.max() < 256 else image
    from PIL import Image

    with Image.open(io.BytesIO(value) if isinstance(value, bytes) else value) as picture:
        mode = picture.mode
        if mode in ("P", "1", "CMYK", "YCbCr"):  # numbers that are no intensities
            return np.asarray(picture.convert("L" if mode == "1" else "RGB"))
        image = np.asarray(picture)
    return image.astype(np.uint16) if mode.startswith("I") else image
