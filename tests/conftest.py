"""Every test runs on four virtual CPU devices, as a machine with several accelerators would."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_platforms", "cpu")


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def digits():
    from spectral_dd.data import load_dataset

    return load_dataset("digits")
