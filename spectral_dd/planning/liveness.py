"""How much memory a traced program may need: what of its values is alive at the same time."""

from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core

_LOOPS = ("scan", "while")

# Compilers may hold more than that: at most 1.3 times as much in the programs that it was held against.
MARGIN = 2


def bytes_of_a_device(traced: jax.stages.Traced) -> int:
    """What a program of `programs.Programs` needs of each device, with a margin: it will hardly be more, and mostly is
    much less."""
    (mapped,) = (eqn for eqn in traced.jaxpr.eqns if eqn.primitive.name == "shard_map")
    (program,) = inner_programs(mapped)
    return sum(map(_bytes, program.invars)) + MARGIN * peak_bytes(program)


def peak_bytes(jaxpr: core.Jaxpr) -> int:
    """Bytes of the values that a program has made and not used for the last time yet, at its worst moment.

    Its arguments aside. Operations are done one after another, as they are traced; a compiler fuses many, whose results
    are then in no memory, and may do others earlier. What a loop hands on is counted beside what a turn of it needs.
    What it works on is counted to the end of the program: XLA does not give its place to what another loop works on.
    """
    return _peak_and_kept(jaxpr)[0]


def _peak_and_kept(jaxpr: core.Jaxpr) -> tuple[int, int]:
    last_use = {v: n for n, eqn in enumerate(jaxpr.eqns) for v in eqn.invars if isinstance(v, core.Var)}
    last_use |= {v: len(jaxpr.eqns) for v in jaxpr.outvars if isinstance(v, core.Var)}
    alive: dict[Any, int] = {}
    peak = kept = 0
    for n, eqn in enumerate(jaxpr.eqns):
        inner = [_peak_and_kept(program) for program in inner_programs(eqn)]
        results = {v: _bytes(v) for v in eqn.outvars}
        within, made = max((peak for peak, _ in inner), default=0), sum(results.values())
        is_loop, operands = eqn.primitive.name in _LOOPS, {v for v in eqn.invars if isinstance(v, core.Var)}
        peak = max(peak, kept + sum(alive.values()) + (within + made if is_loop else max(within, made)))
        alive |= {v: size for v, size in results.items() if v in last_use}
        if is_loop:
            kept += sum(alive.pop(v, 0) for v in operands)
        else:
            kept += sum(kept for _, kept in inner)
        for v in operands:
            if last_use[v] == n:
                alive.pop(v, None)
    return peak, kept


def inner_programs(eqn: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """The programs within an operation: the body of a loop, a function that is called."""
    for value in eqn.params.values():
        for part in value if isinstance(value, (tuple, list)) else [value]:
            if isinstance(part, core.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, core.Jaxpr):
                yield part


def _bytes(v: Any) -> int:
    return v.aval.size * v.aval.dtype.itemsize
