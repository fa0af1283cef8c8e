"""The machine's rate of float32 matrix products."""

import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
import torch
from side_by_side import REPEATS

SIDE = 4096


def product_rates() -> dict[str, float]:
    """FLOP/s of a product of two large matrices with all cores, or on the GPU: medians, in turn."""
    a, b = np.random.default_rng(0).standard_normal((2, SIDE, SIDE), np.float32)
    on_jax, on_torch = jax.device_put((a, b)), [torch.from_numpy(m) for m in (a, b)]
    product = jax.jit(lambda a, b: jax.numpy.matmul(a, b, precision="highest"))
    if torch.cuda.is_available():
        on_torch = [m.cuda() for m in on_torch]

    def with_torch():
        on_torch[0] @ on_torch[1]
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    ways = {"JAX": lambda: jax.block_until_ready(product(*on_jax)), "PyTorch": with_torch}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(1 + REPEATS.value):
        for name, way in ways.items():
            time_of_one = timed(way)
            if repeat:  # the first one compiles
                seconds[name].append(time_of_one)
    return {name: 2 * SIDE**3 / statistics.median(values) for name, values in seconds.items()}


def timed(f: Callable[[], object]) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start
