"""What a piece of work asks for in arithmetic, and how fast this machine multiplies matrices: what bounds a rate."""

import contest
from contest import SIDE, Setting

from spectral_dd.config import Config
from spectral_dd.data import Dataset
from spectral_dd.planning.cost import Cost

# Forward passes that a training step takes as long as, by its arithmetic.
PASSES_OF_A_STEP = 3


def pass_flops(setting: Setting) -> float:
    """Of one example through each of the networks once, with convolutions as sums of products."""
    images, labels = setting.data()
    dataset = Dataset.from_arrays(images, labels, images, labels, name="random", num_classes=10)
    configs = [Config.of(model=setting.model, width=w, dataset="random", batch_size=1) for w in setting.widths]
    cost = Cost(configs, {"random": dataset})
    return sum(cost.step_flops(config, config.width) for config in configs) / PASSES_OF_A_STEP


def product_rates(dtype: str) -> dict[str, float]:
    """FLOP/s of a product of two large matrices with all cores, or on the GPU, in each of the two libraries."""
    programs = {"JAX": f"jax_contestants.py Product {dtype}", "PyTorch": f"torch_contestants.py Product {dtype}"}
    rates = contest.median_rates(programs, Setting("cnn5", [], 8))
    return {name: 2 * SIDE**3 * rate for name, rate in rates.items()}


def print_product_rates(dtype: str) -> float:
    """Says how fast each of the two is, and returns the FLOP/s of the faster."""
    rates = product_rates(dtype)
    listed = " and ".join(f"{rate / 1e9:,.0f} GFLOP/s by {name}" for name, rate in rates.items())
    print(f"A product of two {SIDE}x{SIDE} matrices in {dtype}: {listed}.\n", flush=True)
    return max(rates.values())
