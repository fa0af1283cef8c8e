"""PyTorch as it is usually sped up on a GPU: bfloat16 by autocast, channels last, and compiled."""

import torch
from side_by_side import Setting, serve
from torch.nn import functional
from torch_contestants import DEVICE, Sequential, wait


class HalfPrecision(Sequential):
    """One network after another, in bfloat16 by autocast, channels last."""

    def __init__(self, setting: Setting):
        super().__init__(setting)
        self.networks = [network.to(memory_format=torch.channels_last) for network in self.networks]
        self.losses = [self.loss_of(network) for network in self.networks]

    def loss_of(self, network):
        def loss(x, y):
            with torch.autocast(DEVICE.type, torch.bfloat16):
                return functional.cross_entropy(network(x), y)

        return loss

    def work(self, epochs: int) -> None:
        for loss, optimizer in zip(self.losses, self.optimizers, strict=True):
            for _ in range(epochs):
                for x, y in self.data.epoch():
                    optimizer.zero_grad()
                    loss(x.to(memory_format=torch.channels_last), y).backward()
                    optimizer.step()
        wait()


class Compiled(HalfPrecision):
    """The same by torch.compile."""

    def loss_of(self, network):
        return torch.compile(super().loss_of(network))


if __name__ == "__main__":
    serve(HalfPrecision, Compiled)
