"""What is stored of a pack, for reading. All of it is safe beside a writer: a record is seen whole or not at all.

    DIR/records/EPOCH/      an Orbax checkpoint of 'variables' and 'results', kept for ever
    DIR/rolling/EPOCH.npz   everything that training goes on from, see `states.py`; the newest two are kept, so that a
                            damaged one has one before it, and of a finished pack the newest
    DIR/lock                held by the one process that writes, see `checkpoint.py`

A record of the former layout has a whole state, and training can go on from it; see `sealed.is_older`.
"""

import os
import pathlib
from collections.abc import Iterable
from typing import Any

from spectral_dd import sealed, states
from spectral_dd.errors import CheckpointError, InputError
from spectral_dd.files import Place
from spectral_dd.sealed import Flat, Tree

_COMPLETE = ("commit_success.txt", sealed.METADATA, f"{sealed.ITEM}/_METADATA", f"{sealed.ITEM}/manifest.ocdbt")

# How the names of what was found damaged end.
DAMAGED = ".damaged"


def recorded_epochs(place: Place) -> list[int]:
    """The recorded epochs of a pack, ascending; empty if there are none or no such directory."""
    return sorted(int(step.name) for step in _complete_steps(place.directory / "records"))


def check_record(place: Place, epoch: int, *, every_byte: bool = True) -> None:
    """Raises CheckpointError unless a record is of this place and epoch and, with `every_byte`, has all its arrays."""
    step = _record(place, epoch)
    crcs = sealed.read_seal(step, place)
    if every_byte:
        sealed.read(step, crcs)


def is_intact(place: Place, epoch: int) -> bool:
    """Whether every array of a recorded epoch reads back with its checksum."""
    try:
        check_record(place, epoch)
    except CheckpointError:
        return False
    return True


def stored_states(place: Place) -> list[tuple[int, pathlib.Path]]:
    """Epoch and path of what training can go on from, the newest first."""
    found = []
    rolling = place.directory / "rolling"
    if rolling.is_dir():
        found += [
            (int(path.stem), path) for path in rolling.iterdir() if path.suffix == ".npz" and path.stem.isdecimal()
        ]
    # What names its sweep is of the newest layout.
    for directory in () if place.sweep else (rolling, place.directory / "records"):
        found += [(int(step.name), step) for step in _complete_steps(directory) if sealed.is_older(step)]
    return sorted(found, key=lambda state: (state[0], state[1].parent.name), reverse=True)


def load_results(place: Place, epoch: int, names: Iterable[str] | None = None) -> dict[str, Any]:
    """What was measured at a recorded epoch: name -> array, (member, ...).

    Args:
      place: of the pack.
      epoch: a recorded one.
      names: of results, to read only these; those that the record does not have are left out.

    Raises:
      InputError: the epoch is not recorded.
      CheckpointError: an array is damaged.
    """
    step = _record(place, epoch)
    crcs = sealed.read_seal(step, place)
    there = {name: array for array in crcs for name in sealed.result_names(array)}
    asked = [*there] if names is None else [name for name in names if name in there]
    found = sealed.results_of(sealed.read(step, {there[name]: crcs[there[name]] for name in asked}))
    return {name: found[name] for name in asked}


def load_member(place: Place, epoch: int, member: int) -> dict[str, Any]:
    """The variables of one member at a recorded epoch, nested dicts of numpy arrays without the member axis. The bytes
    of other members are not read.

    Raises:
      InputError: the epoch is not recorded, or there is no such member.
      CheckpointError: an array is damaged.
    """
    step = _record(place, epoch)
    crcs = _variables(sealed.read_seal(step, place))
    members = len(next(iter(sealed.arrays_of(crcs).values()), []))
    if not 0 <= member < members:
        raise InputError(f"{step}: no member {member}; it holds members 0 to {members - 1}")
    return sealed.nested(sealed.below(sealed.read(step, crcs, member), "variables."))


def load_variables(place: Place, epoch: int, abstract: Tree) -> dict[str, Any]:
    """The variables of a whole pack at a recorded epoch, nested dicts of numpy arrays.

    Raises:
      InputError: the epoch is not recorded, or an array has another shape or type than in `abstract`, a tree of
        jax.ShapeDtypeStruct.
      CheckpointError: an array is damaged.
    """
    step = _record(place, epoch)
    variables = sealed.read(step, _variables(sealed.read_seal(step, place)))
    variables = sealed.below(variables, "variables.")
    sealed.check_like(step, variables, abstract)
    return sealed.nested(variables)


def _variables(flat: Flat) -> Flat:
    return {name: leaf for name, leaf in flat.items() if name.startswith("variables.")}


def read_state(path: pathlib.Path, place: Place) -> Flat:
    """A whole state, one of `stored_states`.

    Raises:
      CheckpointError: it is damaged, or of another sweep, pack or epoch.
    """
    if path.suffix == ".npz":
        return states.read(path, place)
    whole = sealed.read(path, sealed.read_seal(path, place))  # all of the record is checked
    return {name: leaf for name, leaf in whole.items() if not name.startswith(sealed.RESULTS)}


def is_set_aside(path: pathlib.Path) -> bool:
    return path.suffix.startswith(DAMAGED)


def set_aside(path: pathlib.Path) -> pathlib.Path:
    """Renames what is damaged to NAME.damaged, which nothing reads."""
    names = (f"{path.name}{DAMAGED}{suffix}" for suffix in ("", *range(1, 1000)))
    return path.rename(next(target for name in names if not (target := path.with_name(name)).exists()))


def is_complete(step: pathlib.Path) -> bool:
    # Of thousands of records, a Path takes longer than the look.
    return all(os.path.exists(f"{step}/{name}") for name in _COMPLETE)


def _complete_steps(directory: pathlib.Path) -> list[pathlib.Path]:
    if not directory.is_dir():
        return []
    return [path for path in directory.iterdir() if path.name.isdecimal() and is_complete(path)]


def _record(place: Place, epoch: int) -> pathlib.Path:
    step = place.directory.absolute() / "records" / str(epoch)
    if not is_complete(step):
        known = ", ".join(map(str, recorded_epochs(place))) or "none"
        raise InputError(f"{place.directory}: epoch {epoch} is not recorded; recorded epochs: {known}")
    return step
