"""The errors that users see, and words for such lines. Each message is one line; the scripts print it and exit."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The user gave something that cannot work. The message names the flag or file, the value and what is allowed;
    scripts exit with status 2."""

    def __init__(self, message: object) -> None:
        super().__init__(" ".join(str(message).splitlines()))  # A value that is named may have several lines.


class LockedError(RuntimeError):
    """Another process writes there; what it left is done. Scripts exit with status 3."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read. The message names the directory, epoch and array; scripts exit with
    status 1."""


class Interrupted(Exception):
    """A signal asked to stop, and everything is saved; scripts exit with status 128 + its number."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


def reason(error: BaseException) -> str:
    """What code of somebody else raised, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def counted(number: int, noun: str) -> str:
    """Returns '1 pack' or '2 packs'."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ' Did you mean X?' for the known name nearest to `name`, or nothing."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""
