"""Measures of one's own: functions of (f, examples, directions), found by name, checked, described for the results."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from spectral_dd import own
from spectral_dd.config import FIELDS
from spectral_dd.errors import InputError, reason
from spectral_dd.records import COORDINATES, MEASURED, VARIABLES, Variable

# One function of (f, examples, directions), or several of one file.
Measures = Callable[..., Any] | Sequence[Callable[..., Any]]

_registered: dict[str, tuple[Callable[..., Any], ...]] = {}


def measure(*, units: str = "1", long_name: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Says what a measure of one's own is in, and what it is called in words; its docstring's first line is kept too.

    >>> @measure(units="logit", long_name="largest logit")
    ... def largest(f, examples, directions):
    ...     "Over the classes, at the example itself."
    ...     return f(examples).max(axis=-1)

    The function gets `f`, which maps inputs (batch, height, width, channel), in [0, 1] for images of whole numbers, to
    logits (batch, class); examples (example, height, width, channel); directions of L2 norm 1 (example, direction,
    height, width, channel). It returns a number for each example, (example,), and must be traceable by JAX. It gets a
    few examples at a time: a value must not depend on the other examples.
    """

    def describe(function: Callable[..., Any]) -> Callable[..., Any]:
        function.units, function.long_name = units, long_name  # type: ignore[attr-defined]
        return function

    return describe


def find(name: str) -> tuple[Callable[..., Any], ...]:
    """The functions of a name that `Config.measure` can have: FILE.py:F, or FILE.py:F+G for several.

    Raises:
      InputError: there is no such function, or a variable of its name exists.
    """
    about = f"--measure={name}: "
    functions = _registered.get(name)
    if functions is None:
        source, _, listed = name.rpartition(":")
        if not source:
            raise InputError(f"{about}must be FILE.py:FUNCTION or package.module:FUNCTION")
        functions = tuple(own.load(f"--measure={source}:{one}", "function") for one in listed.split("+"))
    for function in functions:
        if not callable(function) or isinstance(function, type):
            raise InputError(f"{about}must be a function of (f, examples, directions)")
        variable = getattr(function, "__name__", "")
        if not variable.isidentifier():
            raise InputError(f"{about}must be a function with a name (def), which its variable in the results gets")
        if variable in VARIABLES | COORDINATES | FIELDS:
            raise InputError(f"{about}{variable} is the name of a variable already; give it another")
    if len({function.__name__ for function in functions}) < len(functions):
        raise InputError(f"{about}must be functions of different names")
    return functions


def register(given: Measures) -> str:
    """Makes functions known for this process. Returns their name, for the field `measure` of `Config`.

    Raises:
      InputError: they are of several modules, of which one could not be found again, or as in `find`.
    """
    functions = (given,) if callable(given) else tuple(given)
    modules = {getattr(function, "__module__", "") for function in functions}
    names = "+".join(getattr(function, "__qualname__", str(function)) for function in functions)
    if len(modules) != 1:
        raise InputError(f"measure={names}: must be one or more functions of one module")
    name = f"{modules.pop()}:{names}"
    _registered[name] = functions
    find(name)
    return name


def recall(names: Iterable[str], there: Mapping[str, Any], workdir: Any) -> None:
    """Makes the measures of a sweep that is read known again; as `models.recall`."""
    for name in filter(None, dict.fromkeys(names)):
        if name not in _registered:
            instead = "pass another, or none with --measure="
            found = own.again(f"--measure={name}", there.get(name), workdir, instead)
            _registered[name] = find(found.removeprefix("--measure="))


def code(names: Iterable[str]) -> dict[str, Any]:
    """`own.about` of these measures, by name."""
    return {name: own.about(find(name)[0]) for name in filter(None, dict.fromkeys(names))}


def described(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """What the results say of these measures, by variable: units, long_name, meaning."""
    found = {}
    for name in filter(None, dict.fromkeys(names)):
        for function in find(name):
            found[function.__name__] = {
                "units": getattr(function, "units", "1"),
                "long_name": getattr(function, "long_name", "") or function.__name__.replace("_", " "),
                "meaning": (function.__doc__ or "a measure of one's own").strip().splitlines()[0],
            }
    return found


def variables(there: Mapping[str, Mapping[str, str]]) -> dict[str, Variable]:
    """`described` as rows of the table of what is recorded."""
    return {name: Variable(MEASURED["loss"].dims, **about) for name, about in there.items()}


def check(name: str, model: nn.Module, image_shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Raises `InputError` unless measures give a number for each example of a network; nothing is computed."""
    for function in find(name):
        _check(f"--measure={name}: ", function, model, image_shape, dtype)


def _check(
    about: str, function: Callable[..., Any], model: nn.Module, image_shape: tuple[int, ...], dtype: DTypeLike
) -> None:
    def measured(key, x, v):
        variables = model.init(key, x, train=False)
        return function(functools.partial(model.apply, variables, train=False), x, v)

    x = jax.ShapeDtypeStruct((3, *image_shape), dtype)
    v = jax.ShapeDtypeStruct((3, 1, *image_shape), dtype)
    try:
        result = jax.eval_shape(measured, jax.random.key(0), x, v)
    except Exception as error:  # whatever a function of somebody else raises
        raise InputError(f"{about}{function.__name__} cannot be traced by JAX: {reason(error)[:300]}") from error
    if getattr(result, "shape", None) != (3,) or jnp.issubdtype(result.dtype, jnp.complexfloating):
        shape = getattr(result, "shape", type(result).__name__)
        raise InputError(
            f"{about}{function.__name__} must return a number for each of 3 examples, (3,); it returned {shape}"
        )
