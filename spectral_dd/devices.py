"""How JAX is set up, once: devices, compilation cache, versions; and what holds for a thread: precision.

What is computed on the devices, and how members are dealt to them, is in `family.py`.
"""

import contextlib
import functools
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import jaxlib

from spectral_dd.errors import InputError, counted
from spectral_dd.files import cache_directory

# These end the process on valid programs, such as a product of arrays of rank 7, summed (jax issues 39257, 40412).
CRASHING = ((0, 10, 2), (0, 11, 0))
FUSIONS = "--xla_cpu_experimental_ynn_fusion_type"

# Type checkers know the attributes in new versions only.
SETTINGS: Any = jax.config


@functools.cache
def set_up() -> None:
    """One virtual CPU device a core, and a compilation cache that outlives the process; only the first call counts.

    What the user has chosen stays: a number of devices ($JAX_NUM_CPU_DEVICES, $XLA_FLAGS) and a directory for the cache
    ($JAX_COMPILATION_CACHE_DIR, or in `jax.config`).

    Raises:
      InputError: JAX has no such platform as $JAX_PLATFORMS here.
    """
    check_versions()
    if SETTINGS.jax_compilation_cache_dir is None:
        _keep_compiled(cache_directory() / "xla")
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    in_time, platforms = _ask_for_cpu_devices(cores()), SETTINGS.jax_platforms
    if platforms and "cpu" not in platforms.split(","):
        jax.config.update("jax_platforms", f"{platforms},cpu")  # where planning counts FLOPs
    count = _count_devices(platforms)
    if not in_time and jax.default_backend() == "cpu" and count < cores():
        print(
            f"JAX already uses {counted(count, 'CPU device')}; training runs on that, up to {cores() / count:.0f} "
            "times slower than with one device a core: call spectral_dd before other JAX code, or set "
            f"JAX_NUM_CPU_DEVICES={cores()}",
            file=sys.stderr,
        )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _keep_compiled(directory: pathlib.Path) -> None:
    """Makes a directory the compilation cache if it can be one."""
    if directory.parent.parent == pathlib.Path(tempfile.gettempdir()):
        print(f"there is no home directory: compiled programs are kept in {directory}", file=sys.stderr)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            jax.config.update("jax_compilation_cache_dir", str(directory))
    except OSError as error:
        reason = f"{directory}: {error.strerror}"
        print(f"compiled programs cannot be kept ({reason}); $XDG_CACHE_HOME names another place", file=sys.stderr)


def plan_only() -> None:
    """For a process that plans for hardware that is not here: JAX looks for none. Comes before `set_up`."""
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    jax.config.update("jax_platforms", "cpu")


def _ask_for_cpu_devices(count: int) -> bool:
    """Sets the number of devices, if the user has not. Returns False if JAX uses devices already."""
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not chosen and SETTINGS.jax_num_cpu_devices < 0:
        try:
            jax.config.update("jax_num_cpu_devices", count)
        except RuntimeError:
            return False
    return True


def _count_devices(platforms: str | None) -> int:
    try:
        return jax.local_device_count()
    except (RuntimeError, AssertionError) as error:  # The second, without a message, if a plugin is not installed.
        reason = str(error).partition("\n")[0] or "JAX finds no such device"
        raise InputError(f"JAX_PLATFORMS={platforms or ''}: {reason}") from None


def has_bfloat16_units() -> bool:
    """Whether the devices multiply in bfloat16; a CPU that does not emulates it, which takes longer than float32."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return jax.default_backend() != "cpu" or not flags.isdisjoint({"avx512_bf16", "amx_bf16"})


def check_versions(jaxlib_version: str = jaxlib.__version__) -> None:
    """Names a jaxlib that crashes, in one line on stderr, and switches off what crashes: fused sums.

    It has no effect once JAX runs. Training takes 15 % longer so (cnn5 of width 8 at 8x8, two cores).
    """
    version = tuple(int(part) for part in jaxlib_version.split(".")[:3])
    flags = os.environ.get("XLA_FLAGS", "")
    if CRASHING[0] <= version <= CRASHING[1] and FUSIONS not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FUSIONS}=-reduce".strip()
        print(
            f"jaxlib {jaxlib_version} crashes on some valid programs: what crashes is switched off, training is "
            "about 15 % slower; install jax>=0.11.1, with Python 3.12 or newer",
            file=sys.stderr,
        )


@contextlib.contextmanager
def numerics(x64: bool) -> Iterator[None]:
    """Float32 products in float32, and float64 or not, in this thread; others must enter it themselves.

    A GPU's own choice for float32 products may be TF32, with 10 bits of mantissa.
    """
    with jax.default_matmul_precision("float32"), jax.enable_x64(x64):
        yield


class Compilations:
    """Counts the programs that are compiled, or read from the persistent cache, within it."""

    _COMPILED = "/jax/core/compile/backend_compile_duration"  # of each program, one that is read as well
    _READ = "/jax/compilation_cache/cache_retrieval_time_sec"

    def __enter__(self) -> "Compilations":
        self._seconds: dict[str, list[float]] = {self._COMPILED: [], self._READ: []}
        jax.monitoring.register_event_duration_secs_listener(self._add)
        return self

    def __exit__(self, *exception: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._add)

    def _add(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event in self._seconds:
            self._seconds[event].append(duration_secs)

    def say(self) -> None:
        """Prints it, if there were any."""
        if self._seconds[self._COMPILED]:
            print(self, file=sys.stderr)

    def __str__(self) -> str:
        all_programs, read = self._seconds[self._COMPILED], self._seconds[self._READ]
        compiling = max(0.0, sum(all_programs) - sum(read))
        return (
            f"{len(read)} of {len(all_programs)} programs from the cache in {sum(read):.1f} s, the others compiled in "
            f"{compiling:.1f} s"
        )
