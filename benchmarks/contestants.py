"""The ways to train several networks that `training.py` compares, each with the tools that its users would use.

Every contestant trains the same `cnn5` networks with Adam (1e-3), batch 128, the same random images of the same size,
shuffled and augmented in memory (random shift, and flip at 32x32) with vectorised operations, in float32. None
evaluates or saves anything. Run as a program, one contestant answers each line of its input with the seconds that so
many steps of all networks took.
"""

import contextlib
import json
import multiprocessing
import os
import sys
import time
from typing import Any, NamedTuple

import numpy as np

BATCH = 128
STEPS_PER_EPOCH = 10
CORES = len(os.sched_getaffinity(0))


class Setting(NamedTuple):
    """Networks of these widths, one each, on images of this size."""

    widths: list[int]
    size: int

    @property
    def channels(self) -> int:
        return 1 if self.size == 8 else 3

    @property
    def shift(self) -> int:
        return 1 if self.size == 8 else 4

    @property
    def flip(self) -> bool:
        return self.size != 8

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        shape = (BATCH * STEPS_PER_EPOCH, self.size, self.size, self.channels)
        return rng.integers(0, 256, shape, np.uint8), rng.integers(0, 10, shape[0])


def torch_network(width: int, channels: int, track: bool = True):
    from torch import nn

    layers: list[Any] = []
    for c_in, c_out, pool in (
        (channels, width, 1),
        (width, 2 * width, 2),
        (2 * width, 4 * width, 2),
        (4 * width, 8 * width, 0),
    ):
        layers += [nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(c_out, track_running_stats=track), nn.ReLU()]
        layers += [nn.AdaptiveMaxPool2d(1)] if not pool else [nn.MaxPool2d(pool)] if pool > 1 else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * width, 10))


class TorchData:
    """Shuffled, augmented batches from memory."""

    def __init__(self, setting: Setting):
        import torch

        images, labels = setting.data()
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self.labels, self.setting = torch.from_numpy(labels), setting
        self.order = torch.randperm(len(labels))
        self.place = 0

    def batch(self):
        import torch

        if self.place + BATCH > len(self.labels):
            self.order, self.place = torch.randperm(len(self.labels)), 0
        chosen = self.order[self.place : self.place + BATCH]
        self.place += BATCH
        size, shift = self.setting.size, self.setting.shift
        x = torch.nn.functional.pad(self.images[chosen], (shift,) * 4)
        rows, columns = torch.randint(0, 2 * shift + 1, (2, BATCH, 1)) + torch.arange(size)
        if self.setting.flip:
            columns = torch.where(torch.rand(BATCH, 1) < 0.5, columns.flip(1), columns)
        example = torch.arange(BATCH)[:, None, None, None]
        channel = torch.arange(x.shape[1])[None, :, None, None]
        x = x[example, channel, rows[:, None, :, None], columns[:, None, None, :]]
        return x.float() / 255, self.labels[chosen]


class TorchSequential:
    """PyTorch, one network after another, all cores in each operation."""

    threads = CORES

    def __init__(self, setting: Setting):
        import torch

        torch.set_num_threads(self.threads)
        self.data = TorchData(setting)
        self.networks = [torch_network(w, setting.channels) for w in setting.widths]
        self.optimizers = [torch.optim.Adam(n.parameters(), 1e-3) for n in self.networks]

    def train(self, steps: int) -> None:
        from torch.nn.functional import cross_entropy

        for network, optimizer in zip(self.networks, self.optimizers, strict=True):
            for _ in range(steps):
                x, y = self.data.batch()
                optimizer.zero_grad()
                cross_entropy(network(x), y).backward()
                optimizer.step()


class TorchSingleThread(TorchSequential):
    threads = 1


def _train_when_told(setting: Setting, pipe) -> None:
    contestant = TorchSingleThread(setting)
    with contextlib.suppress(EOFError):  # the other end was closed
        while True:
            contestant.train(pipe.recv())
            pipe.send(None)


class TorchProcesses:
    """PyTorch, a process a core, single-threaded, the networks dealt to them."""

    def __init__(self, setting: Setting):
        context = multiprocessing.get_context("spawn")
        ordered = sorted(setting.widths, reverse=True)
        self.pipes = []
        for core in range(CORES):
            ours, theirs = context.Pipe()
            share = setting._replace(widths=ordered[core::CORES])
            context.Process(target=_train_when_told, args=(share, theirs), daemon=True).start()
            self.pipes.append(ours)

    def train(self, steps: int) -> None:
        for pipe in self.pipes:
            pipe.send(steps)
        for pipe in self.pipes:
            pipe.recv()


class TorchVmap:
    """PyTorch, torch.func.vmap over networks of one width (BatchNorm without running statistics, which vmap wants)."""

    def __init__(self, setting: Setting):
        import torch

        (width,) = set(setting.widths)
        self.data = TorchData(setting)
        networks = [torch_network(width, setting.channels, track=False) for _ in setting.widths]
        params, _ = torch.func.stack_module_state(networks)
        self.params = {name: p.detach().requires_grad_() for name, p in params.items()}
        self.optimizer = torch.optim.Adam(self.params.values(), 1e-3)

        def loss(params, x, y):
            logits = torch.func.functional_call(networks[0], params, (x,))
            return torch.nn.functional.cross_entropy(logits, y)

        self.losses = torch.func.vmap(loss, in_dims=(0, 0, 0))

    def train(self, steps: int) -> None:
        import torch

        members = len(next(iter(self.params.values())))
        for _ in range(steps):
            batches = [self.data.batch() for _ in range(members)]
            x, y = (torch.stack(parts) for parts in zip(*batches, strict=True))
            self.optimizer.zero_grad()
            self.losses(self.params, x, y).sum().backward()
            self.optimizer.step()


class JaxLoop:
    """JAX as in most tutorials: one jitted step with flax's own layers, called for one network after another."""

    def __init__(self, setting: Setting):
        import flax.linen as nn
        import jax
        import jax.numpy as jnp
        import optax

        from spectral_dd import data

        class Network(nn.Module):
            width: int

            @nn.compact
            def __call__(self, x):
                for factor, pool in ((1, 1), (2, 2), (4, 2), (8, 0)):
                    x = nn.Conv(factor * self.width, (3, 3), use_bias=False)(x)
                    x = nn.relu(nn.BatchNorm(use_running_average=False, momentum=0.9)(x))
                    x = x.max(axis=(1, 2)) if not pool else nn.max_pool(x, (pool, pool), (pool, pool))
                return nn.Dense(10)(x)

        images, labels = map(jnp.asarray, setting.data())
        optimizer = optax.adam(1e-3)

        def make_step(network):
            @jax.jit
            def step(state, key):
                order_key, augment_key = jax.random.split(key)
                batch = jax.random.choice(order_key, len(labels), (BATCH,), replace=False)
                x = data.augment(augment_key, images[batch], setting.shift, setting.flip) / 255.0

                def loss(params):
                    logits, updated = network.apply({**state["rest"], "params": params}, x, mutable=["batch_stats"])
                    return optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch]).mean(), updated

                gradient, rest = jax.grad(loss, has_aux=True)(state["params"])
                updates, moments = optimizer.update(gradient, state["moments"])
                return {"params": optax.apply_updates(state["params"], updates), "rest": rest, "moments": moments}

            return step

        self.members = []
        steps = {}
        for seed, width in enumerate(setting.widths):
            network = Network(width)
            steps.setdefault(width, make_step(network))
            variables = network.init(jax.random.key(seed), images[:1] / 255.0)
            params, rest = variables["params"], {"batch_stats": variables["batch_stats"]}
            state = {"params": params, "rest": rest, "moments": optimizer.init(params)}
            self.members.append([steps[width], state, jax.random.split(jax.random.key(seed), 1000)])

    def train(self, steps: int) -> None:
        import jax

        for member in self.members:
            step, state, keys = member
            for i in range(steps):
                state = step(state, keys[i % len(keys)])
            member[1] = jax.block_until_ready(state)


class Ours:
    """This project: packs of padded networks, a stream a core, epochs on the device."""

    def __init__(self, setting: Setting):
        from spectral_dd import packing, run
        from spectral_dd.config import Config
        from spectral_dd.data import Dataset
        from spectral_dd.family import Family

        run.set_up_jax()
        images, labels = setting.data()
        dataset = Dataset("random", images, labels.astype(np.int32), images, labels.astype(np.int32), num_classes=10)
        configs = [
            Config(
                dataset="random", width=width, seed=seed, train_size=len(images), batch_size=BATCH, shift=setting.shift,
                flip=setting.flip, epochs=100,
            )
            for seed, width in enumerate(setting.widths)
        ]  # fmt: skip
        packs = packing.plan(configs, run.work_of({"random": dataset}).seconds, CORES)
        self.families = [Family([configs[i] for i in pack], dataset) for pack in packs]
        self.states = [family.initial_state() for family in self.families]

    def train(self, steps: int) -> None:
        import jax

        for i, family in enumerate(self.families):
            self.states[i] = jax.block_until_ready(family.train(self.states[i], 0, steps // STEPS_PER_EPOCH))


CONTESTANTS = {
    "PyTorch, one after another": TorchSequential,
    "PyTorch, a process a core": TorchProcesses,
    "torch.func.vmap": TorchVmap,
    "JAX, Python loop": JaxLoop,
    "spectral_dd": Ours,
}


def main() -> None:
    name, widths, size = sys.argv[1:]
    contestant = CONTESTANTS[name](Setting(json.loads(widths), int(size)))
    contestant.train(STEPS_PER_EPOCH)
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        contestant.train(int(line))
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
