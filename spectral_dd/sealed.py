"""Arrays of a checkpoint: read through tensorstore, whole or one member of each, and compared with their checksums.

Orbax neither reads a slice nor says which array is damaged, and neither Orbax nor zarr notices a flipped bit. Which
checkpoints there are, and how they are written, is in `checkpoint.py`.
"""

import json
import pathlib
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
import tensorstore as ts
from flax import traverse_util

from spectral_dd.errors import CheckpointError, InputError

Tree = Mapping[str, Any]  # nested dicts of arrays, (member, ...) each
Flat = dict[str, Any]  # 'params.Dense_0.kernel' -> leaf, as Orbax names it in the store; {} for a dict without entries

# A pack goes on from its newest checkpoint, so older epochs come back only if the newer ones are gone.
_REPAIR = "to repair it, delete it and the later epochs beside it, then train again with the same command"

# What tensorstore, and json, raise for damaged data depends on the place of the damage.
_READ_ERRORS = (OSError, ValueError, LookupError, RuntimeError, TypeError)


def flatten(tree: Tree) -> Flat:
    flat = traverse_util.flatten_dict(tree, keep_empty_nodes=True)
    for path in flat:
        if any(not isinstance(name, str) or not name or "." in name or "/" in name for name in path):
            raise ValueError(f"{path}: names must be non-empty strings without '.' and '/'")
    return {".".join(path): {} if leaf is traverse_util.empty_node else leaf for path, leaf in flat.items()}


def nested(flat: Flat) -> dict[str, Any]:
    """The inverse of `flatten`."""
    return traverse_util.unflatten_dict(flat, sep=".")


def arrays_of(flat: Flat) -> Flat:
    """`flat` without its empty dicts."""
    return {name: leaf for name, leaf in flat.items() if not isinstance(leaf, dict)}


def to_host(tree: Tree) -> Flat:
    """Copies a tree to host memory, sharing nothing with the device's buffers.

    Raises:
      ValueError: an array has no member axis or another number of members, or a name contains '.' or '/'.
    """
    flat = flatten(tree)
    members = {np.shape(leaf)[:1] for leaf in arrays_of(flat).values()}
    if len(members) != 1 or () in members:
        shapes = {name: np.shape(leaf) for name, leaf in arrays_of(flat).items()}
        raise ValueError(f"every array needs the same leading member axis, got shapes {shapes}")
    # On a CPU device_get returns views of the device's buffers, which a later step may be given to write to.
    return {name: leaf if isinstance(leaf, dict) else np.array(leaf) for name, leaf in jax.device_get(flat).items()}


def seal(items: Mapping[str, Flat]) -> dict[str, Any]:
    """Returns, as JSON holds it, the CRC32 of each member of each array of each item, and that of all these."""
    return _with_crc(
        {
            item: {name: leaf if isinstance(leaf, dict) else [_crc(row) for row in leaf] for name, leaf in flat.items()}
            for item, flat in items.items()
        }
    )


def read_checksums(step: pathlib.Path) -> dict[str, Flat]:
    """Reads what `seal` returned: item -> array -> CRC32 of each member.

    Raises:
      CheckpointError: it is damaged.
    """
    try:
        sealed = json.loads((step / "checksums" / "data.json").read_text())
        checksums = {item: crcs for item, crcs in sealed.items() if item != "crc"}
        if sealed != _with_crc(checksums):
            raise ValueError("CRC32 differs")
    except _READ_ERRORS as error:
        raise CheckpointError(f"{step}: checksums are damaged: {one_line(error)}; {_REPAIR}") from error
    return checksums


def read(step: pathlib.Path, item: str, checksums: Flat, member: int | None = None) -> Flat:
    """Reads the arrays that `checksums` lists, whole or one member of each, and checks them.

    Raises:
      CheckpointError: an array is damaged.
    """
    stores = _open(step, item, arrays_of(checksums))
    reads = {name: (store if member is None else store[member]).read() for name, store in stores.items()}
    flat = dict(checksums)  # Keeps empty dicts, and the order.
    for name, future in reads.items():
        array = _result(step, item, name, future)
        crcs = checksums[name] if member is None else [checksums[name][member]]
        if [_crc(row) for row in (array if member is None else [array])] != crcs:
            raise CheckpointError(f"{step}: {item} {name!r} is damaged: CRC32 differs; {_REPAIR}")
        flat[name] = array
    return flat


def read_state(step: pathlib.Path, checksums: Flat, abstract_state: Tree, *, whole: bool) -> dict[str, Any]:
    """Reads the arrays of `abstract_state` and puts them on its devices.

    Args:
      step: directory of the checkpoint.
      checksums: of the stored state.
      abstract_state: nested dict of jax.ShapeDtypeStruct, with shardings.
      whole: whether `abstract_state` must name all arrays that are stored.

    Raises:
      InputError: the stored state has other arrays, shapes or types, or a type needs 64-bit JAX.
      CheckpointError: an array is damaged.
    """
    abstract = flatten(abstract_state)
    wanted, stored = arrays_of(abstract), arrays_of(checksums)
    different = sorted(wanted.keys() ^ stored.keys() if whole else wanted.keys() - stored.keys())
    if different:
        raise InputError(f"{step}: the stored state and the one asked for differ in {', '.join(different)}")
    for name, store in _open(step, "state", wanted).items():
        have, want = (store.shape, store.dtype.numpy_dtype), (wanted[name].shape, np.dtype(wanted[name].dtype))
        if have != want:
            raise InputError(f"{step}: {name!r} is stored as {have[1]}{have[0]}, asked for is {want[1]}{want[0]}")
        if jax.dtypes.canonicalize_dtype(want[1]) != want[1]:
            raise InputError(f"{step}: {name!r} is {want[1]}, which needs JAX_ENABLE_X64=1")
    arrays = read(step, "state", {name: stored[name] for name in wanted})
    # Not an alias of numpy's memory: the training step will be given these buffers to write to.
    placed = {name: jax.device_put(arrays[name], wanted[name].sharding, may_alias=False) for name in wanted}
    return nested({**abstract, **placed})


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _open(step: pathlib.Path, item: str, names: Iterable[str]) -> dict[str, ts.TensorStore]:
    """Opens arrays of a checkpoint; reads none of their chunks."""
    base = {"driver": "file", "path": f"{step / item}/"}
    context = ts.Context()
    stores = {
        name: ts.open(
            {"driver": "zarr3", "kvstore": {"driver": "ocdbt", "base": base, "path": f"{name}/"}},
            open=True, read=True, context=context,
        )
        for name in names
    }  # fmt: skip
    return {name: _result(step, item, name, store) for name, store in stores.items()}


def _result(step: pathlib.Path, item: str, name: str, future: ts.Future) -> Any:
    try:
        return future.result()
    except _READ_ERRORS as error:
        raise CheckpointError(f"{step}: {item} {name!r} is damaged: {one_line(error)}; {_REPAIR}") from error


def _crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _with_crc(checksums: dict[str, Any]) -> dict[str, Any]:
    # So that damage to the checksums is not mistaken for a state of another structure.
    return {**checksums, "crc": zlib.crc32(json.dumps(checksums, sort_keys=True).encode())}
