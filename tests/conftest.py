"""Every test runs on four virtual CPU devices, as on a machine with several accelerators, and promotes no ranks."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")


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
def digits():
    from spectral_dd.data import load_dataset

    return load_dataset("digits")


@pytest.fixture(scope="session")
def recorded_pack(tmp_path_factory):
    """The directory of `packs.record_pack`; tests write to copies of it."""
    from packs import record_pack

    return record_pack(tmp_path_factory.mktemp("recorded") / "pack")
