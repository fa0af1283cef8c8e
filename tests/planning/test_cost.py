import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from spectral_dd import models
from spectral_dd.config import Config
from spectral_dd.data import Dataset
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
    ("model", "width", "milliseconds"),
    [
        ("resnet18", 4, 0.162),
        ("resnet18", 16, 0.652),
        ("resnet18", 32, 1.32),
        ("resnet18", 64, 2.5),
        ("cnn5", 8, 0.125),
    ],
)
def test_steps_on_an_accelerator_take_what_they_took_on_one(model, width, milliseconds, colours):
    """A member's share of a packed step of batch 128 at 32x32 in bfloat16, measured on an H200."""
    config = Config.of(model=model, width=width, batch_size=128)
    seconds = Cost([], colours, "gpu").step_seconds(config, width)
    assert seconds == pytest.approx(milliseconds / 1e3, rel=0.2)


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
