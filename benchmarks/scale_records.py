"""Ten thousand networks that were never trained, for scale.py: python benchmarks/scale_records.py DIRECTORY"""

import json
import os
import pathlib
import sys
import time

import numpy as np
from scale import AXES, TASKS

import spectral_dd as sdd
from spectral_dd import checkpoint, files, sealed, strict_json, summary
from spectral_dd.files import Place
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.epochs import recorded_epochs
from spectral_dd.planning.plan import plan_sweep
from spectral_dd.planning.prepare import prepare
from spectral_dd.records import MEASURED, METRICS, SPLITS
from spectral_dd.sweeps import Sweep, write_sweep


def plan() -> Sweep:
    prepared = prepare(sdd.sweep("digits", **AXES))
    return plan_sweep(prepared, Cost(prepared.configs, prepared.datasets), TASKS)


def results(members: int, epoch: int) -> dict[str, np.ndarray]:
    """As of a record: errors fall, rise and fall, each member's at its own epoch; spectra as large as real ones."""
    rng, at = np.random.default_rng(0), np.log10(max(epoch, 1))
    top = 1.5 + 0.1 * np.sin(np.arange(members))
    bump = np.exp(-((at - top) ** 2) / 0.1)
    made = {name: (0.4 - 0.1 * at + 0.12 * bump).astype(np.float32) for name in METRICS} | {"finite": np.ones(members)}
    for name, about in MEASURED.items():
        shape = (len(SPLITS), AXES["spectrum_examples"][0], *[9] * ("frequency" in about.dims))
        made[name] = np.multiply.outer(1 + bump, rng.random(shape, np.float32) + 0.1).astype(np.float32)
    made["relabelled"] = np.broadcast_to((rng.random(shape) < 0.1).astype(np.float32), made["margin"].shape)
    return made


def make_records(workdir: pathlib.Path, sweep: Sweep) -> None:
    epochs = recorded_epochs(sweep.configs[0])
    first: dict[int, tuple[pathlib.Path, dict]] = {}  # of each number of members: a record, and what it is sealed with
    # Of some members, and again of others.
    averaged = {epoch: summary.averaged(found := results(40, epoch), found["margin"]) for epoch in epochs}

    def few(of_some: dict[str, np.ndarray], members: int) -> dict[str, np.ndarray]:
        return {name: values[np.arange(members) % 40] for name, values in of_some.items()}

    for number, pack in enumerate(sweep.packs):
        members, place = len(pack.members), sweep.place(workdir, number)
        if members not in first:
            first[members] = write_first(place, members, epochs[0])
        source, flat = first[members]
        for epoch in epochs:
            target = place.directory / "records" / str(epoch)
            if target != source:
                link(source, target, place, epoch, flat)
        averages = summary.Summary(place)
        averages.found = {epoch: few(averaged[epoch], members) for epoch in epochs}
        averages.write()
        about = {"state": "done", "error": "", "process": "made up", "time": time.time(), "epoch": epochs[-1]}
        about |= {"examples_per_second": 1e5, "diverged": 0, "seconds_left": 0.0, "bytes": 10**9}
        files.write_whole(place.directory / "status.json", strict_json.dump(about))


def write_first(place: Place, members: int, epoch: int) -> tuple[pathlib.Path, dict]:
    kernels = {f"kernel{i}": np.zeros((members, 3, 3, 20, 20), np.float32) for i in range(5)}
    variables = {"variables": {"params": kernels}}
    recorded = {name: np.repeat(values, members, axis=0) for name, values in results(1, epoch).items()}
    with checkpoint.PackWriter(place) as writer:
        writer.record(epoch, variables, recorded)
    flat = sealed.to_host(variables)
    flat |= sealed.joined({sealed.RESULTS + name: array for name, array in recorded.items()})
    return place.directory / "records" / str(epoch), sealed.make_seal(place, epoch, flat)["arrays"]


def link(source: pathlib.Path, target: pathlib.Path, place: Place, epoch: int, crcs: dict) -> None:
    for path in source.rglob("*"):
        if path.is_file() and path.name != sealed.METADATA:
            other = target / path.relative_to(source)
            other.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, other)
    metadata = json.loads((source / sealed.METADATA).read_text())
    seal = {"sweep": place.sweep, "pack": place.pack, "epoch": epoch, "arrays": crcs}
    metadata["custom_metadata"]["seal"] = strict_json.seal(seal)
    (target / sealed.METADATA).write_text(json.dumps(metadata))


if __name__ == "__main__":
    directory = pathlib.Path(sys.argv[1])
    make_records(directory, write_sweep(directory, plan()))
