"""A run of known content that was never trained, and the question whether what is read of it is right."""

import pathlib

import numpy as np

from packs import MEMBERS, assert_same, make_results, make_state, variables_of
from spectral_dd import named_spectra, stored, verify
from spectral_dd.checkpoint import PackWriter
from spectral_dd.errors import CheckpointError, InputError
from spectral_dd.members import expand
from spectral_dd.planning.epochs import recorded_epochs
from spectral_dd.sweeps import Lowering, Pack, Sweep, read_sweep, write_sweep

PACKS = 2
WIDTH = 20  # of the arrays
NAME = "fine"


def known_sweep() -> Sweep:
    configs = expand({"seed": range(MEMBERS), "width": [1, 2], "epochs": 3})
    members = [[i for i, c in enumerate(configs) if c.width == width] for width in (1, 2)]
    return Sweep(
        configs=configs,
        packs=[Pack(tuple(m), Lowering("im2col", 1), 1.5) for m in members],
        apart=False,
        platform="cpu",
        facts=[{"parameters": 10, "noise_rate": 0.125}] * len(configs),
        datasets={"digits": {"image_shape": [8, 8, 1], "num_classes": 10}},
        provenance={"command": "experiments/train_sweep.py --workdir=run"},
        identity="known",
    )


def content(pack: int, epoch: int) -> tuple[dict, dict]:
    """State and results that differ in each pack and epoch."""
    return make_state(100 * pack + epoch, WIDTH), make_results(100 * pack + epoch)


def make_run(workdir: pathlib.Path) -> pathlib.Path:
    sweep = write_sweep(workdir, known_sweep())
    spectra = named_spectra.settle(workdir, NAME, sweep, {"spectrum_points": 8})
    for pack in range(PACKS):
        with PackWriter(sweep.place(workdir, pack)) as writer, PackWriter(spectra.place(workdir, NAME, pack)) as other:
            for epoch in recorded_epochs(sweep.configs[0]):
                state, results = content(pack, epoch)
                writer.record(epoch, state, results)
                other.record(epoch, {}, results)
    return workdir


def read_all(workdir: pathlib.Path, near: pathlib.Path | None = None) -> int:
    """Reads everything and compares it with what was written. Returns how many files' worth of it was refused.

    Args:
      workdir: of `make_run`.
      near: only what shares a pack with this file, if it is of one.

    Raises:
      AssertionError: something was read that differs, or was refused in more than one line.
    """
    refused = 0

    def attempt(read, *arguments):
        nonlocal refused
        try:
            return read(*arguments)
        except (InputError, CheckpointError) as error:
            assert "\n" not in str(error) and len(str(error).replace(str(workdir), "DIR")) <= 300, str(error)
            refused += 1
            return None

    sweep = attempt(read_sweep, workdir)
    if sweep is None:
        return refused
    assert sweep == known_sweep()
    spectra = attempt(named_spectra.read, workdir, NAME, sweep)
    if spectra is not None:
        assert spectra.settings == {"spectrum_points": 8}
    for pack in range(PACKS):
        for place in (sweep.place(workdir, pack), spectra and spectra.place(workdir, NAME, pack)):
            if place and (near is None or "packs" not in near.parts or place.directory in near.parents):
                _read_pack(place, pack, attempt)
    return refused


def _read_pack(place, pack, attempt) -> None:
    has_variables = place.sweep == "known"
    for epoch in stored.recorded_epochs(place):
        if (loaded := attempt(stored.load_results, place, epoch)) is not None:
            assert_same(loaded, content(pack, epoch)[1])
        if has_variables and (loaded := attempt(stored.load_member, place, epoch, 3)) is not None:
            assert_same(loaded, member_of(pack, epoch, 3))
    for epoch, path in stored.stored_states(place):
        if (state := attempt(stored.read_state, path, place)) is not None:
            kernel = content(pack, epoch)[0]["variables"]["params"]["Dense_0"]["kernel"]
            np.testing.assert_array_equal(state["variables.params.Dense_0.kernel"], kernel)


def member_of(pack: int, epoch: int, member: int) -> dict:
    return variables_of(100 * pack + epoch, member, WIDTH)


def findings(workdir: pathlib.Path) -> list[verify.Finding]:
    return list(verify.check_run(workdir))


def kinds_of_files(workdir: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The files of a run by their kind: their paths without numbers and names that Orbax draws."""
    kinds: dict[str, list[pathlib.Path]] = {}
    for path in sorted(workdir.rglob("*")):
        if path.is_file() and path.name != "lock":
            parts = ["N" if part.isdecimal() else part for part in path.relative_to(workdir).parts]
            if path.suffix == ".npz" or path.parent.name == "d":
                parts[-1] = "*"
            kinds.setdefault("/".join(parts), []).append(path)
    return kinds
