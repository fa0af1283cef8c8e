"""Checkpoints of a pack: the state of its members and what was measured, one atomic unit per recorded epoch.

The only module that imports Orbax. Reading arrays and their checksums is in `sealed.py`.

    DIR/records/EPOCH/   an Orbax checkpoint of three items, kept for ever: `state`, `results`, `checksums`
    DIR/rolling/EPOCH/   the same without `results`, for resuming between recorded epochs; only the latest is kept
    DIR/lock             held by the one process that writes

State and results are nested dicts of arrays whose first axis is the member, stored in chunks of one member, so that
one member can be read alone. What the arrays mean is not known here. A pack belongs to one process: all its shards
must be addressable.
"""

import collections
import concurrent.futures
import logging as std_logging
import os
import pathlib
import shutil
import socket
import types
from collections.abc import Iterable
from typing import Any, Self, TextIO

from absl import logging
from orbax.checkpoint import v1 as ocp

from spectral_dd import files, sealed
from spectral_dd.errors import CheckpointError, InputError
from spectral_dd.sealed import Flat, Tree

_COMPLETE = (
    "commit_success.txt",
    "_CHECKPOINT_METADATA",
    "checksums/data.json",
    "state/_METADATA",
    "state/manifest.ocdbt",
)
_RESULTS = ("results/_METADATA", "results/manifest.ocdbt")
_TEMPORARY = ".orbax-checkpoint-tmp"
_DELETING = ".deleting"
_DAMAGED = ".damaged"

# Host memory that unwritten saves may hold before the training loop waits. The first epochs of a small pack are faster
# than the disk. A large state is over the limit alone, and waits for the save before it.
_PENDING_BYTES = 256 * 2**20


def _orbax_is_quiet(record: std_logging.LogRecord) -> bool:
    # Orbax reports each step of each save, and each failure with a traceback per thread, through absl's only logger;
    # what matters is raised as well.
    return record.levelno > std_logging.ERROR or f"{os.sep}orbax{os.sep}" not in record.pathname


std_logging.getLogger("absl").addFilter(_orbax_is_quiet)


class PackWriter:
    """Writes the checkpoints of one pack, and restores the latest.

    It locks `directory`, so there is one writer at a time, and removes what a killed writer left half written.
    `record` and `roll` return as soon as the state is copied to the host; its buffers may then be donated or changed.
    The copy is written in the background, in order. If that fails (a full disk), the next call raises
    CheckpointError, at the latest `close`; what was complete before stays so.

    Args:
      directory: of the pack; created if needed.

    Raises:
      InputError: another process is training the pack.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        # Absolute, because the program may change its working directory while this lives.
        self._directory = files.workdir_path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self._directory / "lock")
        for kind in ("records", "rolling"):
            (self._directory / kind).mkdir(exist_ok=True)
            _clean(self._directory / kind)
        self._recorded = set(recorded_epochs(self._directory))
        self._context = _context()
        self._failed = False  # A failed save is the last one: an epoch must not be missing between others.
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: collections.deque[tuple[concurrent.futures.Future[None], int]] = collections.deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        try:
            self.close()
        except CheckpointError as failure:
            if error is None:
                raise
            logging.error("%s", failure)  # What stopped the program matters more.

    def latest(self) -> int | None:
        """The newest complete epoch, recorded or rolling; None if there is none. Waits for saves in progress."""
        self._wait()
        return max((int(step.name) for step in self._steps()), default=None)

    def restore(self, abstract_state: Tree) -> tuple[int, dict[str, Any]]:
        """Returns the newest intact epoch and its state.

        A checkpoint found damaged is set aside as EPOCH.damaged, with a warning, and the next older one is taken;
        its epoch can then be recorded again.

        Args:
          abstract_state: nested dict of jax.ShapeDtypeStruct, with the shardings that the arrays shall have.

        Raises:
          InputError: the stored state has other arrays, shapes or types than `abstract_state`.
          CheckpointError: there is no checkpoint, or none is intact (nothing is then set aside).
        """
        self._wait()
        damaged: list[pathlib.Path] = []
        for step in sorted(self._steps(), key=lambda step: (int(step.name), step.parent.name == "records"))[::-1]:
            try:
                checksums = sealed.read_checksums(step)
                if "results" in checksums:
                    sealed.read(step, "results", checksums["results"])
                state = sealed.read_state(step, checksums["state"], abstract_state, whole=True)
            except CheckpointError as error:
                logging.warning("%s; falling back to an older checkpoint", error)
                damaged.append(step)
                continue
            for path in damaged:
                _set_aside(path)
            self._recorded = set(recorded_epochs(self._directory))
            return int(step.name), state
        raise CheckpointError(f"{self._directory}: none of its {len(damaged)} checkpoints can be restored")

    def record(self, epoch: int, state: Tree, results: Tree) -> None:
        """Saves the state and the results of a recorded epoch, and drops rolling checkpoints up to that epoch.

        Args:
          epoch: not recorded yet.
          state: nested dict of arrays, (member, ...) each.
          results: the same, by name of the result.

        Raises:
          ValueError: the epoch is already recorded, an array has no member axis, or a name contains '.' or '/'.
          CheckpointError: an earlier save failed.
        """
        self._wait(_PENDING_BYTES)
        if epoch in self._recorded:
            raise ValueError(f"{self._directory}: epoch {epoch} is already recorded")
        items = {"state": sealed.to_host(state), "results": sealed.to_host(results)}
        self._recorded.add(epoch)
        self._submit(self._directory / "records" / str(epoch), items)

    def roll(self, epoch: int, state: Tree) -> None:
        """Saves the state for resuming, and drops the previous rolling checkpoint. Does nothing if this epoch or a
        later one is recorded, or if this one is saved already.

        Raises:
          ValueError: an array has no member axis, or a name contains '.' or '/'.
          CheckpointError: an earlier save failed.
        """
        self._wait(_PENDING_BYTES)
        if epoch > max(self._recorded, default=-1):
            self._submit(self._directory / "rolling" / str(epoch), {"state": sealed.to_host(state)})

    def close(self) -> None:
        """Waits for saves in progress and releases the pack. Idempotent.

        Raises:
          CheckpointError: a save failed.
        """
        try:
            self._wait()
        finally:
            self._pending.clear()
            self._thread.shutdown()
            self._lock.close()

    def _steps(self) -> list[pathlib.Path]:
        return [*_complete_steps(self._directory / "records"), *_complete_steps(self._directory / "rolling")]

    def _wait(self, pending_bytes: int = -1) -> None:
        """Waits until the saves in progress hold at most so many bytes, by default until there are none.

        Raises the first error of the saves that are done.
        """
        while self._pending:
            save, _ = self._pending[0]
            if not save.done() and sum(size for _, size in self._pending) <= pending_bytes:
                return
            self._pending.popleft()
            save.result()

    def _submit(self, step: pathlib.Path, items: dict[str, Flat]) -> None:
        size = sum(array.nbytes for flat in items.values() for array in sealed.arrays_of(flat).values())
        self._pending.append((self._thread.submit(self._save, step, items), size))

    def _save(self, step: pathlib.Path, items: dict[str, Flat]) -> None:
        """Runs in the background thread."""
        if self._failed or _is_complete(step):  # An epoch before it is missing, or it was rolled already.
            return
        try:
            checkpoint: dict[str, Any] = {name: sealed.nested(flat) for name, flat in items.items()}
            checkpoint["checksums"] = sealed.seal(items)
            with self._context:
                ocp.save_checkpointables(step, checkpoint)
            for old in _complete_steps(self._directory / "rolling"):
                if old != step and int(old.name) <= int(step.name):
                    _delete(old)
        except Exception as error:  # Whatever it is must reach the training loop under the name of the directory.
            self._failed = True
            if step.parent.name == "records":
                self._recorded.discard(int(step.name))
            shutil.rmtree(step.with_name(step.name + _TEMPORARY), ignore_errors=True)  # The disk may be full.
            raise CheckpointError(f"{step}: cannot save the checkpoint: {sealed.one_line(error)}") from error


def recorded_epochs(directory: str | os.PathLike[str]) -> list[int]:
    """The recorded epochs of a pack, ascending; empty if there are none or no such directory.

    This and the functions below are safe beside a writer: they only read, and see a record whole or not at all.
    """
    return sorted(int(step.name) for step in _complete_steps(pathlib.Path(directory) / "records"))


def is_intact(directory: str | os.PathLike[str], epoch: int) -> bool:
    """Whether every array of a recorded epoch, state and results, reads back with its checksum."""
    step = _record(directory, epoch)
    try:
        checksums = sealed.read_checksums(step)
        for item in ("state", "results"):
            sealed.read(step, item, checksums[item])
    except CheckpointError:
        return False
    return True


def load_results(directory: str | os.PathLike[str], epoch: int) -> dict[str, Any]:
    """What was measured at a recorded epoch: name -> array, (member, ...).

    Raises:
      InputError: the epoch is not recorded.
      CheckpointError: an array is damaged.
    """
    step = _record(directory, epoch)
    return sealed.nested(sealed.read(step, "results", sealed.read_checksums(step)["results"]))


def load_member_state(
    directory: str | os.PathLike[str], epoch: int, member: int, parts: Iterable[str] | None = None
) -> dict[str, Any]:
    """The state of one member at a recorded epoch, nested dicts of numpy arrays without the member axis.

    Args:
      directory: of the pack.
      epoch: a recorded one.
      member: index in the pack.
      parts: names at the top of the state, such as ("params", "batch_stats"), to read only these.

    Raises:
      InputError: the epoch is not recorded, or there is no such member or part.
      CheckpointError: an array is damaged.
    """
    step = _record(directory, epoch)
    checksums = sealed.read_checksums(step)["state"]
    if parts is not None:
        parts, stored = set(parts), {name.split(".")[0] for name in checksums}
        if unknown := parts - stored:
            raise InputError(f"{step}: no {sorted(unknown)} in the state; it has {sorted(stored)}")
        checksums = {name: crcs for name, crcs in checksums.items() if name.split(".")[0] in parts}
    members = len(next(iter(sealed.arrays_of(checksums).values()), []))
    if not 0 <= member < members:
        raise InputError(f"{step}: no member {member}; it holds members 0 to {members - 1}")
    return sealed.nested(sealed.read(step, "state", checksums, member))


def load_state(directory: str | os.PathLike[str], epoch: int, abstract_state: Tree) -> dict[str, Any]:
    """The state of a whole pack at a recorded epoch, with the shardings of `abstract_state`, on whatever number of
    devices. Arrays that `abstract_state` leaves out are not read.

    Raises:
      InputError: the epoch is not recorded, or an array has another shape or type, or is not stored.
      CheckpointError: an array is damaged.
    """
    step = _record(directory, epoch)
    return sealed.read_state(step, sealed.read_checksums(step)["state"], abstract_state, whole=False)


def _context() -> ocp.Context:
    registry = ocp.handlers.local_registry()
    # A dict of lists of integers would otherwise be stored as a tree of many arrays.
    registry.add(ocp.handlers.JsonHandler, checkpointable_name="checksums")
    context = ocp.Context()
    context.checkpointables.registry = registry
    context.array.saving.storage_options.shard_axes = (0,)  # Chunks of one member.
    # Orbax would wait minutes for a directory that could not be created.
    context.asynchronous.create_directories_asynchronously = False
    context.memory.deepcopy_host_arrays = False  # They are copies already.
    return context


def _lock(path: pathlib.Path) -> TextIO:
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (closing it releases the lock)
    try:
        files.lock(file.fileno(), wait=False)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise InputError(f"{path.parent}: this pack is being trained by {holder}") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def _clean(directory: pathlib.Path) -> None:
    """Removes what a killed writer left, and sets aside what somebody deleted parts of."""
    for path in directory.iterdir():
        if path.name.endswith((_TEMPORARY, _DELETING)):
            shutil.rmtree(path)
        elif path.name.isdecimal() and not _is_complete(path):
            logging.warning("%s: an incomplete checkpoint, set aside", path)
            _set_aside(path)


def _set_aside(path: pathlib.Path) -> None:
    names = (f"{path.name}{_DAMAGED}{suffix}" for suffix in ("", *range(1, 1000)))
    path.rename(next(target for name in names if not (target := path.with_name(name)).exists()))


def _delete(step: pathlib.Path) -> None:
    # Renamed first: it is listed whole or not at all, even if this process is killed in between.
    doomed = step.rename(step.with_name(step.name + _DELETING))
    shutil.rmtree(doomed)


def _is_complete(step: pathlib.Path) -> bool:
    required = _COMPLETE + (_RESULTS if step.parent.name == "records" else ())
    return all((step / name).exists() for name in required)


def _complete_steps(directory: pathlib.Path) -> list[pathlib.Path]:
    if not directory.is_dir():
        return []
    return [path for path in directory.iterdir() if path.name.isdecimal() and _is_complete(path)]


def _record(directory: str | os.PathLike[str], epoch: int) -> pathlib.Path:
    step = files.workdir_path(directory) / "records" / str(epoch)
    if not _is_complete(step):
        known = ", ".join(map(str, recorded_epochs(directory))) or "none"
        raise InputError(f"{directory}: epoch {epoch} is not recorded; recorded epochs: {known}")
    return step
