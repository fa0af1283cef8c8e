"""Every test runs on four virtual CPU devices, as a machine with several accelerators would."""

import functools

import jax
import numpy as np
import pytest

# Shapes that broadcast by accident are errors here.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_platforms", "cpu")


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Tests train the same small packs again and again; each is compiled once."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def fast_jit():
    """`jax.jit` that compiles in half the time, for programs that run once.

    Not where last bits matter: the largest of some entries, computed twice, may differ from itself.
    """
    return functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


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
    from spectral_dd.data import load_dataset

    return load_dataset("digits")
