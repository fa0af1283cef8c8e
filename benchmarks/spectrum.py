"""Line spectra of this project against the loop over points of the paper's public code, side by side.

Needs PyTorch (`pip install torch==2.13.0`). About ten minutes on two cores.

    python benchmarks/spectrum.py [--size=8,32] [--width=2,8] [--model=resnet18]
"""

from collections.abc import Sequence

import contest
from absl import app, flags
from arithmetic import pass_flops, print_product_rates
from contest import CORES, EXAMPLES, HALF_WIDTH, POINTS, Setting

MODEL = flags.DEFINE_enum("model", "cnn5", ["cnn5", "resnet18"], "architecture")
SIZE = flags.DEFINE_list("size", ["8", "32"], "heights and widths of the images")
WIDTH = flags.DEFINE_list("width", ["2", "8"], "widths")
MEMBERS = flags.DEFINE_integer("members", CORES, "networks")

OTHERS = {
    "PyTorch, a call a point": "torch_contestants.py Spectra",
    "channels last": "torch_contestants.py Spectra channels_last",
    "compiled": "torch_contestants.py Spectra channels_last compile",
    "a process a core, channels last": "torch_contestants.py SpectraProcesses channels_last",
    "a process a core, compiled": "torch_contestants.py SpectraProcesses channels_last compile",
    "JAX, a call a point": "jax_contestants.py LoopSpectra",
}
OURS = {"spectral_dd": "jax_contestants.py OurSpectra"}

METHOD = """
Forward passes of one input a second over all networks, for the spectra of the paper: |F|^2 of the logits, mean over
classes, along a random direction through each of {examples} examples, {points} points, h = {half_width};
{members} networks ({model}), float32 (on a GPU the others are free to use TF32, this project is not).

- PyTorch, a call a point: as in the paper's public code, one network after another: for each point a forward pass of
  all examples (`eval`, `no_grad`, all {cores} cores or the GPU), whose logits are copied to NumPy; then `numpy.fft`.
  The same with images and weights channels last, with torch.compile as well, and each of these with a single-threaded
  process a core.
- JAX, a call a point: the same with flax's own layers and one jitted forward pass.
- spectral_dd: as in a sweep, a stream of networks a core on a CPU; it computes residual spectra and energies of slope
  and curvature beside.

The last columns are the rate of spectral_dd over the best other one, and the arithmetic of both, convolutions as sums
of products, as a share of the machine's rate of products in float32.
"""


def main(argv: Sequence[str]) -> None:
    fields = {"examples": EXAMPLES, "points": POINTS, "half_width": HALF_WIDTH, "cores": CORES}
    text = METHOD.format(model=MODEL.value, members=MEMBERS.value, **fields)
    contest.print_section(f"Spectra: {MODEL.value}", text)
    products = print_product_rates("float32")
    last = ["against the best other", "of products", "the best other's"]
    contest.print_heading(["size", "width"], [*OTHERS, *OURS, *last])
    ratios = []
    for size in map(int, SIZE.value):
        for width in map(int, WIDTH.value):
            setting = Setting(MODEL.value, [width] * MEMBERS.value, size)
            rates = contest.median_rates(OTHERS | OURS, setting)
            passes = EXAMPLES * POINTS * MEMBERS.value
            cells = [f"{rate * passes:,.0f}" for rate in rates.values()]
            ratios.append(contest.against_best(rates, "spectral_dd"))
            flops = EXAMPLES * POINTS * pass_flops(setting)
            ours = flops * rates["spectral_dd"] / products
            shares = [f"{share:.0%}" for share in (ours, ours / ratios[-1])]
            contest.print_row(f"{size}x{size}", width, *cells, f"{ratios[-1]:.2f}", *shares)
    print()
    contest.print_mean("the ratios", ratios)


if __name__ == "__main__":
    app.run(main)
