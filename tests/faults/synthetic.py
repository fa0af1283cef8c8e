"""A run of known content that was never trained, and the question whether what is read of it is right."""

import pathlib

import numpy as np

from packs import MEMBERS, assert_same, make_results, make_state, variables_of
from spectral_dd import named_spectra, stored, verify
from spectral_dd.checkpoint import PackWriter
from spectral_dd.errors import CheckpointError, InputError
from spectral_dd.planning.epochs import recorded_epochs
from spectral_dd.sweeps import Lowering, Pack, Sweep, expand, read_sweep, write_sweep

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


def read_all(workdir: pathlib.Path) -> int:
    """Reads everything and compares it with what was written. Returns how many files' worth of it was refused.

    Raises:
      AssertionError: something was read that differs, or was refused in more than one line.
    """
    refused = 0

    def attempt(read):
        nonlocal refused
        try:
            return read()
        except (InputError, CheckpointError) as error:
            assert "\n" not in str(error) and len(str(error).replace(str(workdir), "DIR")) <= 300, str(error)
            refused += 1
            return None

    sweep = attempt(lambda: read_sweep(workdir))
    if sweep is None:
        return refused
    assert sweep == known_sweep()
    spectra = attempt(lambda: named_spectra.read(workdir, NAME, sweep))
    if spectra is not None:
        assert spectra.settings == {"spectrum_points": 8}
    for pack in range(PACKS):
        place = sweep.place(workdir, pack)
        for epoch in stored.recorded_epochs(place):
            _, results = content(pack, epoch)
            if (loaded := attempt(lambda p=place, e=epoch: stored.load_results(p, e))) is not None:
                assert_same(loaded, results)
            if (loaded := attempt(lambda p=place, e=epoch: stored.load_member(p, e, 3))) is not None:
                assert_same(loaded, member_of(pack, epoch, 3))
        for epoch, path in stored.stored_states(place):
            if (state := attempt(lambda p=path, w=place: stored.read_state(p, w))) is not None:
                kernel = content(pack, epoch)[0]["variables"]["params"]["Dense_0"]["kernel"]
                np.testing.assert_array_equal(state["variables.params.Dense_0.kernel"], kernel)
        if spectra is not None:
            place = spectra.place(workdir, NAME, pack)
            for epoch in stored.recorded_epochs(place):
                if (loaded := attempt(lambda p=place, e=epoch: stored.load_results(p, e))) is not None:
                    assert_same(loaded, content(pack, epoch)[1])
    return refused


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
