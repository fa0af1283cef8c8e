"""Hugging Face data sets in a folder, without the hub."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from spectral_dd import data
from spectral_dd.errors import InputError

datasets = pytest.importorskip("datasets")

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(256, size=(9, 5, 4, 3)).astype(np.uint8)
LABELS = [3, 1, 3, 8, 1, 3, 8, 1, 3]


@pytest.fixture(autouse=True)
def no_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def write_parquet(folder, start, stop, split, **columns):
    """PNG bytes as the hub has them, plain integers, and another column of integers."""
    images = pa.array([{"bytes": png(x), "path": None} for x in PIXELS[start:stop]])
    table = {"image": images, "label": LABELS[start:stop], "other": [8] * (stop - start), **columns}
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(table), folder / f"{split}-00000-of-00001.parquet")


def test_a_folder_of_parquet_files_with_png_bytes(tmp_path):
    write_parquet(tmp_path / "set", 0, 6, "train")
    write_parquet(tmp_path / "set", 6, 9, "test")
    name = f"hf:{tmp_path / 'set'}"
    for _ in range(2):  # decoded, and from the cache
        dataset = data.load_dataset(name)
        np.testing.assert_array_equal(dataset.train_images, PIXELS[:6])  # in the order of the file
        np.testing.assert_array_equal(dataset.test_images, PIXELS[6:])
        assert dataset.classes == (1, 3, 8) and dataset.train_labels.tolist() == [1, 0, 1, 2, 0, 1]
        assert {name: column.tolist() for name, column in dataset.columns.items()} == {"other": [8] * 6}
    assert isinstance(dataset.train_images, np.memmap)


def test_a_training_split_only_and_features_of_other_names(tmp_path):
    write_parquet(tmp_path / "set", 0, 9, "train", img=pa.array([png(x[..., 0]) for x in PIXELS]))
    wanted = data.Wanted(image_feature="img", label_feature="other", test_fraction=0.3)
    dataset = data.load_dataset(f"hf:{tmp_path / 'set'}", wanted=wanted)
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (6, 3)
    np.testing.assert_array_equal(dataset.train_images, PIXELS[dataset.train_places][..., :1])
    with pytest.raises(InputError, match="has no test set; --test_fraction"):
        data.load_dataset(f"hf:{tmp_path / 'set'}", wanted=wanted._replace(test_fraction=0))
    with pytest.raises(InputError, match="--label_feature=labels: must be one of label, other; there is none"):
        data.load_dataset(f"hf:{tmp_path / 'set'}", wanted=wanted._replace(label_feature="labels"))


def test_what_the_library_saved_to_disk_with_its_own_images_and_classes(tmp_path):
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c", "d"]), "wide": datasets.Image()}
    )
    deep = (PIXELS[..., 0].astype(np.uint16) << 8) + 1
    rows = {
        "image": [Image.fromarray(x) for x in PIXELS],
        "label": [i % 3 for i in range(9)],
        "wide": [{"bytes": png(x), "path": None} for x in deep],
    }
    part = datasets.Dataset.from_dict(rows, features)
    datasets.DatasetDict(train=part, validation=part.select([2, 0])).save_to_disk(tmp_path / "set")
    dataset = data.load_dataset(f"hf:{tmp_path / 'set'}")
    np.testing.assert_array_equal(dataset.train_images, PIXELS)
    np.testing.assert_array_equal(dataset.test_images, PIXELS[[2, 0]])
    assert dataset.num_classes == 4 and dataset.test_labels.tolist() == [2, 0]
    wide = data.load_dataset(f"hf:{tmp_path / 'set'}", wanted=data.Wanted(image_feature="wide"))
    assert wide.train_images.dtype == np.uint16
    np.testing.assert_array_equal(wide.train_images, deep[..., None])


def test_numbers_instead_of_files(tmp_path):
    floats = RNG.normal(size=(4, 3, 3)).astype(np.float32)
    part = datasets.Dataset.from_dict({"x": floats, "y": [0, 1, 2, 0]}).cast_column(
        "x", datasets.Array2D((3, 3), "float32")
    )
    datasets.DatasetDict(train=part, test=part).save_to_disk(tmp_path / "set")
    dataset = data.load_dataset(f"hf:{tmp_path / 'set'}")
    np.testing.assert_array_equal(dataset.train_images, floats[..., None])
    assert dataset.train_images.dtype == np.float32


def test_what_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "nothing").mkdir()
    write_parquet(tmp_path / "sizes", 0, 2, "train", image=[png(PIXELS[0]), png(PIXELS[0][:3])])
    for place, message in (("nothing", "cannot be read by"), ("sizes", "must have one size and type; there are 5x4x3")):
        with pytest.raises(InputError, match=message) as caught:
            data.load_dataset(f"hf:{tmp_path / place}", wanted=data.Wanted(label_feature="label", test_fraction=0.5))
        assert str(caught.value).startswith(f"--dataset=hf:{tmp_path / place}: ") and "\n" not in str(caught.value)
