"""Where files are, and the only two ways a single file is written: whole or not at all.

Checkpoints and the decoded images of TFDS are directories; `checkpoint.py` and `data/tfds.py` write those.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

from spectral_dd.errors import InputError

# How the name of a file begins that is not written to its end.
TEMPORARY = ".writing."

# Of a sweep's directory, what may be there before the sweep is.
JOBS = "jobs"

# What a file system answers that has no hard links.
_NOT_HERE = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)

# Orbax reads a directory's name as a pattern, and TensorStore takes a backslash for a slash.
_UNREADABLE = "*?[]\\"


def expanded(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path with a home directory in the place of `~`, which a shell leaves as it is in --flag=~/file.

    Raises:
      InputError: there is no such home directory.
    """
    full = os.path.expanduser(os.fspath(path))  # Path.expanduser takes ./~x for ~x.
    if full.startswith("~"):
        raise InputError(f"{full}: '~' stands for no home directory here; write it out, or begin with ./")
    return pathlib.Path(full)


def workdir_path(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """The directory of a sweep as all that reads and writes it understands: absolute, without `~`, `..` and links.

    Raises:
      InputError: its name has a character that would be misread.
    """
    about = f"--workdir={os.fspath(workdir)}"
    if not os.fspath(workdir):
        raise InputError(f"{about}: must name a directory")
    path = expanded(workdir)
    try:
        directory = os.path.realpath(path)
        directory.encode()
    except ValueError:  # a null character, or bytes that are not UTF-8
        raise InputError(f"{about}: must be text in UTF-8") from None
    if misread := [character for character in _UNREADABLE if character in directory]:
        raise InputError(f"{about}: {directory}: must be without {' '.join(misread)}")
    return pathlib.Path(directory)


class Place(NamedTuple):
    """Where the records of a pack are, and what they must say that they belong to."""

    directory: pathlib.Path
    sweep: str  # identity of the sweep, or of evaluated spectra; empty where it has none, as in older formats
    pack: int


def pack_directory(workdir: str | os.PathLike[str], pack: int) -> pathlib.Path:
    return workdir_path(workdir) / "packs" / f"{pack:03d}"


def spectrum_directory(workdir: str | os.PathLike[str], name: str) -> pathlib.Path:
    """Where evaluate_spectrum.py keeps the spectra of a name, laid out like the sweep's own directory."""
    return workdir_path(workdir) / "spectra" / name


def jobs_directory(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Where what belongs to cluster jobs is kept: their logs, and what failed."""
    return workdir_path(workdir) / JOBS


def cache_directory() -> pathlib.Path:
    """The directory for what can be made again and may be deleted at any time. It need not exist.

    It is in $XDG_CACHE_HOME or ~/.cache, and for a user without a home directory among the temporary files.
    """
    try:
        return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "spectral_dd"
    except RuntimeError:  # The user has no entry in passwd, as in many containers.
        return pathlib.Path(tempfile.gettempdir()) / f"spectral_dd-{os.getuid()}"


# Text, bytes, or what writes them to a file that is open.
Content = str | bytes | Callable[[IO[bytes]], None]


def write_whole(path: str | os.PathLike[str], content: Content) -> None:
    """Writes a file, and its directory; a file that is there is replaced in one step.

    Raises:
      OSError: with the name of `path`; nothing has changed.
    """
    path = pathlib.Path(path)
    with _beside(path, content) as temporary:
        os.replace(temporary, path)


def write_once(path: str | os.PathLike[str], content: Content) -> None:
    """Writes a file, and its directory; a file that is there stays as it is. Of several processes, one wins.

    Raises:
      OSError: with the name of `path`; nothing has changed.
    """
    path = pathlib.Path(path)
    with _beside(path, content) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            _rename_once(temporary, path)


@contextlib.contextmanager
def _beside(path: pathlib.Path, content: Content) -> Iterator[str]:
    """Writes `content` to a temporary file in the directory of `path`, which lives as long as the context."""
    name = None
    try:
        with contextlib.suppress(FileExistsError):  # where it is no directory, the next line says so
            path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
        with open(descriptor, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fchmod(descriptor, 0o644)  # mkstemp makes it private, but others read results.
            os.fsync(descriptor)
        yield name
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        if name is not None:
            pathlib.Path(name).unlink(missing_ok=True)


def _rename_once(temporary: str, path: pathlib.Path) -> None:
    """Renames a file unless `path` exists. The lock ends with the process, so a killed one leaves none behind."""
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # A file system may have no locks either.
            fcntl.flock(directory, fcntl.LOCK_EX)
        if not os.path.lexists(path):
            os.replace(temporary, path)
    finally:
        os.close(directory)
