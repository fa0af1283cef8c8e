"""A network of one's own that cannot be trained is refused before anything is computed or written."""

import flax.linen as nn
import pytest

import spectral_dd as sdd
from spectral_dd.errors import InputError
from spectral_dd.planning.contract import check_network
from spectral_dd.planning.prepare import prepare


class Net(nn.Module):
    """A layer, and what `end` makes of the logits."""

    width: int
    num_classes: int

    @nn.compact
    def __call__(self, images, train):
        x = nn.Dense(self.width)(images.reshape(len(images), -1))
        x = nn.Dropout(0.5, deterministic=not train)(nn.BatchNorm(use_running_average=not train)(x))
        return self.end(nn.Dense(self.num_classes)(x), train)

    def end(self, logits, train):
        return logits


class Pair(Net):
    def end(self, logits, train):
        return logits, logits


class Pixels(Net):
    def end(self, logits, train):
        return logits[:, None]


class Classes(Net):
    def end(self, logits, train):
        return logits.argmax(-1, keepdims=True) + 0 * logits.astype(int)


class AuxiliaryInTraining(Net):
    def end(self, logits, train):
        return (logits, logits) if train else logits


class Branch(Net):
    def end(self, logits, train):
        return logits if logits.sum() > 0 else -logits


class Odd(Net):
    def end(self, logits, train):
        assert self.width % 2, "width must be odd"
        return logits


class Mean(nn.Module):
    width: int
    num_classes: int

    def __call__(self, images, train):
        return images.reshape(len(images), -1)[:, : self.num_classes]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Pair, "must return logits (3, 10) for 3 images in evaluation mode; it returned tuple"),
        (Pixels, "must return logits (3, 10) for 3 images in evaluation mode; it returned (3, 1, 10)"),
        (Classes, "must return logits (3, 10) for 3 images in evaluation mode; it returned (3, 10) of int32"),
        (AuxiliaryInTraining, "must return logits (3, 10) for 3 images in training mode; it returned tuple"),
        (Branch, "cannot be called with images (3, 8, 8, 1): TracerBoolConversionError: "),
        (Odd, "cannot be called with images (3, 8, 8, 1): AssertionError: width must be odd"),
        (Mean, "it has no parameters"),
    ],
)
def test_what_it_does_wrong_is_said_in_one_line(model, message):
    with pytest.raises(InputError) as error:
        prepare(sdd.sweep(None, width=[1, 2]), model=model)
    said = str(error.value)
    assert said.startswith(f"--model={__name__}:{model.__name__}: at width ") and message in said and len(said) < 500


def test_dropout_batch_statistics_and_any_width_that_works_are_fine():
    prepare(sdd.sweep(None, width=[1, 2]), model=Net)
    prepare(sdd.sweep(None, width=[1, 3]), model=Odd)


def test_a_class_that_is_defined_again_is_tried_again():
    """As in a notebook, whose classes keep their names."""
    prepare(sdd.sweep(None), model=Net)
    again = type("Net", (Pair,), {"__module__": Net.__module__, "__qualname__": "Net"})
    with pytest.raises(InputError, match="it returned tuple"):
        prepare(sdd.sweep(None), model=again)


def test_networks_of_this_project_keep_the_contract():
    for name in ("mlp", "cnn5", "preact_resnet18"):
        check_network(name, 2, (8, 8, 1), 10)
