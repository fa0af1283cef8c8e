"""Labels to train on from a file or another column of the data set."""

import re

import numpy as np
import pytest

from spectral_dd import data
from spectral_dd.config import Config
from spectral_dd.data import Dataset, given_labels
from spectral_dd.errors import InputError

IMAGES = np.zeros((6, 4, 4, 1), np.uint8)
TRUE = np.array([10, 20, 30, 10, 20, 30])
WORSE = np.array([30, 20, 30, 20, 20, 10])
CLASSES = [2, 1, 2, 1, 1, 0]


@pytest.fixture
def dataset():
    """Six examples of the classes 10, 20 and 30, with another column."""
    return Dataset.from_arrays(IMAGES, TRUE, IMAGES, TRUE, name="mine", columns={"worse_label": WORSE})


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "\n".join(f"{i}, {label}" for i, label in enumerate(WORSE))
    (tmp_path / "labels.csv").write_text(f"index,worse label\n{rows}\n")
    (tmp_path / "one.csv").write_text("\n".join(map(str, WORSE)))
    (tmp_path / "named.csv").write_text("worse\n" + "\n".join(map(str, WORSE)))
    (tmp_path / "text.csv").write_text("worse\n10\ncat\n" + "10\n" * 4)
    (tmp_path / "empty.csv").write_text("")
    np.save("labels.npy", WORSE)
    np.save("short.npy", WORSE[:5])
    np.save("other.npy", [30, 20, 30, 20, 20, 11])
    np.save("floats.npy", WORSE / 1)
    np.save("table.npy", np.array([(1, label) for label in WORSE], [("index", int), ("worse", np.uint8)]))
    (tmp_path / "bad.npy").write_bytes(b"no array")
    return tmp_path


@pytest.mark.parametrize(
    "asked", ["worse_label", "labels.csv:worse label", "one.csv", "named.csv", "labels.npy", "table.npy:worse"]
)
def test_labels_are_read_and_become_class_numbers(dataset, files, asked):
    assert given_labels(dataset, asked).tolist() == CLASSES
    drawn = data.draw(dataset, Config(train_labels=asked, batch_size=2, seed=3, dataset="mine"))
    np.testing.assert_array_equal(drawn.labels, np.array(CLASSES)[drawn.index])
    np.testing.assert_array_equal(drawn.true_labels, dataset.train_labels[drawn.index])
    assert drawn.relabelled.sum() == drawn.noisy.sum() == 3 and drawn.noise_rate == 0.5


def test_a_home_directory_is_found(dataset, files, monkeypatch):
    monkeypatch.setenv("HOME", str(files))
    for name in ("~/labels.npy", "~/one.csv"):
        np.testing.assert_array_equal(given_labels(dataset, name), CLASSES)


def test_rows_are_those_of_the_source_where_it_is_split_here(files):
    dataset = Dataset.from_arrays(IMAGES, TRUE, test_fraction=0.3, columns={"worse_label": WORSE})
    expected = np.array(CLASSES)[dataset.train_places].tolist()
    assert given_labels(dataset, "worse_label").tolist() == given_labels(dataset, "labels.npy").tolist() == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "worse",
            "must be FILE.npy, FILE.csv or a column of mine, which has the columns worse_label. Did you mean 'wo",
        ),
        ("none.npy", "none.npy cannot be read: No such file or directory"),
        ("none.csv:a", "none.csv cannot be read: No such file or directory"),
        ("bad.npy", "bad.npy cannot be read: "),
        ("labels.csv", "labels.csv:COLUMN must say which; labels.csv has the columns index, worse label."),
        ("labels.csv:worse", "there is no column worse; labels.csv has the columns index, worse label. Did you mean"),
        ("table.npy", "table.npy:COLUMN must say which; table.npy has the columns index, worse."),
        ("labels.npy:worse", "there is no column worse; labels.npy has no columns."),
        ("text.csv", "row 2 must be an integer; it is 'cat'"),
        ("empty.csv", "empty.csv is empty"),
        ("short.npy", "must be one for each of 6 examples; the shape is (5,)"),
        ("other.npy", "must be labels of mine, 10, 20, 30; number 5 is 11"),
        ("floats.npy", "must be integers; they are float64"),
        ("labels.csv:index", "must be labels of mine, 10, 20, 30; number 0 is 0"),
    ],
)
def test_labels_that_cannot_be_are_one_line(dataset, files, asked, message):
    with pytest.raises(InputError, match=re.escape(f"--train_labels={asked}: {message}")) as caught:
        given_labels(dataset, asked)
    assert "\n" not in str(caught.value)


def test_given_labels_and_drawn_noise_exclude_each_other():
    with pytest.raises(InputError, match="are the labels trained on; --label_noise=0"):
        Config(train_labels="a.npy", label_noise=0.1)
