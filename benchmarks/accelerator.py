"""Everything that wants a real GPU or TPU, in one command of at most ten minutes; writes docs/accelerator-run.md.

Needs no network; PyTorch only for the comparison with it. What was measured is kept in --results after each
measurement, and the same command goes on where a shorter limit stopped it.

    python benchmarks/accelerator.py [--minutes=10] [--data_dir=DIR with CIFAR-10 of TFDS]
    python benchmarks/accelerator.py --toy=true    # small networks and images, on a CPU: only to see that it works
"""

import importlib.util
import json
import math
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

import spectral_dd as sdd
from spectral_dd import cli, data, devices, files
from spectral_dd.config import Config
from spectral_dd.family import Family
from spectral_dd.planning import hardware
from spectral_dd.planning.cost import Cost
from spectral_dd.programs import lowerings
from spectral_dd.provenance import provenance
from spectral_dd.sweeps import Lowering

FLAGS = flags.FlagValues()
own = {"flag_values": FLAGS}
flags.DEFINE_float("minutes", 10.0, "time limit; what is left is measured by the next call", **own)
flags.DEFINE_string("output", "docs/accelerator-run.md", "file to write", **own)
flags.DEFINE_string("results", None, "what was measured already; by default in the cache directory", **own)
flags.DEFINE_string("data_dir", None, "where CIFAR-10 is prepared; otherwise the sweep is of random images", **own)
flags.DEFINE_bool("toy", False, "small networks and images", **own)

BATCH = 128
# Largest difference of a logit of two ways to compute it, over the largest logit. Five steps amplify rounding.
TOLERANCE = 1e-3


class Item(NamedTuple):
    """One measurement."""

    section: str
    name: str
    measure: Callable[[], Any]  # a number or several, for JSON
    seconds: float  # that it will take, roughly


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
    torch=["Sequential", "HalfPrecision", "Compiled"],
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


def candidates(config: Config) -> dict[str, Lowering]:
    """The lowerings of accelerators, whatever runs this."""
    return {f"{low.convolution}, {low.at_once or 'all'} at once": low for low in lowerings("gpu", config)}


def correctness(size: Size) -> Iterator[Item]:
    """Members of different widths together against each alone, one after another by XLA's own convolution."""
    model, width, _ = size.cases[-1]
    dataset = random_images(size.image, size.steps)
    spectra = {"spectrum_examples": 4, "spectrum_points": 8, "spectrum_measures": 0}
    configs = members(model, [width, 2 * width], size, learning_rate=1e-4, **spectra)

    def trained(configs: list[Config], lowering: Lowering) -> list[dict[str, np.ndarray]]:
        family = family_of(configs, dataset, lowering)
        state = family.train(family.initial_state(), 0, 1, max_steps=5)
        found = family.evaluate(state) | {"energy": family.probe(state, 0)["energy"]}
        return [{name: values[i] for name, values in found.items()} for i in range(len(configs))]

    alone: list[dict[str, np.ndarray]] = []

    def difference(lowering: Lowering) -> float:
        if not alone:
            alone.extend(trained([config], Lowering("lax", 1))[0] for config in configs)
        pairs = zip(trained(configs, lowering), alone, strict=True)
        relative = [
            np.max(np.abs(ours[name] - theirs[name])) / np.max(np.abs(theirs[name]))
            for ours, theirs in pairs
            for name in ("train_loss", "test_loss", "energy")
        ]
        return float(np.nanmax(relative))

    for name, lowering in candidates(configs[0]).items():
        yield Item("correctness", name, lambda lowering=lowering: difference(lowering), 30)


def throughput(size: Size, chip: hardware.Chip | None) -> Iterator[Item]:
    """Models x examples a second of a pack by each lowering."""
    dataset = random_images(size.image, size.steps)

    def measured(config: Config, count: int, lowering: Lowering) -> dict[str, float | None]:
        configs = [config.replace(seed=i) for i in range(count)]
        family = family_of(configs, dataset, lowering)
        state = jax.block_until_ready(family.train(family.initial_state(), 0, 1))
        times = []
        for _ in range(size.repeats):
            start = time.perf_counter()
            state = jax.block_until_ready(family.train(state, 0, 2))
            times.append((time.perf_counter() - start) / 2)
        rate = count * size.steps * BATCH / statistics.median(times)
        flops = Cost(configs, {"random": dataset}).step_flops(config, config.width) / BATCH
        return {
            "rate": rate,
            "mfu": rate * flops / chip.flops(config) if chip else None,
            "idle": idle_share(lambda: family.train(state, 0, 1)),
            "memory": family.programs["training"].memory,
        }

    for dtype in ("bfloat16", "float32"):
        for model, width, count in size.cases:
            (config,) = members(model, [width], size, dtype=dtype)
            for name, lowering in candidates(config).items():
                label = f"{count} x {model} k={width}, {dtype}, {name}"
                measure = lambda c=config, n=count, low=lowering: measured(c, n, low)  # noqa: E731
                yield Item("throughput", label, measure, 20)


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


def side_by_side_rates(size: Size) -> Iterator[Item]:
    """PyTorch's training of the same networks, one after another, and both spectra; each in a process of its own."""
    import side_by_side  # its flags are those of the benchmarks

    if importlib.util.find_spec("torch") is None or not size.torch:
        return
    flags.FLAGS.mark_as_parsed()

    def rate(program: str, setting: Any, pieces: int) -> float:
        running = side_by_side.Running(program, setting)
        try:
            return pieces * running.rate()
        finally:
            running.stop()

    for model, width, count in size.cases:
        setting = side_by_side.Setting(model, [width] * count, size.image)
        pieces = count * BATCH * side_by_side.STEPS_PER_EPOCH
        for name in size.torch:
            program = f"torch_{'contestants' if name == 'Sequential' else 'accelerated'}.py {name}"
            label = f"{count} x {model} k={width}, {name}"
            yield Item("PyTorch", label, lambda p=program, s=setting, n=pieces: rate(p, s, n), 30)
    model, width, count = size.cases[-1]
    setting = side_by_side.Setting(model, [width] * count, size.image)
    pieces = count * side_by_side.EXAMPLES * side_by_side.POINTS
    programs = {"public code's loop": "torch_contestants.py Spectra", "spectral_dd": "jax_contestants.py OurSpectra"}
    for name, program in programs.items():
        yield Item("spectra", f"{count} x {model} k={width}, {name}", lambda p=program: rate(p, setting, pieces), 30)


def sweep(size: Size, data_dir: str | None) -> Iterator[Item]:
    """A width sweep as a user runs it."""

    def measured() -> dict[str, Any]:
        axes = dict(size.sweep)
        configs = sdd.sweep(axes.pop("preset"), **axes)
        given: dict[str, Any] = {"data_dir": data_dir}
        if not data_dir:
            given = {"dataset": random_images(size.image, max(size.steps, 4))}
            configs = [c.replace(train_size=0) for c in configs]
        with tempfile.TemporaryDirectory() as directory:
            start = time.perf_counter()
            made = sdd.train(pathlib.Path(directory) / "run", configs, **given)
            seconds = time.perf_counter() - start
            errors = sdd.load_results(pathlib.Path(directory) / "run").test_error.isel(epoch=-1).values
        found = dict(zip((str(c.width) for c in configs), map(float, errors), strict=True))
        examples = sum(c.steps * c.batch_size for c in made.configs)
        return {"seconds": seconds, "rate": examples / seconds, "test_error": found}

    yield Item("sweep", f"widths {size.sweep['width']}, {size.sweep['epochs']} epochs", measured, 120)


def measure(items: Sequence[Item], path: pathlib.Path, deadline: float) -> dict[str, Any]:
    """Measures what the results lack, as long as there is time, and keeps each at once."""
    results = json.loads(path.read_text()) if path.exists() else {}
    for item in items:
        key = f"{item.section}: {item.name}"
        if key in results or time.monotonic() + item.seconds > deadline:
            continue
        try:
            results[key] = item.measure()
        except Exception as error:  # One way to compute that fails is a result too.
            results[key] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        print(f"{key}: {results[key]}", file=sys.stderr, flush=True)
        files.write_whole(path, json.dumps(results, indent=1))
    return results


def page(items: Sequence[Item], results: dict[str, Any]) -> str:
    about, platform = provenance(), jax.local_devices()[0].platform
    lines = ["# On an accelerator", ""]
    if platform == "cpu":
        lines += ["**Not yet run on a GPU**: this page is of a CPU, and says only that the command works.", ""]
    lines += [
        f"`{about['command']}`, {about['date']}, {', '.join(about['devices'])}, "
        f"{', '.join(f'{name} {version}' for name, version in about['versions'].items())}.",
        "",
        f"Correctness: the largest relative difference of losses and spectra after five steps; at most {TOLERANCE:g} "
        "is right. Throughput: models x examples a second; mfu: of the data sheet's FLOP/s, useful ones only; idle: "
        "share of an epoch in which the device runs nothing; memory in bytes.",
        "",
        "| what | how | found |",
        "|---|---|---|",
    ]
    for item in items:
        found = results.get(f"{item.section}: {item.name}", "not measured yet")
        lines.append(f"| {item.section} | {item.name} | {_written(found)} |")
    return "\n".join([*lines, ""])


def _written(found: Any) -> str:
    if isinstance(found, dict):
        return ", ".join(f"{name} {_written(value)}" for name, value in found.items() if value is not None)
    return f"{found:,.0f}" if isinstance(found, float | int) and found >= 100 else str(found)[:200]


def run(size: Size, path: pathlib.Path, minutes: float, data_dir: str | None = None) -> str:
    """Measures, and returns the page."""
    devices.set_up()
    kind = jax.local_devices()[0].device_kind.lower()
    chip = next((chip for name, chip in hardware.CHIPS.items() if name in kind), None)
    deadline = time.monotonic() + 60 * minutes
    with devices.numerics(x64=False):
        items = [*correctness(size), *throughput(size, chip), *side_by_side_rates(size), *sweep(size, data_dir)]
        return page(items, measure(items, path, deadline))


def main() -> None:
    kept = files.cache_directory() / f"accelerator{'-toy' * FLAGS.toy}.json"
    text = run(SMALL if FLAGS.toy else FULL, pathlib.Path(FLAGS.results or kept), FLAGS.minutes, FLAGS.data_dir)
    files.write_whole(FLAGS.output, text)


if __name__ == "__main__":
    cli.main()
