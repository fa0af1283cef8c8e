"""Every test runs on four virtual CPU devices, as a machine with several accelerators would."""

import os
import tempfile

# Processes that a test starts have them too.
os.environ |= {"JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}

import jax
import pytest

import spectral_dd as sdd
from spectral_dd.data import load_dataset
from spectral_dd.sweeps import expand

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="session")
def axes():
    """Four small networks with convolutions, all measures, a few records."""
    return {
        "width": [2, 4],
        "seed": [0, 1],
        "train_size": 96,
        "batch_size": 32,
        "epochs": 12,
        "label_noise": 0.2,
        "shift": 1,
        "records_per_decade": 3,
        "spectrum_examples": 5,
        "spectrum_points": 8,
        "spectrum_measures": 5,
    }


@pytest.fixture(scope="session")
def small_axes(axes):
    """The same with a network that compiles fast."""
    return axes | {"model": "mlp", "spectrum_measures": 0, "spectrum_budget": 1}


@pytest.fixture(scope="session")
def finished(tmp_path_factory, axes):
    workdir = tmp_path_factory.mktemp("sweep") / "run"
    sdd.train(workdir, expand(axes))
    return workdir


@pytest.fixture(scope="session")
def small(tmp_path_factory, small_axes):
    workdir = tmp_path_factory.mktemp("sweep") / "run"
    sdd.train(workdir, expand(small_axes))
    return workdir
