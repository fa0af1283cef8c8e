"""--dtype=auto: the type that a sweep was begun in, or the one whose steps are faster here, which is measured."""

import os
import sys
from collections.abc import Sequence

import jax

from spectral_dd import devices, files, models
from spectral_dd.config import AUTO, Config
from spectral_dd.errors import InputError
from spectral_dd.planning import packing, tune
from spectral_dd.planning.prepare import Prepared
from spectral_dd.programs import lowerings
from spectral_dd.sweeps import read_sweep


def decided(workdir: str | os.PathLike, prepared: Prepared) -> Prepared:
    """Members that all have a type. Those that leave it open get one, that of a step of the widest of them.

    What was chosen, and why, is said in a line on stderr.

    Raises:
      InputError: the sweep in DIR cannot be read, or the type is one that the sweep names beside it.
    """
    undecided = [c for c in prepared.configs if c.dtype == AUTO]
    if not undecided:
        return prepared
    dtype = begun_in(workdir)
    reason = f"as the sweep in {workdir}"
    if dtype is None:
        dtype, reason = _faster(packing.widest(undecided), len(undecided), prepared)
    print(f"--dtype=auto: {dtype}, {reason}", file=sys.stderr)
    configs = [c.replace(dtype=dtype) if c.dtype == AUTO else c for c in prepared.configs]
    if len(set(configs)) < len(configs):
        raise InputError(f"--dtype=auto: is {dtype} here, which the sweep names already")
    return prepared._replace(configs=configs)


def begun_in(workdir: str | os.PathLike) -> str | None:
    """The type of the sweep in DIR, if there is one. Raises `InputError` if it cannot be read."""
    if not (files.workdir_path(workdir) / "sweep.json").exists():
        return None
    return read_sweep(workdir).configs[0].dtype


def _faster(config: Config, members: int, prepared: Prepared) -> tuple[str, str]:
    """The type, and why."""
    dataset = prepared.datasets[config.dataset]
    try:
        models.build_model(config.replace(dtype="bfloat16"), dataset.num_classes)
    except InputError:
        return "float32", f"{config.model} has no field dtype"
    if not devices.has_bfloat16_units():
        return "float32", "the processor has no units for bfloat16"
    timings, seconds = tune.Timings.kept(), {}
    with devices.numerics(False):
        for dtype in ("float32", "bfloat16"):
            typed = config.replace(dtype=dtype)
            lowering = lowerings(jax.local_devices()[0].platform, typed)[0]
            at_once = min(lowering.at_once or members, -(-members // jax.local_device_count()))
            seconds[dtype] = tune.step_seconds(typed, dataset, lowering, at_once, timings)
    words = ", ".join(f"{1000 * value:.3g} ms in {dtype}" for dtype, value in seconds.items())
    return min(seconds, key=lambda dtype: seconds[dtype]), f"a step of width {config.width} takes {words}"


def advice(configs: Sequence[Config]) -> str:
    """What to say of types that the devices here compute slowly, or nothing."""
    if any(c.dtype == "bfloat16" for c in configs) and not devices.has_bfloat16_units():
        return "--dtype=bfloat16: the processor has no units for it (avx512_bf16, amx_bf16); --dtype=float32 is faster"
    return ""
