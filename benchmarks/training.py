"""Training throughput of this project against what one would use instead, side by side.

Needs PyTorch (`pip install torch==2.13.0`). About forty minutes on two cores.

    python benchmarks/training.py [--size=8,32] [--width=2,4,8,16,32,mixed]
    python benchmarks/training.py --model=resnet18 [--size=32] [--width=4,16,64]    # for a GPU
"""

from collections.abc import Sequence

import side_by_side
import torch
from absl import app, flags
from peak import SIDE, product_rates
from side_by_side import BATCH, CORES, PLANNED_STEPS, STEPS_PER_EPOCH, Setting
from spectral_dd.packing import Work
from spectral_dd.sweep import PRESETS

from spectral_dd.config import Config

MODEL = flags.DEFINE_enum("model", "cnn5", ["cnn5", "resnet18"], "architecture")
SIZE = flags.DEFINE_list("size", None, "heights and widths of the images; by default 8,32, of a resnet18 32")
WIDTH = flags.DEFINE_list(
    "width", None,
    "widths; mixed: one network each of 1 to 32; by default 2,4,8,16,32,mixed, of a resnet18 4,16,64",
)  # fmt: skip
MEMBERS = flags.DEFINE_integer("members", 8, "networks of a width")

DEFAULTS = {"cnn5": (["8", "32"], ["2", "4", "8", "16", "32", "mixed"]), "resnet18": (["32"], ["4", "16", "64"])}
MIXED = list(PRESETS["digits"]["width"])

OTHERS = {
    "PyTorch, one after another": "torch_contestants.py Sequential",
    "PyTorch, a process a core": "torch_contestants.py Processes",
    "torch.func.vmap": "torch_contestants.py Vmap",
    "JAX, Python loop": "jax_contestants.py Loop",
}
OURS = {"spectral_dd": "jax_contestants.py Ours"}

METHOD = """
Examples a second over all networks: {model}, Adam (1e-3), batch {batch}, random images, shuffled and augmented in
memory (random shift, and flip at 32x32) by vectorised operations, float32 (on a GPU the others are free to use TF32,
this project is not), no evaluation. {members} networks of a width; mixed: one each of widths {mixed}.

- PyTorch, one after another: eager, all {cores} cores (or the GPU) in each operation, fused Adam.
- PyTorch, a process a core: the same, single-threaded, the networks dealt to the processes.
- torch.func.vmap: over the networks, which must be of one width; BatchNorm without running statistics.
- JAX, Python loop: flax's own layers, one jitted step, one network after another.
- spectral_dd: as in a sweep with `--tune=off`, which does not measure which of its ways is fastest. Its packs are
  planned for {steps:,} steps, as many as the five-layer networks of Nakkiran et al. (arXiv 1912.02292) trained: the
  longer a sweep, the less padding.

The last three columns are of spectral_dd: its rate over the best other one; its useful FLOP/s (three forward passes
for a step, at the networks' own widths, of convolutions as sums of products: Winograd's take half of them); and what
that is of the machine's rate of float32 products.
"""


def contestants(setting: Setting) -> dict[str, str]:
    others = dict(OTHERS)
    if len(set(setting.widths)) > 1:
        del others["torch.func.vmap"]
    if torch.cuda.is_available():  # cores do not compute then
        del others["PyTorch, a process a core"]
    return others | OURS


def flops_of_an_example(setting: Setting) -> float:
    """Of training each network on one example."""
    work = Work({"random": (setting.size, setting.size, setting.channels)}, {"random": 10})
    one = {"dataset": "random", "epochs": 1, "train_size": 1, "batch_size": 1}
    return sum(work.train_flops(Config(model=setting.model, width=width, **one)) for width in setting.widths)


def main(argv: Sequence[str]) -> None:
    mixed = f"{', '.join(map(str, MIXED[:-1]))} and {MIXED[-1]}"
    side_by_side.print_section(
        f"Training: {MODEL.value}",
        METHOD.format(
            model=MODEL.value,
            batch=BATCH,
            members=MEMBERS.value,
            mixed=mixed,
            cores=CORES,
            steps=PLANNED_STEPS,
        ),
    )
    products = product_rates()
    rates_of_products = " and ".join(f"{rate / 1e9:,.0f} GFLOP/s by {name}" for name, rate in products.items())
    print(f"A product of two {SIDE}x{SIDE} matrices in float32: {rates_of_products}.\n")
    values = [*OTHERS, *OURS, "against the best other", "GFLOP/s", "of products"]
    side_by_side.print_heading(["size", "width"], values)
    sizes, widths = DEFAULTS[MODEL.value]
    ratios = []
    for size in map(int, SIZE.value or sizes):
        for width in WIDTH.value or widths:
            setting = Setting(MODEL.value, MIXED if width == "mixed" else [int(width)] * MEMBERS.value, size)
            rates = side_by_side.median_rates(contestants(setting), setting)
            examples = BATCH * STEPS_PER_EPOCH  # in a piece of work, for each network
            cells = [f"{rates[n] * examples * len(setting.widths):,.0f}" if n in rates else "-" for n in OTHERS | OURS]
            ratios.append(side_by_side.against_best(rates, "spectral_dd"))
            flops = rates["spectral_dd"] * examples * flops_of_an_example(setting)
            share = flops / max(products.values())
            side_by_side.print_row(
                f"{size}x{size}", width, *cells, f"{ratios[-1]:.2f}", f"{flops / 1e9:,.1f}", f"{share:.0%}"
            )
    side_by_side.print_mean(ratios)


if __name__ == "__main__":
    app.run(main)
