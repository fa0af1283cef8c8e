"""What is set up once for a process is seen in processes of its own."""

import os
import pathlib
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import jaxlib
import pytest

from spectral_dd import devices

CORES = len(os.sched_getaffinity(0))


def run(code, **environment):
    """The lines that a process prints and those on its stderr; of JAX's own variables, it has only these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    path = str(pathlib.Path(devices.__file__).parents[1])
    environment = kept | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"} | environment
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines(), process.stderr.splitlines()


SET_UP = """
import jax, jax.numpy as jnp, numpy as np
from spectral_dd import devices
devices.set_up()
print(jax.local_device_count(), jax.config.jax_compilation_cache_dir)
"""

# The first and the last are from reports of the crash.
PRODUCTS = """
devices.set_up()
rng = np.random.default_rng(0)
def check(a, b, axis):
    expected = (a.astype(float) * b).sum(axis)
    np.testing.assert_allclose(jax.jit(lambda a, b: (a * b).sum(axis))(a, b), expected, rtol=1e-4, atol=1e-4)
a, b, c = rng.normal(size=(3, 3, 1, 2, 2, 8, 8, 8)).astype(np.float32)
check(a, b, 3)
check(a, c[:, :, :1], 1)
d = rng.normal(size=(10, 4, 6)).astype(np.float32)
check(d[..., None, None, None, None, None], rng.normal(size=(10, 4, 6, 9, 9, 9, 9, 9)).astype(np.float32), 2)

jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
for _ in range(2):
    with devices.Compilations() as compilations:
        jax.jit(jnp.sin)(a)
        jax.jit(jnp.cos)(a)
    jax.jit(jnp.tan)(a)
    print(compilations)
    jax.clear_caches()
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return cache, *run(SET_UP + PRODUCTS, XDG_CACHE_HOME=str(cache))


def test_there_is_one_device_a_core_and_a_cache_of_the_users(fresh):
    cache, out, _ = fresh
    assert out[0] == f"{CORES} {cache}/spectral_dd/xla"


def test_programs_that_crash_some_versions_are_right_and_only_such_a_version_is_named(fresh):
    *_, err = fresh
    assert len(err) == (jaxlib.__version__ == "0.10.2")


def test_programs_that_are_read_from_the_cache_are_not_counted_as_compiled(fresh):
    _, out, _ = fresh
    assert out[1].startswith("0 of 2 programs from the cache")
    assert out[2].startswith("2 of 2 programs from the cache in ")


def test_devices_and_cache_that_the_user_chose_stay():
    flag = {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    out, _ = run(SET_UP, JAX_COMPILATION_CACHE_DIR="mine", **flag)
    assert out == ["3 mine"]


@pytest.mark.skipif(CORES == 1, reason="one device is as many as there can be")
def test_what_follows_when_jax_is_in_use_already_is_said_in_one_line(tmp_path):
    out, err = run("import jax; jax.devices()" + SET_UP, XDG_CACHE_HOME=str(tmp_path))
    assert out[0].startswith("1 ")
    (line,) = [line for line in err if "jaxlib" not in line]
    assert line.startswith(f"JAX already uses 1 CPU device; training runs on that, up to {CORES} times slower")
    assert line.endswith(f"or set JAX_NUM_CPU_DEVICES={CORES}")


def test_a_platform_that_is_not_here_is_an_input_error():
    code = """
import jax
from spectral_dd import devices, errors
for platform in "rocm", "gpuu":
    jax.config.update("jax_platforms", platform)
    try:
        devices.set_up()
    except errors.InputError as error:
        print(error)
"""
    (known, unknown), _ = run(code)
    assert known.startswith("JAX_PLATFORMS=rocm: ") and len(known) > 30
    assert unknown.startswith("JAX_PLATFORMS=gpuu: ") and "'gpuu' is not in the list of known backends" in unknown


@pytest.mark.parametrize("version", ["0.10.2", "0.11.0"])
def test_a_version_that_crashes_is_named_once_and_made_safe(version, monkeypatch, capsys):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=here")
    devices.check_versions(version)
    devices.check_versions(version)
    err = capsys.readouterr().err
    assert err.startswith(f"jaxlib {version} crashes") and "install jax>=0.11.1" in err and err.count("\n") == 1
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=here --xla_cpu_experimental_ynn_fusion_type=-reduce"


@pytest.mark.parametrize("version", ["0.10.1", "0.11.1", "0.12.0.1", "1.0.0"])
def test_other_versions_are_left_alone(version, monkeypatch, capsys):
    monkeypatch.setenv("XLA_FLAGS", "")
    devices.check_versions(version)
    assert capsys.readouterr().err == "" and os.environ["XLA_FLAGS"] == ""


def test_numerics_hold_in_their_own_thread_and_end():
    a = jnp.ones((2, 2))

    def seen():
        return jnp.arange(2.0).dtype.name, "HIGHEST" in jax.jit(jnp.dot).lower(a, a).as_text()

    results = []
    with devices.numerics(x64=True):
        assert seen() == ("float64", True)
        with devices.numerics(x64=False):
            assert seen() == ("float32", True)
        thread = threading.Thread(target=lambda: results.append(seen()))
        thread.start()
        thread.join()
    assert results == [seen()] == [("float32", False)]
