"""Labels to train on that the user gives: a column of the data set, or a file. What noise draws is in `labels.py`."""

import csv
import zipfile

import numpy as np

from spectral_dd.data.dataset import Dataset, class_numbers
from spectral_dd.errors import InputError, file_reason, nearest
from spectral_dd.files import expanded


def given_labels(dataset: Dataset, asked: str) -> np.ndarray:
    """Labels of the training examples, int32 [example], as class numbers.

    Args:
      dataset: that has the images.
      asked: FILE.npy or FILE.npy:COLUMN (of a structured array), FILE.csv (of one column) or FILE.csv:COLUMN, or the
        name of one of `Dataset.columns`. A row for each example of the source, in its order.

    Raises:
      InputError: there is no such file or column, or its labels are not integers, not as many as there are examples, or
        none of the data set's.
    """
    about = f"--train_labels={asked}: "
    path, _, column = asked.rpartition(":")
    if not path.endswith((".npy", ".csv")):
        path, column = asked, ""
    if path.endswith(".npy"):
        labels = _from_npy(about, path, column)
    elif path.endswith(".csv"):
        labels = _from_csv(about, path, column)
    elif asked in dataset.columns:
        labels = np.asarray(dataset.columns[asked])
    else:
        known = list(dataset.columns)
        has = f"the columns {', '.join(known)}" if known else "no other column of integers"
        raise InputError(
            f"{about}must be FILE.npy, FILE.csv or a column of {dataset.name}, which has {has}.{nearest(asked, known)}"
        )
    if labels.dtype.kind not in "iu":
        raise InputError(f"{about}must be integers; they are {labels.dtype}")
    split_here = dataset.train_places is not None and dataset.test_places is not None
    examples = len(dataset.train_labels) + (len(dataset.test_labels) if split_here else 0)
    if labels.shape != (examples,):
        raise InputError(f"{about}must be one for each of {examples} examples; the shape is {labels.shape}")
    numbers = class_numbers(labels, dataset.classes)
    if numbers.min() < 0 or numbers.max() >= dataset.num_classes:
        place = int(np.flatnonzero((numbers < 0) | (numbers >= dataset.num_classes))[0])
        allowed = f"0 to {dataset.num_classes - 1}" if dataset.classes is None else ", ".join(map(str, dataset.classes))
        raise InputError(f"{about}must be labels of {dataset.name}, {allowed}; number {place} is {labels[place]}")
    return numbers if dataset.train_places is None else numbers[dataset.train_places]


def _from_npy(about: str, path: str, column: str) -> np.ndarray:
    try:
        array = np.load(expanded(path), allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{about}{path} cannot be read: {file_reason(error)}") from error
    names = list(array.dtype.names or ()) if isinstance(array, np.ndarray) else []
    if not column and not names:
        return array
    return array[_one(about, path, column, names)]


def _from_csv(about: str, path: str, column: str) -> np.ndarray:
    try:
        text = expanded(path).read_text(encoding="utf-8-sig")
        lines = [line for line in csv.reader(text.splitlines(), skipinitialspace=True) if line]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{about}{path} cannot be read: {file_reason(error)}") from error
    if not lines:
        raise InputError(f"{about}{path} is empty")
    names, rows = [cell.strip() for cell in lines[0]], lines[1:]
    if len(names) == 1 and not column and names[0].lstrip("-").isdigit():  # labels from the first line on
        rows, place = lines, 0
    else:
        place = names.index(_one(about, path, column, names))
    labels = np.empty(len(rows), np.int64)
    for i, row in enumerate(rows):
        try:
            labels[i] = int(row[place])
        except (ValueError, IndexError, OverflowError) as error:
            cell = row[place] if place < len(row) else ""
            raise InputError(f"{about}row {i + 1} must be an integer; it is {cell!r}") from error
    return labels


def _one(about: str, path: str, column: str, names: list[str]) -> str:
    """The column asked for, or the only one."""
    if column in names:
        return column
    if not column and len(names) == 1:
        return names[0]
    known = f"has the columns {', '.join(names)}" if names else "has no columns"
    asked = f"there is no column {column}" if column else f"{path}:COLUMN must say which"
    raise InputError(f"{about}{asked}; {path} {known}.{nearest(column, names)}")
