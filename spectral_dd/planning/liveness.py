"""How much memory a traced program may need: what of its values is alive at the same time."""

from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core

_LOOPS = ("scan", "while")

# Compilers may hold more than is alive: at most 2.7 times as much in the programs that this was held against.
MARGIN = 3


def bytes_of_a_device(traced: jax.stages.Traced) -> int:
    """What a program of `programs.Programs` needs of each device, with a margin: it will hardly be more, and mostly is
    much less."""
    (mapped,) = (eqn for eqn in traced.jaxpr.eqns if eqn.primitive.name == "shard_map")
    (program,) = _inner(mapped)
    return sum(map(_bytes, program.invars)) + MARGIN * peak_bytes(program)


def peak_bytes(jaxpr: core.Jaxpr) -> int:
    """Bytes of the values that a program has made and not used for the last time yet, at its worst moment.

    Its arguments aside. Operations are done one after another, as they are traced; a compiler fuses many, whose results
    are then in no memory, and may do others earlier. What a loop hands on is counted beside what a turn of it needs.
    """
    last_use = {v: n for n, eqn in enumerate(jaxpr.eqns) for v in eqn.invars if isinstance(v, core.Var)}
    last_use |= {v: len(jaxpr.eqns) for v in jaxpr.outvars if isinstance(v, core.Var)}
    alive: dict[Any, int] = {}
    peak = 0
    for n, eqn in enumerate(jaxpr.eqns):
        results = {v: _bytes(v) for v in eqn.outvars}
        within = max(map(peak_bytes, _inner(eqn)), default=0)
        both = sum if eqn.primitive.name in _LOOPS else max
        peak = max(peak, sum(alive.values()) + both((within, sum(results.values()))))
        alive |= {v: size for v, size in results.items() if v in last_use}
        for v in {v for v in eqn.invars if isinstance(v, core.Var) and last_use[v] == n}:
            alive.pop(v, None)
    return peak


def _inner(eqn: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """The programs within an operation: the body of a loop, a function that is called."""
    for value in eqn.params.values():
        for part in value if isinstance(value, (tuple, list)) else [value]:
            if isinstance(part, core.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, core.Jaxpr):
                yield part


def _bytes(v: Any) -> int:
    return v.aval.size * v.aval.dtype.itemsize
