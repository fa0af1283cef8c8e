"""Arrays with a seal: what place and epoch they are of, and the CRC32 of each member of each.

Arrays of a record are read through tensorstore, whole or one member of each: Orbax neither reads a slice nor says which
array is damaged, and neither Orbax nor zarr notices a flipped bit. Which records there are is in `stored.py`; states
for resuming are in `states.py`.
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

from spectral_dd import provenance, strict_json
from spectral_dd.errors import CheckpointError, InputError, reason
from spectral_dd.files import Place

Tree = Mapping[str, Any]  # nested dicts of arrays, (member, ...) each
Flat = dict[str, Any]  # 'variables.params.Dense_0.kernel' -> leaf, as Orbax names it; {} for a dict without entries

# The item of an Orbax checkpoint that holds all arrays.
ITEM = "state"
# How the names of results begin.
RESULTS = "results."
# Between the names of results that are one array on disk: those of a type and shape with less than so many bytes a
# member. Each array takes Orbax a millisecond, and a kilobyte for its shape.
JOINT, SMALL = "+", 4096
# Where Orbax keeps what it is given as custom metadata.
METADATA = "_CHECKPOINT_METADATA"

# What tensorstore, and json, raise for damaged data depends on the place of the damage.
_READ_ERRORS = (OSError, ValueError, LookupError, RuntimeError, TypeError)


def damaged(path: pathlib.Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {reason}; {provenance.command('verify')} --repair sets it aside and says what makes it anew"
    )


def flatten(tree: Tree) -> Flat:
    flat = traverse_util.flatten_dict(tree, keep_empty_nodes=True)
    for path in flat:
        if any(not isinstance(name, str) or not name or "." in name or "/" in name for name in path):
            raise ValueError(f"{path}: names must be non-empty strings without '.' and '/'")
    return {".".join(path): {} if leaf is traverse_util.empty_node else leaf for path, leaf in flat.items()}


def nested(flat: Flat) -> dict[str, Any]:
    """The inverse of `flatten`."""
    return traverse_util.unflatten_dict(flat, sep=".")


def below(flat: Flat, prefix: str) -> Flat:
    """What has names that begin so, without the beginning."""
    return {name.removeprefix(prefix): leaf for name, leaf in flat.items() if name.startswith(prefix)}


def joined(flat: Flat) -> Flat:
    """Small results of a type and shape in one array, (member, result, ...)."""
    groups: dict[Any, list[str]] = {}
    for name, leaf in flat.items():
        alone = not name.startswith(RESULTS) or isinstance(leaf, dict) or leaf[0].nbytes > SMALL
        groups.setdefault(name if alone else (leaf.dtype, leaf.shape), []).append(name)
    found: Flat = {}
    for names in groups.values():
        if len(names) == 1:
            found[names[0]] = flat[names[0]]
        else:
            together = JOINT.join(name.removeprefix(RESULTS) for name in names)
            found[RESULTS + together] = np.stack([flat[name] for name in names], axis=1)
    return found


def result_names(stored: str) -> list[str]:
    """The names of the results that an array on disk holds; none if it holds no results."""
    return stored.removeprefix(RESULTS).split(JOINT) if stored.startswith(RESULTS) else []


def results_of(flat: Flat) -> Flat:
    """The results of a record by their names; the inverse of `joined`."""
    found: Flat = {}
    for stored, leaf in flat.items():
        names = result_names(stored)
        found |= {names[0]: leaf} if len(names) == 1 else {name: leaf[:, i] for i, name in enumerate(names)}
    return found


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


def make_seal(place: Place, epoch: int, flat: Flat) -> dict[str, Any]:
    """What `check_seal` checks, as JSON holds it."""
    crcs = {name: leaf if isinstance(leaf, dict) else _crcs(leaf) for name, leaf in flat.items()}
    return strict_json.seal({"sweep": place.sweep, "pack": place.pack, "epoch": epoch, "arrays": crcs})


def check_seal(seal: Any, path: pathlib.Path, place: Place, epoch: int) -> Flat:
    """Returns the CRC32 of each member of each array that `path` holds.

    Raises:
      CheckpointError: the seal is damaged, or `path` is of another sweep, pack or epoch.
    """
    try:
        content = strict_json.unseal(seal)
    except ValueError as error:
        raise damaged(path, f"the seal {error}") from error
    if (content["sweep"], content["pack"]) != (place.sweep, place.pack):
        whose = "another sweep's" if content["sweep"] != place.sweep else f"of pack {content['pack']}"
        raise damaged(path, f"is {whose}, copied here")
    if content["epoch"] != epoch:
        raise damaged(path, f"is of epoch {content['epoch']}, copied here")
    return content["arrays"]


def check_arrays(path: pathlib.Path, arrays: Flat, crcs: Flat) -> None:
    """Raises CheckpointError unless each member of each array has its CRC32."""
    for name, array in arrays.items():
        if _crcs(array) != crcs[name]:
            raise damaged(path, f"{name[:40]!r} is damaged: CRC32 differs")


def is_older(step: pathlib.Path) -> bool:
    """Whether a checkpoint is of the former layout: whole states in the item 'state', results in one of their own, and
    checksums, which do not say what they are of, in a third."""
    return (step / "checksums").is_dir()


def read_seal(step: pathlib.Path, place: Place) -> Flat:
    """Reads the seal of a record; see `check_seal`."""
    try:
        if is_older(step):
            items = strict_json.unseal(json.loads((step / "checksums" / "data.json").read_text()))
            older = items["state"] | {RESULTS + name: crcs for name, crcs in items.get("results", {}).items()}
        else:
            seal = json.loads((step / METADATA).read_text())["custom_metadata"]["seal"]
    except (*_READ_ERRORS, RecursionError) as error:
        raise damaged(step, f"the seal is damaged: {one_line(error)}") from error
    if not is_older(step):
        return check_seal(seal, step, place, int(step.name))
    if place.sweep:
        raise damaged(step, "is another sweep's, copied here")
    return older


def read(step: pathlib.Path, crcs: Flat, member: int | None = None) -> Flat:
    """Reads the arrays that `crcs` lists, whole or one member of each, and checks them.

    Raises:
      CheckpointError: an array is damaged.
    """
    stores = _open(step, arrays_of(crcs))
    reads = {name: (store if member is None else store[member]).read() for name, store in stores.items()}
    flat = dict(crcs)  # Keeps empty dicts, and the order.
    for name, future in reads.items():
        flat[name] = _result(step, name, future)
        if member is None:
            check_arrays(step, {name: flat[name]}, crcs)
        else:
            check_arrays(step, {name: flat[name][None]}, {name: [crcs[name][member]]})
    return flat


def check_like(path: pathlib.Path, stored: Flat, abstract: Tree) -> None:
    """Raises InputError unless arrays have the names, shapes and types of a tree of jax.ShapeDtypeStruct."""
    wanted, stored = arrays_of(flatten(abstract)), arrays_of(stored)
    if different := sorted(wanted.keys() ^ stored.keys()):
        raise InputError(f"{path}: what is stored and what is asked for differ in {', '.join(different[:5])}")
    for name, array in stored.items():
        have, want = (array.shape, array.dtype), (wanted[name].shape, np.dtype(wanted[name].dtype))
        if have != want:
            raise InputError(f"{path}: {name!r} is stored as {have[1]}{have[0]}, asked for is {want[1]}{want[0]}")
        if jax.dtypes.canonicalize_dtype(want[1]) != want[1]:
            raise InputError(f"{path}: {name!r} is {want[1]}, which needs JAX_ENABLE_X64=1")


def to_devices(flat: Flat, abstract: Tree) -> dict[str, Any]:
    """The tree on the devices, with the shardings of `abstract`."""
    shardings = flatten(abstract)
    # Not an alias of numpy's memory: the training step will be given these buffers to write to.
    placed = {n: jax.device_put(leaf, shardings[n].sharding, may_alias=False) for n, leaf in arrays_of(flat).items()}
    return nested({**flat, **placed})


def one_line(error: BaseException) -> str:
    """What went wrong, without the description of the store that follows it."""
    return reason(error)[:60]


def _open(step: pathlib.Path, names: Iterable[str]) -> dict[str, ts.TensorStore]:
    """Opens arrays of a checkpoint; reads none of their chunks."""
    context, opening = ts.Context(), {}
    for name in names:
        item, path = (ITEM, name)
        if is_older(step) and name.startswith(RESULTS):
            item, path = "results", name.removeprefix(RESULTS)
        base = {"driver": "file", "path": f"{step / item}/"}
        specification = {"driver": "zarr3", "kvstore": {"driver": "ocdbt", "base": base, "path": f"{path}/"}}
        opening[name] = ts.open(specification, open=True, read=True, context=context)
    return {name: _result(step, name, store) for name, store in opening.items()}


def _result(step: pathlib.Path, name: str, future: ts.Future) -> Any:
    try:
        return future.result()
    except _READ_ERRORS as error:
        raise damaged(step, f"{name[:40]!r} is damaged: {one_line(error)}") from error


def _crcs(array: np.ndarray) -> list[int]:
    """The CRC32 of each member."""
    members = np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8) if len(array) else ()
    return [zlib.crc32(member) for member in members]
