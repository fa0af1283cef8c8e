"""Writes docs/accelerators.md: what XLA's compilers for GPUs and TPUs say of each way to compute a step of training.

Needs the compilers: `pip install --editable ".[cuda,tpu]"`; no GPU and no TPU. Half an hour on two cores; what was
compiled is kept in --results, so that the command goes on where it stopped.

    python benchmarks/target.py [--target=h100,v5e:2x2] [--case=resnet18:4,...] [--lowering=packed,...]
"""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from spectral_dd import data, devices, files, models
from spectral_dd.config import Config
from spectral_dd.errors import InputError
from spectral_dd.family import host_arrays
from spectral_dd.planning import hardware, target
from spectral_dd.planning.liveness import inner_programs
from spectral_dd.programs import lowerings
from spectral_dd.provenance import provenance
from spectral_dd.sweeps import Lowering

BATCH = 128
OUTPUT = flags.DEFINE_string("output", "docs/accelerators.md", "file whose tables are written anew")
RESULTS = flags.DEFINE_string("results", str(files.cache_directory() / "target.json"), "what was compiled already")
TARGET = flags.DEFINE_list("target", ["h100", "v5e:2x2"], "hardware")
CASE = flags.DEFINE_list("case", None, "of the cases, those of this network and width")
LOWERING = flags.DEFINE_list("lowering", None, "of the lowerings, those of this name")


class Case(NamedTuple):
    """A pack of networks of one width."""

    model: str
    width: int
    members: int

    @property
    def name(self) -> str:
        return f"{self.model}:{self.width}"


CASES = [Case("resnet18", 4, 16), Case("resnet18", 16, 4), Case("resnet18", 64, 1), Case("cnn5", 8, 8)]
# What is compared, the first default of accelerators first.
LOWERINGS = {
    "im2col": Lowering("im2col", None),
    "vmap": Lowering("lax", None),
    "one after another": Lowering("lax", 1),
    "packed": Lowering("packed", None),
}
# Models x examples a second that one H100 should reach by the roofline.
GOALS = {"resnet18:4": 1.2e6, "resnet18:16": 400e3, "resnet18:64": 100e3}

BEGIN, END = "<!-- written by benchmarks/target.py -->", "<!-- until here -->"


def members(case: Case) -> tuple[list[Config], data.Dataset]:
    shape = (10 * BATCH, 32, 32, 3)
    images, labels = np.zeros(shape, np.uint8), np.arange(shape[0], dtype=np.int32) % 10
    dataset = data.Dataset("random", images, labels, images[:1], labels[:1], num_classes=10)
    configs = [
        Config.of(
            model=case.model, dataset="random", width=case.width, seed=seed, train_size=len(images), batch_size=BATCH,
            shift=4, flip=True, dtype="bfloat16", spectrum_examples=0,
        )
        for seed in range(case.members)
    ]  # fmt: skip
    return configs, dataset


def lower_bound(case: Case) -> float:
    """Bytes of a step: each convolution's input, output and their gradients, read or written once by the operation
    that needs them.

    The convolution reads x and writes y, its gradient by x reads dy and writes dx, that by the kernel reads x and dy.
    Nobody needs the gradient by the images.
    """
    configs, dataset = members(case)
    config = configs[0]
    network = models.with_fields(models.build_model(config, dataset.num_classes), convolution="lax")
    images = jax.ShapeDtypeStruct((BATCH, *dataset.train_images.shape[1:]), jnp.float32)
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images)
    traced = jax.make_jaxpr(lambda v, x: network.apply(v, x, train=False))(variables, images)
    convolutions = [e for e in _equations(traced.jaxpr) if e.primitive.name == "conv_general_dilated"]
    sizes = [(e.invars[0].aval.size, e.outvars[0].aval.size) for e in convolutions]
    numbers = sum(3 * x + 3 * y for x, y in sizes) - sizes[0][0]
    return case.members * numbers * jnp.dtype(config.dtype).itemsize


def _equations(jaxpr: Any):
    for equation in jaxpr.eqns:
        yield equation
        for inner in inner_programs(equation):
            yield from _equations(inner)


def compile_cases(results: dict[str, Any], path: pathlib.Path) -> None:
    """Adds what is missing to the results, and keeps them on disk."""
    for machine in map(hardware.parse_target, TARGET.value):
        for case in CASES:
            for name, lowering in LOWERINGS.items():
                key = f"{machine.name} {case.name} {name}"
                chosen = case.name in (CASE.value or [case.name]) and name in (LOWERING.value or [name])
                if key in results or not chosen or (case.members == 1 and lowering.at_once == 1):
                    continue
                configs, dataset = members(case)
                shapes = host_arrays(configs, dataset, data.draw_all(configs, {"random": dataset}))[0].shapes()
                job = target.Job(configs, dataset.num_classes, shapes, lowering, 1, ("training",))
                try:
                    (accounts,) = target.compile_for(machine, [job])
                    results[key] = accounts["training"]._asdict()
                except InputError as error:
                    results[key] = str(error)
                print(key, results[key], file=sys.stderr, flush=True)
                files.write_whole(path, json.dumps(results, indent=1))


def table(results: dict[str, Any], name: str) -> list[str]:
    chip = hardware.parse_target(name).chip
    lines = [
        f"### {name}",
        "",
        "| pack | lowering | MB a step | of the lower bound | temporary MB | of im2col's | GFLOP | M cycles | bound | "
        "models x examples / s, at most | compile s |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|---:|---:|",
    ]
    for case in CASES:
        bound, first = lower_bound(case), results.get(f"{name} {case.name} im2col")
        for lowering in LOWERINGS:
            found = results.get(f"{name} {case.name} {lowering}")
            about = f"| {case.members} x {case.model} k={case.width} | {lowering} "
            if not isinstance(found, dict):
                lines += [f"{about}| {found} |"] if found else []
                continue
            account = target.Account(**found)
            config = members(case)[0][0]
            bounds = account.bounds(chip, config)
            cycles = f"{account.cycles / 1e6:,.2f}" if account.cycles else ""  # which compilers for GPUs do not say
            by, rate = max(bounds, key=bounds.__getitem__), case.members * BATCH / max(bounds.values())
            less = f"{account.temporary / first['temporary']:.2f}" if isinstance(first, dict) else ""
            lines.append(
                f"{about}| {account.bytes / 1e6:,.0f} | {account.bytes / bound:.1f} | {account.temporary / 1e6:,.0f} | "
                f"{less} | {account.flops / 1e9:,.0f} | {cycles} | {by} | "
                f"{rate:,.0f} | {account.compile_seconds:.0f} |"
            )
    return lines


def kinds(results: dict[str, Any], name: str) -> list[str]:
    """Which operations move the bytes of the default lowering."""
    usual = lowerings(hardware.parse_target(name).platform, members(CASES[0])[0][0])[0]
    default = next(of for of, lowering in LOWERINGS.items() if lowering.convolution == usual.convolution)
    lines = [
        f"### What moves the bytes: {default}, {name}",
        "",
        "| pack | operation | share of the bytes |",
        "|---|---|---:|",
    ]
    for case in CASES:
        found = results.get(f"{name} {case.name} {default}")
        if isinstance(found, dict):
            for kind, moved in sorted(found["by_kind"].items(), key=lambda item: -item[1]):
                if moved > 0.03 * found["bytes"]:
                    lines.append(
                        f"| {case.members} x {case.model} k={case.width} | {kind} | {moved / found['bytes']:.0%} |"
                    )
    return lines


def main(argv: Sequence[str]) -> None:
    devices.plan_only()
    path = pathlib.Path(RESULTS.value)
    results = json.loads(path.read_text()) if path.exists() else {}
    compile_cases(results, path)
    about = provenance()
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [f"{about['date']}, {versions}; two cores; batch {BATCH}, bfloat16, Adam, images of 32x32.", ""]
    for name in TARGET.value:
        lines += [*table(results, name), "", *kinds(results, name), ""]
    page = pathlib.Path(OUTPUT.value)
    before, _, rest = page.read_text().partition(BEGIN)
    files.write_whole(page, "\n".join([before + BEGIN, "", *lines, END]) + rest.partition(END)[2])


if __name__ == "__main__":
    app.run(main)
