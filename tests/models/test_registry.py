import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from spectral_dd.config import Config
from spectral_dd.errors import InputError
from spectral_dd.models import CNN5, MODELS, build_model, declared, find, register, with_fields

FILE = """
from __future__ import annotations

from typing import ClassVar

import flax.linen as nn

class Own(nn.Module):
    width: int
    num_classes: int
    smallest_image: ClassVar[int] = 5

    @nn.compact
    def __call__(self, images, train):
        hidden = nn.relu(nn.Dense(self.width)(images.reshape(len(images), -1)))
        return nn.Dense(self.num_classes)(hidden)

class Endless(nn.Module):
    num_classes: int

class Aimless(nn.Module):
    width: int

class Deep(nn.Module):
    width: int
    num_classes: int
    depth: int

class Untrained(nn.Module):
    width: int
    num_classes: int

    def __call__(self, images):
        return images

number = 3
"""


class Plain(nn.Module):
    width: int
    num_classes: int

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(self.num_classes)(images.reshape(len(images), -1))


class Typed(Plain):
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "jax.py"  # must not hide the library
    path.write_text(FILE)
    return path


def test_a_network_is_found_by_its_name_its_file_or_its_module(own_file, monkeypatch):
    assert find("cnn5") is find("spectral_dd.models.cnn5:CNN5") is CNN5
    own = find(f"{own_file}:Own")
    assert own.__name__ == "Own"
    monkeypatch.chdir(own_file.parent)
    assert find("jax.py:Own") is own  # one class however it is named: programs of it compile once
    assert find(register(own)) is own
    model = build_model(Config(model="jax.py:Own", width=3), 7)
    images = jnp.ones((2, 5, 5, 1))
    logits, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images, train=True))
    assert logits.shape == (2, 7) and variables["params"]["Dense_0"]["kernel"].shape == (25, 3)
    assert declared(model, "smallest_image") == 5


def test_a_class_is_registered_under_its_module_and_name():
    class Local(Plain):
        pass

    name = register(Local)
    assert name == f"{__name__}:{Local.__qualname__}"
    assert isinstance(build_model(Config(model=name), 10), Local)


def known(name):
    return f"{name}: must be one of {', '.join(MODELS)}, or FILE.py:Class, or package.module:Class."


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cn5", known("cn5") + " Did you mean 'cnn5'?"),
        ("jax.py", known("jax.py")),
        ("missing.py:Own", "missing.py:Own: there is no file missing.py"),
        ("broken.py:Own", "broken.py:Own: broken.py cannot be imported: ValueError: this and that"),
        ("exits.py:Own", "exits.py:Own: exits.py cannot be imported: SystemExit: 3"),
        ("wrong.py:Own", "wrong.py:Own: wrong.py cannot be imported: SyntaxError: invalid syntax (wrong.py, line 1)"),
        ("no_such_package:Own", "no_such_package:Own: no_such_package cannot be imported: ModuleNotFoundError: "
         "No module named 'no_such_package'"),
        ("jax.py:Owm", "jax.py:Owm: has no class Owm; its Linen modules are Own, Endless, Aimless, Deep, Untrained. "
         "Did you mean 'Own'?"),
        ("math:Own", "math:Own: has no class Own; it has no Linen modules."),
        ("jax.py:number", "jax.py:number: must be a class derived from flax.linen.Module"),
        ("flax.linen:Module", "flax.linen:Module: must be a class derived from flax.linen.Module"),
        ("jax.py:Endless", "jax.py:Endless: has no field width; a network needs width and num_classes"),
        ("jax.py:Aimless", "jax.py:Aimless: has no field num_classes; a network needs width and num_classes"),
        ("jax.py:Deep", "jax.py:Deep: its field depth has no default"),
        ("jax.py:Untrained", "jax.py:Untrained: must be called as (images, train)"),
    ],
)  # fmt: skip
def test_what_is_no_network_is_refused_in_one_line(name, message, own_file, monkeypatch):
    monkeypatch.chdir(own_file.parent)
    (own_file.parent / "broken.py").write_text("raise ValueError('this\\nand that')")
    (own_file.parent / "exits.py").write_text("raise SystemExit(3)")
    (own_file.parent / "wrong.py").write_text("3 3")
    for _ in range(2):  # a file that could not be imported is not taken for imported
        with pytest.raises(InputError) as error:
            find(name)
        assert str(error.value) == f"--model={message}"


def test_what_is_no_network_cannot_be_registered():
    for value, message in (
        (3, "--model=3: must be a class"),
        (nn.Dense, "flax.linen.linear:Dense: has no field width"),
    ):
        with pytest.raises(InputError, match=message):
            register(value)


def test_a_network_gets_what_it_has_fields_for():
    plain, typed = register(Plain), register(Typed)
    model = build_model(Config(model=typed, dtype="bfloat16"), 10)
    assert (model.dtype, model.param_dtype) == (jnp.bfloat16, jnp.float32)
    assert build_model(Config(model="cnn5", initializer="he_normal"), 10).initializer == "he_normal"
    build_model(Config(model=plain, dtype="float64"), 10)
    for values, message in (
        ({"model": plain, "dtype": "bfloat16"}, f"--dtype=bfloat16: {plain} has no field dtype"),
        ({"model": typed, "initializer": "he_normal"}, f"--initializer=he_normal: {typed} has no field initializer"),
    ):
        with pytest.raises(InputError) as error:
            build_model(Config(**values), 10)
        assert str(error.value) == message


def test_fields_that_a_network_does_not_have_are_left_out():
    assert with_fields(CNN5(2, 10), convolution="lax", depth=3) == CNN5(2, 10, convolution="lax")
    assert with_fields(Plain(2, 10), convolution="lax") == Plain(2, 10)


def test_what_is_not_declared_is_not_assumed():
    names = ("affine_first_layer", "smallest_image")
    assert [declared(Plain(2, 10), name) for name in names] == [False, 1]
    assert [declared(CNN5(2, 10), name) for name in names] == [True, 4]
