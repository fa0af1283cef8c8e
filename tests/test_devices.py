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
    """What a new process prints, and what it says on stderr; of the environment, JAX's own variables are only these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    path = str(pathlib.Path(devices.__file__).parents[1])
    environment = kept | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"} | environment
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout, process.stderr


SET_UP = """
import jax, jax.numpy as jnp, numpy as np
from spectral_dd import devices
devices.set_up()
print(jax.local_device_count(), jax.config.jax_compilation_cache_dir)
"""

PRODUCTS = """
rng = np.random.default_rng(0)
def check(a, b, axis):
    expected = (a.astype(float) * b).sum(axis)
    np.testing.assert_allclose(jax.jit(lambda a, b: (a * b).sum(axis))(a, b), expected, rtol=1e-4, atol=1e-4)
a, b = rng.normal(size=(2, 3, 1, 2, 2, 8, 8, 8)).astype(np.float32)
check(a, b, 3)
check(a[:, 0, 0, :, 0, :, :][..., None, None], rng.normal(size=(3, 2, 8, 8, 3, 3)).astype(np.float32), 1)
c = rng.normal(size=(10, 4, 6)).astype(np.float32)
check(c[..., None, None, None, None, None], rng.normal(size=(10, 4, 6, 9, 9, 9, 9, 9)).astype(np.float32), 2)
"""


def test_there_is_one_device_a_core_and_programs_that_crash_some_versions_are_right(tmp_path):
    out, err = run(SET_UP + PRODUCTS + "devices.set_up()", XDG_CACHE_HOME=str(tmp_path))
    assert out == f"{CORES} {tmp_path}/spectral_dd/xla\n"
    assert err.count("\n") == (jaxlib.__version__ == "0.10.2")


@pytest.mark.parametrize("variable", ["JAX_NUM_CPU_DEVICES=3", "XLA_FLAGS=--xla_force_host_platform_device_count=3"])
def test_devices_and_cache_that_the_user_chose_stay(variable):
    name, _, value = variable.partition("=")
    out, _ = run(SET_UP, **{name: value, "JAX_COMPILATION_CACHE_DIR": "mine"})
    assert out == "3 mine\n"


@pytest.mark.skipif(CORES == 1, reason="one device is as many as there can be")
def test_what_follows_when_jax_is_in_use_already_is_said_in_one_line(tmp_path):
    out, err = run("import jax; jax.devices()" + SET_UP, XDG_CACHE_HOME=str(tmp_path))
    assert out.startswith("1 ")
    (line,) = [line for line in err.splitlines() if "jaxlib" not in line]
    assert line.startswith(f"JAX already uses 1 CPU device; training runs on that, up to {CORES} times slower")
    assert line.endswith(f"or set JAX_NUM_CPU_DEVICES={CORES}")


@pytest.mark.parametrize("platform", ["rocm", "gpuu"])
def test_a_platform_that_is_not_here_is_an_input_error(platform):
    code = "from spectral_dd import devices, errors\ntry: devices.set_up()\nexcept errors.InputError as e: print(e)"
    out, _ = run(code, JAX_PLATFORMS=platform)
    assert out.startswith(f"JAX_PLATFORMS={platform}: ") and out.count("\n") == 1 and len(out) > 30


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
        return jnp.float64(1).dtype.name, "HIGHEST" in jax.jit(jnp.dot).lower(a, a).as_text()

    def in_thread(results):
        results.append(seen())

    results = []
    with devices.numerics(x64=True):
        assert seen() == ("float64", True)
        with devices.numerics(x64=False):
            assert seen() == ("float32", True)
        thread = threading.Thread(target=in_thread, args=(results,))
        thread.start()
        thread.join()
    assert results == [seen()] == [("float32", False)]


def test_programs_that_are_read_from_the_cache_are_not_counted_as_compiled(tmp_path):
    code = """
import jax, jax.numpy as jnp
from spectral_dd import devices
x = jnp.ones(3)
with devices.Compilations() as compilations:
    jax.jit(jnp.sin)(x)
    jax.jit(jnp.cos)(x)
jax.jit(jnp.tan)(x)
print(compilations)
"""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    assert run(code, **cache)[0].startswith("2 programs compiled in 0.")
    second = run(code, **cache)[0]
    assert second.startswith("0 programs compiled in 0.0 s, 2 read from the cache in ")
