"""Every test runs on four virtual CPU devices, as a machine with several accelerators would."""

import functools

import jax
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
def digits():
    from spectral_dd.data import load_dataset

    return load_dataset("digits")
