import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from spectral_dd import data
from spectral_dd.errors import InputError


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
    (file,) = cache.glob("*/*/0.npy")
    if damage == "delete":
        file.unlink()
    elif damage == "garbage":
        file.write_bytes(b"garbage")
    else:
        os.truncate(file, 0 if damage == "empty" else file.stat().st_size - 1)
    assert data.load_dataset("handwriting", str(tmp_path)).train_images.tolist() == before
    assert list(cache.glob("*/*/0.npy")) == [file]


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
    root = str(pathlib.Path(data.__file__).parents[2])
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


def test_a_feature_that_is_missing_is_an_error(tmp_path):
    write_tfds(tmp_path, {"train": 2, "test": 2}, label=(tfds.features.Scalar(np.float32), 0.5))
    message = load_error("handwriting", tmp_path)
    assert "must have a feature of labels; it has image (Image), label (Scalar)" in message


def test_integers_that_are_no_class_labels_become_classes(tmp_path):
    write_tfds(tmp_path, {"train": 2, "test": 2}, label=(tfds.features.Scalar(np.int64), -7))
    dataset = data.load_dataset("handwriting", str(tmp_path))
    assert dataset.train_labels.tolist() == dataset.test_labels.tolist() == [0, 0]
    assert (dataset.classes, dataset.num_classes) == ((-7,), 2)


def test_one_class_is_an_error(tmp_path):
    write_tfds(tmp_path, {"train": 2, "test": 2}, label=(tfds.features.ClassLabel(num_classes=1), 0))
    assert "must have at least 2 classes; it has 1" in load_error("handwriting", tmp_path)


def test_labels_that_are_no_classes_are_an_error(tmp_path):
    write_tfds(tmp_path, {"train": 2, "test": 2}, label=(tfds.features.ClassLabel(num_classes=4), -1))
    assert "train_labels: must be from 0 to 3; they are from -1 to -1" in load_error("handwriting", tmp_path)


def test_without_a_test_split_a_share_of_the_training_split_can_be_one(tmp_path):
    images, labels, _ = write_tfds(tmp_path, {"train": 10, "unlabelled": 2})
    assert "has no test set; --test_fraction=0.2 takes a fifth" in load_error("handwriting", tmp_path)
    dataset = data.load_dataset("handwriting", str(tmp_path), data.Wanted(test_fraction=0.3))
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (7, 3)
    both = [np.concatenate([getattr(dataset, f"{s}_{a}") for s in ("train", "test")]) for a in ("images", "labels")]
    assert by_content(*both) == by_content(images["train"], labels["train"])


def test_without_a_training_split_it_is_an_error(tmp_path):
    write_tfds(tmp_path, {"test": 2, "unlabelled": 2})
    assert "must have a split train; it has test, unlabelled" in load_error("handwriting", tmp_path)


FLOAT_IMAGES = {
    "picture": tfds.features.Tensor(shape=(4, 3), dtype=np.float32),
    "scan": tfds.features.Tensor(shape=(4, 3, 2), dtype=np.uint16),
    "fine": tfds.features.ClassLabel(num_classes=6),
    "coarse": tfds.features.Scalar(np.int64),
    "text": tfds.features.Text(),
}


def write_others(data_dir):
    """A data set with features of other names and types, without a test split; returns its examples."""
    rng = np.random.default_rng(1)
    examples = [
        {
            "picture": rng.normal(size=(4, 3)).astype(np.float32),
            "scan": rng.integers(65536, size=(4, 3, 2)).astype(np.uint16),
            "fine": i % 6,
            "coarse": 10 * (i % 2),
            "text": "t",
        }
        for i in range(8)
    ]

    class Others(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "others"
        VERSION = tfds.core.Version("2.1.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(FLOAT_IMAGES))

        def _split_generators(self, manager):
            return {"train": iter(enumerate(examples)), "test": iter(enumerate(examples[:2]))}

        def _generate_examples(self):
            raise NotImplementedError

    Others(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return examples


def test_features_of_other_names_and_types_are_read(tmp_path):
    examples = write_others(tmp_path)
    load = [
        data.load_dataset("others", str(tmp_path), data.Wanted(image_feature=image, label_feature="fine"))
        for image in ("picture", "scan")
    ]
    for dataset, feature, kind in zip(load, ("picture", "scan"), (np.float32, np.uint16), strict=True):
        assert dataset.train_images.dtype == kind and dataset.num_classes == 6
        expected = by_content([np.atleast_3d(e[feature]) for e in examples], [e["fine"] for e in examples])
        assert by_content(dataset.train_images, dataset.train_labels) == expected
    coarse = np.asarray(load[0].columns["coarse"])
    np.testing.assert_array_equal(coarse, 10 * (load[0].train_labels % 2))
    assert load[0].version == "2.1.0"
    assert "--image_feature= must say which of picture, scan is the image" in load_error("others", tmp_path)
    with pytest.raises(InputError, match="--label_feature=text: must be one of coarse, fine; it is Text"):
        data.load_dataset("others", str(tmp_path), data.Wanted("scan", "text"))


def test_images_of_several_sizes_are_an_error(tmp_path):
    write_tfds(tmp_path, {"train": 4, "test": 2}, image=lambda i: (6, 5 + i // 3, 3))
    message = load_error("handwriting", tmp_path)
    assert "images must have one size; there are " in message and "6x5x3" in message and "6x6x3" in message


def test_a_damaged_data_set_is_an_error(tmp_path):
    _, _, prepared = write_tfds(tmp_path, {"train": 2, "test": 2})
    (shard,) = (name for name in os.listdir(prepared) if "train" in name)
    os.remove(os.path.join(prepared, shard))
    assert shard in load_error("handwriting", tmp_path)
