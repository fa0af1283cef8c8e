"""Precision, members at once and devices of programs. That they compute the right thing: `test_family.py`."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

import spectral_dd as sdd
from helpers import SHORT_CNN, family_of
from spectral_dd import devices
from spectral_dd.config import Config
from spectral_dd.errors import InputError
from spectral_dd.planning import fit
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.liveness import bytes_of_a_device
from spectral_dd.planning.prepare import prepare
from spectral_dd.programs import lowerings
from spectral_dd.sweeps import Lowering, Pack

SMALL = {"model": "mlp", "train_size": 64, "batch_size": 32, "epochs": 2, "spectrum_examples": 4}


def members(count, **values):
    return [Config.of(width=2 + i, seed=i, **SMALL | values) for i in range(count)]


@pytest.mark.parametrize(
    ("asked", "precision"), [("float32", "HIGHEST"), ("tensorfloat32", "HIGH"), ("bfloat16", "DEFAULT")]
)
def test_products_have_the_precision_that_was_asked_for_and_those_of_spectra_the_highest(digits, asked, precision):
    programs = family_of(members(1, matmul_precision=asked), digits).programs
    products = {name: programs.lower(name, 1).as_text() for name in ("training", "spectra")}
    assert f"precision = [{precision}, {precision}]" in products["training"]
    assert "precision = [HIGHEST, HIGHEST]" in products["spectra"]


@pytest.mark.parametrize("name", ["evaluation", "spectra"])
@pytest.mark.usefixtures("fast_compile")
def test_every_program_computes_fewer_members_at_once_where_memory_is_short(digits, name):
    on, at_once, four = jax.local_devices()[:1], Lowering("im2col", None), members(4, spectrum_measures=0)
    programs = family_of(four, digits, on, lowering=at_once).programs
    roomy = programs[name]
    assert roomy.memory <= bytes_of_a_device(programs.trace(name, 4))
    tight = family_of(four, digits, on, lowering=at_once, memory_limit=roomy.memory - 1).programs[name]
    assert roomy.at_once == 4 and tight.at_once < 4 and tight.memory < roomy.memory


def test_packs_that_differ_in_what_their_members_are_given_share_their_programs(digits):
    """Which is right, because no such value is in the text of a program."""
    noisy = members(2, label_noise=0.5)
    given = {"learning_rate": 0.5, "weight_decay": 0.1, "momentum": 0.2, "label_noise": 0.8, "noise_kind": "permute"}
    one, other, static, narrow = (
        family_of(pack, digits).programs
        for pack in (
            noisy,
            [config.replace(seed=9, init_seed=7, **given) for config in noisy],
            [config.replace(optimizer="sgd") for config in noisy],
            [config.replace(width=2) for config in noisy],
        )
    )
    for name in ("training", "evaluation", "spectra", "logits"):
        assert one.lower(name, 1).as_text() == other.lower(name, 1).as_text()
    assert one["evaluation"] is other["evaluation"] is not static["evaluation"]
    assert len({one, other, static, narrow}) == 3


def test_members_are_dealt_in_groups_of_equal_size(digits):
    programs = family_of(members(5), digits, jax.local_devices()[:1], lowering=Lowering("lax", 4)).programs
    assert programs.dealt == [0, 1, 2, 3, 4, 4]  # two groups of three


@pytest.mark.parametrize(("width", "at_once"), [(4, 16), (16, 4), (64, 1), (200, 1)])
def test_networks_are_packed_until_an_accelerator_is_full(width, at_once):
    assert lowerings("gpu", Config.of(model="cnn5", width=width))[0] == Lowering("packed", at_once)


def test_networks_with_convolutions_are_grouped_on_a_tpu():
    assert lowerings("tpu", Config.of(model="cnn5", width=4))[0] == Lowering("lax", None)


def test_networks_without_convolutions_are_batched():
    assert lowerings("tpu", Config.of(model="mlp", width=64))[0].at_once is None


def test_what_is_too_large_is_said_before_anything_is_written(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "memory", lambda device: 1000)
    workdir = tmp_path / "run"
    with pytest.raises(
        InputError, match=r"--width=2: training of one mlp with --batch_size=32 needs .* GiB of a device"
    ):
        sdd.train(workdir, members(1), dataset=digits)
    assert not workdir.exists()


@pytest.mark.usefixtures("fast_compile")
def test_packs_get_the_lowerings_that_fit(digits):
    # Of an mlp fewer at once take no less; with a large batch training takes more than evaluation.
    large = members(6, spectrum_examples=0, train_size=600, batch_size=600, model=SHORT_CNN)
    prepared = prepare(large, dataset=digits)
    cost, on = Cost(prepared.configs, prepared.datasets), jax.local_devices()[:1]
    lowering = Lowering("im2col", None)
    narrow, wide = Pack((0, 1), lowering, 1.0), Pack((2, 3, 4, 5), lowering, 1.0)

    def fitting(limit):
        with devices.Compilations() as compilations:
            packs = fit.fitting(prepared, [narrow, wide], on, cost, limit)
        return packs, str(compilations)

    programs = family_of([prepared.configs[i] for i in wide.members], digits, on, lowering=lowering).programs
    shown = max(bytes_of_a_device(programs.trace(name, 4)) for name in ("training", "evaluation"))
    packs, compiled = fitting(shown)
    assert packs == [narrow, wide] and " of 0 programs" in compiled
    # One program of the wide pack is in doubt; the narrow one then fits as well.
    packs, compiled = fitting(shown - 1)
    assert packs == [narrow, wide] and " of 1 programs" in compiled
    packs, _ = fitting(programs["training"].memory - 1)
    assert packs[0] == narrow and packs[1].members == wide.members
    assert packs[1].lowering.convolution == "im2col" and packs[1].lowering.at_once in (1, 2)


EIGHT = """
import sys
sys.path.insert(0, {tests!r})
import jax, numpy as np
from helpers import family_of
from test_programs import members
from spectral_dd import devices
from spectral_dd.data import load_dataset
from spectral_dd.planning.hlo import Program
devices.set_up()
here = jax.local_devices()
outcomes = []
for on in here, here[:1]:
    nine = [config.replace(width=2 + config.width % 2) for config in members(9)]
    family = family_of(nine, load_dataset("digits"), on)
    state = family.train(family.initial_state(), 0, 2)
    outcomes.append((family.to_host(state), family.evaluate(state)))
    print(len(on), Program(family.programs["training"].call.as_text()).collectives())
jax.tree.map(np.testing.assert_array_equal, *outcomes)
"""


def test_eight_devices_change_nothing_and_need_no_collective():
    here = pathlib.Path(__file__).parent
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": "8",
        "PYTHONPATH": os.pathsep.join([str(here.parent), *sys.path]),
    }
    process = subprocess.run(
        [sys.executable, "-c", EIGHT.format(tests=str(here))], env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split("\n")[:2] == ["8 0", "1 0"]
