"""Everything that wants a real GPU or TPU, in calls of at most ten minutes; writes docs/accelerator-run.md.

Needs no network; PyTorch only for the comparison with it. What was measured is kept in --results, section by section,
and the same command goes on where the limit stopped it.

    python benchmarks/accelerator.py [--minutes=10] [--section=bfloat16,...] [--dataset=FILE.npz of CIFAR-10]
    python benchmarks/accelerator.py --toy=true    # small networks and images, on a CPU: only to see that it works
"""

import concurrent.futures
import functools
import importlib.util
import itertools
import json
import math
import pathlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import contest  # before JAX takes the memory of a GPU
import jax
import numpy as np
from absl import flags

import spectral_dd as sdd
from spectral_dd import cli, data, devices, files
from spectral_dd.config import Config
from spectral_dd.errors import InputError
from spectral_dd.family import Family
from spectral_dd.planning import hardware
from spectral_dd.planning.cost import Cost
from spectral_dd.programs import lowerings
from spectral_dd.provenance import provenance
from spectral_dd.sweeps import Lowering

# Section -> seconds that it takes on an H200 with 16 cores, roughly; most of them compile.
SECTIONS = {"correctness": 50, "bfloat16": 200, "float32": 200, "PyTorch": 250, "spectra": 120, "sweep": 180}

FLAGS = flags.FlagValues()
own = {"flag_values": FLAGS}
flags.DEFINE_float("minutes", 10.0, "time limit; what is left is measured by the next call", **own)
flags.DEFINE_list("section", list(SECTIONS), f"which of {', '.join(SECTIONS)}", **own)
flags.DEFINE_string("output", "docs/accelerator-run.md", "file to write", **own)
flags.DEFINE_string("results", None, "what was measured already; by default in the cache directory", **own)
flags.DEFINE_string("dataset", None, "images of the sweep: FILE.npz; by default random ones", **own)
flags.DEFINE_bool("toy", False, "small networks and images", **own)

BATCH = 128
# Largest difference of a logit of two ways to compute it, over the largest logit. Five steps amplify rounding.
TOLERANCE = 1e-3


class Item(NamedTuple):
    """One measurement."""

    section: str
    name: str
    # Compiles or starts a process, beside the other items of its section. What it returns measures, with nothing
    # beside it: a number or several, for JSON.
    prepare: Callable[[], Callable[[], Any]]


class Size(NamedTuple):
    """What is measured: (model, width, members), and how long."""

    cases: Sequence[tuple[str, int, int]]
    image: int
    steps: int  # of an epoch
    repeats: int
    sweep: dict[str, Any]
    torch: Sequence[str]


FULL = Size(
    cases=[("resnet18", 4, 16), ("resnet18", 16, 4), ("resnet18", 64, 1), ("cnn5", 8, 8)],
    image=32,
    steps=20,
    repeats=3,
    sweep={"preset": "nakkiran_resnet18", "width": [2, 4, 8, 16], "label_noise": 0.15, "epochs": 4},
    torch=[
        "Sequential",
        "Sequential channels_last bfloat16",
        "Sequential channels_last bfloat16 compile",
        "Sequential channels_last bfloat16 graphs",
        "Processes channels_last bfloat16",
        "Vmap",
    ],
)
SMALL = Size(
    cases=[("mlp", 4, 2)],
    image=8,
    steps=1,
    repeats=1,
    sweep={"preset": None, "model": "mlp", "width": [2, 4], "epochs": 2, "spectrum_examples": 0},
    torch=[],
)


def random_images(size: int, steps: int) -> data.Dataset:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (steps * BATCH, size, size, 3), np.uint8), rng.integers(0, 10, steps * BATCH)
    labels = labels.astype(np.int32)
    return data.Dataset("random", images, labels, images[:BATCH], labels[:BATCH], num_classes=10)


def members(model: str, widths: Sequence[int], size: Size, **fields: Any) -> list[Config]:
    values = {"spectrum_examples": 0, "shift": 1, "flip": True, "epochs": 10**6} | fields
    return [
        Config.of(
            model=model, dataset="random", width=w, seed=i, train_size=size.steps * BATCH, batch_size=BATCH, **values
        )
        for i, w in enumerate(widths)
    ]


def family_of(configs: list[Config], dataset: data.Dataset, lowering: Lowering) -> Family:
    return Family(configs, dataset, data.draw_all(configs, {"random": dataset}), lowering=lowering)


def candidates(config: Config, count: int) -> dict[str, Lowering]:
    """The lowerings of accelerators, whatever runs this, for so many members; no program twice."""
    if count == 1:
        return {"alone": Lowering("lax", 1)}
    return {f"{low.convolution}, {low.at_once or 'all'} at once": low for low in lowerings("gpu", config)}


def correctness(size: Size) -> Iterator[Item]:
    """Members of different widths together against each alone, one after another by XLA's own convolution."""
    model, width, _ = size.cases[-1]
    dataset = random_images(size.image, size.steps)
    spectra = {"spectrum_examples": 4, "spectrum_points": 8, "spectrum_measures": 0}
    configs = members(model, [width, 2 * width], size, learning_rate=1e-4, **spectra)
    one_alone = threading.Lock()

    def trained(configs: list[Config], lowering: Lowering) -> list[dict[str, np.ndarray]]:
        family = family_of(configs, dataset, lowering)
        state = family.train(family.initial_state(), 0, 1, max_steps=5)
        found = family.evaluate(state) | {"energy": family.probe(state, 0)["energy"]}
        return [{name: values[i] for name, values in found.items()} for i in range(len(configs))]

    @functools.cache
    def alone() -> list[dict[str, np.ndarray]]:
        return [trained([config], Lowering("lax", 1))[0] for config in configs]

    def difference(lowering: Lowering) -> Callable[[], float]:
        together = trained(configs, lowering)
        with one_alone:
            pairs = list(zip(together, alone(), strict=True))
        relative = []
        for ours, theirs in pairs:
            for name in ("train_loss", "test_loss", "energy"):
                there = ~np.isnan(theirs[name])  # a split without examples has no energy
                off = np.abs(ours[name] - theirs[name])[there]
                relative.append(float(np.max(off) / np.max(np.abs(theirs[name][there]))))
        return lambda: max(relative, key=lambda value: (math.isnan(value), value))

    for name, lowering in candidates(configs[0], len(configs)).items():
        yield Item("correctness", name, functools.partial(difference, lowering))


def throughput(size: Size, chip: hardware.Chip | None, dtype: str) -> Iterator[Item]:
    """Models x examples a second of a pack by each lowering; float32 multiplies in TF32, which PyTorch does as well."""
    dataset = random_images(size.image, size.steps)

    def ready(config: Config, count: int, lowering: Lowering) -> Callable[[], dict[str, float | None]]:
        configs = [config.replace(seed=i) for i in range(count)]
        family = family_of(configs, dataset, lowering)
        state = jax.block_until_ready(family.train(family.initial_state(), 0, 1))
        return lambda: measured(family, state)

    def measured(family: Family, state: Any) -> dict[str, float | None]:
        times, count, config = [], len(family.configs), family.config
        for _ in range(size.repeats):
            start = time.perf_counter()
            state = jax.block_until_ready(family.train(state, 0, 4))
            times.append((time.perf_counter() - start) / 4)
        rate = count * size.steps * BATCH / statistics.median(times)
        flops = float(Cost(family.configs, {"random": dataset}).step_flops(config, config.width)) / BATCH
        return {
            "rate": rate,
            "mfu": rate * flops / chip.flops(config) if chip else None,
            "idle": idle_share(lambda: family.train(state, 0, 1)),
            "memory": family.programs["training"].memory,
        }

    for model, width, count in size.cases:
        (config,) = members(model, [width], size, dtype=dtype, matmul_precision="tensorfloat32")
        for name, lowering in candidates(config, count).items():
            yield Item(dtype, f"{count} x {model} k={width}, {name}", functools.partial(ready, config, count, lowering))


def idle_share(run: Callable[[], Any]) -> float | None:
    """Share of the time in which a device runs nothing; None where the profiler does not see devices."""
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            jax.block_until_ready(run())
        (path,) = pathlib.Path(directory).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(path)).planes
        spans = [
            (event.start_ns, event.start_ns + event.duration_ns)
            for plane in planes
            if plane.name.startswith("/device:")
            for line in plane.lines
            if line.name.startswith(("Stream", "XLA Ops"))
            for event in line.events
        ]
    if not spans:
        return None
    busy, end = 0.0, -math.inf
    for start, stop in sorted(spans):
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return 1 - busy / (end - min(spans)[0])


def rate_of(program: str, setting: contest.Setting, pieces: int, repeats: int) -> Callable[[], float]:
    """Starts a contestant; what is returned measures pieces of its work a second, and ends it."""
    running = contest.Running(program, setting)

    def measured() -> float:
        try:
            return pieces * statistics.median(running.rate() for _ in range(repeats))
        finally:
            running.stop()

    return measured


def contestants(size: Size) -> Iterator[Item]:
    """PyTorch's training of the same networks."""
    if importlib.util.find_spec("torch") is None:
        return
    for model, width, count in size.cases:
        setting = contest.Setting(model, [width] * count, size.image)
        pieces = count * BATCH * contest.STEPS_PER_EPOCH
        for name in size.torch:
            if count > 1 or name.startswith("Sequential"):
                arguments = (f"torch_contestants.py {name}", setting, pieces, size.repeats)
                yield Item("PyTorch", f"{count} x {model} k={width}, {name}", functools.partial(rate_of, *arguments))


def spectra(size: Size) -> Iterator[Item]:
    """Forward passes a second for spectra, by the public code's loop and by this project."""
    if importlib.util.find_spec("torch") is None or not size.torch:
        return
    for model, width, count in size.cases:
        setting = contest.Setting(model, [width] * count, size.image)
        pieces = count * contest.EXAMPLES * contest.POINTS
        programs = {
            "public code's loop": "torch_contestants.py Spectra",
            "the same, compiled": "torch_contestants.py Spectra channels_last compile",
            "spectral_dd": "jax_contestants.py OurSpectra",
        }
        for name, program in programs.items():
            arguments = (program, setting, pieces, size.repeats)
            yield Item("spectra", f"{count} x {model} k={width}, {name}", functools.partial(rate_of, *arguments))


def sweep(size: Size, dataset: str | None) -> Iterator[Item]:
    """A width sweep as a user runs it."""

    def measured() -> dict[str, Any]:
        axes = dict(size.sweep)
        preset, given = axes.pop("preset"), {}
        if dataset:
            configs = sdd.sweep(preset, dataset=dataset, **axes)
        else:
            given = {"dataset": random_images(size.image, max(size.steps, 4))}
            configs = [c.replace(train_size=0) for c in sdd.sweep(preset, **axes)]
        with tempfile.TemporaryDirectory() as directory:
            start = time.perf_counter()
            made = sdd.train(pathlib.Path(directory) / "run", configs, **given)
            seconds = time.perf_counter() - start
            errors = sdd.load_results(pathlib.Path(directory) / "run").test_error.isel(epoch=-1).values
        found = dict(zip((str(c.width) for c in configs), map(float, errors), strict=True))
        examples = sum(c.steps * c.batch_size for c in made.configs)
        return {"seconds": seconds, "rate": examples / seconds, "test_error": found}

    images = pathlib.Path(dataset).stem if dataset else "random images"
    name = f"widths {size.sweep['width']}, {size.sweep['epochs']} epochs, {images}"
    yield Item("sweep", name, lambda: measured)


def measure(items: Sequence[Item], path: pathlib.Path, deadline: float) -> dict[str, Any]:
    """Measures what the results lack, section by section as long as there is time, and keeps each at once."""
    results = json.loads(path.read_text()) if path.exists() else {}
    for section, group in itertools.groupby(items, lambda item: item.section):
        left = [item for item in group if _key(item) not in results]
        if not left or time.monotonic() + SECTIONS[section] > deadline:
            continue
        with concurrent.futures.ThreadPoolExecutor(contest.CORES) as threads:
            prepared = [threads.submit(_or_error, item.prepare) for item in left]
        for item, ready in zip(left, prepared, strict=True):
            found = ready.result()
            results[_key(item)] = _or_error(found) if callable(found) else found
            print(f"{_key(item)}: {results[_key(item)]}", file=sys.stderr, flush=True)
            files.write_whole(path, json.dumps(results, indent=1))
    return results


def _key(item: Item) -> str:
    return f"{item.section}: {item.name}"


def _or_error(f: Callable[[], Any]) -> Any:
    """What `f` returns, or its error in a line: one way to compute that fails is a result too."""
    try:
        with devices.numerics(x64=False):  # of this thread
            return f()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def page(items: Sequence[Item], results: dict[str, Any]) -> str:
    about, platform = provenance(), jax.local_devices()[0].platform
    lines = ["# On an accelerator", ""]
    if platform == "cpu":
        lines += ["**Not yet run on a GPU**: this page is of a CPU, and says only that the command works.", ""]
    lines += [
        f"`{about['command']}`, {about['date']}, {', '.join(about['devices'])}, "
        f"{', '.join(f'{name} {version}' for name, version in about['versions'].items())}.",
        "",
        f"*Correctness*: the largest relative difference of losses and spectra after five steps; at most {TOLERANCE:g} "
        "is right. *bfloat16*, *float32* and *PyTorch*: training, models x examples a second; mfu: of the data "
        "sheet's FLOP/s, useful ones only; idle: share of an epoch in which the device runs nothing; memory in bytes. "
        "*Spectra*: forward passes a second.",
    ]
    for section, group in itertools.groupby(items, lambda item: item.section):
        lines += ["", f"## {section[0].upper() + section[1:]}", "", "| what | found |", "|---|---|"]
        lines += [f"| {item.name} | {_written(results.get(_key(item), 'not measured yet'))} |" for item in group]
    return "\n".join([*lines, ""])


def _written(found: Any) -> str:
    if isinstance(found, dict):
        return ", ".join(f"{name} {_written(value)}" for name, value in found.items() if value is not None)
    if isinstance(found, float | int):
        return f"{found:,.0f}" if found >= 100 else f"{found:.3g}"
    return str(found)[:200]


def run(
    size: Size,
    path: pathlib.Path | None,
    minutes: float,
    sections: Sequence[str] = tuple(SECTIONS),
    dataset: str | None = None,
) -> str:
    """Measures, and returns the page."""
    devices.set_up()
    flags.FLAGS(["accelerator", "--seconds=1"])  # of a contestant's measurement
    for section in sections:
        if section not in SECTIONS:
            raise InputError(f"--section={section}: must be among {', '.join(SECTIONS)}")
    kind = jax.local_devices()[0].device_kind
    # What was measured on one device says nothing of another.
    path = path or files.cache_directory() / f"accelerator-{kind.replace(' ', '-')}.json"
    chip = next((chip for name, chip in hardware.CHIPS.items() if name in kind.lower()), None)
    deadline = time.monotonic() + 60 * minutes
    items = [
        *correctness(size),
        *throughput(size, chip, "bfloat16"),
        *throughput(size, chip, "float32"),
        *contestants(size),
        *spectra(size),
        *sweep(size, dataset),
    ]
    return page(items, measure([i for i in items if i.section in sections], path, deadline))


def main() -> None:
    toy, path = FLAGS.toy, FLAGS.results and pathlib.Path(FLAGS.results)
    if toy:
        path = path or files.cache_directory() / "accelerator-toy.json"
    text = run(SMALL if toy else FULL, path, FLAGS.minutes, FLAGS.section, FLAGS.dataset)
    files.write_whole(FLAGS.output, text)


if __name__ == "__main__":
    cli.main()
