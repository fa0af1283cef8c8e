import numpy as np
import pytest

from spectral_dd import data
from spectral_dd.errors import InputError


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    parts = {"train": 40, "test": 30}
    images = {f"{part}_images": rng.integers(256, size=(n, 4, 6, 3)).astype(np.uint8) for part, n in parts.items()}
    return images | {f"{part}_labels": rng.integers(5, size=n) for part, n in parts.items()}


def load_error(path):
    with pytest.raises(InputError) as caught:
        data.load_dataset(str(path))
    message = str(caught.value)
    assert message.startswith(f"--dataset={path}: ") and "\n" not in message
    return message.removeprefix(f"--dataset={path}: ")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_of_ones_own_is_read(tmp_path, arrays, save):
    path = str(tmp_path / "mine.npz")
    save(path, **arrays, something_else=np.zeros(3))
    dataset = data.load_dataset(path)
    assert (dataset.name, dataset.num_classes) == (path, 5)
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(dataset, name), array)


def test_other_arrays_of_integers_are_columns_and_the_test_set_may_be_a_share(tmp_path, arrays):
    path = str(tmp_path / "mine.npz")
    del arrays["test_images"], arrays["test_labels"]
    np.savez(path, **arrays, worse_label=arrays["train_labels"][::-1], about=np.zeros(40))
    dataset = data.load_dataset(path, wanted=data.Wanted(test_fraction=0.25))
    assert (len(dataset.train_labels), len(dataset.test_labels), list(dataset.columns)) == (30, 10, ["worse_label"])
    for wanted in (data.Wanted(image_feature="image"), data.Wanted(label_feature="fine")):
        with pytest.raises(InputError, match="has no features; it is for TFDS and Hugging Face"):
            data.load_dataset(path, wanted=wanted)


def test_a_file_that_is_not_there(tmp_path):
    assert load_error(tmp_path / "mine.npz") == "the file cannot be read: No such file or directory"


def test_a_missing_array(tmp_path, arrays):
    del arrays["test_images"], arrays["test_labels"]
    np.savez(tmp_path / "mine.npz", **arrays)
    assert load_error(tmp_path / "mine.npz") == (
        "must hold train_images, train_labels, test_images, test_labels; it has train_images, train_labels, "
        "but not test_images, test_labels"
    )


def test_an_array_that_cannot_be_one(tmp_path, arrays):
    np.savez(tmp_path / "mine.npz", **arrays | {"test_labels": np.arange(2)})
    assert load_error(tmp_path / "mine.npz").startswith("test_labels: must be one for each of 30 images")


def test_an_array_of_objects_is_not_unpickled(tmp_path, arrays):
    np.savez(tmp_path / "mine.npz", **arrays | {"train_labels": np.array([{}], object)})
    assert load_error(tmp_path / "mine.npz").startswith("train_labels cannot be read: Object arrays cannot be loaded")


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00"])
def test_another_kind_of_file(tmp_path, content):
    (tmp_path / "mine.npz").write_bytes(content)
    assert load_error(tmp_path / "mine.npz") == "must be a file that np.savez wrote; it is no zip file"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_file_is_one_line_or_the_same_data(tmp_path, arrays, save):
    path, rng = tmp_path / "mine.npz", np.random.default_rng(0)
    save(path, **arrays)
    whole, errors = path.read_bytes(), 0
    for position in rng.integers(len(whole), size=60):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            dataset = data.load_dataset(str(path))
        except InputError as error:
            assert str(error).startswith(f"--dataset={path}: ") and "\n" not in str(error)
            errors += 1
            continue
        for name, array in arrays.items():
            np.testing.assert_array_equal(getattr(dataset, name), array)
    assert errors > 30
