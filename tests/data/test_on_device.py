from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import fast_jit
from spectral_dd import data
from spectral_dd.errors import InputError

epoch_order = fast_jit(data.epoch_order, static_argnums=2)
augment = fast_jit(data.augment, static_argnames=("shift", "flip"))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_to_unit_maps_0_to_255_onto_0_to_1(dtype):
    unit = np.asarray(data.to_unit(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), dtype))
    assert unit.dtype == dtype and unit.shape == (1, 16, 16, 1)
    assert (unit.min(), unit.max()) == (0, 1)
    np.testing.assert_allclose(
        np.float32(unit).ravel(), np.arange(256) / 255, rtol=1e-7 if dtype == "float32" else 0.01
    )


def test_sixteen_bits_are_scaled_by_their_own_range_and_other_integers_refused():
    images = np.array([0, 257, 65535], np.uint16).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(np.ravel(data.to_unit(images, jnp.float32)), [0, 1 / 255, 1], rtol=1e-6)
    with pytest.raises(InputError, match="images must be uint8, uint16 or floating point; they are int32"):
        data.to_unit(images.astype(np.int32), jnp.float32)


@pytest.mark.parametrize(("size", "capacity"), [(1, 1), (1, 5), (7, 7), (100, 101), (600, 1000)])
def test_the_order_begins_with_a_permutation(size, capacity):
    order = np.asarray(epoch_order(jax.random.key(0), size, capacity))
    assert order.shape == (capacity,) and order.dtype == jnp.int32
    assert sorted(order[:size].tolist()) == list(range(size))
    assert order[size:].tolist() == list(range(size, capacity))


@pytest.mark.parametrize("capacity", [101, 128, 1000, 50_000])
def test_the_order_does_not_depend_on_the_capacity(capacity):
    key = jax.random.key(4)
    alone = epoch_order(key, 100, 100)
    np.testing.assert_array_equal(alone, np.asarray(epoch_order(key, 100, capacity))[:100])


def test_orders_of_different_sizes_under_vmap_are_those_of_each_alone():
    keys, sizes = jax.random.split(jax.random.key(1), 4), np.array([3, 50, 99, 100])
    together = np.asarray(fast_jit(jax.vmap(lambda key, size: data.epoch_order(key, size, 100)))(keys, sizes))
    for key, size, order in zip(keys, sizes.tolist(), together, strict=True):
        np.testing.assert_array_equal(order[:size], epoch_order(key, size, size))


def test_each_order_is_as_likely_as_any():
    keys = jax.random.split(jax.random.key(2), 6000)
    orders = fast_jit(jax.vmap(lambda key: data.epoch_order(key, 3, 5)[:3]))(keys)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    assert np.all(abs(counts - 1000) < 5 * np.sqrt(1000 * 5 / 6))


def test_order_and_augmentation_are_the_same_in_double_precision():
    def draws():
        images = np.random.default_rng(0).integers(256, size=(20, 6, 6, 1)).astype(np.uint8)
        key = jax.random.key(3)
        return epoch_order(key, 80, 100), augment(key, images, shift=2, flip=True)

    single = draws()
    with jax.enable_x64(True):
        double = draws()
    for one, other in zip(single, double, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@partial(fast_jit, static_argnames=("shift", "flip"))
def augment_all(key, images, shift, flip):
    """Augments several sets of images by the same key, in one program."""
    return [data.augment(key, x, shift=shift, flip=flip) for x in images]


def positions(batch, height, width):
    """Images whose pixels are 1 + their position, from which `movements` tells how each was moved."""
    return np.tile(np.arange(1, 1 + height * width, dtype=np.int32).reshape(1, height, width, 1), (batch, 1, 1, 1))


def movements(moved):
    """How far each of `positions` was moved down and right, and whether it was mirrored then."""
    moved = np.asarray(moved)  # No zero entered at the centre.
    _, height, width, _ = moved.shape
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
    both = (positions(40, height, width), images)
    moved, result = augment_all(jax.random.key(7), both, shift=shift, flip=flip)
    down, right, mirrored = movements(moved)
    assert abs(down).max() == abs(right).max() == shift
    assert mirrored.any() == flip
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, augment_by_hand(images, down, right, mirrored))


def test_shifts_and_flips_are_independent_and_each_as_likely():
    moved = augment(jax.random.key(0), positions(9000, 8, 8), shift=1, flip=True)
    down, right, mirrored = movements(moved)
    _, counts = np.unique(np.stack([down, right, mirrored]), axis=1, return_counts=True)
    assert len(counts) == 18
    assert np.all(abs(counts - 500) < 5 * np.sqrt(500))


def test_a_flip_is_the_mirror_image_or_nothing():
    images = np.random.default_rng(0).random((50, 4, 5, 3)).astype(np.float32)
    results = np.asarray(augment(jax.random.key(0), images, shift=0, flip=True))
    for image, result in zip(images, results, strict=True):
        assert (result == image).all() or (result == image[:, ::-1]).all()


def test_without_augmentation_nothing_is_computed():
    images = jnp.ones((2, 4, 4, 1))
    assert data.augment(jax.random.key(0), images, shift=0, flip=False) is images


def test_augmentation_of_members_under_vmap_and_map_is_that_of_each_alone():
    images = np.random.default_rng(0).random((3, 10, 8, 8, 1)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 3)
    one = partial(data.augment, shift=2, flip=True)
    alone = np.stack([augment(key, x, shift=2, flip=True) for key, x in zip(keys, images, strict=True)])
    np.testing.assert_array_equal(alone, fast_jit(jax.vmap(one))(keys, images))
    np.testing.assert_array_equal(alone, fast_jit(lambda *args: jax.lax.map(lambda kx: one(*kx), args))(keys, images))
