"""What PyTorch offers to train several networks and to measure their spectra; on a GPU where it finds one.

Options are those that PyTorch's performance tuning guide advises: `channels_last`, `bfloat16` (autocast), `compile`
(torch.compile), `graphs` (the same with CUDA graphs, for networks so small that launches take the time). Float32 is
with PyTorch's own settings, which on a GPU allow TF32 in convolutions.
"""

import collections
import contextlib
import multiprocessing
from typing import Any

import numpy as np
import torch
from contest import BATCH, CORES, EXAMPLES, HALF_WIDTH, POINTS, SIDE, Setting, serve
from torch import nn
from torch.nn import functional

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.backends.cudnn.benchmark = True
# A program for each width; else those after the eighth would run without.
torch._dynamo.config.recompile_limit = 64


def wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def conv_norm(c_in: int, c_out: int, track: bool, size: int = 3, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(c_in, c_out, size, stride, padding=size // 2, bias=False)
    return [conv, nn.BatchNorm2d(c_out, track_running_stats=track)]


def cnn5(width: int, channels: int, track: bool) -> nn.Module:
    layers: list[Any] = []
    for c_in, c_out, pool in (
        (channels, width, 1),
        (width, 2 * width, 2),
        (2 * width, 4 * width, 2),
        (4 * width, 8 * width, 0),
    ):
        layers += [*conv_norm(c_in, c_out, track), nn.ReLU()]
        layers += [nn.AdaptiveMaxPool2d(1)] if not pool else [nn.MaxPool2d(pool)] if pool > 1 else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * width, 10))


def mlp(width: int, channels: int, track: bool) -> nn.Module:
    """Two hidden layers, on images of 8x8."""
    hidden = [nn.Linear(64 * channels, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, 10))


class Block(nn.Module):
    """A basic block of a residual network."""

    def __init__(self, c_in: int, c_out: int, stride: int, track: bool):
        super().__init__()
        self.body = nn.Sequential(*conv_norm(c_in, c_out, track, 3, stride), nn.ReLU(), *conv_norm(c_out, c_out, track))
        same = stride == 1 and c_in == c_out
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_norm(c_in, c_out, track, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


def resnet18(width: int, channels: int, track: bool) -> nn.Module:
    layers = [*conv_norm(channels, width, track), nn.ReLU()]
    c_in = width
    for stage in range(4):
        c_out = width * 2**stage
        layers += [Block(c_in, c_out, 2 if stage else 1, track), Block(c_out, c_out, 1, track)]
        c_in = c_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, 10))


def networks(setting: Setting, track: bool = True) -> list[nn.Module]:
    """The networks of a setting; BatchNorm tracks running statistics if told to."""
    make = {"cnn5": cnn5, "resnet18": resnet18, "mlp": mlp}[setting.model]
    return [make(width, setting.channels, track).to(DEVICE) for width in setting.widths]


def adam(parameters) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, 1e-3, fused=True)


class Data:
    """Shuffled, augmented batches from memory."""

    def __init__(self, setting: Setting):
        images, labels = setting.data()
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(DEVICE)
        self.labels, self.setting = torch.from_numpy(labels).to(DEVICE), setting

    def epoch(self):
        order = torch.randperm(len(self.labels), device=DEVICE)
        for chosen in order.split(BATCH):
            x = shifted(self.images[chosen], self.setting.shift, self.setting.flip)
            yield x.float() / 255, self.labels[chosen]


def shifted(images: torch.Tensor, shift: int, flip: bool) -> torch.Tensor:
    """Each image of a batch moved by up to so many pixels in each direction, and mirrored or not."""
    batch, channels, size, _ = images.shape
    x = functional.pad(images, (shift,) * 4)
    corners = torch.randint(0, 2 * shift + 1, (2, batch, 1), device=images.device)
    rows, columns = corners + torch.arange(size, device=images.device)
    if flip:
        columns = torch.where(torch.rand(batch, 1, device=images.device) < 0.5, columns.flip(1), columns)
    example = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return x[example, channel, rows[:, None, :, None], columns[:, None, None, :]]


class Sequential:
    """One network after another, all cores in each operation."""

    def __init__(self, setting: Setting, *options: str):
        self.data = Data(setting)
        self.layout = torch.channels_last if "channels_last" in options else torch.contiguous_format
        self.precision = torch.autocast(DEVICE.type, torch.bfloat16, enabled="bfloat16" in options)
        self.networks = [network.to(memory_format=self.layout) for network in networks(setting)]
        self.optimizers = [adam(n.parameters()) for n in self.networks]
        for network in self.networks:
            if "graphs" in options:
                network.compile(mode="reduce-overhead")
            elif "compile" in options:
                network.compile()

    def work(self, epochs: int) -> None:
        for network, optimizer in zip(self.networks, self.optimizers, strict=True):
            for _ in range(epochs):
                for x, y in self.data.epoch():
                    optimizer.zero_grad()
                    with self.precision:
                        loss = functional.cross_entropy(network(x.to(memory_format=self.layout)), y)
                    loss.backward()
                    optimizer.step()
        wait()


def _work_when_told(contestant_class: type, setting: Setting, options: tuple[str, ...], pipe) -> None:
    torch.set_num_threads(1)
    contestant = contestant_class(setting, *options)
    with contextlib.suppress(EOFError):  # the other end was closed
        while True:
            contestant.work(pipe.recv())
            pipe.send(None)


class Processes:
    """A process a core, single-threaded, the networks dealt to them."""

    each: type = Sequential

    def __init__(self, setting: Setting, *options: str):
        context = multiprocessing.get_context("spawn")
        ordered = sorted(setting.widths, reverse=True)
        self.pipes = []
        for core in range(CORES):
            ours, theirs = context.Pipe()
            share = setting._replace(widths=ordered[core::CORES])
            context.Process(target=_work_when_told, args=(self.each, share, options, theirs), daemon=True).start()
            self.pipes.append(ours)

    def work(self, epochs: int) -> None:
        for pipe in self.pipes:
            pipe.send(epochs)
        for pipe in self.pipes:
            pipe.recv()


def vmapped(setting: Setting, in_dims: Any):
    """Parameters of networks of one width, their optimizer, and their losses of parameters, images and labels."""
    members = networks(setting, track=False)
    params = {name: p.detach().requires_grad_() for name, p in torch.func.stack_module_state(members)[0].items()}

    def loss(params, x, y):
        return functional.cross_entropy(torch.func.functional_call(members[0], params, (x,)), y)

    return params, adam(params.values()), torch.func.vmap(loss, in_dims=in_dims)


class Vmap:
    """torch.func.vmap over networks of one width (BatchNorm without running statistics, which vmap wants)."""

    def __init__(self, setting: Setting):
        self.data = [Data(setting) for _ in setting.widths]
        self.params, self.optimizer, self.losses = vmapped(setting, in_dims=0)

    def work(self, epochs: int) -> None:
        for _ in range(epochs):
            for batches in zip(*(data.epoch() for data in self.data), strict=True):
                x, y = (torch.stack(parts) for parts in zip(*batches, strict=True))
                self.optimizer.zero_grad()
                self.losses(self.params, x, y).sum().backward()
                self.optimizer.step()
        wait()


class SharedVmap:
    """torch.func.vmap over the networks of each width, all of them on the same batches."""

    def __init__(self, setting: Setting):
        self.data = Data(setting)
        widths = collections.Counter(setting.widths)
        groups = [setting._replace(widths=[width] * count) for width, count in widths.items()]
        self.groups = [vmapped(group, in_dims=(0, None, None)) for group in groups]

    def work(self, epochs: int) -> None:
        for _ in range(epochs):
            for x, y in self.data.epoch():
                for params, optimizer, losses in self.groups:
                    optimizer.zero_grad()
                    losses(params, x, y).sum().backward()
                    optimizer.step()
        wait()


class SharedVmapProcesses(Processes):
    """The same, a process a core."""

    each = SharedVmap


class Product:
    """A product of two large matrices."""

    def __init__(self, setting: Setting, dtype: str):
        self.factors = torch.randn(2, SIDE, SIDE, device=DEVICE).to(getattr(torch, dtype))

    def work(self, times: int) -> None:
        for _ in range(times):
            self.factors[0] @ self.factors[1]
        wait()


class Spectra:
    """The loop of the paper's public code: for each point on the segments a forward pass of all examples."""

    def __init__(self, setting: Setting, *options: str):
        images, _ = setting.data()
        layout = torch.channels_last if "channels_last" in options else torch.contiguous_format
        x = torch.from_numpy(images[:EXAMPLES]).permute(0, 3, 1, 2).to(DEVICE).float() / 255
        self.x = x.contiguous(memory_format=layout)
        self.networks = [network.eval().to(memory_format=layout) for network in networks(setting)]
        if "compile" in options:
            for network in self.networks:
                network.compile()

    def work(self, times: int) -> None:
        for _ in range(times):
            for network in self.networks:
                self.energy(network)

    @torch.no_grad()
    def energy(self, network: nn.Module) -> np.ndarray:
        v = torch.randn_like(self.x)
        v /= v.flatten(1).norm(dim=1)[:, None, None, None]
        points = -HALF_WIDTH + 2 * HALF_WIDTH * np.arange(POINTS) / POINTS
        outputs = np.stack([network(self.x + float(t) * v).cpu().numpy() for t in points])
        return (np.abs(np.fft.rfft(outputs, axis=0)) ** 2).mean(axis=-1)


class SpectraProcesses(Processes):
    """The same, a process a core."""

    each = Spectra


if __name__ == "__main__":
    serve(Sequential, Processes, Vmap, SharedVmap, SharedVmapProcesses, Product, Spectra, SpectraProcesses)
