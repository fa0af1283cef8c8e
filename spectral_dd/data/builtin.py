"""Data sets that need no download: the digits of scikit-learn, and MNIST-1D, which its package generates."""

import importlib.metadata
import importlib.util
import pathlib
from collections.abc import Callable

import numpy as np

from spectral_dd.data.dataset import Dataset
from spectral_dd.data.streams import Stream, generator
from spectral_dd.errors import InputError

DIGITS_TRAIN_SIZE = 1000  # of 1797; the rest is the test set


def load_digits() -> Dataset:
    """1797 digits of 8x8 pixels (UCI ML hand-written digits), shuffled and split."""
    package = importlib.util.find_spec("sklearn")  # To import it takes a second, at each start of a process.
    assert package is not None and package.submodule_search_locations
    path = pathlib.Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    table = np.loadtxt(path, np.int32, delimiter=",")
    images, labels = np.rint(table[:, :-1].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8), table[:, -1]
    order = generator(Stream.DIGITS_SPLIT, 0).permutation(len(labels))
    train, test = order[:DIGITS_TRAIN_SIZE], order[DIGITS_TRAIN_SIZE:]
    return Dataset(
        "digits", images[train], labels[train], images[test], labels[test], 10, train_places=train, test_places=test
    )


def load_mnist1d() -> Dataset:
    """4000 training and 12000 test signals of 40 values, with mean 0 and variance 1 over the set.

    The sizes are those of the notebook on double descent of Greydanus and Kobak, "Scaling Down Deep Learning with
    MNIST-1D" (arXiv 2011.14439).
    """
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError as error:
        raise InputError(
            "mnist1d: needs the package mnist1d: `pip install mnist1d`, or the extra spectral_dd[mnist1d]"
        ) from error

    arguments = get_dataset_args()
    arguments.num_samples, arguments.train_split = 16_000, 0.25
    state = np.random.get_state()  # noqa: NPY002 (the package seeds NumPy's global generator)
    try:
        signals = make_dataset(arguments)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    train, test = (signals[name].astype(np.float32)[:, None, :, None] for name in ("x", "x_test"))
    train_labels, test_labels = (signals[name].astype(np.int32) for name in ("y", "y_test"))
    version = importlib.metadata.version("mnist1d")
    return Dataset("mnist1d", train, train_labels, test, test_labels, num_classes=10, version=version)


BUILTIN: dict[str, Callable[[], Dataset]] = {"digits": load_digits, "mnist1d": load_mnist1d}
