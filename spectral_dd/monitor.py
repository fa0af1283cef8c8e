"""How far a sweep is: what its processes leave beside their records, and what can be told from that on any host.

Imports nothing that takes long, so that a look takes less than the start of JAX.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Self

from spectral_dd import files
from spectral_dd.config import Config
from spectral_dd.errors import InputError, Interrupted
from spectral_dd.sweeps import read_content

BEAT_SECONDS = 30.0
# A process that has not been heard of for so long has ended, or its host has.
LOST_SECONDS = 4 * BEAT_SECONDS

STATES = ("done", "running", "waiting", "failed")


class Beats:
    """Says every half minute, in DIR/status.json of a pack, how far its training is, and in the end how it ended.

    Only the process that holds the pack's lock may do it.

    Args:
      directory: of the pack.
      facts: what to say: `epoch`, `examples_per_second`, `diverged` (members) and `seconds_left` of all that this
        process has to do, None as long as it is not known.
    """

    def __init__(self, directory: str | os.PathLike[str], facts: Callable[[], dict[str, Any]]):
        self._directory, self._facts = pathlib.Path(directory).absolute(), facts
        self._sizes: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._write("running")
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: object) -> None:
        self._ended.set()
        self._thread.join()
        if error is None:
            self._write("done")
        elif isinstance(error, Interrupted | KeyboardInterrupt):
            self._write("waiting")
        else:
            self._write("failed", " ".join(str(error).split()) or type(error).__name__)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            self._write("running")

    def _write(self, state: str, error: str = "") -> None:
        content = {
            "state": state,
            "error": error,
            "process": f"{socket.gethostname()}, process {os.getpid()}",
            "time": time.time(),
            "bytes": self._bytes(),
            **self._facts(),
        }
        # Training does not end because nobody can be told of it: a full disk is met, and said, by the records.
        with contextlib.suppress(OSError):
            files.write_whole(self._directory / "status.json", json.dumps(content))

    def _bytes(self) -> int:
        """Of the pack on disk. A record, once it is there, does not change."""
        records = [step for step in _entries(self._directory / "records") if step.name.isdecimal()]
        self._sizes = {step.name: self._sizes.get(step.name) or _size(step) for step in records}
        return sum(self._sizes.values()) + _size(self._directory / "rolling")


def _entries(directory: pathlib.Path) -> list[pathlib.Path]:
    try:
        return [pathlib.Path(entry.path) for entry in os.scandir(directory)]
    except OSError:
        return []


def _size(directory: pathlib.Path) -> int:
    size = 0
    for place, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.stat(os.path.join(place, name)).st_size
    return size


@dataclasses.dataclass(frozen=True)
class Status:
    """How far a sweep is. Numbers of packs and members are by state: done, running, waiting, failed."""

    workdir: str
    packs: dict[str, int]
    members: dict[str, int]
    diverged: int  # members, among those of any state
    examples_per_second: float  # of all processes that train now
    seconds_left: float | None  # until the last process that trains now has done its share; None: not known, or none
    bytes: int  # on disk, of the packs
    free_bytes: int  # on that disk
    spectra: dict[str, int]  # of each name of evaluate_spectrum.py: packs with all that is recorded so far
    problems: list[str]  # packs that failed or whose process is lost, tasks that failed

    def line(self) -> str:
        """In one line, without the problems."""
        members, total = self.members, sum(self.members.values())
        parts = [f"{members['done']} of {total} members done"]
        parts += [f"{members[state]} {state}" for state in STATES[1:] if members[state]]
        parts += [f"{self.diverged} diverged"] if self.diverged else []
        if members["running"]:
            parts.append(f"{self.examples_per_second:,.0f} examples/s")
        if self.seconds_left is not None:
            left = round(self.seconds_left)
            parts.append(f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left")
        return ", ".join([*parts, f"{_in_words(self.bytes)} on disk"])

    def __str__(self) -> str:
        packs = ", ".join(f"{number} {state}" for state, number in self.packs.items() if number)
        lines = [f"{self.workdir}: {self.line()}, {_in_words(self.free_bytes)} free", f"packs: {packs}"]
        total = sum(self.packs.values())
        lines += [f"spectra {name}: {number} of {total} packs" for name, number in self.spectra.items()]
        return "\n".join([*lines, *self.problems])


def _in_words(size: int) -> str:
    unit, name = (1e9, "GB") if size >= 1e9 else (1e6, "MB")
    return f"{size / unit:,.1f} {name}"


def status(workdir: str | os.PathLike[str]) -> Status:
    """How far a sweep is, from its files alone, on any host that sees them.

    Raises:
      InputError: DIR holds no sweep.
    """
    directory = files.workdir_path(workdir)
    content = read_content(directory)
    packs, members = Counter(dict.fromkeys(STATES, 0)), Counter(dict.fromkeys(STATES, 0))
    notes, problems = [], []
    recorded: list[set[str]] = []
    for number, pack in enumerate(content["packs"]):
        own = pack["members"]
        config = Config.of(**content["shared"], **content["members"][own[0]])
        place = files.pack_directory(directory, number)
        epochs = {path.name for path in _entries(place / "records") if path.name.isdecimal()}
        recorded.append(epochs)
        note = _note(place)
        state, problem = _state(note, str(config.epochs) in epochs)
        if problem:
            problems.append(f"pack {number}: {problem}")
        packs[state] += 1
        members[state] += len(own)
        notes.append((state, note))
    running = [note for state, note in notes if state == "running"]
    return Status(
        workdir=str(workdir),
        packs=dict(packs),
        members=dict(members),
        diverged=sum(note.get("diverged", 0) for _, note in notes),
        examples_per_second=sum(note["examples_per_second"] for note in running),
        seconds_left=max((left for note in running if (left := note["seconds_left"]) is not None), default=None),
        bytes=sum(note.get("bytes", 0) for _, note in notes),
        free_bytes=shutil.disk_usage(directory).free,
        spectra=_spectra(directory, recorded),
        problems=problems + list(_failures(directory)),
    )


def _note(place: pathlib.Path) -> dict[str, Any]:
    """What the pack's process said last; nothing if there never was one, or an older revision trained it."""
    try:
        return json.loads((place / "status.json").read_text())
    except (OSError, ValueError):
        return {}


def _state(note: dict[str, Any], has_last_epoch: bool) -> tuple[str, str]:
    """State of a pack, and what is wrong with it."""
    state = note.get("state", "waiting")
    if state == "failed":
        return state, f"failed: {note['error']} ({note['process']})"
    if state == "running" and (silent := time.time() - note["time"]) > LOST_SECONDS:
        return ("done", "") if has_last_epoch else ("waiting", f"{note['process']} ended {silent / 60:.0f} min ago")
    if state != "running" and has_last_epoch:
        return "done", ""
    return ("waiting" if state == "done" else state), ""


def _spectra(directory: pathlib.Path, recorded: list[set[str]]) -> dict[str, int]:
    found = {}
    for settings in sorted((directory / "spectra").glob("*/settings.json")):
        places = (files.pack_directory(settings.parent, number) / "records" for number in range(len(recorded)))
        names = [{path.name for path in _entries(place)} for place in places]
        found[settings.parent.name] = sum(bool(r) and r <= n for r, n in zip(recorded, names, strict=True))
    return found


def _failures(directory: pathlib.Path) -> Iterator[str]:
    """Jobs that failed: each has a file with a line an attempt, which its job script writes."""
    for path in sorted(files.jobs_directory(directory).glob("*.failures")):
        attempts = path.read_text().splitlines()
        if attempts:
            yield f"job {path.stem}: failed {len(attempts)} times, last {attempts[-1]}; log: {path.parent}"


def runs(folder: str | os.PathLike[str]) -> dict[str, Status | InputError]:
    """The sweeps below a folder, by directory; of one that cannot be read, why.

    Raises:
      InputError: there are none.
    """
    found: dict[str, Status | InputError] = {}
    for place, below, names in os.walk(files.expanded(folder)):
        if "sweep.json" in names:
            below.clear()  # It has thousands of directories.
            try:
                found[place] = status(place)
            except InputError as error:
                found[place] = error
    if not found:
        raise InputError(f"--runs={folder}: no sweep is below it")
    return dict(sorted(found.items()))
