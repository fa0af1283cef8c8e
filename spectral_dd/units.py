"""On which linear piece of a piecewise linear function an input lies: what each of its *units* chooses there.

A unit is an entry of what a network makes of its inputs by choosing: a ReLU, |x|, a maximum or minimum of two or of all
entries of a window, a choice by a condition (leaky ReLU). Units are found in the traced program of any function;
nothing has to be declared. Not looked into are loops (`lax.scan` and its kin), and arrays without an axis of examples
of their own.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jaxtyping import Array, Float

# Each input independently of the others: a network in evaluation mode.
Function = Callable[[Float[Array, "batch *shape"]], Float[Array, "batch class"]]

# Programs within a program, and the parameter that holds them.
_INNER = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


class Units(NamedTuple):
    """The units that one operation of a program has, `(example, ...)`."""

    choice: Array  # a whole number, or whether it is the first operand
    live: Array  # whether the outputs depend on it, at this input
    is_relu: bool  # whether they are max(a, c) with c independent of the inputs; `choice` is then whether a > c


def choices(f: Function, x: Float[Array, "example *shape"]) -> tuple[Array, list[Units]]:
    """Returns the outputs (example, class) and all units of `f`.

    A unit is live if the derivative of a fixed linear combination of the outputs with respect to what it returns is not
    zero.
    """
    places = _places(f, x)

    def combined(nudges):
        nudge, found = iter(nudges), []

        def at_units(y, choice, is_relu):
            found.append(choice)
            return y + next(nudge)

        outputs = _evaluate(f, x, at_units)
        # Weights under which what the outputs depend on does not cancel.
        weights = np.random.default_rng(0).standard_normal(outputs.shape[1])
        return jnp.sum(outputs @ weights.astype(outputs.dtype)), (outputs, found)

    nudges = [jnp.zeros(place.shape, place.dtype) for place in places]
    derivatives, (outputs, found) = jax.grad(combined, has_aux=True)(nudges)
    by_example = [
        Units(jnp.moveaxis(choice, place.axis, 0), jnp.moveaxis(derivative != 0, place.axis, 0), place.is_relu)
        for place, choice, derivative in zip(places, found, derivatives, strict=True)
        if place.axis is not None
    ]
    return outputs, by_example


class _Place(NamedTuple):
    """An operation that has units."""

    shape: tuple[int, ...]
    dtype: Any
    axis: int | None  # of the examples
    is_relu: bool


def _places(f: Function, x: Float[Array, "example *shape"]) -> list[_Place]:
    """The operations of `f` that have units, in order. The axis of the examples is the one whose length is their
    number, and changes with it."""

    def traced(num_examples: int) -> list[tuple[Array, bool]]:
        found = []

        def at_units(y, choice, is_relu):
            found.append((y, is_relu))
            return y

        inputs = jax.ShapeDtypeStruct((num_examples, *x.shape[1:]), x.dtype)
        jax.eval_shape(lambda x: _evaluate(f, x, at_units), inputs)
        return found

    places = []
    for (y, is_relu), (larger, _) in zip(traced(len(x)), traced(len(x) + 1), strict=True):
        sizes = list(zip(y.shape, larger.shape, strict=True))
        axes = [axis for axis, (size, more) in enumerate(sizes) if size != more]
        axis = axes[0] if [sizes[i] for i in axes] == [(len(x), len(x) + 1)] else None
        places.append(_Place(y.shape, y.dtype, axis, is_relu))
    return places


def _evaluate(f: Function, x: Array, at_units: Callable[[Array, Array, bool], Array]) -> Array:
    """f(x), with `at_units(y, choice, is_relu)` in the place of what units return: an interpreter of jaxprs, as in
    JAX's documentation, that keeps beside each value whether it depends on the inputs."""

    def run(jaxpr, consts, inputs):
        known = dict(zip(jaxpr.constvars, [(const, False) for const in consts], strict=True))
        known |= dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom):
            return (atom.val, False) if isinstance(atom, core.Literal) else known[atom]

        for eqn in jaxpr.eqns:
            name, operands = eqn.primitive.name, [read(atom) for atom in eqn.invars]
            if name in _INNER:
                inner = eqn.params[_INNER[name]]
                results = run(inner.jaxpr, inner.consts, operands)
            else:
                values, depends = [value for value, _ in operands], [depends for _, depends in operands]
                y = eqn.primitive.bind(*values, **eqn.params)
                if name in _CHOICES and any(depends) and jnp.issubdtype(y.dtype, jnp.floating):
                    choice = _CHOICES[name](*map(lax.stop_gradient, values), **eqn.params)
                    y = at_units(y, choice, name == "max" and not all(depends))
                results = [(value, any(depends)) for value in (y if eqn.primitive.multiple_results else [y])]
            known |= dict(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    program = jax.make_jaxpr(f)(x)
    ((outputs, _),) = run(program.jaxpr, program.consts, [(x, True)])
    return outputs


def _place_of_largest(x: Array, axes: Sequence[int], sign: int = 1, **params: Any) -> Array:
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    return jnp.argmax(sign * x.transpose(*kept, *axes).reshape(*(x.shape[axis] for axis in kept), -1), axis=-1)


def _place_of_largest_in_window(x: Array, window_dimensions, window_strides, padding, **dilations: Any) -> Array:
    pooled = [size if window > 1 else 1 for size, window in zip(x.shape, window_dimensions, strict=True)]
    places = jnp.broadcast_to(jnp.arange(math.prod(pooled), dtype=jnp.int32).reshape(pooled), x.shape)

    def larger(a, b):
        first = a[0] >= b[0]
        return jnp.where(first, a[0], b[0]), jnp.where(first, a[1], b[1])

    start = (jnp.array(-jnp.inf, x.dtype), jnp.int32(-1))
    return lax.reduce_window((x, places), start, larger, window_dimensions, window_strides, padding, **dilations)[1]


# What the units of a primitive choose, from its operands and parameters.
_CHOICES: dict[str, Callable[..., Array]] = {
    "max": lambda a, b: a > b,
    "min": lambda a, b: a < b,
    "abs": lambda a: a > 0,
    "select_n": lambda which, *cases: which,
    "reduce_max": _place_of_largest,
    "reduce_min": functools.partial(_place_of_largest, sign=-1),
    "reduce_window_max": _place_of_largest_in_window,
}
