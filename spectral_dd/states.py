"""States for resuming: one sealed .npz file each, with everything that training goes on from.

They are kept only as long as training may need them; what analysis needs is in the records, see `checkpoint.py`.
"""

import json
import pathlib
from collections.abc import Callable, Container
from typing import IO

import numpy as np

from spectral_dd import files, sealed
from spectral_dd.files import Place
from spectral_dd.sealed import Flat

_SEAL = "seal.json"


def path_of(place: Place, epoch: int) -> pathlib.Path:
    return place.directory / "rolling" / f"{epoch}.npz"


def write(place: Place, epoch: int, state: Flat) -> None:
    """Writes a state, whole or not at all.

    Raises:
      OSError: with the name of the file.
    """
    write_sealed(path_of(place, epoch), place, epoch, state)


def compress(path: pathlib.Path, place: Place) -> None:
    """Writes a state anew, compressed: the zeros of padded members go, but it takes as long as ten of `write`.

    Raises:
      CheckpointError: it is damaged, or of another sweep, pack or epoch.
      OSError: with the name of the file.
    """
    write_sealed(path, place, int(path.stem), read(path, place), save=np.savez_compressed)


def write_sealed(
    path: pathlib.Path, place: Place, epoch: int, flat: Flat, save: Callable[..., None] = np.savez
) -> None:
    """Writes arrays with a first axis and their seal to a file, as `write` does."""
    seal = json.dumps(sealed.make_seal(place, epoch, flat)).encode()

    def arrays_and_seal(file: IO[bytes]) -> None:
        save(file, **(sealed.arrays_of(flat) | {_SEAL: np.frombuffer(seal, np.uint8)}))

    files.write_whole(path, arrays_and_seal)


def read(path: pathlib.Path, place: Place) -> Flat:
    """Reads a state.

    Raises:
      CheckpointError: it is damaged, or of another sweep, pack or epoch.
    """
    return read_sealed(path, place, int(path.stem))


def read_sealed(path: pathlib.Path, place: Place, epoch: int, names: Container[str] | None = None) -> Flat:
    """Reads what `write_sealed` wrote, all of it or the arrays of some names.

    Raises:
      CheckpointError: it is damaged, or of another sweep, pack or epoch.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if names is None or name in names or name == _SEAL}
        seal = json.loads(arrays.pop(_SEAL).tobytes())
    except Exception as error:  # What zipfile and numpy raise for damaged data depends on the place of the damage.
        raise sealed.damaged(path, f"is damaged: {sealed.one_line(error)}") from error
    crcs = sealed.check_seal(seal, path, place, epoch)
    if names is not None:
        crcs = {name: leaf for name, leaf in crcs.items() if name in names}
    if arrays.keys() != sealed.arrays_of(crcs).keys():
        raise sealed.damaged(path, "is damaged: its seal names other arrays")
    sealed.check_arrays(path, arrays, crcs)
    return {**crcs, **arrays}  # Keeps empty dicts, and the order.


def names(path: pathlib.Path) -> set[str]:
    """Of the arrays in a file."""
    with np.load(path, allow_pickle=False) as file:
        return {*file.files} - {_SEAL}
