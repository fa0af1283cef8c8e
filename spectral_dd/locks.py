"""One writer at a time: locks on files, which end with the process that holds them."""

import contextlib
import errno
import fcntl
import os
import pathlib
import socket
import sys
import time
from typing import IO

from spectral_dd.errors import LockedError

# File systems of several hosts, and the mount options with which their locks hold on one host only.
_LOCAL_LOCKS = {"nfs": ("nolock", "local_lock=all", "local_lock=flock"), "lustre": ("localflock", "noflock")}
_WITHOUT_LOCKS = ("fuse.sshfs", "9p", "afs", "fuse.s3fs", "fuse.gcsfuse")
_NOT_SUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def lock(path: pathlib.Path) -> IO[str]:
    """Locks a file until what is returned is closed; it names the holder.

    Raises:
      LockedError: another process holds it.
      OSError: with the name of `path`.
    """
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (closing it releases the lock)
    try:
        _flock(file)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise LockedError(f"{path.parent}: in use by {holder}") from None
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            file.close()
            raise OSError(error.errno, error.strerror, str(path)) from error
        print(f"{path}: its file system has no locks; start at most one process for a directory", file=sys.stderr)
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    return file


def _flock(file: IO[str]) -> None:
    for _ in range(5):  # `is_locked` may hold it for a moment.
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.02)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(path: pathlib.Path) -> bool:
    """Whether a process holds a lock; writes nothing."""
    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # nobody has written there
        pass
    return False


def warning(directory: pathlib.Path, mounts: str = "/proc/self/mountinfo") -> str:
    """What to say of a directory whose file system's locks do not hold across hosts; empty if they do."""
    try:
        lines = pathlib.Path(mounts).read_text().splitlines()
    except OSError:  # no Linux
        return ""
    kind, options = _mounted_at(directory.absolute(), lines)
    local = next((option for option in _LOCAL_LOCKS.get(kind.rstrip("4"), ()) if option in options), None)
    if local is None and kind not in _WITHOUT_LOCKS:
        return ""
    return (
        f"{directory}: on {kind}{f' with {local}' if local else ''}, locks do not hold across hosts: start no two "
        "processes with the same --task_index on different hosts"
    )


def _mounted_at(directory: pathlib.Path, lines: list[str]) -> tuple[str, set[str]]:
    """Kind and options of the file system that a directory is on, from the lines of mountinfo (see proc(5))."""
    found: tuple[int, str, set[str]] = (-1, "", set())
    for line in lines:
        own, _, of_file_system = line.partition(" - ")
        point = pathlib.Path(own.split()[4].replace("\\040", " "))
        if directory.is_relative_to(point) and len(point.parts) >= found[0]:
            kind, _, options = of_file_system.split(" ", 2)
            found = (len(point.parts), kind, {*own.split()[5].split(","), *options.split(",")})
    return found[1:]
