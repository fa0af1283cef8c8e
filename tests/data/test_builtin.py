import sys
import zlib

import numpy as np
import pytest

from spectral_dd import data
from spectral_dd.errors import InputError


def test_digits_are_split_into_a_pool_and_a_test_set(digits):
    assert digits.train_images.shape == (1000, 8, 8, 1) and digits.test_images.shape == (797, 8, 8, 1)
    assert digits.train_images.dtype == np.uint8 and digits.train_labels.dtype == np.int32
    assert (digits.train_images.min(), digits.train_images.max()) == (0, 255)
    assert digits.num_classes == 10


def test_digits_are_those_of_scikit_learn_each_once(digits):
    from sklearn.datasets import load_digits

    source = load_digits()
    images = np.concatenate([digits.train_images, digits.test_images])
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    ours = sorted(zip(np.rint(images.reshape(1797, 64) * (16 / 255)).astype(int).tolist(), labels, strict=True))
    theirs = sorted(zip(source.data.astype(int).tolist(), source.target, strict=True))
    assert ours == theirs


def test_digits_are_the_same_each_time(digits):
    again = data.load_dataset("digits")
    np.testing.assert_array_equal(digits.train_images, again.train_images)
    assert zlib.crc32(again.train_images.tobytes() + again.test_images.tobytes()) == 570989640


def test_mnist1d_has_its_signals_and_leaves_numpys_generator_alone():
    before = np.random.get_state()[1]  # noqa: NPY002
    signals = data.load_dataset("mnist1d")
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert signals.train_images.shape == (4000, 1, 40, 1) and signals.test_images.shape == (12000, 1, 40, 1)
    everything = np.concatenate([signals.train_images, signals.test_images])
    assert everything.dtype == np.float32
    assert abs(everything.mean()) < 1e-3 and everything.std() == pytest.approx(1, abs=1e-3)
    np.testing.assert_array_equal(data.to_unit(signals.train_images, np.float32), signals.train_images)
    assert (np.bincount(signals.train_labels) > 300).all()


def test_mnist1d_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mnist1d.data", None)
    with pytest.raises(InputError, match=r"^--dataset=mnist1d: needs .*pip install mnist1d"):
        data.load_dataset("mnist1d")
