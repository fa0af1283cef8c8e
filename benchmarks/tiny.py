"""A thousand and ten thousand tiny networks at once, against PyTorch, and how long sweeps of them take.

Needs PyTorch (`make bench` installs it). About five minutes on two cores.

    python benchmarks/tiny.py
"""

from collections.abc import Sequence

import contest
from absl import app
from contest import BATCH, CORES, STEPS_PER_EPOCH, Setting

from spectral_dd.presets import PRESETS

OURS = "spectral_dd"
OTHERS = {
    "PyTorch, a process a core": "torch_contestants.py Processes",
    "torch.func.vmap": "torch_contestants.py SharedVmap",
    "torch.func.vmap, a process a core": "torch_contestants.py SharedVmapProcesses",
}

# Name: widths, examples that each network is trained on. The double descent over width of MNIST-1D (Greydanus and
# Kobak, arXiv 2011.14439), 53 seeds of its 19 widths, 500 epochs of 4,000 examples; and as many networks as
# ParallelMLPs (arXiv 2206.08369) trains at once, here 1 to 100 units wide, for 12 epochs of 10,000 examples.
SWEEPS = {
    "MNIST-1D": (53 * list(PRESETS["mnist1d_mlp"]["width"]), 500 * 4_000),
    "ParallelMLPs": (100 * list(range(1, 101)), 12 * 10_000),
}

METHOD = """
Networks with two hidden layers on random images of 8x8, Adam (1e-3), batch {batch}; examples a second over all
networks. MNIST-1D: {thousand:,} networks 2 to 300 units wide; ParallelMLPs: {ten_thousand:,} networks 1 to 100 wide.

- PyTorch, a process a core: single-threaded, the networks dealt to {cores} processes.
- torch.func.vmap: over the networks of each width, all on the same batches, which saves PyTorch the shuffling of a
  thousand networks; with all cores, and with a single-threaded process a core.
- spectral_dd: as in a sweep with `--tune=off`, planned for as many steps as that sweep has; each network has batches of
  its own.

Minutes: of training, by the rate measured: 500 epochs of 4,000 examples for MNIST-1D, 12 of 10,000 for ParallelMLPs.
"""


def main(argv: Sequence[str]) -> None:
    thousand, ten_thousand = (len(widths) for widths, _ in SWEEPS.values())
    contest.print_section(
        "Tiny networks", METHOD.format(batch=BATCH, cores=CORES, thousand=thousand, ten_thousand=ten_thousand)
    )
    contest.print_heading(["networks"], [*OTHERS, OURS, "of the best", "minutes", "the best other's"])
    for name, (widths, examples) in SWEEPS.items():
        ours = {OURS: f"jax_contestants.py Ours float32 {examples // BATCH}"}
        rates = contest.median_rates(OTHERS | ours, Setting("mlp", widths, 8))
        rates = {who: rate * BATCH * STEPS_PER_EPOCH * len(widths) for who, rate in rates.items()}
        ratio = contest.against_best(rates, OURS)
        minutes = examples * len(widths) / rates[OURS] / 60
        cells = [f"{rate:,.0f}" for rate in rates.values()]
        contest.print_row(name, *cells, f"{ratio:.2f}", f"{minutes:.1f}", f"{minutes * ratio:.1f}")


if __name__ == "__main__":
    app.run(main)
