import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from spectral_dd import models
from spectral_dd.config import Config
from spectral_dd.data import Dataset
from spectral_dd.planning import packing
from spectral_dd.planning.cost import Cost

SIZE = {"train_size": 600, "batch_size": 100}


@pytest.fixture(scope="module")
def colours():
    images, labels = np.zeros((4, 32, 32, 3), np.uint8), np.arange(4)
    return {"digits": Dataset.from_arrays(images, labels, images, labels, num_classes=10)}


def count(config, num_classes, shape):
    network = models.build_model(config, num_classes)
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_parameters_and_flops_are_those_of_the_network(digits):
    mlp = Config.of(model="mlp", width=5, **SIZE)
    cost = Cost([mlp], {"digits": digits})
    assert cost.parameters(mlp) == 64 * 5 + 5 + 5 * 5 + 5 + 5 * 10 + 10
    products = 2 * (64 * 5 + 5 * 5 + 5 * 10)  # a multiplication and an addition each
    assert cost.step_flops(mlp, 5) == pytest.approx(3 * products * 100, rel=0.1)
    assert cost.step_flops(mlp, 10) > cost.step_flops(mlp, 5)
    assert cost.step_seconds(mlp, 10) > cost.step_seconds(mlp, 5) > 0


@pytest.mark.parametrize("model", models.MODELS)
def test_parameters_of_any_width_follow_from_three(model, colours):
    cost = Cost([], colours)
    for width in (1, 4, 9):
        config = Config.of(model=model, width=width)
        assert cost.parameters(config) == count(config, 10, (32, 32, 3))


@pytest.mark.parametrize(
    ("model", "width", "members", "milliseconds"),
    [
        ("resnet18", 4, 16, 0.162),
        ("resnet18", 4, 1, 1.82),
        ("resnet18", 16, 4, 0.65),
        ("resnet18", 16, 1, 1.81),
        ("resnet18", 32, 2, 1.32),
        ("resnet18", 64, 1, 2.5),
        ("cnn5", 8, 8, 0.125),
        ("cnn5", 8, 1, 0.367),
    ],
)
def test_steps_on_an_accelerator_take_what_they_took_on_one(model, width, members, milliseconds, colours):
    """A member's share of a step of batch 128 at 32x32 in bfloat16, packed and alone, measured on an H200."""
    config = Config.of(model=model, width=width, batch_size=128)
    cost = Cost([], colours, "gpu")
    assert cost.step_seconds(config, width, members) == pytest.approx(milliseconds / 1e3, rel=1 / 3)
    # More than fit side by side take as long each.
    assert cost.step_seconds(config, width, 64) == cost.step_seconds(config, width, 64 // width)


def test_on_an_accelerator_a_pack_is_filled_before_another_is_compiled(colours):
    """Of few narrow networks padding is cheaper than a program that hardly does more at once."""
    few = [Config.of(model="resnet18", width=w, epochs=20, train_size=12800, batch_size=128) for w in (2, 3, 4)]
    assert packing.cut(few, Cost(few, colours, "gpu")) == [[0, 1, 2]]
    assert len(packing.cut(few, Cost(few, colours, "cpu"))) > 1


class Cubic(nn.Module):
    """Has width cubed parameters in its first layer, and works for even widths alone."""

    width: int
    num_classes: int

    @nn.compact
    def __call__(self, images, train):
        assert self.width % 2 == 0
        x = images.reshape(len(images), -1)[:, : self.width]
        return nn.Dense(self.num_classes, use_bias=False)(nn.Dense(self.width**2, use_bias=False)(x))


def test_a_network_of_ones_own_is_traced_at_its_own_widths_only(digits):
    name = models.register(Cubic)
    configs = [Config.of(model=name, width=w, **SIZE) for w in (2, 4, 8, 16)]
    cost = Cost(configs, {"digits": digits})
    assert [cost.parameters(c) for c in configs] == [w**3 + 10 * w**2 for w in (2, 4, 8, 16)]
    seconds = [cost.step_seconds(c, c.width) for c in configs]
    assert all(s > 0 for s in seconds) and seconds[-1] > seconds[0]
