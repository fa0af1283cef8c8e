"""What loaders of prepared data sets share: which features are used, errors, and the cache of decoded arrays.

The cache is a directory of .npy files. Its name says what they were decoded from, so what is found under a name is
right, whoever wrote it.
"""

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from spectral_dd.data.dataset import Dataset
from spectral_dd.errors import InputError, nearest
from spectral_dd.files import TEMPORARY, cache_directory

Arrays = dict[str, np.ndarray]

# How the name of an array in the cache begins that is another label of the training examples.
COLUMN = "column-"


class Wanted(NamedTuple):
    """What of a data set is used: fields of `Config`."""

    image_feature: str = ""
    label_feature: str = ""
    test_fraction: float = 0.0


class Features(NamedTuple):
    """Names of the features that are read."""

    image: str
    label: str
    columns: tuple[str, ...]  # other integers of each example


def choose(name: str, wanted: Wanted, images: Iterable[str], labels: Iterable[str], has: Mapping[str, str]) -> Features:
    """Chooses the features of a data set: those asked for, or 'image' and 'label', or the only ones that can be.

    Args:
      name: of the data set.
      wanted: what was asked for.
      images: features that can be images.
      labels: features that can be labels.
      has: all features, name -> type, for messages.

    Raises:
      InputError: there is no such feature, or several that could be meant.
    """

    def one(kind: str, asked: str, candidates: list[str]) -> str:
        candidates = sorted(candidates)  # TFDS lists features in any order
        if asked:
            if asked in candidates:
                return asked
            there = f"it is {has[asked]}" if asked in has else f"there is none.{nearest(asked, candidates)}"
            raise InputError(f"{name}: --{kind}_feature={asked}: must be one of {', '.join(candidates)}; {there}")
        if kind in candidates or len(candidates) == 1:
            return kind if kind in candidates else candidates[0]
        if candidates:
            raise InputError(f"{name}: --{kind}_feature= must say which of {', '.join(candidates)} is the {kind}")
        listed = ", ".join(f"{key} ({value})" for key, value in sorted(has.items()))
        raise InputError(f"{name}: must have a feature of {kind}s; it has {listed}")

    images, labels = list(images), list(labels)
    image, label = one("image", wanted.image_feature, images), one("label", wanted.label_feature, labels)
    return Features(image, label, tuple(sorted(set(labels) - {label})))


def cached(folder: Path, name: str, decode: Callable[[], Arrays]) -> Arrays:
    """Returns the arrays that `decode` gives, memory-mapped; from the cache if it has them.

    Args:
      folder: NAME/DIGEST of the cache; of one NAME, only the newest stays.
      name: of the data set.
    """
    arrays = _read(folder)
    if arrays is None:
        logging.info("decoding %s into %s, once", name, folder)
        arrays = _write(folder, decode())
    return arrays


def folder_of(name: str, place: str, files: Iterable[str | os.PathLike[str]], features: Features) -> Path:
    """Where a data set in these files is cached: NAME-PLACE/FILES, the latter two as hashes."""
    # Times and sizes change if the data set is prepared again in the same place.
    stats = sorted((os.path.basename(f), os.stat(f).st_size, os.stat(f).st_mtime_ns) for f in files)
    parent = f"{name}-{_digest(f'{place} {features.image} {features.label}')}"
    return cache_directory() / parent / _digest(repr((stats, features.columns)))


def dataset_of(arrays: Arrays, name: str, num_classes: int | None, wanted: Wanted, version: str) -> Dataset:
    """The data set that the arrays of a cache are, with the other labels of its training examples."""
    columns = {key.removeprefix(COLUMN): array for key, array in arrays.items() if key.startswith(COLUMN)}
    return Dataset.from_arrays(
        **{key: array for key, array in arrays.items() if not key.startswith(COLUMN)},
        name=name,
        num_classes=num_classes,
        test_fraction=wanted.test_fraction,
        columns=columns,
        version=version,
    )


@contextlib.contextmanager
def one_line_errors(name: str, library: str) -> Iterator[None]:
    """Turns what a library and its readers raise, which can be of nearly any type, into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{name}: cannot be read by {library}: {reason}") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(folder: Path) -> Arrays | None:
    """Returns the arrays, memory-mapped, or None if they are absent or damaged."""
    try:
        names = json.loads((folder / "names.json").read_text())
        return {name: np.load(folder / f"{i}.npy", mmap_mode="r") for i, name in enumerate(names)}
    except (OSError, ValueError, EOFError):
        return None


def _write(folder: Path, arrays: Arrays) -> Arrays:
    """Writes the cache and returns its arrays, memory-mapped; where it cannot be written, those in memory."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=TEMPORARY, ignore_cleanup_errors=True) as work:
            new = Path(work) / "new"
            new.mkdir()
            for i, array in enumerate(arrays.values()):  # a name may hold any character
                np.save(new / f"{i}.npy", array)
            (new / "names.json").write_text(json.dumps(list(arrays)))
            mapped = _read(new)  # stays valid, even if another process removes the files
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
