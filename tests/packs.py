"""A small pack whose content is known for each epoch, and what tests of checkpoints do with it."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
from flax import traverse_util

from spectral_dd.checkpoint import PackWriter
from spectral_dd.files import Place
from spectral_dd.stored import recorded_epochs  # noqa: F401 (for children)

MEMBERS = 8


def place(directory: pathlib.Path | str, sweep: str = "one", pack: int = 0) -> Place:
    return Place(pathlib.Path(directory), sweep, pack)


def record_pack(directory: pathlib.Path) -> pathlib.Path:
    """Records the epochs 0, 1 and 3, and leaves the states of 3 and 5."""
    with PackWriter(place(directory)) as writer:
        for epoch in (0, 1, 3):
            writer.record(epoch, make_state(epoch), make_results(epoch))
        writer.roll(5, make_state(5))
    return directory


def make_state(epoch: int, width: int = 300) -> dict:
    """Every type that a state holds, a NaN, a dict without entries; the same for the same epoch."""
    rng = np.random.default_rng(epoch)
    kernel = rng.normal(size=(MEMBERS, 3, width)).astype(np.float32)
    kernel[1, 0, 0] = np.nan
    return {
        "variables": {
            "params": {"Dense_0": {"kernel": kernel, "bias": rng.normal(size=(MEMBERS, width))}},
            "batch_stats": {},
        },
        "key": rng.integers(2**32, size=(MEMBERS, 2), dtype=np.uint32),
        "step": np.full(MEMBERS, epoch, np.int32),
        "diverged": rng.random(MEMBERS) < 0.5,
    }


def variables_of(epoch: int, member: int | None = None, width: int = 300) -> dict:
    """What a record keeps of the state, of all members or one."""
    return jax.tree.map(lambda leaf: leaf if member is None else leaf[member], make_state(epoch, width)["variables"])


def make_results(epoch: int) -> dict:
    rng = np.random.default_rng(1000 + epoch)
    energy = rng.normal(size=(MEMBERS, 3, 4, 5)).astype(np.float32)
    energy[:, 1] = np.nan
    return {"train_error": rng.random(MEMBERS), "energy": energy}


def abstract(state: dict, sharding=None) -> dict:
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state)


def assert_same(tree: dict, expected: dict) -> None:
    """The same names, types, shapes and bits."""
    tree, expected = (traverse_util.flatten_dict(t, sep="/", keep_empty_nodes=True) for t in (tree, expected))
    assert tree.keys() == expected.keys()
    for name, leaf in expected.items():
        if leaf is traverse_util.empty_node:
            assert tree[name] is traverse_util.empty_node
        else:
            have, want = np.asarray(tree[name]), np.asarray(leaf)
            assert (have.dtype, have.shape, have.tobytes()) == (want.dtype, want.shape, want.tobytes()), name


def flip_bit(path: pathlib.Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << position % 8
    path.write_bytes(data)


def largest_file(directory: pathlib.Path) -> pathlib.Path:
    return max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def run_python(code: str, *args: object) -> subprocess.Popen:
    """A child that has this module as `p`."""
    here = pathlib.Path(__file__).parent
    path = os.pathsep.join([str(here.parent), str(here), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", "import sys, packs as p\n" + code, *map(str, args)]
    return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
