"""Logits of a network along segments, with a shortcut for networks that declare an affine first layer.

What is computed from them is in `spectrum.py`.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval
from jaxtyping import Array, Float

from spectral_dd.errors import InputError
from spectral_dd.models import declared
from spectral_dd.models.network import Conv
from spectral_dd.spectrum import by_segment, points_on_segments


def on_segments(
    network: nn.Module,
    variables: Any,
    x: Float[Array, "segment *shape"],
    v: Float[Array, "segment *shape"],
    t: Float[Array, " point"],
) -> Float[Array, "segment point class"]:
    """Logits of a network in evaluation mode at x + t v, for each segment and each t.

    A network that declares `affine_first_layer` has its first convolution or dense layer g computed at two points of a
    segment only: g(x + t v) = g(x) + t (g(x + v) - g(x)). In a narrow network on large images that saves up to half of
    the work.

    Raises:
      InputError: the declaration is not true.
    """
    if not declared(network, "affine_first_layer"):
        logits: Any = functools.partial(network.apply, variables, train=False)
        return by_segment(logits, points_on_segments(x, v, t))
    _check_declaration(network, variables, x)
    expanded = False

    def expand_first_layer(call, module, inputs):
        nonlocal expanded
        y = call()
        if not expanded:
            expanded = True
            return _expand(y, _example_axis(module, y), t)
        return y

    outputs = _apply(network, variables, jnp.concatenate([x, x + v]), expand_first_layer)
    return outputs.reshape(len(x), len(t), -1)


def _apply(network: nn.Module, variables: Any, images: Array, at_layer: Callable[..., Array]) -> Any:
    """Applies a network, with `at_layer(call, module, inputs)` in place of each convolution and each dense layer."""

    def intercept(method, args, kwargs, context):
        if context.method_name != "__call__" or not isinstance(context.module, Conv | nn.Conv | nn.Dense):
            return method(*args, **kwargs)
        return at_layer(functools.partial(method, *args, **kwargs), context.module, (*args, *kwargs.values())[0])

    with nn.intercept_methods(intercept):
        return network.apply(variables, images, train=False)


def _example_axis(module: nn.Module, y: Array) -> int:
    return y.ndim - 1 if isinstance(module, Conv) else 0


def _expand(y: Array, axis: int, t: Float[Array, " point"]) -> Array:
    """Values at all points of each segment, from those at x and at x + v, which follow each other along `axis`."""
    start, end = jnp.split(y, 2, axis)
    steps = t.astype(y.dtype).reshape(*(1,) * (axis + 1), -1, *(1,) * (y.ndim - 1 - axis))
    inside = jnp.expand_dims(start, axis + 1) + steps * jnp.expand_dims(end - start, axis + 1)
    return inside.reshape(*y.shape[:axis], -1, *y.shape[axis + 1 :])


class _Reached(Exception):
    """Ends a call of a network at its first layer."""


def _check_declaration(network: nn.Module, variables: Any, x: Float[Array, "segment *shape"]) -> None:
    """Raises `InputError` unless what the first layer gets is an affine function of the images, example by example."""

    def first_input(variables, x):
        def stop(call, module, inputs):
            if inputs.shape[_example_axis(module, inputs)] != len(x):
                raise refusal("its first layer mixes examples with another axis")
            raise _Reached(inputs)

        try:
            _apply(network, variables, x, stop)
        except _Reached as reached:
            return reached.args[0]
        raise refusal("it has no convolution and no dense layer")

    def refusal(reason):
        name = type(network).__name__
        return InputError(f"--model: {name} declares affine_first_layer, but {reason}; remove the declaration")

    def derivative(x, variables, v):
        return jax.jvp(functools.partial(first_input, variables), (x,), (v,))[1]

    # The derivative of an affine function does not depend on where it is taken.
    jaxpr = jax.make_jaxpr(derivative)(x, variables, x).jaxpr
    _, used = partial_eval.dce_jaxpr(jaxpr, [True])
    if used[0]:
        raise refusal("what its first layer gets is not an affine function of the images")
