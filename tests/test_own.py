"""A network and data of one's own: through Python and by flags, trained, analysed and read back."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spectral_dd as sdd
from helpers import family_of, fast_programs, initial_variables, logits_of, members_of
from spectral_dd import cli, models, own
from spectral_dd.config import Config
from spectral_dd.data import Dataset
from spectral_dd.errors import InputError
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.exactness import exact_models, what_breaks
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


@pytest.fixture(scope="module", autouse=True)
def fast():
    with fast_programs():
        yield


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
        logits = logits_of(model, variables, signals.test_images)
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
            [logits_of(model, variables, x + t * v) for t in (-0.5 + np.arange(8) / 8).astype(np.float32)]
        )
        expected = np.mean(np.abs(np.fft.rfft(outputs.astype(np.float64), axis=0)) ** 2, axis=2).T
        found = ds.energy.sel(member=member).values
        # Rounding of float32 logits of size 1 is in every bin.
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-9)


def test_other_spectra_and_members_need_the_class_and_the_data_again(trained, signals, monkeypatch):
    wide = {"spectrum_half_width": 2.0, "spectrum_measures": 0}
    sdd.evaluate_spectra(trained, "wide", wide, dataset=signals, model=Plain)
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
    """flax's own layers, for which zero padding is exact."""

    width: int
    num_classes: int
    affine_first_layer = True

    @nn.compact
    def __call__(self, images, train):
        # Without a bias, whose gradient before BatchNorm is 0: Adam would make steps of its rounding.
        x = nn.Conv(self.width, (3, 3), use_bias=False)(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


def test_a_network_for_which_padding_is_exact_shares_a_pack_and_equals_itself_alone(digits, x64):
    name = models.register(Padded)
    configs = [
        Config.of(model=name, width=w, seed=w, train_size=16, batch_size=BATCH, dtype="float64", learning_rate=1e-2)
        for w in (2, 4)
    ]
    assert exact_models(configs, {"digits": digits}) == {name}
    family = family_of(configs, digits)
    for config, _, narrow in members_of(family, family.train(family.initial_state(), 0, 3)):
        _, alone = train_alone(config, digits, initial_variables(config, digits), 3 * config.steps_per_epoch)
        assert_trees_close(narrow, alone, 1e-9)
        assert jax.tree.leaves(narrow)[0].dtype == jnp.float64


class Mean(nn.Module):
    """The mean of each example over its own channels is subtracted: depends on how many channels there are."""

    @nn.compact
    def __call__(self, x):
        return x - x.mean(axis=-1, keepdims=True)


def between(hidden):
    """Two dense layers with `hidden(x, train)` between them."""

    def layers(self, x, train):
        x = hidden(nn.Dense(self.width, name="first")(x), train)
        return nn.Dense(self.num_classes, name="out")(x)

    return layers


# What is in a network, and what is said of it.
BREAKING = {
    "": between(lambda x, train: nn.gelu(x)),
    "params/out/kernel: its gradient is not 0 where it is padded": between(lambda x, train: nn.sigmoid(x)),
    "params/out/kernel: the output of its layer differs": between(lambda x, train: nn.softmax(x)),
    "mean: the output of its layer differs": between(lambda x, train: Mean(name="mean")(x)),
    "params/Dense_0/kernel is not the corner of a wider one": lambda self, x, train: nn.Dense(self.num_classes)(
        nn.Dense(20 - self.width, name="odd")(x)
    ),
}


@pytest.mark.parametrize("message", BREAKING)
def test_what_zero_padding_changes_in_a_network_is_named(digits, message):
    class Own(nn.Module):
        width: int
        num_classes: int

        @nn.compact
        def __call__(self, images, train):
            return BREAKING[message](self, images.reshape(len(images), -1), train)

    config = Config.of(model=models.register(Own), width=2, train_size=128)
    assert what_breaks(config, 5, digits) == message


def test_networks_of_ones_own_that_are_not_exact_are_said_to_be_trained_apart(signals, capsys):
    configs = [Config.of(model=models.register(Plain), dataset="signals", width=w, train_size=128) for w in (2, 3)]
    cost = Cost(configs, {"signals": signals})
    assert [cost.exact, cost.exact] == [set(), set()]  # a sweep is planned more than once
    (line,) = capsys.readouterr().err.splitlines()
    assert "zero padding changes it, params/LayerNorm_0/scale: the output of its layer differs: packs of" in line


def test_the_file_of_a_network_is_found_again_unchanged_or_what_is_missing_is_said(tmp_path, signals, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nets, run = tmp_path / "nets.py", tmp_path / "run"
    nets.write_text(SOURCE)
    configs = sdd.sweep(None, **SETTINGS | {"width": 2, "epochs": 1, "spectrum_examples": 0}, model="nets.py:Plain")
    sdd.train(run, configs, dataset=signals)
    assert read_sweep(run).provenance["code"]["nets.py:Plain"]["file"] == str(nets)

    def load(source="nets.py"):
        models._registered.clear()  # as in another process
        own._import_file.cache_clear()
        return sdd.load_member(run, 0)

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load()[0].width == 2
    nets.write_text(SOURCE + "# changed\n")
    with pytest.raises(InputError, match=r"nets.py has changed since the sweep was begun \(SHA-256 \w{8} then, \w{8} "):
        load()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"nets\.py has changed since the sweep was begun"):
        sdd.train(run, configs, dataset=signals)
    nets.rename(run / "nets.py")
    with pytest.raises(
        InputError, match=r"there is no file nets\.py nor .*, where the sweep had it; pass the class as"
    ):
        load()
    monkeypatch.chdir(run)
    with pytest.raises(InputError, match=r"nets\.py is inside of .*, from where no code is loaded; pass the class as"):
        load()
    assert sdd.load_member(run, 0, model=Plain)[0].width == 2
    with pytest.raises(InputError, match=r"--model=__main__:Net: has no class Net; .*; pass the class as model="):
        models.recall(["__main__:Net"], {}, run)


def test_a_file_that_was_edited_is_imported_again(tmp_path):
    """As a notebook needs, which lives longer than a version of the file."""
    path = tmp_path / "nets.py"
    widths = []
    for end in ("", "\nPlain.smallest_image = 9\n"):
        path.write_text(SOURCE + end)
        widths.append(models.declared(models.find(f"{path}:Plain"), "smallest_image"))
        assert models.find(f"{path}:Plain") is models.find(f"{path}:Plain")
    assert widths == [1, 9]
