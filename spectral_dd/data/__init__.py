"""Data sets on the host, what each member draws from its seed, and what the device does with the images.

Only the names that the rest of the project uses, and the choice of the loader; the work is in the modules.
"""

from spectral_dd.data.arrays import load_npz
from spectral_dd.data.builtin import BUILTIN
from spectral_dd.data.dataset import Dataset, checksum, difference
from spectral_dd.data.given import given_labels
from spectral_dd.data.hugging_face import PREFIX, load_hugging_face
from spectral_dd.data.labels import Draws, draw, draw_all, partners, resample
from spectral_dd.data.on_device import augment, epoch_order, to_unit
from spectral_dd.data.source import Wanted
from spectral_dd.data.tfds import load_tfds
from spectral_dd.errors import InputError

__all__ = [
    "Dataset",
    "Draws",
    "Wanted",
    "augment",
    "checksum",
    "difference",
    "draw",
    "draw_all",
    "epoch_order",
    "given_labels",
    "load_dataset",
    "partners",
    "resample",
    "to_unit",
]


def load_dataset(name: str, data_dir: str | None = None, wanted: Wanted = Wanted()) -> Dataset:  # noqa: B008
    """Loads a data set by its name.

    Args:
      name: 'digits', 'mnist1d', FILE.npz (see `arrays.load_npz`), 'hf:NAME' or 'hf:FOLDER' (see
        `hugging_face.load_hugging_face`), or what `tfds.builder` takes: 'cifar10', 'mnist:3.0.1',
        'cifar10_corrupted/fog_1'.
      data_dir: where TFDS prepared its data sets. Default: $TFDS_DATA_DIR or ~/tensorflow_datasets.
      wanted: which features, and how much of them becomes the test set.

    Raises:
      InputError: there is no such data set, or it cannot be read, or is not one of images with one class each.
    """
    has_features = not (name in BUILTIN or name.endswith(".npz"))
    for flag in ("image_feature", "label_feature"):
        if (value := getattr(wanted, flag)) and not has_features:
            raise InputError(f"--{flag}={value}: --dataset={name} has no features; it is for TFDS and Hugging Face")
    try:
        if name in BUILTIN:
            if wanted.test_fraction:
                raise InputError(
                    f"{name}: has a test set; --test_fraction={wanted.test_fraction:g}: is for those without"
                )
            return BUILTIN[name]()
        if name.startswith(PREFIX):
            return load_hugging_face(name, wanted)
        return load_npz(name, wanted) if name.endswith(".npz") else load_tfds(name, data_dir, wanted)
    except InputError as error:
        raise InputError(f"--dataset={error}") from error
