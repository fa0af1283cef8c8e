"""What a step of training costs: size of networks and FLOPs from traced programs, seconds by a model of the device."""

import functools
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from spectral_dd import models
from spectral_dd.config import Config
from spectral_dd.data import Dataset
from spectral_dd.planning.exactness import exact_models

# The cost model: seconds and rates of one device, with convolutions by `im2col`. Fitted on a core of a server CPU to
# cnn5 at 8x8 and 32x32, widths 1 to 32, which it gives to within a third. Only ratios matter, and not much: a wrong cut
# costs a compilation or some padding, never a result. Where a sweep is long enough, `tune.py` measures instead.
COMPILE_SECONDS = 16.0
STEP_SECONDS = 2e-5
FLOPS_PER_SECOND = 95e9
BYTES_PER_SECOND = 65e9


class Cost:
    """Size and cost of the networks of a sweep.

    The layers of our own models grow with the product of two widths at most, so three widths give all others. Of other
    models the parameters are counted at each width, and FLOPs and bytes follow the parabola through three.
    """

    def __init__(self, configs: Iterable[Config], datasets: dict[str, Dataset]):
        self._configs, self._datasets = list(configs), datasets
        self._widths: dict[str, set[int]] = {}
        for config in self._configs:
            self._widths.setdefault(config.model, set()).add(config.width)
        # Thousands of members share a few widths.
        self._per_example = functools.cache(self._trace)
        self._at_width = functools.cache(self._interpolate)
        self._parameters = functools.cache(self._count)

    @functools.cached_property
    def exact(self) -> set[str]:
        """`exactness.exact_models` of the sweep, which is tried once, however often it is planned."""
        return exact_models(self._configs, self._datasets)

    def parameters(self, config: Config) -> int:
        """Trainable parameters at the member's own width."""
        return self._parameters(config.model, config.dataset, config.width)

    def step_flops(self, config: Config, width: int) -> float:
        """FLOPs of a step at a padded width; a backward pass counts twice."""
        return 3 * config.batch_size * self._at_width(config.model, config.dataset, width)[0]

    def step_bytes(self, config: Config, examples: int) -> float:
        """Bytes that the layers of a member read and write in a step of so many examples, or of its batch, if that is
        more; its parameters aside."""
        return 3 * max(config.batch_size, examples) * self._at_width(config.model, config.dataset, config.width)[1]

    def step_seconds(self, config: Config, width: int) -> float:
        """Estimated time of a step of the member at a padded width on one device."""
        traffic = 3 * config.batch_size * self._at_width(config.model, config.dataset, width)[1]
        return STEP_SECONDS + self.step_flops(config, width) / FLOPS_PER_SECOND + traffic / BYTES_PER_SECOND

    def _traced_widths(self, model: str) -> tuple[int, ...]:
        """Three widths, or fewer if there are no more."""
        if model in models.MODELS:
            return (1, 2, 3)
        widths = sorted(self._widths[model])
        return tuple(dict.fromkeys((widths[0], widths[len(widths) // 2], widths[-1])))

    def _interpolate(self, model: str, dataset: str, width: int) -> np.ndarray:
        """FLOPs of a forward pass for an example, and bytes that it reads and writes: Lagrange's parabola."""
        widths = self._traced_widths(model)
        terms = [
            math.prod((width - other) / (w - other) for other in widths if other != w)
            * np.array(self._per_example(model, dataset, w))
            for w in widths
        ]
        return np.maximum(sum(terms), 0)

    def _abstract(self, model: str, dataset: str, width: int):
        network = models.build_model(Config.of(model=model, width=width), self._datasets[dataset].num_classes)

        def images(examples: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((examples, *self._datasets[dataset].train_images.shape[1:]), jnp.float32)

        variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images(1))
        return network, variables, images

    def _trace(self, model: str, dataset: str, width: int) -> tuple[float, float]:
        network, variables, images = self._abstract(model, dataset, width)
        forward = jax.jit(lambda variables, x: network.apply(variables, x, train=False))
        # Of the platforms, the CPU alone counts what is not compiled.
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            one, two = (forward.lower(variables, images(n)).cost_analysis() for n in (1, 2))
        # What a second example adds: the rest is work on parameters.
        flops, traffic = (float(two.get(k, 0.0)) - float(one.get(k, 0.0)) for k in ("flops", "bytes accessed"))
        return flops, traffic

    def _count(self, model: str, dataset: str, width: int) -> int:
        if model in models.MODELS and width > 3:
            # Newton's form of the parabola through three widths, in whole numbers.
            a, b, c = (self._parameters(model, dataset, w) for w in (1, 2, 3))
            return a + (width - 1) * (b - a) + (width - 1) * (width - 2) // 2 * (c - 2 * b + a)
        _, variables, _ = self._abstract(model, dataset, width)
        return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
