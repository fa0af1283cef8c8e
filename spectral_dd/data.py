"""Data sets as NumPy arrays on the host, a member's training set, and what the device does with the images.

Data sets are the embedded digits, or any image classification set that TFDS prepared, read without TensorFlow.
Which examples a member trains on and which labels are noisy is decided here; the training loop is elsewhere.
"""

import contextlib
import dataclasses
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Int32, Num, PRNGKeyArray

from spectral_dd.config import Config, InputError, nearest

DIGITS_TRAIN_SIZE = 1000  # of 1797; the rest is the test set

# What a random stream is for. It seeds the stream together with the seed, so that no two of them coincide.
_DIGITS_SPLIT, _SUBSET, _NOISE, _TEST_ORDER, _RESAMPLE, _PARTNERS = range(6)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled set of images, on the host and possibly memory-mapped (read-only)."""

    name: str
    train_images: np.ndarray  # uint8 or float32 [example, height, width, channel]
    train_labels: np.ndarray  # int32 [example]
    test_images: np.ndarray  # the same type [example, height, width, channel]
    test_labels: np.ndarray  # int32 [example]
    num_classes: int


_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def load_dataset(name: str, data_dir: str | None = None) -> Dataset:
    """Loads 'digits', 'mnist1d' or a prepared TFDS image classification data set.

    A TFDS set is decoded once and kept, memory-mapped from then on, in $XDG_CACHE_HOME or ~/.cache. Its test
    images are those of the split 'test' or, where it has none, 'validation'.

    Args:
      name: 'digits', 'mnist1d', or what `tfds.builder` takes: 'cifar10', 'mnist:3.0.1', 'cifar10_corrupted/fog_1'.
      data_dir: where TFDS prepared the data set. Default: $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
      InputError: the data set is unknown, not prepared, in a file format that only TensorFlow reads, damaged,
        or not one of uint8 images of one size, each with one class.
    """
    match name:
        case "digits":
            return _load_digits()
        case "mnist1d":
            return _load_mnist1d()
        case _:
            return _load_tfds(name, data_dir)


def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits  # here, because it takes a second

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)
    order = _generator(_DIGITS_SPLIT, 0).permutation(len(labels))
    train, test = order[:DIGITS_TRAIN_SIZE], order[DIGITS_TRAIN_SIZE:]
    return Dataset("digits", images[train], labels[train], images[test], labels[test], num_classes=10)


def _load_mnist1d() -> Dataset:
    """4000 and 12000 signals of 40 values, mean 0 and variance 1 over the set: the sizes of the double descent
    notebook of Greydanus and Kobak, "Scaling Down Deep Learning with MNIST-1D" (arXiv 2011.14439)."""
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError as error:
        raise InputError(
            "--dataset=mnist1d: needs the package mnist1d: `pip install mnist1d`, or the extra spectral_dd[mnist1d]"
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
    return Dataset("mnist1d", train, train_labels, test, test_labels, num_classes=10)


def _load_tfds(name: str, data_dir: str | None) -> Dataset:
    with _one_line_errors(name):
        builder = _prepared_builder(name, data_dir)
        num_classes = _check_features(name, builder.info.features)
        folder = _cache_folder(builder)
        arrays = _read_cache(folder)
        if arrays is None:
            logging.info("decoding %s into %s, once", name, folder)
            with _muted():
                arrays = _decode(name, builder, num_classes)
            arrays = _write_cache(folder, arrays)
    return Dataset(name, **arrays, num_classes=num_classes)


@contextlib.contextmanager
def _one_line_errors(name: str) -> Iterator[None]:
    """Turns what TFDS and its readers raise, which can be of nearly any type, into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"--dataset={name}: cannot be read by TFDS: {reason}") from error


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Mutes TFDS's advice to install OpenCV."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _prepared_builder(name: str, data_dir: str | None) -> Any:
    """Returns the `tfds.core.DatasetBuilder` of a data set whose files are there."""
    import tensorflow_datasets as tfds  # here, because digits do not need it

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        # Community data sets are left out: listing them needs TensorFlow and the network.
        known = [*tfds.list_builders(with_community_datasets=False), "digits", "mnist1d"]
        raise InputError(
            f"--dataset={name}: must be 'digits', 'mnist1d' or a data set of TFDS, found in its list or prepared in "
            f"{data_dir or tfds.core.constants.DATA_DIR}.{nearest(name, known)}"
        ) from error
    if not os.path.exists(os.path.join(builder.data_dir, "dataset_info.json")):
        raise InputError(
            f"--dataset={name}: not prepared in {builder.data_dir}. Prepare it with {_prepare_command(name, data_dir)}"
        )
    formats = builder.info.available_file_formats()
    if not formats & tfds.core.FileFormat.with_random_access():
        raise InputError(
            f"--dataset={name}: {builder.data_dir} is in the format {', '.join(f.value for f in formats)}, which "
            f"cannot be read without TensorFlow. Move it away and prepare it with {_prepare_command(name, data_dir)}"
        )
    return builder


def _prepare_command(name: str, data_dir: str | None) -> str:
    where = "" if data_dir is None else f"data_dir={data_dir!r}, "
    call = f"tfds.builder({name!r}, {where}file_format='array_record').download_and_prepare()"
    return (
        f'`python -c "import tensorflow_datasets as tfds; {call}"` (TensorFlow is needed for that step alone: '
        "`pip install tensorflow-cpu`, or the extra spectral_dd[tfds])"
    )


def _check_features(name: str, features: Any) -> int:
    """Returns the number of classes of a data set that has images and one class for each."""
    import tensorflow_datasets as tfds

    has = dict(features.items())
    image, label = has.get("image"), has.get("label")
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        raise InputError(
            f"--dataset={name}: must have the features image (Image) and label (ClassLabel); it has "
            + ", ".join(f"{key} ({type(feature).__name__})" for key, feature in sorted(has.items()))
        )
    if image.np_dtype != np.uint8:
        raise InputError(f"--dataset={name}: images must be uint8; they are {np.dtype(image.np_dtype)}")
    if not label.num_classes or label.num_classes < 2:
        raise InputError(f"--dataset={name}: must have at least 2 classes; it has {label.num_classes or 0}")
    return label.num_classes


def _decode(name: str, builder: Any, num_classes: int) -> dict[str, np.ndarray]:
    """Decodes both splits into memory: a full disk then raises, where writing to a memory map would kill us."""
    splits = list(builder.info.splits)
    test_split = "validation" if "validation" in splits and "test" not in splits else "test"
    if not {"train", test_split} <= set(splits):
        raise InputError(
            f"--dataset={name}: must have the splits train and test (or validation); it has {', '.join(splits)}"
        )
    train, test = builder.as_data_source(["train", test_split])
    shape = train[0]["image"].shape
    train_images, train_labels = _decode_split(name, train, shape, num_classes)
    test_images, test_labels = _decode_split(name, test, shape, num_classes)
    return dict(zip(_ARRAYS, (train_images, train_labels, test_images, test_labels), strict=True))


def _decode_split(name: str, examples: Any, shape: tuple[int, ...], num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    images = np.empty((len(examples), *shape), np.uint8)
    labels = np.empty(len(examples), np.int32)
    for start in range(0, len(examples), 1024):  # reading in blocks halves the time
        block = range(start, min(start + 1024, len(examples)))
        for i, example in zip(block, examples.__getitems__(block), strict=True):
            if example["image"].shape != shape:
                raise InputError(
                    f"--dataset={name}: images must have one size; there are "
                    f"{_size(shape)} and {_size(example['image'].shape)}"
                )
            images[i], labels[i] = example["image"], example["label"]
    if not 0 <= labels.min() <= labels.max() < num_classes:
        raise InputError(
            f"--dataset={name}: labels must be from 0 to {num_classes - 1}; they are from "
            f"{labels.min()} to {labels.max()}"
        )
    return images, labels


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


# The decoded cache: a directory of four .npy files. Its name tells what they were decoded from, so that what is
# found under a name is right, whoever wrote it.


def _cache_folder(builder: Any) -> Path:
    """Where a prepared data set is cached: NAME-VERSION-DIRECTORY/FILES, the latter two as hashes."""
    directory = os.path.realpath(builder.data_dir)
    # Times and sizes change if the data set is prepared again in the same directory.
    files = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in os.scandir(directory))
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spectral_dd"
    return root / f"{builder.info.full_name.replace('/', '-')}-{_digest(directory)}" / _digest(repr(files))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_cache(folder: Path) -> dict[str, np.ndarray] | None:
    """Returns the arrays, memory-mapped, or None if they are absent or damaged."""
    try:
        return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    except (OSError, ValueError, EOFError):
        return None


def _write_cache(folder: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Writes the cache and returns its arrays, memory-mapped; where it cannot be written, those in memory."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".", ignore_cleanup_errors=True) as work:
            new = Path(work) / "new"
            new.mkdir()
            for name, array in arrays.items():
                np.save(new / f"{name}.npy", array)
            mapped = _read_cache(new)  # stays valid, even if another process removes the files
            for outdated in folder.parent.glob("[!.]*"):
                with contextlib.suppress(FileNotFoundError):  # another process removed it
                    os.replace(outdated, Path(work) / outdated.name)
            _rename(new, folder)
        return mapped or arrays
    except OSError as error:
        logging.warning("the decoded images cannot be kept and are decoded at each start: %s", error)
        return arrays


def _rename(new: Path, folder: Path) -> None:
    try:
        os.replace(new, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # Another process decoding the same files was faster: its result is as good.


class TrainingSet(NamedTuple):
    """What one member trains on, on the host."""

    index: np.ndarray  # type: ignore[assignment]  # int32 [example], into `Dataset.train_images`
    labels: np.ndarray  # int32 [example], trained on
    true_labels: np.ndarray  # int32 [example]

    @property
    def relabelled(self) -> np.ndarray:
        """bool [example]: the label trained on is wrong."""
        return self.labels != self.true_labels

    @property
    def noise_rate(self) -> float:
        """Share of the labels that are wrong: `label_noise` if symmetric, else less, as noise can redraw the truth."""
        return float(self.relabelled.mean())


def training_set(dataset: Dataset, config: Config) -> TrainingSet:
    """Draws a member's examples and label noise from the seed.

    Subsets of one seed are nested: a smaller one is the beginning of a larger one. So is the noise, as far as it
    can be: an example that both relabel gets the same wrong label (not under permute, which shuffles), and of
    two noise levels on one subset the higher relabels all that the lower does. Width and rates change nothing.

    Raises:
      InputError: the data set has fewer than `train_size` examples, or a batch is larger than the training set.
    """
    available = len(dataset.train_labels)
    size = config.train_size or available
    if size > available:
        raise InputError(f"--train_size={size}: {dataset.name} has {available} training examples")
    if config.batch_size > size:
        raise InputError(f"--batch_size={config.batch_size}: larger than the training set ({size} examples)")
    index = _generator(_SUBSET, config.seed).permutation(available)[:size].astype(np.int32)
    true_labels = np.asarray(dataset.train_labels[index], np.int32)
    noise = _generator(_NOISE, config.seed)
    rank, draw = noise.random(available)[:size], noise.random(available)[:size]
    chosen = np.argsort(rank, kind="stable")[: round(config.label_noise * size)]
    labels = true_labels.copy()
    if config.noise_kind == "permute":
        labels[chosen] = noise.permutation(labels[chosen])
    elif config.noise_kind == "symmetric":
        step = 1 + (draw[chosen] * (dataset.num_classes - 1)).astype(np.int32)
        labels[chosen] = (labels[chosen] + step) % dataset.num_classes
    else:  # uniform
        labels[chosen] = (draw[chosen] * dataset.num_classes).astype(np.int32)
    return TrainingSet(index, labels, true_labels)


def test_order(dataset: Dataset, seed: int) -> np.ndarray:
    """A permutation of the test examples, drawn from the seed: int [example]."""
    return _generator(_TEST_ORDER, seed).permutation(len(dataset.test_labels))


def partners(
    training_set: TrainingSet, *, own_index: np.ndarray, classes: np.ndarray, same: bool, num: int, seed: Sequence[int]
) -> np.ndarray:
    """Draws training examples for each of some examples.

    Args:
      own_index: int [example], places in `Dataset.train_images` that are not drawn: the examples themselves; -1: none.
      classes: int [example], their true classes.
      same: whether to draw from the same class, or from the others.
      num: how many for each example, with replacement.
      seed: of the draws.

    Returns:
      int [example, num], places in `Dataset.train_images`; -1 where there is no such example.
    """
    draws = _generator(_PARTNERS, *seed).random((len(classes), num))
    drawn = np.full(draws.shape, -1, np.int32)
    for row, (own, label) in enumerate(zip(own_index, classes, strict=True)):
        fits = ((training_set.true_labels == label) == same) & (training_set.index != own)
        candidates = training_set.index[fits]
        if len(candidates):
            drawn[row] = candidates[(draws[row] * len(candidates)).astype(int)]
    return drawn


def resample(index: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The entries of `index` in another order for each seed and epoch."""
    return _generator(_RESAMPLE, seed, epoch).permutation(index)


def _generator(purpose: int, *seed: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((purpose, *seed)))


# On the device: pure, for use under jit, vmap and scan.


def to_unit(
    images: Num[Array, "*batch height width channel"], dtype: DTypeLike
) -> Float[Array, "*batch height width channel"]:
    """Scales images of 0..255 (uint8) to [0, 1]; floating-point ones stay as they are."""
    scale = 255 if images.dtype == jnp.uint8 else 1
    return jnp.asarray(images, dtype) / scale


def epoch_order(key: PRNGKeyArray, size: ArrayLike, capacity: int) -> Int32[Array, " capacity"]:
    """Draws the order of the examples in an epoch: a permutation of 0..size-1 in the first `size` places.

    These do not depend on `capacity` (JAX's partitionable threefry draws the same first bits whatever the
    length), so a member has the same order alone and in a pack with larger training sets. The places after
    them hold size..capacity-1.

    Args:
      size: number of examples, at most `capacity`; may be traced.
      capacity: length of the result; static.
    """
    bits = jax.random.bits(key, (capacity,), jnp.uint32)
    # The sort is stable, so an example that draws the largest number still comes before the padding.
    draws = jnp.where(jnp.arange(capacity) < size, bits, jnp.uint32(0xFFFFFFFF))
    return jnp.argsort(draws, stable=True).astype(jnp.int32)


def augment(
    key: PRNGKeyArray, images: Num[Array, "example height width channel"], shift: int, flip: bool
) -> Num[Array, "example height width channel"]:
    """Moves each image by -shift..shift pixels along both axes, zeros entering, then mirrors half of them.

    The draws are independent between examples and the same in all types of images. `shift` and `flip` are
    static; what is off costs nothing.
    """
    if not shift and not flip:
        return images
    shift_key, flip_key = jax.random.split(key)
    batch, height, width = images.shape[:3]
    rows, columns = (jnp.broadcast_to(jnp.arange(size), (batch, size)) for size in (height, width))
    if flip:
        mirrored = jax.random.randint(flip_key, (batch, 1), 0, 2, jnp.int32) == 1
        columns = jnp.where(mirrored, width - 1 - columns, columns)
    if shift:
        corners = jax.random.randint(shift_key, (batch, 2), 0, 2 * shift + 1, jnp.int32) - shift
        rows, columns = rows + corners[:, :1], columns + corners[:, 1:]
    # One gather, because the CPU backend is slow at cutting a window out of each image.
    example = jnp.arange(batch)[:, None, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    moved = images[example, rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None]]
    return jnp.where(inside[..., None], moved, 0)
