"""Hardware that a sweep can be planned for, by name. Knows no JAX."""

import importlib.util
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from spectral_dd.config import Config
from spectral_dd.errors import InputError, nearest

GIB = 2**30
# JAX takes so much of a GPU's memory by default.
GPU_SHARE = 0.75


class Chip(NamedTuple):
    """A device by its data sheet: dense FLOP/s of products by the type of their inputs, bytes a second, bytes, cycles a
    second."""

    bfloat16: float
    tensorfloat32: float
    float32: float
    bandwidth: float
    memory: float
    clock: float
    gpu: Mapping[str, Any] = {}  # what XLA asks about a GPU, beside what all of them share

    def flops(self, config: Config) -> float:
        """FLOP/s of the products of a config's layers."""
        if config.dtype == "bfloat16":
            return self.bfloat16
        precision = config.matmul_precision if config.dtype == "float32" else "float32"
        # The fastest precision of a GPU for float32 is TF32.
        return self.tensorfloat32 if precision == "bfloat16" and self.gpu else getattr(self, precision)


def _tpu(bfloat16: float, bandwidth: float, memory: float, clock: float) -> Chip:
    # Three or six products of bfloat16 make one of higher precision.
    return Chip(bfloat16, bfloat16 / 3, bfloat16 / 6, bandwidth, memory, clock)


def _gpu(name: str, capability: str, cores: int, shared: int, cache: int) -> dict[str, Any]:
    return dict(name=name, capability=capability, cores=cores, shared=shared, cache=cache)


# NVIDIA's data sheets of the SXM modules; Google's of its TPUs.
CHIPS = {
    "a100": Chip(
        312e12, 156e12, 19.5e12, 2.039e12, 85.2e9, 1.41e9, _gpu("A100-SXM4-80GB", "8.0", 108, 167936, 41943040)
    ),
    "h100": Chip(989e12, 495e12, 67e12, 3.352e12, 84.9e9, 1.98e9, _gpu("H100 80GB HBM3", "9.0", 132, 233472, 52428800)),
    "h200": Chip(989e12, 495e12, 67e12, 4.8e12, 150.7e9, 1.98e9, _gpu("H200", "9.0", 132, 233472, 62914560)),
    "b200": Chip(2250e12, 1125e12, 75e12, 8e12, 191.5e9, 1.965e9, _gpu("B200", "10.0", 148, 233472, 132644864)),
    "v4": _tpu(275e12, 1.228e12, 32 * GIB, 1.05e9),
    "v5e": _tpu(197e12, 0.819e12, 16 * GIB, 1.5e9),
    "v5p": _tpu(459e12, 2.765e12, 95 * GIB, 1.75e9),
    "v6e": _tpu(918e12, 1.64e12, 32 * GIB, 1.75e9),
}


class Target(NamedTuple):
    name: str  # as the user wrote it
    chip: Chip
    num_devices: int

    @property
    def platform(self) -> str:
        return "gpu" if self.chip.gpu else "tpu"

    @property
    def memory(self) -> int:
        """Bytes of a device that a program may use."""
        return int(self.chip.memory * (GPU_SHARE if self.chip.gpu else 1))


def parse_target(name: str) -> Target:
    """The hardware of a name: h100, or h100:8 for several; v5e:2x2, as XLA names slices of TPUs.

    Raises:
      InputError: there is no such hardware, or its compiler is not installed.
    """
    kind, _, shape = name.partition(":")
    if kind not in CHIPS:
        raise InputError(f"--target={name}: must be one of {', '.join(CHIPS)}.{nearest(kind, CHIPS)}")
    chip = CHIPS[kind]
    if chip.gpu:
        if shape and not (shape.isdecimal() and int(shape)):
            raise InputError(f"--target={name}: must be {kind}, or {kind}:8 for eight of them")
        number, package, extra = int(shape or 1), "jax_plugins.xla_cuda13", "cuda"
    else:
        sizes = shape.split("x")
        if not all(size.isdecimal() and int(size) for size in sizes):
            example = "2x2" if kind in ("v5e", "v6e") else "2x2x1"
            raise InputError(f"--target={name}: must name a slice, such as {kind}:{example}")
        number, package, extra = math.prod(map(int, sizes)), "libtpu", "tpu"
    if not _is_installed(package):
        raise InputError(f'--target={name}: its compiler is not installed: pip install --editable ".[{extra}]"')
    return Target(name, chip, number)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False
