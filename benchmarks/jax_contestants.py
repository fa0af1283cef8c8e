"""Several networks trained, and their spectra measured, with JAX as in most tutorials, and by this project."""

import concurrent.futures
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from contest import BATCH, EXAMPLES, HALF_WIDTH, PLANNED_STEPS, POINTS, SIDE, STEPS_PER_EPOCH, Setting, serve

from spectral_dd import data, devices
from spectral_dd.config import Config
from spectral_dd.family import Family
from spectral_dd.planning import packing
from spectral_dd.planning.cost import Cost
from spectral_dd.programs import lowerings


class CNN5(nn.Module):
    """The network with flax's own layers."""

    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train: bool):
        for factor, pool in ((1, 1), (2, 2), (4, 2), (8, 0)):
            x = nn.Conv(factor * self.width, (3, 3), use_bias=False, dtype=self.dtype)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(x))
            x = x.max(axis=(1, 2)) if not pool else nn.max_pool(x, (pool, pool), (pool, pool))
        return nn.Dense(10)(x)


class ResNet18(nn.Module):
    """The network with flax's own layers."""

    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train: bool):
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype)
        x = nn.relu(norm()(conv(self.width, (3, 3))(x)))
        for block in range(8):
            features, stride = self.width * 2 ** (block // 2), 2 if block in (2, 4, 6) else 1
            y = nn.relu(norm()(conv(features, (3, 3), stride)(x)))
            y = norm()(conv(features, (3, 3))(y))
            if x.shape != y.shape:
                x = norm()(conv(features, (1, 1), stride)(x))
            x = nn.relu(x + y)
        return nn.Dense(10)(x.mean(axis=(1, 2)))


NETWORKS: dict[str, type[nn.Module]] = {"cnn5": CNN5, "resnet18": ResNet18}


class Loop:
    """One jitted step with flax's own layers, called for one network after another."""

    def __init__(self, setting: Setting, dtype: str = "float32"):
        self.images, self.labels = map(jnp.asarray, setting.data())
        self.setting, self.optimizer = setting, optax.adam(1e-3)
        steps = {width: self.make_step(NETWORKS[setting.model](width, dtype)) for width in set(setting.widths)}
        self.members: list[list[Any]] = []
        for seed, width in enumerate(setting.widths):
            key = jax.random.key(seed)
            variables = NETWORKS[setting.model](width).init(key, self.images[:1] / 255.0, train=False)
            moments = self.optimizer.init(variables["params"])
            self.members.append([steps[width], {"variables": variables, "moments": moments}, key])
        self.shuffle = jax.jit(lambda key: jax.random.permutation(key, len(self.labels)).reshape(-1, BATCH))

    def make_step(self, network):
        @jax.jit
        def step(state, batch, key):
            x = data.augment(key, self.images[batch], self.setting.shift, self.setting.flip) / 255.0
            params, statistics = state["variables"]["params"], state["variables"]["batch_stats"]

            def loss(params):
                variables = {"params": params, "batch_stats": statistics}
                logits, updated = network.apply(variables, x, train=True, mutable=["batch_stats"])
                return optax.softmax_cross_entropy_with_integer_labels(logits, self.labels[batch]).mean(), updated

            gradient, updated = jax.grad(loss, has_aux=True)(params)
            updates, moments = self.optimizer.update(gradient, state["moments"])
            return {"variables": {"params": optax.apply_updates(params, updates), **updated}, "moments": moments}

        return step

    def work(self, epochs: int) -> None:
        for member in self.members:
            step, state, key = member
            for _ in range(epochs):
                key, order_key, augment_key = jax.random.split(key, 3)
                batches = self.shuffle(order_key)
                for batch, batch_key in zip(batches, jax.random.split(augment_key, len(batches)), strict=True):
                    state = step(state, batch, batch_key)
            member[1:] = jax.block_until_ready(state), key


class Product:
    """A product of two large matrices, accumulated in float32."""

    def __init__(self, setting: Setting, dtype: str):
        self.factors = jax.random.normal(jax.random.key(0), (2, SIDE, SIDE)).astype(dtype)
        self.product = jax.jit(lambda a, b: jnp.matmul(a, b, precision="highest", preferred_element_type="float32"))

    def work(self, times: int) -> None:
        for _ in range(times):
            self.product(*self.factors).block_until_ready()


class LoopSpectra:
    """One jitted forward pass of all examples, called for each point of one network after another."""

    def __init__(self, setting: Setting):
        images, _ = setting.data()
        self.x = jnp.asarray(images[:EXAMPLES], jnp.float32) / 255
        self.keys = [jax.random.key(seed) for seed in range(len(setting.widths))]
        (width,) = set(setting.widths)
        network = NETWORKS[setting.model](width)
        self.members = [network.init(key, self.x[:1], train=False) for key in self.keys]
        self.logits = jax.jit(lambda variables, x, v, t: network.apply(variables, x + t * v, train=False))

        @jax.jit
        def direction(key, x):
            v = jax.random.normal(key, x.shape)
            return v / jnp.linalg.norm(v.reshape(len(v), -1), axis=1)[:, None, None, None]

        self.direction = direction

    def work(self, times: int) -> None:
        for _ in range(times):
            for variables, key in zip(self.members, self.keys, strict=True):
                self.energy(variables, self.direction(key, self.x))

    def energy(self, variables, v) -> np.ndarray:
        points = -HALF_WIDTH + 2 * HALF_WIDTH * np.arange(POINTS, dtype=np.float32) / POINTS
        outputs = np.stack([np.asarray(self.logits(variables, self.x, v, t)) for t in points])
        return (np.abs(np.fft.rfft(outputs, axis=0)) ** 2).mean(axis=-1)


def members(setting: Setting, steps: int = PLANNED_STEPS, **fields) -> tuple[list[Config], data.Dataset]:
    """What this project trains."""
    images, labels = setting.data()
    labels = labels.astype(np.int32)
    # A test set of one example, so that spectra are of the training set and of next to nothing else.
    dataset = data.Dataset("random", images, labels, images[:1], labels[:1], num_classes=10)
    configs = [
        Config.of(
            model=setting.model, dataset="random", width=width, seed=seed, train_size=len(images), batch_size=BATCH,
            shift=setting.shift, flip=setting.flip, epochs=steps // STEPS_PER_EPOCH, **fields,
        )
        for seed, width in enumerate(setting.widths)
    ]  # fmt: skip
    return configs, dataset


def family_of(configs: list[Config], dataset: data.Dataset, *arguments: Any, **options: Any) -> Family:
    return Family(configs, dataset, data.draw_all(configs, {dataset.name: dataset}), *arguments, **options)


class Ours:
    """This project: packs of padded networks, planned for so many steps, on a CPU a stream a core, epochs on the
    device."""

    def __init__(self, setting: Setting, dtype: str = "float32", steps: str = str(PLANNED_STEPS)):
        devices.set_up()
        configs, dataset = members(setting, int(steps), dtype=dtype)
        here, cost = jax.local_devices(), Cost(configs, {"random": dataset})
        plan = packing.plan(configs, cost, lambda widest: lowerings(here[0].platform, widest)[0], len(here))
        groups = [[device] for device in here] if plan.apart else [here]
        # What follows each other on a group of devices.
        self.streams: list[list[list[Any]]] = []
        for group, share in zip(groups, packing.shares([p.cost for p in plan.packs], len(groups)), strict=True):
            families = [family_of([configs[i] for i in plan.packs[n].members], dataset, group) for n in share]
            self.streams.append([[family, family.initial_state()] for family in families])
        self.threads = concurrent.futures.ThreadPoolExecutor(len(groups))

    def work(self, epochs: int) -> None:
        def train(stream):
            for entry in stream:
                family, state = entry
                entry[1] = jax.block_until_ready(family.train(state, 0, epochs))

        list(self.threads.map(train, self.streams))


class OurSpectra:
    """This project: what a sweep records, without the measures that are not spectra."""

    def __init__(self, setting: Setting):
        devices.set_up()
        fields = {"spectrum_points": POINTS, "spectrum_half_width": HALF_WIDTH}
        self.family = family_of(*members(setting, spectrum_examples=EXAMPLES, spectrum_measures=0, **fields))
        self.state = self.family.initial_state()

    def work(self, times: int) -> None:
        for _ in range(times):
            self.family.probe(self.state, epoch=0)


if __name__ == "__main__":
    serve(Loop, Product, LoopSpectra, Ours, OurSpectra)
