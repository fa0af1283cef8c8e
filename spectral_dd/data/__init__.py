"""Data sets on the host, what each member draws from its seed, and what the device does with the images.

Only the names that the rest of the project uses, and the choice of the loader; the work is in the modules.
"""

from spectral_dd.data.arrays import load_npz
from spectral_dd.data.builtin import BUILTIN
from spectral_dd.data.dataset import Dataset
from spectral_dd.data.labels import Draws, draw, draw_all, partners, resample
from spectral_dd.data.on_device import augment, epoch_order, to_unit
from spectral_dd.data.tfds import load_tfds
from spectral_dd.errors import InputError

__all__ = [
    "Dataset",
    "Draws",
    "augment",
    "draw",
    "draw_all",
    "epoch_order",
    "load_dataset",
    "partners",
    "resample",
    "to_unit",
]


def load_dataset(name: str, data_dir: str | None = None) -> Dataset:
    """Loads a data set by its name.

    Args:
      name: 'digits', 'mnist1d', FILE.npz (see `arrays.load_npz`), or what `tfds.builder` takes: 'cifar10',
        'mnist:3.0.1', 'cifar10_corrupted/fog_1'.
      data_dir: where TFDS prepared its data sets. Default: $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
      InputError: there is no such data set, or it cannot be read, or is not one of images with one class each.
    """
    try:
        if name in BUILTIN:
            return BUILTIN[name]()
        return load_npz(name) if name.endswith(".npz") else load_tfds(name, data_dir)
    except InputError as error:
        raise InputError(f"--dataset={error}") from error
