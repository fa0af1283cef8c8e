"""Training throughput of this project against what one would use instead, side by side.

Needs PyTorch (`make bench` installs it). About a quarter of an hour on two cores.

    python benchmarks/training.py [--size=8,32] [--width=2,8,32,mixed]
    python benchmarks/training.py --model=resnet18 [--size=32] [--width=4,16,64]    # for a GPU
"""

from collections.abc import Sequence

import contest
import jax
from absl import app, flags
from arithmetic import PASSES_OF_A_STEP, pass_flops, print_product_rates
from contest import BATCH, CORES, PLANNED_STEPS, STEPS_PER_EPOCH, Setting

from spectral_dd import devices
from spectral_dd.presets import PRESETS

MODEL = flags.DEFINE_enum("model", "cnn5", ["cnn5", "resnet18"], "architecture")
SIZE = flags.DEFINE_list("size", None, "heights and widths of the images: 8,32; of a resnet18 32")
WIDTH = flags.DEFINE_list(
    "width", None,
    "widths; mixed: one network each of 1 to 32; by default 2,8,32, of a resnet18 4,16,64",
)  # fmt: skip
MEMBERS = flags.DEFINE_integer("members", 4, "networks of a width")

# Sizes and widths. Mixed widths take too long for `make bench`, whose whole job has them too.
DEFAULTS = {"cnn5": (["8", "32"], ["2", "8", "32"]), "resnet18": (["32"], ["4", "16", "64"])}
MIXED = list(PRESETS["digits"]["width"])

# What can be combined in PyTorch.
OPTIONS = ("", "channels_last", "channels_last compile")
OURS = "spectral_dd"

METHOD = """
Examples a second over all networks: {model}, Adam (1e-3), batch {batch}, random images, shuffled and augmented in
memory (random shift, and flip at 32x32) by vectorised operations, no evaluation. {members} networks of a width; mixed:
one each of widths {mixed}. Types: {types}.

- PyTorch, one after another: all {cores} cores (or the GPU) in each operation, fused Adam.
- PyTorch, a process a core: the same, single-threaded, the networks dealt to the processes.
  Each of the two as it comes, with images and weights channels last, and with torch.compile as well; in bfloat16 by
  autocast.
- torch.func.vmap: over the networks, which must be of one width; BatchNorm without running statistics.
- JAX, Python loop: flax's own layers, one jitted step, one network after another.
- spectral_dd: as in a sweep with `--tune=off`, which does not measure which of its ways is fastest. Its packs are
  planned for {steps:,} steps, as many as the five-layer networks of Nakkiran et al. (arXiv 1912.02292) trained: the
  longer a sweep, the less padding.

"Of the best" is the rate of spectral_dd over that of the fastest other, which is named: of the same type, and of any
type, ours then in our fastest type. Useful GFLOP/s: three forward passes for a step, at the networks' own widths, of
convolutions as sums of products (Winograd's take half of them); and their share of the machine's rate of products.
"""


def contestants(setting: Setting, dtype: str) -> dict[str, str]:
    """Name -> program, of all who compute in this type."""
    precision = {"float32": "", "bfloat16": " bfloat16"}[dtype]
    found = {
        f"PyTorch, {way}" + (f", {options}" if options else ""): f"torch_contestants.py {name} {options}{precision}"
        for way, (name, several) in ways().items()
        for options in several
    }
    if len(set(setting.widths)) == 1 and dtype == "float32":
        found["torch.func.vmap"] = "torch_contestants.py Vmap"
    return found | {"JAX, Python loop": f"jax_contestants.py Loop {dtype}", OURS: f"jax_contestants.py Ours {dtype}"}


def ways() -> dict[str, tuple[str, Sequence[str]]]:
    """Of PyTorch to train several networks, with the options that each is measured with."""
    sequential = {"one after another": ("Sequential", OPTIONS)}
    return sequential if on_gpu() else sequential | {"a process a core": ("Processes", OPTIONS)}


def on_gpu() -> bool:
    return jax.devices()[0].platform == "gpu"


def types() -> list[str]:
    return ["float32", "bfloat16"] if devices.has_bfloat16_units() else ["float32"]


def fastest(rates: dict[str, float]) -> tuple[str, float]:
    return max(rates.items(), key=lambda item: item[1])


def main(argv: Sequence[str]) -> None:
    mixed = f"{', '.join(map(str, MIXED[:-1]))} and {MIXED[-1]}"
    about = {"model": MODEL.value, "batch": BATCH, "members": MEMBERS.value, "mixed": mixed, "cores": CORES}
    measured = " and ".join(types())
    if "bfloat16" not in types():
        measured += "; this processor has no units for bfloat16 (avx512_bf16, amx_bf16)"
    text = METHOD.format(**about, steps=PLANNED_STEPS, types=measured)
    contest.print_section(f"Training: {MODEL.value}", text)
    products = {dtype: print_product_rates(dtype) for dtype in types()}
    names = ["size", "width", "type", "fastest other"]
    contest.print_heading(names, ["its rate", OURS, "of the best", "GFLOP/s", "of products", "of the best of any type"])
    sizes, widths = DEFAULTS[MODEL.value]
    ratios: dict[str, list[float]] = {kind: [] for kind in (*types(), "any type")}
    everything: list[tuple[str, str, dict[str, float]]] = []
    for size in map(int, SIZE.value or sizes):
        for width in WIDTH.value or widths:
            setting = Setting(MODEL.value, MIXED if width == "mixed" else [int(width)] * MEMBERS.value, size)
            rates_by_type = {}
            for dtype in types():
                rates = contest.median_rates(contestants(setting, dtype), setting)
                # In a piece of work, for each network.
                examples = BATCH * STEPS_PER_EPOCH * len(setting.widths)
                rates_by_type[dtype] = {name: rate * examples for name, rate in rates.items()}
            ours = {dtype: rates.pop(OURS) for dtype, rates in rates_by_type.items()}
            any_type = max(ours.values()) / max(fastest(rates)[1] for rates in rates_by_type.values())
            ratios["any type"].append(any_type)
            for dtype, rates in rates_by_type.items():
                name, rate = fastest(rates)
                ratios[dtype].append(ours[dtype] / rate)
                passes = PASSES_OF_A_STEP * ours[dtype] / len(setting.widths)
                flops = passes * pass_flops(setting)
                share = flops / products[dtype]
                numbers = [f"{rate:,.0f}", f"{ours[dtype]:,.0f}", f"{ratios[dtype][-1]:.2f}", f"{flops / 1e9:,.1f}"]
                cells = [f"{size}x{size}", width, dtype, name, *numbers, f"{share:.0%}", f"{any_type:.2f}"]
                contest.print_row(*cells)
                everything.append((f"{size}x{size} w{width}", dtype, rates))
    print()
    for kind, values in ratios.items():
        contest.print_mean(f"the ratios, {kind}", values)
    print("\nEach of the others, examples a second:\n")
    for dtype in types():
        rows = {row: rates for row, of, rates in everything if of == dtype}
        names = list(dict.fromkeys(name for rates in rows.values() for name in rates))
        contest.print_heading([dtype], list(rows))
        for name in names:
            contest.print_row(name, *(f"{rates[name]:,.0f}" if name in rates else "-" for rates in rows.values()))
        print()


if __name__ == "__main__":
    app.run(main)
