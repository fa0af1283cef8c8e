"""Every file of a run against its seal: what is damaged, missing or foreign, and what makes it anew."""

import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from spectral_dd import checkpoint, locks, named_spectra, provenance, stored
from spectral_dd.errors import CheckpointError, InputError
from spectral_dd.files import Place, workdir_path
from spectral_dd.planning.epochs import recorded_epochs
from spectral_dd.sweeps import Sweep, read_sweep


class Finding(NamedTuple):
    """Something that is not as it should be."""

    kind: str  # damaged, missing, foreign, leftover (of a killed process), set aside (before)
    path: pathlib.Path
    fault: str
    command: str  # that makes it anew, or nothing

    def __str__(self) -> str:
        return f"{self.kind:9s} {self.path}: {self.fault}"


def check_run(workdir: str | os.PathLike) -> Iterator[Finding]:
    """Reads every file of a run.

    Raises:
      InputError: there is no sweep.
    """
    workdir = workdir_path(workdir)
    try:
        sweep = read_sweep(workdir)
    except InputError as error:
        if not (workdir / "packs").exists():
            raise
        kind = "damaged" if (workdir / "sweep.json").exists() else "missing"
        yield Finding(kind, workdir / "sweep.json", str(error).partition(": ")[2], "")
        return
    command = _made_with(sweep, workdir)
    places = [sweep.place(workdir, number) for number in range(len(sweep.packs))]
    yield from _check_packs(workdir / "packs", places, _targets(sweep), command)
    for directory in sorted((workdir / "spectra").glob("*")):
        if not stored.is_set_aside(directory):
            yield from _check_spectra(workdir, sweep, directory)


def _made_with(sweep: Sweep, workdir: pathlib.Path) -> str:
    """The command that trains the sweep, where it is now."""
    recorded = sweep.provenance["command"]
    flags = [(name, str(workdir) if name == "workdir" else value) for name, value in provenance.arguments(recorded)]
    words = provenance.call(recorded)
    return provenance.shell(words, flags) if words else f"sdd.train({str(workdir)!r}, ...)"


def _check_spectra(workdir: pathlib.Path, sweep: Sweep, directory: pathlib.Path) -> Iterator[Finding]:
    command = provenance.command("evaluate_spectrum", workdir=workdir, name=directory.name)
    try:
        spectra = named_spectra.read(workdir, directory.name, sweep)
    except InputError as error:
        yield Finding("damaged", directory, str(error).partition(": ")[2].partition(";")[0], f"{command} ...")
        return
    asked = {"workdir": workdir, "name": directory.name, **spectra.settings}
    command = provenance.command("evaluate_spectrum", **asked)
    places = [spectra.place(workdir, directory.name, number) for number in range(len(sweep.packs))]
    yield from _check_packs(directory / "packs", places, _targets(sweep), command)


def _targets(sweep: Sweep) -> list[list[int]]:
    return [recorded_epochs(sweep.configs[pack.members[0]], pack.ends) for pack in sweep.packs]


def _check_packs(
    directory: pathlib.Path, places: Sequence[Place], targets: Sequence[Sequence[int]], command: str
) -> Iterator[Finding]:
    expected = {place.directory for place in places}
    for path in sorted(directory.glob("*")):
        if path not in expected and not stored.is_set_aside(path):
            yield Finding("foreign", path, "is no pack of this sweep", "")
    for place, epochs in zip(places, targets, strict=True):
        directories = [place.directory, *(place.directory / kind for kind in ("records", "rolling"))]
        in_the_way = [path for path in directories if os.path.lexists(path) and not path.is_dir()]
        yield from (Finding("foreign", path, "is no directory", command) for path in in_the_way)
        if not in_the_way:
            yield from _check_pack(place, epochs, command)


def _check_pack(place: Place, targets: Sequence[int], command: str) -> Iterator[Finding]:
    recorded = stored.recorded_epochs(place)
    for kind in ("records", "rolling"):
        for path in sorted((place.directory / kind).glob("*")):
            yield from _check_path(place, path, targets, command)
    for epoch in targets:
        if epoch < max(recorded, default=0) and epoch not in recorded:
            fault = "is missing among those recorded"
            yield Finding("missing", place.directory / "records" / str(epoch), fault, command)


def _check_path(place: Place, path: pathlib.Path, targets: Sequence[int], command: str) -> Iterator[Finding]:
    states = {state for _, state in stored.stored_states(place)}
    try:
        if stored.is_set_aside(path):
            yield Finding("set aside", path, "was found damaged before, and can be deleted", "")
        elif checkpoint.is_leftover(path):
            if not locks.is_locked(place.directory / "lock") and path.exists():
                yield Finding("leftover", path, "is of a process that was killed", "")
        elif path.parent.name == "records" and path.name.isdecimal():
            if int(path.name) not in targets:
                yield Finding("foreign", path, "is no epoch that is recorded", "")
            elif int(path.name) not in stored.recorded_epochs(place):
                yield Finding("damaged", path, "is incomplete", command)
            else:
                stored.check_record(place, int(path.name))
        elif path in states:
            stored.read_state(path, place)
        elif path.exists():  # A writer drops states.
            yield Finding("foreign", path, "is nothing that a sweep writes", "")
    except CheckpointError as error:
        if path.exists():
            # Training goes on from the state before it.
            fault = str(error).removeprefix(f"{path}: ").partition("; ")[0]
            yield Finding("damaged", path, fault, command)


def repair(finding: Finding) -> None:
    """Sets aside what is damaged or foreign, and removes what a killed process left.

    Raises:
      LockedError: a process writes there.
    """
    path = finding.path
    if finding.kind == "missing" or path.name == "sweep.json" or finding.kind == "set aside":
        return
    pack = path.parent.parent if path.parent.name in ("records", "rolling") else None
    lock = locks.lock(pack / "lock") if pack else None
    try:
        if finding.kind != "leftover":
            stored.set_aside(path)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        if lock:
            lock.close()


def prune_states(workdir: str | os.PathLike, keep: int) -> tuple[int, int]:
    """Deletes the states of finished packs but the newest `keep` of each. Returns how many, and their bytes.

    Records of the former layout hold their states, and stay as they are.

    Raises:
      InputError: there is no sweep.
      LockedError: a process writes there.
      CheckpointError: a record of a finished pack is damaged.
    """
    sweep, files, size = read_sweep(workdir), 0, 0
    for number, targets in enumerate(_targets(sweep)):
        place = sweep.place(workdir, number)
        if not set(targets) <= set(stored.recorded_epochs(place)):
            continue
        for epoch in targets:  # A state could make a damaged one anew.
            stored.check_record(place, epoch)
        lock = locks.lock(place.directory / "lock")
        try:
            for _, path in stored.stored_states(place)[keep:]:
                if path.suffix == ".npz":
                    files, size = files + 1, size + path.stat().st_size
                    path.unlink()
        finally:
            lock.close()
    return files, size
