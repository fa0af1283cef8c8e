"""The one writer of a pack's checkpoints; the only module that imports Orbax.

What is stored where, and how it is read, is in `stored.py`. States, variables and results are nested dicts of arrays
whose first axis is the member; records keep them in chunks of one member. What the arrays mean is not known here, but
that the 'variables' of a state are kept for ever. A pack belongs to one process: all its shards must be addressable.
"""

import collections
import concurrent.futures
import contextlib
import errno
import logging
import os
import pathlib
import shutil
import sys
import time
import types
from typing import Any, Self

from orbax.checkpoint import v1 as ocp

from spectral_dd import files, locks, provenance, sealed, states, summary
from spectral_dd.errors import CheckpointError
from spectral_dd.files import Place
from spectral_dd.sealed import Flat, Tree
from spectral_dd.stored import check_record, is_complete, read_state, recorded_epochs, set_aside, stored_states

_TEMPORARY = ".orbax-checkpoint-tmp"
_DELETING = ".deleting"

# How long a directory is removed while something appears in it: a network's file system may keep a file that is open.
REMOVING_SECONDS = 10.0

# States that are kept.
_KEPT = 2

_NEVER = 10**7  # seconds

# Host memory that unwritten saves may hold before the training loop waits. The first epochs of a small pack are faster
# than the disk. A large state is over the limit alone, and waits for the save before it.
_PENDING_BYTES = 256 * 2**20

# All of the summary is written each time.
_SUMMARY_SECONDS = 10.0


def _orbax_is_quiet(record: logging.LogRecord) -> bool:
    # Orbax reports each step of each save, and each failure with a traceback per thread, through absl's only logger;
    # what matters is raised as well.
    return record.levelno > logging.ERROR or f"{os.sep}orbax{os.sep}" not in record.pathname


def _unasked_writes_are_quiet(record: logging.LogRecord) -> bool:
    # Of several writes of a save that fail, Orbax raises the first; asyncio reports the others when it forgets them.
    message = record.getMessage()
    return not (message.startswith("Task exception was never retrieved") and f"{os.sep}orbax{os.sep}" in message)


logging.getLogger("absl").addFilter(_orbax_is_quiet)
logging.getLogger("asyncio").addFilter(_unasked_writes_are_quiet)


def _closed_loop_is_quiet(unraisable: "sys.UnraisableHookArgs", hook: Any = sys.unraisablehook) -> None:
    # When one write of a save fails, Orbax closes its event loop, and those under way find it closed: a traceback each.
    if str(unraisable.exc_value) != "Event loop is closed":
        hook(unraisable)


sys.unraisablehook = _closed_loop_is_quiet


class PackWriter:
    """Writes the checkpoints of one pack, and restores the latest.

    It locks the directory, so there is one writer at a time, removes what a killed writer left half written, and sets
    aside records that are not whole, or not of this pack. `record` and `roll` return as soon as the state is copied to
    the host; its buffers may then be donated or changed. The copy is written in the background, in order. If that fails
    (a full disk), the next call raises CheckpointError, at the latest `close`; what was complete before stays so.

    Args:
      place: of the pack; its directory is created if needed.

    Raises:
      LockedError: another process writes there.
      OSError: the directory cannot be made or written.
    """

    def __init__(self, place: Place) -> None:
        # Absolute, because the program may change its working directory while this lives.
        self._place = place._replace(directory=pathlib.Path(place.directory).absolute())
        self._records, self._rolling = (self._place.directory / kind for kind in ("records", "rolling"))
        for directory in (self._records, self._rolling):
            directory.mkdir(parents=True, exist_ok=True)
        self._lock = locks.lock(self._place.directory / "lock")
        for directory in (self._records, self._rolling):
            _clean(directory)
        self.set_aside_damaged()
        self._recorded = set(recorded_epochs(self._place))
        self._rolled: set[int] = set()  # epochs of states that this writer has written
        self._context, self._summary = _context(), summary.Summary(self._place)
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
            print(failure, file=sys.stderr)  # What stopped the program matters more.

    def set_aside_damaged(self, *, every_byte: bool = False) -> list[int]:
        """Sets records aside, as EPOCH.damaged, whose seals are damaged or of something else; with `every_byte` those
        whose arrays are damaged as well. Returns their epochs; each is said on stderr."""
        damaged = []
        for epoch in recorded_epochs(self._place):
            try:
                check_record(self._place, epoch, every_byte=every_byte)
            except CheckpointError as error:
                print(f"{_fault(error)}; set aside", file=sys.stderr)
                set_aside(self._records / str(epoch))
                damaged.append(epoch)
        self._recorded = set(recorded_epochs(self._place))
        return damaged

    def latest(self) -> int | None:
        """The newest epoch that training can go on from; None if there is none. Waits for saves in progress."""
        self._wait()
        return max((epoch for epoch, _ in stored_states(self._place)), default=None)

    def restore(self, abstract_state: Tree, at_most: int | None = None) -> tuple[int, dict[str, Any]]:
        """Returns the newest intact epoch and its state.

        A state found damaged is said on stderr, set aside as EPOCH.npz.damaged, and the next older one is taken.

        Args:
          abstract_state: nested dict of jax.ShapeDtypeStruct, with the shardings that the arrays shall have.
          at_most: no newer epoch than this.

        Raises:
          InputError: the stored state has other arrays, shapes or types than `abstract_state`.
          CheckpointError: there is no state, or none is intact (nothing is then set aside).
        """
        self._wait()
        damaged: list[pathlib.Path] = []
        for epoch, path in stored_states(self._place):
            if at_most is not None and epoch > at_most:
                continue
            try:
                state = read_state(path, self._place)
            except CheckpointError as error:
                print(f"{_fault(error)}; the state before it is taken", file=sys.stderr)
                damaged.append(path)
                continue
            sealed.check_like(path, state, abstract_state)
            for other in damaged:
                set_aside(other)
            self._recorded = set(recorded_epochs(self._place))
            return epoch, sealed.to_devices(state, abstract_state)
        raise CheckpointError(
            f"{self._rolling}: none of {len(damaged)} states can be read; {provenance.command('verify')} --repair sets "
            "them aside, then the training command begins the pack anew"
        )

    def record(self, epoch: int, state: Tree, results: Tree) -> None:
        """Saves the state, and its variables with the results of a recorded epoch.

        Args:
          epoch: not recorded yet.
          state: nested dict of arrays, (member, ...) each; {}: only results are recorded.
          results: the same, by name of the result.

        Raises:
          ValueError: the epoch is already recorded, an array has no member axis, or a name contains '.' or '/'.
          CheckpointError: an earlier save failed.
        """
        self._wait(_PENDING_BYTES)
        if epoch in self._recorded:
            raise ValueError(f"{self._place.directory}: epoch {epoch} is already recorded")
        whole = sealed.to_host(state) if state else {}
        kept = {name: leaf for name, leaf in whole.items() if name.startswith("variables.")}
        kept |= sealed.joined({sealed.RESULTS + name: leaf for name, leaf in sealed.to_host(results).items()})
        self._recorded.add(epoch)
        self._submit(epoch, whole, kept)

    def roll(self, epoch: int, state: Tree) -> None:
        """Saves the state for resuming, if it is not saved already.

        Raises:
          ValueError: an array has no member axis, or a name contains '.' or '/'.
          CheckpointError: an earlier save failed.
        """
        self._wait(_PENDING_BYTES)
        self._submit(epoch, sealed.to_host(state), {})

    def finish(self) -> None:
        """Waits for saves in progress, and keeps the newest state only, compressed: nothing but more epochs goes on
        from a finished pack.

        Raises:
          CheckpointError: a save failed.
        """
        self._wait()
        for i, (_, path) in enumerate(stored_states(self._place)):
            if path.parent == self._rolling and i:
                _delete(path)
            elif path.suffix == ".npz":
                with contextlib.suppress(OSError, CheckpointError):  # It stays as it is; who reads it is told.
                    states.compress(path, self._place)

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
            with contextlib.suppress(OSError):
                self._summary.write_new()
            self._lock.close()

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

    def _submit(self, epoch: int, state: Flat, record: Flat) -> None:
        arrays = {id(array): array.nbytes for flat in (state, record) for array in sealed.arrays_of(flat).values()}
        self._pending.append((self._thread.submit(self._save, epoch, state, record), sum(arrays.values())))

    def _save(self, epoch: int, state: Flat, record: Flat) -> None:
        """Runs in the background thread."""
        if self._failed:  # An epoch before it is missing.
            return
        path = states.path_of(self._place, epoch)
        try:
            if state and epoch not in self._rolled:
                states.write(self._place, epoch, state)
                self._rolled.add(epoch)
            if record:
                path = self._records / str(epoch)
                seal = sealed.make_seal(self._place, epoch, record)
                with self._context:
                    ocp.save(
                        path, sealed.nested(record), checkpointable_name=sealed.ITEM, custom_metadata={"seal": seal}
                    )
                with contextlib.suppress(OSError):  # It can be made from the records.
                    self._summary.add(epoch, sealed.results_of(record))
                    self._summary.write_new(every_seconds=_SUMMARY_SECONDS)
            self._drop_states(epoch)
        except Exception as error:  # Whatever it is must reach the training loop under the name of the file.
            self._failed = True
            if record:
                self._recorded.discard(epoch)
            # The disk may be full. Threads of Orbax that still write find the directory gone.
            with contextlib.suppress(OSError):
                _delete(path.with_name(path.name + _TEMPORARY))
            raise CheckpointError(f"{path}: cannot be saved: {_reason(error)}") from error

    def _drop_states(self, epoch: int) -> None:
        """Drops all states but the newest, and that of an epoch, which is older where a lost record is made anew."""
        for other, path in stored_states(self._place)[_KEPT:]:
            if other != epoch and path.parent == self._rolling:
                _delete(path)


def _context() -> ocp.Context:
    context = ocp.Context()
    context.array.saving.storage_options.shard_axes = (0,)  # Chunks of one member.
    # Each of these would be a file, or the whole checkpoint read again.
    context.array.saving.array_metadata_store = None
    context.array.saving.enable_write_sharding_file = False
    context.array.saving.enable_post_merge_validation = False
    # Orbax would wait minutes for a directory that could not be created.
    context.asynchronous.create_directories_asynchronously = False
    # A process that was suspended, as Slurm does and a laptop that sleeps, goes on. No save waits for another process.
    context.asynchronous.timeout_secs = _NEVER
    context.memory.deepcopy_host_arrays = False  # They are copies already.
    return context


def _fault(error: CheckpointError) -> str:
    """What is damaged, without the advice."""
    return str(error).partition(";")[0]


def _reason(error: BaseException) -> str:
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return "the disk is full; what was recorded before is intact, and the same command goes on when there is space"
    return getattr(error, "strerror", None) or sealed.one_line(error)


def is_leftover(path: pathlib.Path) -> bool:
    """Whether a name is of what a writer was killed in the middle of, or is in the middle of."""
    return path.name.endswith((_TEMPORARY, _DELETING)) or path.name.startswith(files.TEMPORARY)


def _clean(directory: pathlib.Path) -> None:
    """Removes what a killed writer left, and sets aside what somebody deleted parts of."""
    for path in directory.iterdir():
        if is_leftover(path):
            _remove(path)
        elif path.name.isdecimal() and not is_complete(path):
            print(f"{path}: an incomplete checkpoint, set aside", file=sys.stderr)
            set_aside(path)


def _delete(path: pathlib.Path) -> None:
    # Renamed first: it is listed whole or not at all, even if this process is killed in between.
    _remove(path.rename(path.with_name(path.name + _DELETING)))


def _remove(path: pathlib.Path) -> None:
    if not path.is_dir():
        return path.unlink()
    deadline = time.monotonic() + REMOVING_SECONDS
    while True:
        try:
            return shutil.rmtree(path)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # Threads of a save that failed may still write into it.
