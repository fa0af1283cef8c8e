"""Width sweeps of deep double descent, and the frequency content of what the networks compute."""

import importlib
from typing import Any

# What users call, and where it is. Found when it is first used: what needs no JAX does not wait for its start.
_HOMES = {
    "CheckpointError": "errors",
    "Config": "config",
    "Dataset": "data",
    "InputError": "errors",
    "evaluate_spectra": "evaluate",
    "load_member": "results",
    "load_results": "results",
    "status": "monitor",
    "sweep": "sweeps",
    "train": "run",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
