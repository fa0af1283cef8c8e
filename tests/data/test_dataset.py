import numpy as np
import pytest

from spectral_dd.data import Dataset, difference
from spectral_dd.errors import InputError


def arrays(**changed):
    """Five training and three test images of 4x6 pixels with two channels, of 3 classes."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(8, 4, 6, 2)).astype(np.uint8)
    labels = np.array([0, 2, 1, 0, 1, 1, 0, 1])
    parts = {
        "train_images": images[:5],
        "train_labels": labels[:5],
        "test_images": images[5:],
        "test_labels": labels[5:],
    }
    return parts | changed


def test_arrays_are_kept_as_they_are():
    given = arrays()
    dataset = Dataset.from_arrays(**given)
    assert (dataset.name, dataset.num_classes) == ("arrays", 3)
    for name, array in given.items():
        np.testing.assert_array_equal(getattr(dataset, name), array)
    assert dataset.train_images is given["train_images"]  # of which there may be many gigabytes
    assert dataset.train_labels.dtype == dataset.test_labels.dtype == np.int32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_point_images_become_float32(dtype):
    images = np.random.default_rng(0).normal(size=(2, 5, 4, 6, 1)).astype(dtype)
    dataset = Dataset.from_arrays(**arrays(train_images=images[0], test_images=images[1, :3]))
    assert dataset.train_images.dtype == dataset.test_images.dtype == np.float32
    np.testing.assert_array_equal(dataset.train_images, images[0].astype(np.float32))


def test_images_without_channels_get_one():
    given = arrays()
    gray = Dataset.from_arrays(
        **arrays(train_images=given["train_images"][..., 0], test_images=given["test_images"][..., :1])
    )
    np.testing.assert_array_equal(gray.train_images, given["train_images"][..., :1])
    assert gray.test_images.shape == (3, 4, 6, 1)


def test_lists_are_arrays():
    images = [[[0.0, 0.5]], [[1.0, 0.25]]]
    dataset = Dataset.from_arrays(images, [0, 1], images, [1, 0])
    assert dataset.train_images.shape == (2, 1, 2, 1)
    assert dataset.test_labels.tolist() == [1, 0]


def test_there_are_as_many_classes_as_labels_unless_their_number_is_given():
    assert Dataset.from_arrays(**arrays(test_labels=[0, 3, 1])).num_classes == 4
    assert Dataset.from_arrays(**arrays(train_labels=[0] * 5, test_labels=[0] * 3)).num_classes == 2
    assert Dataset.from_arrays(**arrays(), num_classes=10).num_classes == 10


def test_labels_of_any_integers_are_numbered_and_the_map_is_kept():
    dataset = Dataset.from_arrays(**arrays(train_labels=[7, -3, 7, 2**40, -3], test_labels=np.uint64([2**63, 7, 7])))
    assert dataset.classes == (-3, 7, 2**40, 2**63) and dataset.num_classes == 4
    assert dataset.train_labels.tolist() == [1, 0, 1, 2, 0]
    assert dataset.test_labels.tolist() == [3, 1, 1]
    assert dataset.about["classes"] == [-3, 7, 2**40, 2**63]
    assert Dataset.from_arrays(**arrays()).classes is None


def test_sixteen_bits_are_kept():
    given = arrays()
    images = {name: given[name].astype(np.uint16) * 257 for name in ("train_images", "test_images")}
    assert Dataset.from_arrays(**given | images).train_images.dtype == np.uint16


def test_a_share_of_the_training_examples_can_be_the_test_set_always_the_same():
    given = arrays()
    images, labels = given["train_images"], given["train_labels"]
    one, same = (Dataset.from_arrays(images, labels, test_fraction=0.4, columns={"other": labels}) for _ in range(2))
    assert sorted([*one.train_places, *one.test_places]) == list(range(5)) and len(one.test_places) == 2
    np.testing.assert_array_equal(one.train_images, images[one.train_places])
    np.testing.assert_array_equal(one.test_labels, labels[one.test_places])
    assert one.about == same.about
    for options, message in (
        ({}, "has no test set; --test_fraction=0.2 takes a fifth"),
        ({"test_fraction": 0.01}, "--test_fraction=0.01: leaves nothing on one side of 5 examples"),
    ):
        with pytest.raises(InputError, match=f"arrays: {message}"):
            Dataset.from_arrays(images, labels, **options)
    with pytest.raises(InputError, match="has a test set; --test_fraction"):
        Dataset.from_arrays(**given, test_fraction=0.5)


def test_what_is_kept_of_a_data_set_says_what_differs_in_another():
    given = arrays()
    about = Dataset.from_arrays(**given).about
    assert difference(about, Dataset.from_arrays(**arrays()).about) == ""
    changed = given["train_images"].copy()
    changed[4, 3, 5, 1] ^= 1
    other = Dataset.from_arrays(**given | {"train_images": changed}).about
    assert difference(about, other) == f"images {about['images']} there, {other['images']} here"
    fewer = Dataset.from_arrays(
        **given | {"test_labels": given["test_labels"][:2], "test_images": given["test_images"][:2]}
    )
    assert difference(about, fewer.about).startswith("test size 3 there, 2 here; labels ")
    assert difference({"num_classes": 3}, about) == ""  # of an older revision


FLOATS = np.ones((5, 4, 6, 2))
NAN = FLOATS.copy()
NAN[1, 2, 3, 0] = np.nan


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("train_images", FLOATS, "test_images: must be float32 as train_images; they are uint8"),
        ("test_images", np.zeros((3, 4, 5, 2), "u1"), "test_images: must be 4x6x2 as train_images; they are 4x5x2"),
        ("train_images", FLOATS.astype(int), "train_images: must be uint8, uint16 or floating point; they are int64"),
        (
            "train_images",
            FLOATS.astype(object),
            "train_images: must be uint8, uint16 or floating point; they are object",
        ),
        ("train_images", FLOATS.astype(str), "train_images: must be uint8, uint16 or floating point; they are <U32"),
        ("train_images", [[1], [1, 2]], "train_images: must be an array of numbers; "),
        ("test_images", np.zeros((3, 48)), "test_images: must be [example, height, width, channel] or "),
        ("train_images", FLOATS[:0], "train_images: must not be empty; the shape is (0, 4, 6, 2)"),
        ("test_images", FLOATS[:3, :, :0], "test_images: must not be empty; the shape is (3, 4, 0, 2)"),
        ("train_images", NAN, "train_images: must be finite in float32; it is nan at [1, 2, 3, 0]"),
        ("train_images", FLOATS * 1e39, "train_images: must be finite in float32; it is inf at [0, 0, 0, 0]"),
        ("train_labels", [0, 1], "train_labels: must be one for each of 5 images, [example]; the shape is (2,)"),
        ("test_labels", np.eye(3, dtype=int), "test_labels: must be one for each of 3 images, [example]"),
        ("test_labels", [], "test_labels: must be integers; they are float64"),
        ("test_labels", [0.0, 1.5, 1.0], "test_labels: must be integers; they are float64"),
        ("test_labels", np.array(["a", "b", "c"], object), "test_labels: must be integers; they are object"),
        ("num_classes", 2, "train_labels: must be from 0 to 1; they are from 0 to 2"),
        ("num_classes", 1, "num_classes=1: must be a whole number of at least 2"),
        ("num_classes", 2.5, "num_classes=2.5: must be a whole number of at least 2"),
        ("num_classes", "3", "num_classes=3: must be a whole number of at least 2"),
    ],
)
def test_what_is_wrong_with_an_array_is_said_in_one_line(argument, value, message):
    with pytest.raises(InputError) as caught:
        Dataset.from_arrays(**arrays(**{argument: value}), name="mine")
    assert str(caught.value).startswith(f"mine: {message}")
    assert "\n" not in str(caught.value)


def test_a_label_beyond_int32_is_not_wrapped_around():
    with pytest.raises(InputError, match=f"test_labels: must be from 0 to 2; they are from 0 to {2**63}"):
        Dataset.from_arrays(**arrays(test_labels=np.uint64([0, 1, 2**63])), num_classes=3)
