"""What a step of training costs: size of networks and FLOPs from traced programs, seconds by a model of the device."""

import functools
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spectral_dd import models
from spectral_dd.config import Config
from spectral_dd.data import Dataset
from spectral_dd.errors import InputError
from spectral_dd.planning.exactness import exact_models
from spectral_dd.programs import lowerings


class Rates(NamedTuple):
    """The cost model of one device: what a compilation takes; a step of what is computed together, at least and for
    each array of parameters; and FLOPs and bytes a second.

    Only ratios matter, and not much: a wrong cut costs a compilation or some padding, never a result. Where a sweep is
    long enough, `tune.py` measures instead.
    """

    compile_seconds: float
    step_seconds: float
    array_seconds: float
    flops: float
    bytes: float


# Fitted on a core of a server CPU, with `im2col`, to cnn5 at 8x8 and 32x32, widths 1 to 32, to within a third.
CPU = Rates(16.0, 2e-5, 0.0, 95e9, 65e9)
# Fitted on an H200 in bfloat16 to resnet18 of widths 4 to 64 and cnn5 of width 8, packed and alone, to within a third.
# What takes the time are kernels, which a layer has as many of whether it has one channel or 64. Fused programs move
# fewer bytes than are counted here, so the rate is above the memory's.
ACCELERATOR = Rates(60.0, 0.0, 28e-6, 989e12, 45e12)


class Traced(NamedTuple):
    """What a network is traced for: all sweeps of a process share it."""

    build: Any  # the class, which of one name may be another after its file was edited
    model: str
    width: int
    num_classes: int
    image: tuple[int, ...]


@functools.cache
def _shapes(of: Traced) -> tuple[nn.Module, Any]:
    """A network and the shapes of its variables."""
    network = models.build_model(Config.of(model=of.model, width=of.width), of.num_classes)
    image = jax.ShapeDtypeStruct((1, *of.image), jnp.float32)
    return network, jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), image)


@functools.cache
def _per_example(of: Traced) -> tuple[float, float]:
    """FLOPs of a forward pass for an example, and bytes that it reads and writes."""
    network, variables = _shapes(of)
    forward = jax.jit(lambda variables, x: network.apply(variables, x, train=False))
    try:
        (cpu, *_) = jax.local_devices(backend="cpu")
    except RuntimeError:  # JAX ran before `devices.set_up`
        raise InputError(
            f"JAX_PLATFORMS={jax.config.read('jax_platforms')}: planning needs the CPU as well; add ',cpu'"
        ) from None
    # Of the platforms, the CPU alone counts what is not compiled.
    with jax.default_device(cpu):
        one, two = (
            forward.lower(variables, jax.ShapeDtypeStruct((n, *of.image), jnp.float32)).cost_analysis() for n in (1, 2)
        )
    assert one is not None and two is not None
    # What a second example adds: the rest is work on parameters.
    flops, traffic = (float(two.get(k, 0.0)) - float(one.get(k, 0.0)) for k in ("flops", "bytes accessed"))
    return flops, traffic


def rates_of(platform: str) -> Rates:
    """Of cpu, gpu or tpu."""
    return CPU if platform == "cpu" else ACCELERATOR


class Cost:
    """Size and cost of the networks of a sweep.

    The layers of our own models grow with the product of two widths at most, so three widths give all others. Of other
    models the parameters are counted at each width, and FLOPs and bytes follow the parabola through three.
    """

    def __init__(self, configs: Iterable[Config], datasets: dict[str, Dataset], platform: str | None = None):
        """
        Args:
          configs: members.
          datasets: by name.
          platform: cpu, gpu or tpu; by default that of JAX.
        """
        self._platform = platform or jax.default_backend()
        self._rates = rates_of(self._platform)
        self.compile_seconds = self._rates.compile_seconds
        self._configs, self._datasets = list(configs), datasets
        self._widths: dict[str, set[int]] = {}
        for config in self._configs:
            self._widths.setdefault(config.model, set()).add(config.width)
        # Thousands of members share a few widths.
        self._at_width = functools.cache(self._interpolate)
        self._parameters = functools.cache(self._count)
        self._arrays = functools.cache(self._count_arrays)
        self._at_once = functools.cache(
            lambda model, width: lowerings(self._platform, Config.of(model=model, width=width))[0].at_once
        )

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

    def step_seconds(self, config: Config, width: int, members: Any = 1) -> Any:
        """Estimated time of a step of the member at a padded width, its share of it if so many `members` (a number or
        an array of numbers) are on one device, which an accelerator computes together."""
        traffic = 3 * config.batch_size * self._at_width(config.model, config.dataset, width)[1]
        rates = self._rates
        own = self.step_flops(config, width) / rates.flops + traffic / rates.bytes
        at_once = self._at_once(config.model, width)
        # They are computed in groups of equal size.
        together = members if at_once is None else members / np.ceil(members / at_once)
        shared = rates.step_seconds + rates.array_seconds * self._arrays(config.model, config.dataset)
        return shared / together + own

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
            * np.array(_per_example(self._traced(model, dataset, w)))
            for w in widths
        ]
        return np.maximum(sum(terms), 0)

    def _traced(self, model: str, dataset: str, width: int) -> Traced:
        data = self._datasets[dataset]
        return Traced(models.find(model), model, width, data.num_classes, data.train_images.shape[1:])

    def _count_arrays(self, model: str, dataset: str) -> int:
        _, variables = _shapes(self._traced(model, dataset, self._traced_widths(model)[0]))
        return len(jax.tree.leaves(variables["params"]))

    def _count(self, model: str, dataset: str, width: int) -> int:
        if model in models.MODELS and width > 3:
            # Newton's form of the parabola through three widths, in whole numbers.
            a, b, c = (self._parameters(model, dataset, w) for w in (1, 2, 3))
            return a + (width - 1) * (b - a) + (width - 1) * (width - 2) // 2 * (c - 2 * b + a)
        _, variables = _shapes(self._traced(model, dataset, width))
        return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
