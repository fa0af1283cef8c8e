"""What a sweep was made by: command line, date, versions, devices and git revision of this process; and how a script is
called where this one was."""

import importlib.metadata
import pathlib
import platform
import shlex
import subprocess
import sys
import time
from typing import Any

PACKAGES = ("spectral_dd", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def provenance() -> dict[str, Any]:
    import jax  # here, because the rest is for those who start without it

    return {
        "command": shlex.join(sys.argv),
        "date": time.strftime("%Y-%m-%d"),
        "git_revision": _revision(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "devices": [d.device_kind for d in jax.local_devices()],
    }


def call(recorded: str, verb: str = "train_sweep") -> list[str]:
    """How a script is called in a shell that stands beside the one of a recorded command line; empty where that was not
    given in a shell, but in a notebook."""
    program = pathlib.Path((_words(recorded) or [""])[0])
    if program.stem == "__main__" and program.parent.name == "spectral_dd":
        return ["python", "-m", "spectral_dd", verb]
    if program.suffix == ".py":
        beside = program.with_name("train_sweep.py")
        return ["python", str(program.with_name(f"{verb}.py"))] if program == beside or beside.exists() else []
    return ["spectral-dd", verb] if program.name == "spectral-dd" else []


def command(verb: str, **values: Any) -> str:
    """The command line of a script, as the one that runs now was called."""
    words = call(shlex.join(sys.argv[:1]), verb) or ["spectral-dd", verb]
    return shell(words, [(name, str(value)) for name, value in values.items()])


def arguments(recorded: str) -> list[tuple[str, str]]:
    """Names and values of the flags of a recorded command line, however they were written: --name=value or --name
    value; a flag without a value has an empty one."""
    found: list[tuple[str, str]] = []
    for word in _words(recorded)[1:]:
        if word.startswith("-"):
            name, _, value = word.lstrip("-").partition("=")
            found.append((name, value))
        elif found and not found[-1][1]:
            found[-1] = found[-1][0], word
    return found


def shell(words: list[str], flags: list[tuple[str, str]]) -> str:
    """The line that calls a script with these flags."""
    return shlex.join([*words, *(f"--{name}={value}" if value else f"--{name}" for name, value in flags)])


def _words(recorded: str) -> list[str]:
    try:
        return shlex.split(recorded)
    except ValueError:  # no command line, but what somebody wrote into an older format
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
