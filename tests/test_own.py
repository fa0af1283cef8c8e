"""A network and data of one's own: through Python and by flags, trained, analysed and read back."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spectral_dd as sdd
from helpers import family_of, initial_variables, members_of
from spectral_dd import cli
from spectral_dd.config import Config
from spectral_dd.data import Dataset
from spectral_dd.errors import InputError
from spectral_dd.sweeps import read_sweep
from test_cli import SCRIPTS, flags_of
from test_family import BATCH, assert_trees_close, train_alone

SOURCE = '''
import flax.linen as nn


class Plain(nn.Module):
    """flax's own layers, a step that is not affine first, and a smooth norm that zero padding would change."""

    width: int
    num_classes: int

    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(self.width, (3, 3))(nn.tanh(2 * images))
        x = nn.relu(nn.LayerNorm(epsilon=1.0)(x))
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))
'''
namespace = {"__name__": __name__}
exec(SOURCE, namespace)
Plain = namespace["Plain"]


@pytest.fixture(scope="module")
def signals():
    """Two classes of noise with different means, 6 x 5 with two channels, floating point."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 2
    images = rng.normal(labels[:, None, None, None], 1, (90, 6, 5, 2)).astype(np.float32)
    return Dataset.from_arrays(images[:60], labels[:60], images[60:], labels[60:], name="signals")


SETTINGS = {
    "width": [2, 3],
    "batch_size": 20,
    "epochs": 2,
    "spectrum_points": 8,
    "spectrum_examples": 4,
    "spectrum_measures": 2,
    "label_noise": 0.2,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, signals):
    workdir = tmp_path_factory.mktemp("own") / "run"
    sdd.train(workdir, sdd.sweep(None, **SETTINGS), dataset=signals, model=Plain)
    return workdir


def test_members_are_trained_in_packs_of_their_own_width_and_read_back(trained, signals):
    sweep = read_sweep(trained)
    assert sorted(pack.members for pack in sweep.packs) == [(0,), (1,)]
    ds = sdd.load_results(trained)
    assert ds.dataset.values[0] == "signals" and ds.train_size.values[0] == 60
    for member in (0, 1):
        model, variables = sdd.load_member(trained, member, model=Plain)
        logits = model.apply(variables, signals.test_images, train=False)
        wrong = np.mean(np.argmax(logits, axis=1) != signals.test_labels)
        np.testing.assert_allclose(wrong, ds.test_error.sel(member=member, epoch=2), atol=1.5 / 30)
        assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == ds.parameters[member]


def test_spectra_are_those_of_the_function_at_every_point(trained, signals):
    """Against NumPy's FFT of the plain network along the recorded directions of the test split, in float32."""
    ds = sdd.load_results(trained).sel(split="test", epoch=2)
    for member in (0, 1):
        model, variables = sdd.load_member(trained, member, model=Plain)
        order = np.random.default_rng(np.random.SeedSequence((3, 0))).permutation(30)[:4]
        x = signals.test_images[order]
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 1), 2)
        v = np.stack([jax.random.normal(jax.random.fold_in(key, i), (x[0].size,)) for i in range(4)])
        v = (v / np.linalg.norm(v, axis=1, keepdims=True)).reshape(x.shape)
        outputs = np.stack(
            [model.apply(variables, x + t * v, train=False) for t in (-0.5 + np.arange(8) / 8).astype(np.float32)]
        )
        expected = np.mean(np.abs(np.fft.rfft(outputs.astype(np.float64), axis=0)) ** 2, axis=2).T
        found = ds.energy.sel(member=member).values
        # Rounding of float32 logits of size 1 is in every bin.
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-9)


def test_other_spectra_and_members_need_the_class_and_the_data_again(trained, signals, monkeypatch):
    sdd.evaluate_spectra(trained, "wide", {"spectrum_half_width": 2.0}, dataset=signals, model=Plain)
    assert sdd.load_results(trained, "wide").energy.notnull().any()
    with pytest.raises(InputError, match="--dataset=signals: "):
        sdd.evaluate_spectra(trained, "again", {}, model=Plain)
    assert not (trained / "spectra" / "again").exists()


def test_by_flags_it_is_the_same_network(tmp_path, signals, trained):
    (tmp_path / "nets.py").write_text(SOURCE)
    arrays = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez(tmp_path / "signals.npz", **{name: getattr(signals, name) for name in arrays})
    where = [f"--workdir={tmp_path}/run", f"--model={tmp_path}/nets.py:Plain", f"--dataset={tmp_path}/signals.npz"]
    # Nothing of the default preset but what the flags say.
    others = {"train_size": 60, "shift": 0, "schedule": "constant", "spectrum_budget": 1}
    assert cli.run_script([str(SCRIPTS / "train_sweep.py"), *where, *flags_of(SETTINGS | others)]) == 0
    ours, theirs = sdd.load_results(tmp_path / "run"), sdd.load_results(trained)
    np.testing.assert_array_equal(ours.test_loss, theirs.test_loss)
    np.testing.assert_array_equal(ours.energy, theirs.energy)
    assert sdd.load_member(tmp_path / "run", 0)[0].width == 2


class Padded(nn.Module):
    """flax's own layers, declared to be exact under zero padding."""

    width: int
    num_classes: int
    exact_padding = True
    affine_first_layer = True

    @nn.compact
    def __call__(self, images, train):
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(self.width, (3, 3))(images)))
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


def test_a_network_that_declares_exact_padding_shares_a_pack_and_equals_itself_alone(digits, x64):
    from spectral_dd import models

    configs = [
        Config.of(model=models.register(Padded), width=w, seed=w, train_size=16, batch_size=BATCH, dtype="float64",
                  learning_rate=1e-2)
        for w in (2, 4)
    ]  # fmt: skip
    family = family_of(configs, digits)
    for config, _, narrow in members_of(family, family.train(family.initial_state(), 0, 3)):
        _, alone = train_alone(config, digits, initial_variables(config, digits), 3 * config.steps_per_epoch)
        assert_trees_close(narrow, alone, 1e-9)
        assert jax.tree.leaves(narrow)[0].dtype == jnp.float64
