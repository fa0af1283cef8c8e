import collections
import pathlib

import numpy as np
import pytest

import spectral_dd as sdd
from spectral_dd.data import Dataset, labels
from spectral_dd.errors import InputError
from spectral_dd.planning.dry_run import describe
from spectral_dd.planning.prepare import prepare


def test_train_size_0_becomes_all_of_the_data(digits):
    prepared = prepare(sdd.sweep(None, width=[1, 2], train_size=[0, 500]))
    assert [c.train_size for c in prepared.configs] == [1000, 500, 1000, 500]
    assert [len(d.index) for d in prepared.draws] == [1000, 500, 1000, 500]
    with pytest.raises(InputError, match="--train_size=0: means all of the data, which the sweep names already"):
        prepare(sdd.sweep(None, train_size=[0, 1000]))


def test_members_that_draw_the_same_share_it_and_each_draw_is_made_once(monkeypatch):
    """Widths and rates share what a seed draws; a plan draws nothing again."""
    drawn, generator = collections.Counter(), labels.generator

    def count(stream, *seed):
        drawn[stream, seed] += 1
        return generator(stream, *seed)

    monkeypatch.setattr(labels, "generator", count)
    configs = sdd.sweep("digits", width=[2, 4], learning_rate=[1e-3, 1e-2], seed=[5, 6])
    prepared = prepare(configs)
    assert len({id(draws) for draws in prepared.draws}) == 2
    describe("does/not/exist", prepared, 1)
    assert drawn and set(drawn.values()) == {1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "vgg11"}, "--dataset=digits: images are 8x8 with 1 channel; --model=vgg11 needs 32x32 at least"),
        ({"channels": 3}, "--dataset=digits: images are 8x8 with 1 channel; --channels=3: must be 1, or 0 for any"),
        ({"shift": 8}, "--dataset=digits: images are 8x8 with 1 channel; --shift=8: must be below 8"),
        ({"train_size": 1001}, "--train_size=1001: digits has 1000 training examples"),
        ({"batch_size": 1001}, "--batch_size=1001: larger than the training set (1000 examples)"),
    ],
)
def test_members_that_do_not_fit_the_data_are_named(values, message):
    with pytest.raises(InputError) as error:
        prepare(sdd.sweep(None, **values))
    assert str(error.value) == message
    assert not pathlib.Path("does").exists()


def test_ones_own_data_take_the_place_of_what_the_members_name():
    images, classes = np.zeros((150, 5, 4, 2), np.float32), np.arange(150) % 3
    own = Dataset.from_arrays(images, classes, images[:9], classes[:9], name="mine")
    prepared = prepare(sdd.sweep(None, model="mlp"), dataset=own)
    assert prepared.configs[0].dataset == "mine" and prepared.configs[0].train_size == 150
    assert prepared.dataset(0) is own


def test_a_sweep_has_members():
    with pytest.raises(InputError, match="at least one member"):
        prepare([])


def test_a_dry_run_says_packs_size_and_epochs(tmp_path):
    prepared = prepare(sdd.sweep("digits", width=[1, 2], seed=[0, 1], spectrum_budget=0.1))
    text = describe(tmp_path / "run", prepared, 1)
    assert "4 members in 1 pack on 4 devices" in text
    assert "records at epochs 0, 1, 2, 3" in text and "new sweep in" in text
    assert "--spectrum_budget=0.1: spectra at " in text
    (line,) = [line for line in text.splitlines() if line.startswith("   0  ")]
    assert line.split()[:4] == ["0", "4", "1-2", "1,760"]
    assert list(tmp_path.iterdir()) == []


def test_what_is_used_of_a_data_set_is_one_for_all_members():
    with pytest.raises(InputError, match=r"--test_fraction=0.1,0.2: must be one value for all members of a data set"):
        prepare(sdd.sweep(None, dataset="mine.npz", test_fraction=[0.1, 0.2]))
