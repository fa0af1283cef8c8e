"""Every test runs on four virtual CPU devices, as a machine with several accelerators would."""

import fcntl
import os
import shutil

from spectral_dd.files import cache_directory

# Processes that a test starts have them too. One compilation cache serves all workers, and the next run.
os.environ |= {
    "JAX_NUM_CPU_DEVICES": "4",
    "JAX_PLATFORMS": "cpu",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_directory() / "xla"))

import jax
import numpy as np
import pytest

import spectral_dd as sdd
from helpers import SHORT_CNN, fast_programs
from packs import record_pack
from spectral_dd.data import load_dataset
from spectral_dd.members import expand

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """Jobs mostly wait for Slurm: they come first, so that other tests run beside them."""
    items.sort(key=lambda item: item.path.name != "test_slurm.py")


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def fast_compile():
    """For tests of what programs compute, to a tolerance."""
    with fast_programs():
        yield


@pytest.fixture(scope="session")
def random_variables():
    """`variables(model, images)`: normal draws, without a program, so that no scale or bias of BatchNorm is trivial."""

    def draw(model, images):
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)

        def leaf(path, shape):
            fan_in = np.prod(shape.shape[:-1]) if path[-1].key == "kernel" else 4
            values = rng.standard_normal(shape.shape) / np.sqrt(fan_in)
            return np.abs(values) + 0.5 if path[-1].key == "var" else values

        return jax.tree.map_with_path(leaf, shapes)

    return draw


@pytest.fixture(scope="session")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="session")
def recorded_pack(tmp_path_factory):
    """The directory of `packs.record_pack`, which tests only read."""
    return record_pack(tmp_path_factory.mktemp("recorded") / "pack")


@pytest.fixture
def pack(recorded_pack, tmp_path):
    """A copy of it, with epochs 0, 1 and 3 recorded, and 5 rolling."""
    return shutil.copytree(recorded_pack, tmp_path / "pack")


@pytest.fixture(scope="session")
def coarse():
    """Figures of few pixels: what they show does not depend on it."""
    from spectral_dd.report.axes import STYLE  # here, because it imports Matplotlib

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STYLE, "savefig.dpi", 40)
        yield


@pytest.fixture(scope="session")
def axes():
    """Four small networks with convolutions, all measures, a few records."""
    return {
        "model": SHORT_CNN,
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
def trained_once(tmp_path_factory):
    """`trained_once(name, axes)`: a copy of a sweep that one of pytest's workers trains."""
    here = tmp_path_factory.getbasetemp()
    common = here.parent if "PYTEST_XDIST_WORKER" in os.environ else here

    def copy(name, axes):
        there = common / name
        with open(common / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not there.exists():
                sdd.train(there.with_name(f"{name}.part"), expand(axes))
                there.with_name(f"{name}.part").rename(there)
        return shutil.copytree(there, tmp_path_factory.mktemp("sweep") / "run")

    return copy


@pytest.fixture(scope="session")
def finished(trained_once, axes):
    with fast_programs():
        return trained_once("finished", axes)


@pytest.fixture(scope="session")
def small(trained_once, small_axes):
    return trained_once("small", small_axes)
