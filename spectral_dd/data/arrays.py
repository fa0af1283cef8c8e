"""Data sets in a file of one's own: arrays that `np.savez` wrote. They are checked in `dataset.py`."""

import zipfile
import zlib

import numpy as np

from spectral_dd.data.dataset import ARRAYS, Dataset
from spectral_dd.data.source import Wanted
from spectral_dd.errors import InputError, file_reason
from spectral_dd.files import expanded

# What NumPy and zipfile raise for a damaged file depends on the place of the damage.
_READ_ERRORS = (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


def load_npz(path: str, wanted: Wanted) -> Dataset:
    """Loads FILE.npz with the arrays train_images, train_labels, test_images and test_labels.

    The latter two may be absent with `test_fraction`. Other arrays of integers, one for each training image, are
    columns that `train_labels` can name.

    Raises:
      InputError: there is no such file, it is not one of `np.savez`, an array is missing or damaged, or
        `Dataset.from_arrays` refuses it.
    """
    what = "the file"
    try:
        there_is = expanded(path)
        with open(there_is, "rb") as file:
            if not zipfile.is_zipfile(file):  # np.load would take it for a pickle
                raise InputError(f"{path}: must be a file that np.savez wrote; it is no zip file")
        with np.load(there_is, allow_pickle=False) as there:
            needed = ARRAYS[:2] if wanted.test_fraction and not set(ARRAYS[2:]) & set(there) else ARRAYS
            if missing := [name for name in needed if name not in there]:
                has = ", ".join(there) or "nothing"
                raise InputError(f"{path}: must hold {', '.join(needed)}; it has {has}, but not {', '.join(missing)}")
            arrays = {}
            for what in there:
                arrays[what] = there[what]
    except InputError:
        raise
    except _READ_ERRORS as error:
        raise InputError(f"{path}: {what} cannot be read: {file_reason(error)}") from error
    columns = {
        name: array
        for name, array in arrays.items()
        if name not in ARRAYS and array.shape == arrays["train_labels"].shape and array.dtype.kind in "iu"
    }
    return Dataset.from_arrays(
        **{name: arrays[name] for name in needed}, name=path, test_fraction=wanted.test_fraction, columns=columns
    )
