"""Width sweeps of deep double descent, and the frequency content of what the networks compute."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectral_dd.analysis.verdict import verdict
    from spectral_dd.config import Config
    from spectral_dd.data import Dataset, load_dataset
    from spectral_dd.errors import CheckpointError, InputError, LockedError
    from spectral_dd.evaluate import evaluate_spectra
    from spectral_dd.members import sweep
    from spectral_dd.monitor import status
    from spectral_dd.own_measures import measure
    from spectral_dd.results import load_member, load_results
    from spectral_dd.run import train

__all__ = [
    "CheckpointError",
    "Config",
    "Dataset",
    "InputError",
    "LockedError",
    "evaluate_spectra",
    "load_dataset",
    "load_member",
    "load_results",
    "measure",
    "status",
    "sweep",
    "train",
    "verdict",
]

# Where each is. They are imported when they are first used: JAX and Orbax take seconds, and a script should answer
# --help, a wrong flag and Ctrl-C before.
_ROOMS = {
    "CheckpointError": "errors",
    "Config": "config",
    "Dataset": "data",
    "InputError": "errors",
    "LockedError": "errors",
    "evaluate_spectra": "evaluate",
    "load_dataset": "data",
    "load_member": "results",
    "load_results": "results",
    "status": "monitor",
    "measure": "own_measures",
    "sweep": "members",
    "train": "run",
    "verdict": "analysis.verdict",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'spectral_dd' has no attribute {name!r}")
    return getattr(importlib.import_module(f"spectral_dd.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
