"""Width sweeps of deep double descent, and the frequency content of what the networks compute."""

from spectral_dd.results import load_member, load_results

__all__ = ["load_member", "load_results"]
