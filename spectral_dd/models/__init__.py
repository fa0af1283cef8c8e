"""The registry of networks: names, one's own classes, and what a network may declare.

A network is a Linen module class with fields `width` and `num_classes`, called `(images, train)` with images
(example, height, width, channel), that returns logits (example, class). What all of ours share is in `network.py`.
"""

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from spectral_dd import own
from spectral_dd.config import Config
from spectral_dd.data import to_unit
from spectral_dd.errors import InputError, nearest
from spectral_dd.models.cnn5 import CNN5
from spectral_dd.models.mlp import MLP
from spectral_dd.models.resnet import ResNet
from spectral_dd.models.vgg import VGG

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": MLP,
    "cnn5": CNN5,
    "resnet18": ResNet,
    "resnet34": functools.partial(ResNet, blocks=(3, 4, 6, 3)),
    "preact_resnet18": functools.partial(ResNet, preactivation=True),
    "preact_resnet34": functools.partial(ResNet, blocks=(3, 4, 6, 3), preactivation=True),
    "vgg11": VGG,
    "vgg13": functools.partial(VGG, convolutions=(2, 2, 2, 2, 2)),
    "vgg16": functools.partial(VGG, convolutions=(2, 2, 3, 3, 3)),
}

REQUIRED_FIELDS = ("width", "num_classes")

# Class attributes that a network may have, and what holds of one that does not. `Network` says what they mean.
DECLARATIONS = {"affine_first_layer": False, "convolutional": False, "smallest_image": 1}

_registered: dict[str, type[nn.Module]] = {}


def find(name: str) -> Callable[..., nn.Module]:
    """The class (or a partial of it) of a network.

    Args:
      name: a key of `MODELS`, `FILE.py:Class`, `package.module:Class`, or what `register` returned.

    Raises:
      InputError: there is no such network, or it lacks what a network must have.
    """
    if name in MODELS:
        return MODELS[name]
    if name in _registered:
        return _registered[name]
    source, _, class_name = name.rpartition(":")
    if not source:
        known = ", ".join(MODELS)
        raise InputError(
            f"--model={name}: must be one of {known}, or FILE.py:Class, or package.module:Class.{nearest(name, MODELS)}"
        )
    return _checked(name, own.load(f"--model={name}", "class", functools.partial(_others, class_name)))


def register(cls: type[nn.Module]) -> str:
    """Makes a class known for this process. Returns its name, for the field `model` of `Config`.

    Raises:
      InputError: the class lacks what a network must have.
    """
    name = f"{cls.__module__}:{cls.__qualname__}" if isinstance(cls, type) else str(cls)
    _registered[name] = _checked(name, cls)
    return name


def code(names: Iterable[str]) -> dict[str, Any]:
    """`own.about` of the networks of one's own among these, by name."""
    return {name: own.about(find(name)) for name in dict.fromkeys(names) if name not in MODELS}


def recall(names: Iterable[str], there: Mapping[str, Any], workdir: Any) -> None:
    """Makes the networks of a sweep that is read known again, those that are not known already.

    Args:
      names: that the sweep has.
      there: `code` of them, as the sweep has it.
      workdir: of the sweep.

    Raises:
      InputError: a network is missing, or its file has changed or is in `workdir`.
    """
    for name in dict.fromkeys(names):
        if name not in MODELS and name not in _registered:
            instead = "pass the class as model= in Python"
            found = own.again(f"--model={name}", there.get(name), workdir, instead)
            try:
                _registered[name] = find(found.removeprefix("--model="))  # type: ignore[assignment]
            except InputError as error:  # such as a class of another notebook
                raise InputError(f"{str(error).rstrip('.')}; {instead}") from error


def check_code(names: Iterable[str], there: Mapping[str, Any]) -> None:
    """Raises `InputError` if the file of a network has changed since a sweep was begun."""
    for name in dict.fromkeys(names):
        if name not in MODELS and name not in _registered and (path := own.about(find(name))["file"]):
            own.check_unchanged(f"--model={name}", there.get(name), path, "pass the class as model= in Python")


def taking_integers(model: nn.Module, dtype: Any) -> nn.Module:
    """The same network, of the same parameters, that scales integer images as `data.to_unit` does, in this type.

    Raises (when it is called):
      InputError: images are integers of another type than uint8 and uint16.
    """
    fields = {name: getattr(model, name) for name in _fields(model) if name not in ("parent", "name")}
    cls: Any = type(model)
    return _taking_integers(cls, jnp.dtype(dtype))(**fields)


@functools.cache
def _taking_integers(cls: type[nn.Module], dtype: Any) -> type[nn.Module]:
    class Scaled(cls):  # type: ignore[misc, valid-type]
        def __call__(self, images: Any, *arguments: Any, **options: Any) -> Any:
            if not jnp.issubdtype(images.dtype, jnp.floating):
                images = to_unit(images, dtype)
            return super().__call__(images, *arguments, **options)

    Scaled.__name__, Scaled.__qualname__, Scaled.__doc__ = cls.__name__, cls.__qualname__, cls.__doc__
    return Scaled


def build_model(config: Config, num_classes: int) -> nn.Module:
    """The network of one member, at the member's own width.

    Raises:
      InputError: there is no such network, or the config asks for what it has no field for.
    """
    model = find(config.model)(width=config.width, num_classes=num_classes)
    # float64 needs no field: unless told otherwise, layers compute in the type of their parameters and inputs.
    needed = {"dtype": config.dtype == "bfloat16", "initializer": config.initializer != Config.initializer}
    for field, is_needed in needed.items():
        if is_needed and field not in _fields(model):
            raise InputError(f"--{field}={getattr(config, field)}: {config.model} has no field {field}")
    return with_fields(
        model,
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.dtype(config.param_dtype),
        initializer=config.initializer,
    )


def with_fields(model: nn.Module, **values: Any) -> nn.Module:
    """A copy of a network with these values of its fields; fields that it does not have are left out."""
    return model.clone(**{name: value for name, value in values.items() if name in _fields(model)})


def declared(model: nn.Module | Callable[..., nn.Module], name: str) -> Any:
    """What a network, or its class as `find` returns it, declares under a name of `DECLARATIONS`, or the default."""
    cls = model.func if isinstance(model, functools.partial) else model
    return getattr(cls, name, DECLARATIONS[name])


def _fields(network: Any) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(network)}


def _others(name: str, module: types.ModuleType) -> str:
    own = [key for key, cls in vars(module).items() if _is_linen(cls) and cls.__module__ == module.__name__]
    known = f"its Linen modules are {', '.join(own)}." if own else "it has no Linen modules."
    return f"; {known}{nearest(name, own)}"


def _is_linen(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, nn.Module) and cls is not nn.Module


def _checked(name: str, cls: Any) -> type[nn.Module]:
    """Returns `cls` if it can be built and called as a network; raises `InputError` if not."""
    if not _is_linen(cls):
        raise InputError(f"--model={name}: must be a class derived from flax.linen.Module")
    fields = _fields(cls)
    for required in REQUIRED_FIELDS:
        if required not in fields:
            raise InputError(
                f"--model={name}: has no field {required}; a network needs {' and '.join(REQUIRED_FIELDS)}"
            )
    for field in (field for name, field in fields.items() if name not in REQUIRED_FIELDS):
        if field.init and field.default is field.default_factory is dataclasses.MISSING:
            raise InputError(f"--model={name}: its field {field.name} has no default")
    if "train" not in inspect.signature(cls.__call__).parameters:
        raise InputError(f"--model={name}: must be called as (images, train)")
    return cls
