"""What a sweep was made by: command line, date, versions, devices and git revision of this process."""

import importlib.metadata
import pathlib
import platform
import shlex
import subprocess
import sys
import time
from typing import Any

import jax

PACKAGES = ("spectral_dd", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def provenance() -> dict[str, Any]:
    return {
        "command": shlex.join(sys.argv),
        "date": time.strftime("%Y-%m-%d"),
        "git_revision": _revision(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "devices": [d.device_kind for d in jax.local_devices()],
    }


def shell_command(recorded: str) -> list[str]:
    """The words that train a sweep again in a shell; none where it was not trained from one, but in a notebook.

    Args:
      recorded: the command line that its provenance has.
    """
    script, *arguments = shlex.split(recorded) or [""]
    name = pathlib.PurePath(script).name
    if name == "train_sweep.py":
        return ["python", script, *arguments]
    if arguments[:1] == ["train_sweep"]:  # spectral-dd, or python -m spectral_dd
        return [script, *arguments] if name == "spectral-dd" else ["python", "-m", "spectral_dd", *arguments]
    return []


def _revision() -> str | None:
    git = ["git", "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(git, capture_output=True, text=True).stdout.strip() or None
    except OSError:
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a source tree on PYTHONPATH
        return None
