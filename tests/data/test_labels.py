import dataclasses
import itertools
import re
import zlib

import numpy as np
import pytest

from spectral_dd import data
from spectral_dd.config import Config
from spectral_dd.errors import InputError

SYMMETRIC, PERMUTE, UNIFORM = "symmetric", "permute", "uniform"
ARRAYS = ("index", "labels", "true_labels", "test_order")


def draw(dataset, **fields):
    return data.draw(dataset, Config(**{"batch_size": 10, **fields}))


def assert_same(one, other):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def checksum(array):
    return zlib.crc32(array.astype("<i4").tobytes())


@pytest.mark.parametrize(
    ("seed", "size", "share", "kind", "checksums"),
    [
        (0, 600, 0.15, SYMMETRIC, (2100545912, 2532523720, 2405629426, 4146278593)),
        (0, 600, 0.15, UNIFORM, (2100545912, 2069127996, 2405629426, 4146278593)),
        (0, 600, 0.15, PERMUTE, (2100545912, 1607982998, 2405629426, 4146278593)),
        (7, 100, 1, SYMMETRIC, (100963485, 3720491148, 313509505, 3827879597)),
        (2**31 - 1, 0, 0.3, PERMUTE, (2532474186, 2797236905, 2023038587, 3301903212)),
    ],
)
def test_draws_are_those_of_earlier_versions(digits, seed, size, share, kind, checksums):
    """A checkpoint holds no draws: a run that goes on with another version must draw what it drew before."""
    drawn = draw(digits, seed=seed, train_size=size, label_noise=share, noise_kind=kind)
    assert tuple(checksum(getattr(drawn, name)) for name in ARRAYS) == checksums


def test_examples_and_partners_of_an_epoch_are_those_of_earlier_versions(digits):
    assert data.resample(np.arange(10), seed=4, epoch=17).tolist() == [1, 2, 5, 7, 3, 6, 0, 8, 4, 9]
    assert data.resample(np.arange(10), seed=4, epoch=18).tolist() == [2, 1, 8, 0, 3, 6, 7, 9, 4, 5]
    own = draw(digits, train_size=50)
    around = {"own_index": own.index[:4], "classes": own.true_labels[:4], "num": 3, "seed": (0, 5, 1)}
    same = data.partners(own, **around, same=True)
    assert same.tolist() == [[583, 48, 968], [809, 675, 675], [662, 662, 662], [950, 801, 500]]
    other = data.partners(own, **around, same=False)
    assert other.tolist() == [[824, 252, 69], [624, 284, 968], [675, 675, 838], [10, 231, 191]]


def test_partners_are_other_training_examples_of_the_class_or_of_the_others(digits):
    own = draw(digits, train_size=30, label_noise=0.5)
    true_label = dict(zip(own.index, own.true_labels, strict=True))
    classes = np.append(own.true_labels, 10)  # and a class that nobody has
    around = {"own_index": np.append(own.index, -1), "classes": classes, "num": 20, "seed": (1, 2)}
    for same in (True, False):
        drawn = data.partners(own, **around, same=same)
        for place, label, row in zip(around["own_index"], classes, drawn, strict=True):
            fitting = {i for i in own.index if (true_label[i] == label) == same and i != place}
            assert set(row) <= fitting if fitting else (row == -1).all()


def test_members_that_agree_on_a_draw_share_it(digits):
    axes = itertools.product((3, 4), (100, 1000), (0.0, 0.2), (1, 2, 4))
    fields = [{"seed": s, "train_size": n, "label_noise": p, "width": w} for s, n, p, w in axes]
    drawn = data.draw_all([Config(**f, batch_size=10) for f in fields], {"digits": digits})
    assert len({id(d) for d in drawn}) == 2 * 2 * 2
    assert len({id(d.test_order) for d in drawn}) == 2
    assert len({d.index.__array_interface__["data"] for d in drawn}) == 2  # the smaller is a view of the larger
    for one, f in zip(drawn, fields, strict=True):
        assert_same(one, draw(digits, **f))


def test_members_of_two_data_sets_draw_from_their_own(digits):
    few = dataclasses.replace(digits, train_images=digits.train_images[:40], train_labels=digits.train_labels[:40])
    configs = [Config(dataset=name, batch_size=10) for name in ("digits", "few")]
    assert [len(d.index) for d in data.draw_all(configs, {"digits": digits, "few": few})] == [1000, 40]


def test_what_members_share_cannot_be_changed(digits):
    drawn = draw(digits, label_noise=0.2)
    for name in (*ARRAYS, "relabelled"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(drawn, name)[0] = 1


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
    assert {getattr(clean, name).dtype for name in ARRAYS} == {np.dtype(np.int32)}


@pytest.mark.parametrize("kind", [SYMMETRIC, PERMUTE, UNIFORM])
def test_what_the_network_is_does_not_change_the_training_set(digits, kind):
    fields = {"train_size": 600, "label_noise": 0.15, "noise_kind": kind, "seed": 5}
    other = draw(digits, **fields, width=64, model="mlp", learning_rate=0.1, epochs=7, shift=1)
    assert_same(draw(digits, **fields), other)


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


@pytest.mark.parametrize("kind", ["symmetric", "uniform"])
def test_label_noise_is_nested_in_size_and_in_level(digits, kind):
    small, large, more = (
        draw(digits, train_size=n, label_noise=p, noise_kind=kind, seed=4)
        for n, p in ((200, 0.15), (400, 0.15), (200, 0.5))
    )
    both = small.relabelled & large.relabelled[:200]
    assert both.sum() > 0.6 * small.relabelled.sum()
    np.testing.assert_array_equal(small.labels[both], large.labels[:200][both])
    assert (more.relabelled | ~small.relabelled).all()
    np.testing.assert_array_equal(more.labels[small.relabelled], small.labels[small.relabelled])


@pytest.mark.parametrize(
    ("noise_map", "becomes"),
    [
        ("next", [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]),
        ("cifar10", [0, 1, 0, 5, 7, 3, 6, 7, 8, 1]),
        ("0:9/9:0/3:3", [9, 1, 2, 3, 4, 5, 6, 7, 8, 0]),
    ],
)
def test_asymmetric_noise_gives_the_label_of_its_map(digits, noise_map, becomes):
    noise = {"label_noise": 0.4, "noise_kind": "asymmetric", "noise_map": noise_map, "train_size": 500}
    noisy, drawn = draw(digits, **noise), draw(digits, **noise, noisy_split="drawn").noisy
    assert drawn.sum() == 200
    np.testing.assert_array_equal(noisy.labels[drawn], np.array(becomes)[noisy.true_labels[drawn]])
    np.testing.assert_array_equal(noisy.labels[~drawn], noisy.true_labels[~drawn])


@pytest.mark.parametrize("noise_map", ["mnist", "1:10", "1:2,3:4", "-1:2", "1", ""])
def test_a_map_of_labels_that_cannot_be_is_one_line(digits, noise_map):
    message = re.escape(
        f"--noise_map={noise_map}: must be next, cifar10, or FROM:TO/FROM:TO... with classes of digits, 0"
    )
    with pytest.raises(InputError, match=f"^{message}"):
        draw(digits, label_noise=0.1, noise_kind="asymmetric", noise_map=noise_map)


@pytest.mark.parametrize("kind", [PERMUTE, UNIFORM, SYMMETRIC])
def test_the_noisy_split_has_the_wrong_labels_or_all_that_noise_was_applied_to(digits, kind):
    wrong, drawn = (
        draw(digits, label_noise=0.4, noise_kind=kind, noisy_split=split, seed=2) for split in ("wrong", "drawn")
    )
    assert_same(wrong, drawn)
    np.testing.assert_array_equal(wrong.noisy, wrong.relabelled)
    assert drawn.noisy.sum() == 400 and (drawn.noisy | ~drawn.relabelled).all()
    assert (kind == SYMMETRIC) == (drawn.noisy == drawn.relabelled).all()
