"""Width sweeps of deep double descent, and the frequency content of what the networks compute."""

from spectral_dd.analysis.verdict import verdict
from spectral_dd.config import Config
from spectral_dd.data import Dataset
from spectral_dd.errors import CheckpointError, InputError
from spectral_dd.evaluate import evaluate_spectra
from spectral_dd.results import load_member, load_results
from spectral_dd.run import train
from spectral_dd.sweeps import sweep

__all__ = [
    "CheckpointError",
    "Config",
    "Dataset",
    "InputError",
    "evaluate_spectra",
    "load_member",
    "load_results",
    "sweep",
    "train",
    "verdict",
]
