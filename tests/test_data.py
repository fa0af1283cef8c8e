import io
import json
import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from spectral_dd import data
from spectral_dd.config import Config, InputError

SYMMETRIC, PERMUTE, UNIFORM = "symmetric", "permute", "uniform"

epoch_order = jax.jit(data.epoch_order, static_argnums=2)
augment = jax.jit(data.augment, static_argnames=("shift", "flip"))


@pytest.fixture(scope="module")
def digits():
    return data.load_dataset("digits")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "spectral_dd"


# Digits.


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
    np.testing.assert_array_equal(digits.train_images, data.load_dataset("digits").train_images)


# Training sets.


def draw(dataset, **fields):
    return data.training_set(dataset, Config(**{"batch_size": 10, **fields}))


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
    with pytest.raises(InputError, match="pip install mnist1d"):
        data.load_dataset("mnist1d")


def test_subsets_of_one_seed_are_nested_and_without_repetition(digits):
    small, large, everything = (draw(digits, seed=3, train_size=n) for n in (100, 600, 0))
    np.testing.assert_array_equal(small.index, large.index[:100])
    np.testing.assert_array_equal(large.index, everything.index[:600])
    assert sorted(everything.index) == list(range(1000))


def test_seeds_draw_different_subsets(digits):
    assert set(draw(digits, seed=0, train_size=100).index) != set(draw(digits, seed=1, train_size=100).index)


def test_without_noise_labels_are_the_true_ones(digits):
    clean = draw(digits, train_size=600)
    np.testing.assert_array_equal(clean.true_labels, digits.train_labels[clean.index])
    np.testing.assert_array_equal(clean.labels, clean.true_labels)
    assert clean.noise_rate == 0
    assert {array.dtype for array in clean} == {np.dtype(np.int32)}


@pytest.mark.parametrize("kind", [SYMMETRIC, PERMUTE, UNIFORM])
def test_what_the_network_is_does_not_change_the_training_set(digits, kind):
    fields = {"train_size": 600, "label_noise": 0.15, "noise_kind": kind, "seed": 5}
    for one, other in zip(
        draw(digits, **fields),
        draw(digits, **fields, width=64, model="mlp", learning_rate=0.1, epochs=7, shift=1),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", [SYMMETRIC, PERMUTE, UNIFORM])
def test_noise_leaves_the_subset_alone_and_differs_between_seeds(digits, kind):
    clean, one, other = (
        draw(digits, noise_kind=kind, seed=seed, label_noise=p) for seed, p in ((0, 0), (0, 0.2), (1, 0.2))
    )
    np.testing.assert_array_equal(clean.index, one.index)
    np.testing.assert_array_equal(clean.true_labels, one.true_labels)
    assert set(one.index[one.relabelled]) != set(other.index[other.relabelled])


@pytest.mark.parametrize(("share", "wrong"), [(0, 0), (0.1, 60), (0.15, 90), (0.1234, 74), (1, 600)])
def test_symmetric_noise_makes_exactly_its_share_of_labels_wrong(digits, share, wrong):
    noisy = draw(digits, train_size=600, label_noise=share, noise_kind=SYMMETRIC)
    assert noisy.relabelled.sum() == wrong
    assert noisy.noise_rate == wrong / 600
    assert noisy.labels.min() >= 0 and noisy.labels.max() < 10


def test_symmetric_noise_draws_each_wrong_class_alike(digits):
    offsets = np.concatenate(
        [
            (noisy.labels - noisy.true_labels) % 10
            for noisy in (draw(digits, seed=s, label_noise=1, noise_kind=SYMMETRIC) for s in range(10))
        ]
    )
    counts = np.bincount(offsets, minlength=10)
    assert counts[0] == 0
    assert np.all(abs(counts[1:] - 10_000 / 9) < 5 * np.sqrt(10_000 / 9))


@pytest.mark.parametrize("share", [0.1, 1])
def test_permuted_labels_keep_their_histogram(digits, share):
    noisy = draw(digits, label_noise=share, noise_kind=PERMUTE)
    np.testing.assert_array_equal(np.bincount(noisy.labels), np.bincount(noisy.true_labels))
    assert 0 < noisy.relabelled.sum() <= share * 1000


@pytest.mark.parametrize("kind", [PERMUTE, UNIFORM])
def test_other_noise_hits_the_true_label_one_time_in_ten(digits, kind):
    rates = [draw(digits, seed=seed, label_noise=0.1, noise_kind=kind).noise_rate for seed in range(50)]
    assert max(rates) <= 0.1
    assert np.mean(rates) == pytest.approx(0.09, abs=0.003)


def test_noise_kinds_choose_random_examples(digits):
    touched = np.mean(
        [draw(digits, seed=s, label_noise=0.3, noise_kind=SYMMETRIC).relabelled for s in range(100)], axis=0
    )
    assert touched[:500].mean() == pytest.approx(0.3, abs=0.02)


def test_more_training_examples_than_there_are_is_an_error(digits):
    with pytest.raises(InputError, match=r"^--train_size=70000: digits has 1000 training examples$"):
        draw(digits, train_size=70000)


def test_a_batch_larger_than_all_training_examples_is_an_error(digits):
    with pytest.raises(InputError, match=r"^--batch_size=1001: larger than the training set \(1000 examples\)$"):
        draw(digits, batch_size=1001)


# Data sets of TFDS.


def write_tfds(data_dir, sizes, image=(6, 5, 3), label=None, base=None):
    """Prepares a data set of random images as TFDS does, without TensorFlow.

    Args:
      sizes: number of examples of each split.
      image: shape of the images, or a function that gives the shape of example i.
      label: the feature, instead of one of 4 classes, and the label of all examples.
      base: a builder of TFDS, which gives name, version and features; default: one named 'handwriting'.

    Returns:
      The images and labels of each split, and the directory.
    """
    shape = image if callable(image) else lambda i: image
    rng = np.random.default_rng(0)
    images = {s: [rng.integers(256, size=shape(i)).astype(np.uint8) for i in range(n)] for s, n in sizes.items()}
    feature, value = label or (tfds.features.ClassLabel(num_classes=4), None)
    labels = {s: [3 - i % 4 if value is None else value for i in range(n)] for s, n in sizes.items()}

    def examples(split):
        for i, (array, y) in enumerate(zip(images[split], labels[split], strict=True)):
            yield i, {"image": png(array), "label": y}

    class Handwriting(base or tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = base.name if base else "handwriting"
        VERSION = base.VERSION if base else tfds.core.Version("1.0.0")

        def _info(self):
            if base:
                return super()._info()
            features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": feature}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {split: examples(split) for split in sizes}

        def _generate_examples(self):
            raise NotImplementedError

    builder = Handwriting(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    return images, labels, str(builder.data_dir)


def png(array):
    """A file object is stored as it is; TFDS would encode an array with TensorFlow."""
    file = io.BytesIO()
    Image.fromarray(array.squeeze()).save(file, "PNG")
    file.seek(0)
    return file


def by_content(images, labels):
    """TFDS shuffles the examples as it writes them."""
    return sorted((np.asarray(x).tolist(), int(y)) for x, y in zip(images, labels, strict=True))


def load_error(name, data_dir):
    with pytest.raises(InputError) as error:
        data.load_dataset(name, str(data_dir))
    message = str(error.value)
    assert message.startswith(f"--dataset={name}: ") and "\n" not in message
    return message


def test_a_prepared_data_set_is_read(tmp_path):
    images, labels, _ = write_tfds(tmp_path, {"train": 11, "test": 4})
    dataset = data.load_dataset("handwriting", str(tmp_path))
    assert dataset.train_images.shape == (11, 6, 5, 3) and dataset.test_images.shape == (4, 6, 5, 3)
    assert dataset.train_images.dtype == np.uint8 and dataset.train_labels.dtype == np.int32
    assert (dataset.name, dataset.num_classes) == ("handwriting", 4)
    assert by_content(dataset.train_images, dataset.train_labels) == by_content(images["train"], labels["train"])
    assert by_content(dataset.test_images, dataset.test_labels) == by_content(images["test"], labels["test"])


def test_a_standard_data_set_is_read(tmp_path):
    # Its own name, version and features; a few images of our own.
    images, labels, _ = write_tfds(
        tmp_path, {"train": 5, "test": 2}, image=(28, 28, 1), base=tfds.image_classification.MNIST
    )
    dataset = data.load_dataset("mnist", str(tmp_path))
    assert dataset.num_classes == 10
    assert by_content(dataset.train_images, dataset.train_labels) == by_content(images["train"], labels["train"])


def test_validation_stands_in_for_test(tmp_path):
    images, labels, _ = write_tfds(tmp_path, {"train": 5, "validation": 3})
    dataset = data.load_dataset("handwriting", str(tmp_path))
    assert by_content(dataset.test_images, dataset.test_labels) == by_content(
        images["validation"], labels["validation"]
    )


def test_the_second_load_reads_the_decoded_cache(tmp_path, cache):
    _, _, prepared = write_tfds(tmp_path, {"train": 5, "test": 3})
    first = data.load_dataset("handwriting", str(tmp_path))
    (shard,) = (name for name in os.listdir(prepared) if "train" in name)
    stat = os.stat(os.path.join(prepared, shard))
    with open(os.path.join(prepared, shard), "r+b") as file:  # nothing can be decoded any more
        file.write(bytes(stat.st_size))
    os.utime(os.path.join(prepared, shard), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = data.load_dataset("handwriting", str(tmp_path))
    assert isinstance(second.train_images, np.memmap)
    np.testing.assert_array_equal(first.train_images, second.train_images)
    assert [folder.name.rsplit("-", 1)[0] for folder in cache.iterdir()] == ["handwriting-1.0.0"]


def test_a_cache_of_what_was_there_before_is_rebuilt(tmp_path, cache):
    write_tfds(tmp_path, {"train": 5, "test": 3})
    old = data.load_dataset("handwriting", str(tmp_path))
    kept = old.train_images.copy()
    (tmp_path / "handwriting").rename(tmp_path / "aside")
    write_tfds(tmp_path, {"train": 7, "test": 3})
    assert len(data.load_dataset("handwriting", str(tmp_path)).train_images) == 7
    np.testing.assert_array_equal(old.train_images, kept)  # whoever has the old one open keeps it
    assert len(list(cache.glob("*/*"))) == 1


@pytest.mark.parametrize("damage", ["truncate", "empty", "delete", "garbage"])
def test_a_damaged_cache_is_rebuilt(tmp_path, cache, damage):
    write_tfds(tmp_path, {"train": 5, "test": 3})
    before = data.load_dataset("handwriting", str(tmp_path)).train_images.tolist()
    (file,) = cache.glob("*/*/train_images.npy")
    if damage == "delete":
        file.unlink()
    elif damage == "garbage":
        file.write_bytes(b"garbage")
    else:
        os.truncate(file, 0 if damage == "empty" else file.stat().st_size - 1)
    assert data.load_dataset("handwriting", str(tmp_path)).train_images.tolist() == before
    assert list(cache.glob("*/*/train_images.npy")) == [file]


def test_equal_data_sets_in_two_directories_have_two_caches(tmp_path, cache):
    for folder, size in (("a", 5), ("b", 6)):
        write_tfds(tmp_path / folder, {"train": size, "test": 3})
    sizes = [len(data.load_dataset("handwriting", str(tmp_path / folder)).train_labels) for folder in "abab"]
    assert sizes == [5, 6, 5, 6] and len(list(cache.iterdir())) == 2


def test_processes_that_decode_at_once_all_succeed_without_tensorflow(tmp_path, cache):
    images, _, _ = write_tfds(tmp_path, {"train": 50, "test": 3})
    script = (
        "import sys, os\n"
        "from spectral_dd import data\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(data.load_dataset('handwriting', sys.argv[1]).train_images.sum(), 'tensorflow' in sys.modules)\n"
    )
    root = os.path.dirname(os.path.dirname(os.path.abspath(data.__file__)))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu"},
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert outputs == [(f"{np.sum(images['train'])} False\n", "")] * 2  # and no advice of TFDS on stderr
    assert [process.returncode for process in processes] == [0, 0]
    assert len(list(cache.glob("*/*"))) == 1


def test_without_a_writable_cache_the_data_set_is_loaded_all_the_same(tmp_path, monkeypatch):
    write_tfds(tmp_path, {"train": 5, "test": 3})
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(data.load_dataset("handwriting", str(tmp_path)).train_images) == 5


def test_an_unknown_data_set_names_the_nearest(tmp_path):
    assert "Did you mean 'fashion_mnist'?" in load_error("fashion_mnits", tmp_path)
    assert "Did you mean 'digits'?" in load_error("digit", tmp_path)
    assert str(tmp_path) in load_error("zzzzzz", tmp_path)


def test_a_malformed_name_is_an_error(tmp_path):
    load_error("../mnist", tmp_path)
    assert "9.9.9" in load_error("mnist:9.9.9", tmp_path)


def test_a_data_set_that_is_not_prepared_names_the_command_that_does_it(tmp_path):
    message = load_error("cifar10", tmp_path)
    assert f"not prepared in {tmp_path}/cifar10/" in message
    assert (
        '`python -c "import tensorflow_datasets as tfds; tfds.builder('
        f"'cifar10', data_dir='{tmp_path}', file_format='array_record').download_and_prepare()\"`"
    ) in message
    assert "for that step alone: `pip install tensorflow-cpu`, or the extra spectral_dd[tfds]" in message


def test_a_file_format_of_tensorflow_is_an_error(tmp_path):
    _, _, prepared = write_tfds(tmp_path, {"train": 2, "test": 2})
    path = os.path.join(prepared, "dataset_info.json")
    with open(path) as file:
        info = json.load(file)
    with open(path, "w") as file:
        json.dump({**info, "fileFormat": "tfrecord"}, file)
    message = load_error("handwriting", tmp_path)
    assert f"{prepared} is in the format tfrecord, which cannot be read without TensorFlow" in message
    assert "file_format='array_record'" in message


def test_missing_features_are_an_error(tmp_path):
    write_tfds(tmp_path, {"train": 2, "test": 2}, label=(tfds.features.Scalar(np.int32), 0))
    message = load_error("handwriting", tmp_path)
    assert "must have the features image (Image) and label (ClassLabel)" in message
    assert "it has image (Image), label (Scalar)" in message


def test_one_class_is_an_error(tmp_path):
    write_tfds(tmp_path, {"train": 2, "test": 2}, label=(tfds.features.ClassLabel(num_classes=1), 0))
    assert "must have at least 2 classes; it has 1" in load_error("handwriting", tmp_path)


def test_labels_that_are_no_classes_are_an_error(tmp_path):
    write_tfds(tmp_path, {"train": 2, "test": 2}, label=(tfds.features.ClassLabel(num_classes=4), -1))
    assert "labels must be from 0 to 3; they are from -1 to -1" in load_error("handwriting", tmp_path)


def test_missing_splits_are_an_error(tmp_path):
    write_tfds(tmp_path, {"train": 2, "unlabelled": 2})
    message = load_error("handwriting", tmp_path)
    assert "must have the splits train and test (or validation); it has train, unlabelled" in message


def test_images_of_several_sizes_are_an_error(tmp_path):
    write_tfds(tmp_path, {"train": 4, "test": 2}, image=lambda i: (6, 5 + i // 3, 3))
    message = load_error("handwriting", tmp_path)
    assert "images must have one size; there are " in message and "6x5x3" in message and "6x6x3" in message


def test_a_damaged_data_set_is_an_error(tmp_path):
    _, _, prepared = write_tfds(tmp_path, {"train": 2, "test": 2})
    (shard,) = (name for name in os.listdir(prepared) if "train" in name)
    os.remove(os.path.join(prepared, shard))
    assert shard in load_error("handwriting", tmp_path)


# On the device.


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_to_unit_maps_0_to_255_onto_0_to_1(dtype):
    unit = data.to_unit(jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1), dtype)
    assert unit.dtype == dtype and unit.shape == (1, 16, 16, 1)
    assert (unit.min(), unit.max()) == (0, 1)
    np.testing.assert_allclose(
        np.float32(unit).ravel(), np.arange(256) / 255, rtol=1e-7 if dtype == "float32" else 0.01
    )


@pytest.mark.parametrize(("size", "capacity"), [(1, 1), (1, 5), (7, 7), (100, 101), (600, 1000)])
def test_the_order_begins_with_a_permutation(size, capacity):
    order = epoch_order(jax.random.key(0), size, capacity)
    assert order.shape == (capacity,) and order.dtype == jnp.int32
    assert sorted(order[:size].tolist()) == list(range(size))
    assert order[size:].tolist() == list(range(size, capacity))


@pytest.mark.parametrize("capacity", [101, 128, 1000, 50_000])
def test_the_order_does_not_depend_on_the_capacity(capacity):
    key = jax.random.key(4)
    alone = epoch_order(key, 100, 100)
    np.testing.assert_array_equal(alone, epoch_order(key, 100, capacity)[:100])


def test_orders_of_different_sizes_under_vmap_are_those_of_each_alone():
    keys, sizes = jax.random.split(jax.random.key(1), 4), jnp.array([3, 50, 99, 100])
    together = jax.jit(jax.vmap(lambda key, size: epoch_order(key, size, 100)))(keys, sizes)
    for key, size, order in zip(keys, sizes.tolist(), together, strict=True):
        np.testing.assert_array_equal(order[:size], epoch_order(key, size, size))


def test_each_order_is_as_likely_as_any():
    orders = jax.vmap(lambda key: epoch_order(key, 3, 5)[:3])(jax.random.split(jax.random.key(2), 6000))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    assert np.all(abs(counts - 1000) < 5 * np.sqrt(1000 * 5 / 6))


def test_order_and_augmentation_are_the_same_in_double_precision():
    def draws():
        images = jnp.asarray(np.random.default_rng(0).integers(256, size=(20, 6, 6, 1)), jnp.uint8)
        key = jax.random.key(3)
        return epoch_order(key, 80, 100), augment(key, images, shift=2, flip=True)

    single = draws()
    with jax.enable_x64(True):
        double = draws()
    for one, other in zip(single, double, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def recover(key, batch, height, width, shift, flip):
    """Which example moved how: augments images whose pixels are 1 + their position; no zero entered at the centre."""
    positions = np.arange(1, 1 + height * width).reshape(1, height, width, 1)
    moved = np.asarray(augment(key, jnp.asarray(np.repeat(positions, batch, 0), jnp.int32), shift=shift, flip=flip))
    centre = moved[:, height // 2, width // 2 - 1 : width // 2 + 1, 0]
    mirrored = centre[:, 0] > centre[:, 1]
    down = height // 2 - (centre[:, 0] - 1) // width
    source = (np.where(mirrored, centre[:, 1], centre[:, 0]) - 1) % width
    start = np.where(mirrored, width - 1 - width // 2, width // 2 - 1)
    return down, start - source, mirrored


def augment_by_hand(images, down, right, mirrored):
    result = np.zeros_like(images)
    batch, height, width, _ = images.shape
    for b in range(batch):
        for row in range(height):
            for column in range(width):
                to_row, to_column = row + down[b], column + right[b]
                if 0 <= to_row < height and 0 <= to_column < width:
                    result[b, to_row, to_column] = images[b, row, column]
        if mirrored[b]:
            result[b] = result[b, :, ::-1].copy()
    return result


@pytest.mark.parametrize(
    ("height", "width", "shift", "flip", "dtype"),
    [
        (8, 8, 1, False, np.float32),
        (8, 8, 0, True, np.float32),
        (9, 12, 3, True, np.float32),
        (32, 32, 4, True, np.uint8),
    ],
)
def test_augmentation_equals_a_loop_over_pixels(height, width, shift, flip, dtype):
    images = np.random.default_rng(0).integers(1, 256, size=(40, height, width, 2)).astype(dtype)
    key = jax.random.key(7)
    result = augment(key, jnp.asarray(images), shift=shift, flip=flip)
    down, right, mirrored = recover(key, 40, height, width, shift, flip)
    assert abs(down).max() == abs(right).max() == shift
    assert mirrored.any() == flip
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, augment_by_hand(images, down, right, mirrored))


def test_shifts_and_flips_are_independent_and_each_as_likely():
    down, right, mirrored = recover(jax.random.key(0), 9000, 8, 8, 1, True)
    _, counts = np.unique(np.stack([down, right, mirrored]), axis=1, return_counts=True)
    assert len(counts) == 18
    assert np.all(abs(counts - 500) < 5 * np.sqrt(500))


def test_a_flip_is_the_mirror_image_or_nothing():
    images = jnp.asarray(np.random.default_rng(0).random((50, 4, 5, 3)), jnp.float32)
    for image, result in zip(images, augment(jax.random.key(0), images, shift=0, flip=True), strict=True):
        assert (result == image).all() or (result == image[:, ::-1]).all()


def test_without_augmentation_nothing_is_computed():
    images = jnp.ones((2, 4, 4, 1))
    assert data.augment(jax.random.key(0), images, shift=0, flip=False) is images


def test_augmentation_of_members_under_vmap_and_map_is_that_of_each_alone():
    images = jnp.asarray(np.random.default_rng(0).random((3, 10, 8, 8, 1)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 3)
    one = partial(augment, shift=2, flip=True)
    alone = jnp.stack([one(key, x) for key, x in zip(keys, images, strict=True)])
    np.testing.assert_array_equal(alone, jax.jit(jax.vmap(one))(keys, images))
    np.testing.assert_array_equal(alone, jax.jit(lambda *args: jax.lax.map(lambda kx: one(*kx), args))(keys, images))


@pytest.mark.parametrize("kind", ["symmetric", "uniform"])
def test_label_noise_is_nested_in_size_and_in_level(digits, kind):
    def draw(size, noise):
        return data.training_set(digits, Config(train_size=size, label_noise=noise, noise_kind=kind, seed=4))

    small, large = draw(200, 0.15), draw(400, 0.15)
    both = small.relabelled & large.relabelled[:200]
    assert both.sum() > 0.6 * small.relabelled.sum()
    np.testing.assert_array_equal(small.labels[both], large.labels[:200][both])
    more = draw(200, 0.5)
    assert (more.relabelled | ~small.relabelled).all()
    np.testing.assert_array_equal(more.labels[small.relabelled], small.labels[small.relabelled])
