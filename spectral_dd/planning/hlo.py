"""Bytes, FLOPs and cycles of a compiled program, counted from its text.

For compilers that give no cost analysis of their own, as XLA's for GPUs, and to see which operations the bytes are of.
"""

import collections
import functools
import math
import re
from typing import NamedTuple

BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128} | {
    f"{kind}{bits}": bits for kind in "suf" for bits in (1, 2, 4, 8, 16, 32, 64)
}
# Names of a value, nothing that moves.
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "partition-id",
    "copy-done", "slice-done", "async-done", "async-update", "custom-call-done",
}  # fmt: skip
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "collective-broadcast", "reduce-scatter")
HOST = ("infeed", "outfeed", "send", "recv")
# What reads only as much of its first operand as it returns.
SLICES = ("slice", "dynamic-slice", "gather", "slice-start")

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*-> .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_SHAPE = re.compile(r"([a-z]+\d*)\[([\d,]*)\](\{[^}]*\})?")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


class Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool


Computation = dict[str, Instruction]


class Cost(NamedTuple):
    """Of a program in which each loop of unknown length runs once."""

    bytes: float  # read from memory and written to it
    flops: float  # of convolutions and products of matrices
    cycles: float  # of its kernels, as the compiler of a TPU estimates them; others say nothing
    by_kind: dict[str, float]  # bytes by what moves them

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        kinds = collections.Counter(self.by_kind)
        kinds.update(other.by_kind)
        return Cost(self.bytes + other.bytes, self.flops + other.flops, self.cycles + other.cycles, dict(kinds))

    def times(self, n: float) -> "Cost":
        kinds = {kind: n * moved for kind, moved in self.by_kind.items()}
        return Cost(n * self.bytes, n * self.flops, n * self.cycles, kinds)


ZERO = Cost(0.0, 0.0, 0.0, {})


class Program:
    """An optimised program.

    An operation reads its operands and writes its result, each once. A fusion is one operation; of an operand that it
    only slices, it reads the slices, and of a result that it only updates, it writes the update. What lies in the fast
    memory of a TPU core costs nothing. Loops of known length count as often as they run.
    """

    def __init__(self, text: str):
        self.text = text
        self._computations, self._entry = _parse(text)

    def cost(self, unknown_trips: int = 1) -> Cost:
        """Of the whole program, with so many passes of each outermost loop of unknown length, and one of others."""
        return self._cost(self._entry, unknown_trips)

    def step(self) -> Cost:
        """Of one pass of the innermost loop of unknown length: of a training program, a step of all members."""
        loops = [
            (instruction, self._called(instruction, "body"))
            for computation in self._computations.values()
            for instruction in computation.values()
            if instruction.opcode == "while" and self._trips(instruction) is None
        ]
        # Loops over members may lie outside of the loop over steps, or inside of it.
        trips = self._trips_above()
        costs = [self._cost(body, 1).times(trips.get(body, 1)) for _, body in loops if not self._has_unknown_loop(body)]
        return max(costs, key=lambda cost: (cost.flops, cost.bytes), default=self.cost())

    def collectives(self) -> int:
        return self._count(COLLECTIVES)

    def host_transfers(self) -> int:
        """Transfers to the host or from it, and callbacks; not those that the runtime makes for a loop."""
        callbacks = len(re.findall(r'custom_call_target="[^"]*(?:callback|Host)[^"]*"', self.text))
        return self._count(HOST) + callbacks + len(re.findall(r"copy-start\(.*S\(5\)", self.text))

    def _count(self, opcodes: tuple[str, ...]) -> int:
        found = (i.opcode.removesuffix("-start") for c in self._computations.values() for i in c.values())
        return sum(opcode in opcodes for opcode in found)

    def _has_unknown_loop(self, computation: str) -> bool:
        return any(
            (i.opcode == "while" and self._trips(i) is None)
            or any(self._has_unknown_loop(called) for called in self._all_called(i))
            for i in self._computations[computation].values()
        )

    def _trips_above(self) -> dict[str, int]:
        """How often a computation runs for the loops of known length that it lies in."""
        found: dict[str, int] = {}

        def visit(computation: str, trips: int) -> None:
            found[computation] = max(trips, found.get(computation, 1))
            for i in self._computations[computation].values():
                inside = trips * ((self._trips(i) if i.opcode == "while" else None) or 1)
                for called in self._all_called(i):
                    visit(called, inside)

        visit(self._entry, 1)
        return found

    def _trips(self, loop: Instruction) -> int | None:
        """How often a loop runs: as the compiler says, or up to a constant that its condition compares a counter to,
        which counts from 0 in ones; None where that is known when it runs only."""
        if found := _TRIPS.search(loop.attributes):
            return int(found[1])
        condition = self._computations[self._called(loop, "condition")]
        root = next(i for i in condition.values() if i.is_root)
        if root.opcode == "compare" and "direction=LT" in root.attributes:
            limit = condition[root.operands[1]]
            if limit.opcode == "constant" and re.match(r"[su]\d+\[\]", limit.shape):
                return int(limit.attributes)
        return None

    def _called(self, instruction: Instruction, attribute: str) -> str:
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", instruction.attributes)
        assert found, f"{instruction.name} has no {attribute}"
        return found[1]

    def _all_called(self, instruction: Instruction) -> list[str]:
        """Computations that an instruction runs: bodies, branches, fusions, but not those applied to single numbers."""
        match instruction.opcode:
            case "while":
                return [self._called(instruction, "body")]
            case "fusion" | "call" | "async-start":
                attribute = "to_apply" if "to_apply=" in instruction.attributes else "calls"
                return [self._called(instruction, attribute)]
            case "conditional":
                listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
                if listed:
                    return [name.strip().lstrip("%") for name in listed[1].split(",")]
                return [self._called(instruction, f"{value}_computation") for value in ("true", "false")]
        return []

    def _cost(self, name: str, unknown_trips: int) -> Cost:
        total, computation = ZERO, self._computations[name]
        for instruction in computation.values():
            called = self._all_called(instruction)
            match instruction.opcode:
                case "while":
                    known = self._trips(instruction)
                    inside = self._cost(called[0], 1 if known is None else unknown_trips)
                    total += inside.times(unknown_trips if known is None else known)
                case "conditional":
                    branches = [self._cost(branch, unknown_trips) for branch in called]
                    total += max(branches, key=lambda cost: cost.bytes)
                case "call" | "async-start":
                    total += self._cost(called[0], unknown_trips)
                case opcode if opcode not in FREE:
                    total += self._operation(computation, instruction)
        return total

    def _operation(self, computation: Computation, instruction: Instruction) -> Cost:
        moved = self._written(computation, instruction)
        # The workspace of a library's call is scratch.
        if instruction.opcode == "custom-call" and ", u8[" in instruction.shape:
            moved -= _bytes("u8[" + instruction.shape.rpartition(", u8[")[2])
        moved += sum(
            self._read_by(computation[operand], instruction, place)
            for place, operand in enumerate(instruction.operands)
            if operand in computation
        )
        cycles = sum(map(float, _CYCLES.findall(instruction.attributes)))
        return Cost(moved, self._flops(computation, instruction), cycles, {self._kind(instruction): moved})

    def _read_by(self, value: Instruction, user: Instruction, place: int) -> float:
        """Bytes of a value that one of its users reads, as its operand number `place`."""
        size = _bytes(value.shape)
        if user.opcode in SLICES and place == 0:
            return min(size, _bytes(user.shape))
        if user.opcode == "dynamic-update-slice" and place == 0:
            return 0.0
        if user.opcode == "fusion":
            inside = self._computations[self._called(user, "calls")]
            parameter = next(i for i in inside.values() if i.opcode == "parameter" and i.attributes == str(place))
            return self._read(inside, parameter)
        return size

    def _read(self, computation: Computation, value: Instruction) -> float:
        """Bytes of a value that is read inside of a fusion."""
        total = 0.0
        for user in computation.values():
            for place in (place for place, operand in enumerate(user.operands) if operand == value.name):
                is_same = user.opcode == "bitcast"
                total += self._read(computation, user) if is_same else self._read_by(value, user, place)
        return min(total, _bytes(value.shape))

    def _written(self, computation: Computation, value: Instruction) -> float:
        match value.opcode:
            case "dynamic-update-slice":
                return _bytes(computation[value.operands[1]].shape)
            case "bitcast" if value.is_root:
                return self._written(computation, computation[value.operands[0]])
            case "tuple" if value.is_root:
                return sum(self._written(computation, computation[operand]) for operand in value.operands)
            case "fusion":
                inside = self._computations[self._called(value, "calls")]
                root = next(i for i in inside.values() if i.is_root)
                return min(self._written(inside, root), _bytes(value.shape))
            case "copy-start" | "slice-start":  # result, source, and a signal
                return _bytes(value.shape[1:].partition(", ")[0])
        return _bytes(value.shape)

    def _flops(self, computation: Computation, instruction: Instruction) -> float:
        if instruction.opcode == "fusion":
            inside = self._computations[self._called(instruction, "calls")]
            return sum(self._flops(inside, i) for i in inside.values())
        shapes = [_dimensions(computation[o].shape) for o in instruction.operands if o in computation]
        result = _dimensions(instruction.shape)
        target = re.search(r'custom_call_target="__cudnn\$conv(\w*)"', instruction.attributes)
        if instruction.opcode == "convolution" or target:
            what = target[1] if target else ""
            image, kernel, output = shapes[0], shapes[1], result
            if what == "BackwardInput":
                image, output = result, shapes[0]
            elif what == "BackwardFilter":
                kernel, output = result, shapes[1]
            return _convolution_flops(image, kernel, output, instruction.attributes)
        if instruction.opcode == "dot":
            contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
            summed = contracted[1].split(",") if contracted else []
            return 2.0 * math.prod(result) * math.prod(shapes[0][int(d)] for d in summed if d)
        if "__cublas" in instruction.attributes:
            contracted = re.search(r'"lhs_contracting_dimensions":\["(\d+)"', instruction.attributes)
            return 2.0 * math.prod(result) * (shapes[0][int(contracted[1])] if contracted else 1)
        return 0.0

    def _kind(self, instruction: Instruction) -> str:
        """What an operation is, for a reader of a table."""
        target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
        if target:
            return target[1].strip("_").replace("$", " ")
        if instruction.opcode != "fusion":
            return instruction.opcode
        inside = {i.opcode for i in self._within(instruction)}
        for opcode in ("convolution", "dot", "scatter", "reduce-window", "reduce", "sort", "gather"):
            if opcode in inside:
                return f"fusion with {opcode}"
        only_moves = inside <= {"parameter", "bitcast", "copy", "transpose", "constant", "broadcast", "fusion", "pad"}
        return "fusion that copies" if only_moves else "fusion of elements"

    def _within(self, fusion: Instruction) -> list[Instruction]:
        inside = list(self._computations[self._called(fusion, "calls")].values())
        return inside + [i for nested in inside if nested.opcode == "fusion" for i in self._within(nested)]


def _parse(text: str) -> tuple[dict[str, Computation], str]:
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if not line.startswith(" "):
            if found := _COMPUTATION.match(line):
                current = computations.setdefault(found[1], {})
                entry = found[1] if line.startswith("ENTRY") else entry
        elif current is not None and (found := _INSTRUCTION.match(re.sub(r"/\*.*?\*/", "", line))):
            root, name, shape, opcode, rest = found.groups()
            operands, attributes = _closing(rest)
            names = tuple(re.findall(r"%([\w.\-]+)", operands))
            # The number of a parameter and the value of a constant stand where others have operands.
            attributes = operands if opcode in ("parameter", "constant") else attributes
            current[name] = Instruction(name, shape, opcode, names, attributes, bool(root))
    return computations, entry


def _closing(rest: str) -> tuple[str, str]:
    """Splits what follows an opening bracket where it closes."""
    depth = 1
    for place, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return rest[:place], rest[place + 1 :]
    return rest, ""


@functools.lru_cache(maxsize=4096)
def _bytes(shape: str) -> float:
    """Of a value, or of all in a tuple; those in the fast memory of a core, S(1) and above, are none."""
    total = 0.0
    for kind, dimensions, layout in _SHAPE.findall(shape):
        if kind in BITS and not re.search(r"S\([1-9]\)", layout):
            total += BITS[kind] / 8 * math.prod(int(d) for d in dimensions.split(",") if d)
    return total


def _dimensions(shape: str) -> list[int]:
    """Of a value, or of the first in a tuple."""
    found = _SHAPE.search(shape)
    return [int(d) for d in found[2].split(",") if d] if found else []


def _convolution_flops(image: list[int], kernel: list[int], output: list[int], attributes: str) -> float:
    """Twice the products of a convolution, without those with padding and with the zeros of dilation."""
    lhs, rhs, out = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes).groups()  # type: ignore[union-attr]
    groups = _attribute(attributes, "feature_group_count")
    window = re.search(r"window=\{([^}]*)\}", attributes)
    settings = dict(part.split("=") for part in window[1].split()) if window else {}
    spatial = [str(n) for n in range(len(out) - 2)]

    def of(name: str, default: str) -> list[str]:
        return settings[name].split("x") if name in settings else [default] * len(spatial)

    places = 1
    rest = zip(spatial, of("pad", "0_0"), of("stride", "1"), of("lhs_dilate", "1"), of("rhs_dilate", "1"), strict=True)
    for label, pad, stride, dilation, spread in rest:
        size = (image[lhs.index(label)] - 1) * int(dilation) + 1
        low = int(pad.split("_")[0])
        places *= sum(
            0 <= (at := o * int(stride) + k * int(spread) - low) < size and at % int(dilation) == 0
            for o in range(output[out.index(label)])
            for k in range(kernel[rhs.index(label)])
        )
    batch_groups = _attribute(attributes, "batch_group_count")
    products = image[lhs.index("f")] // groups * output[out.index("f")] * (image[lhs.index("b")] // batch_groups)
    return 2.0 * products * places


def _attribute(attributes: str, name: str) -> int:
    found = re.search(rf"\b{name}=(\d+)", attributes)
    return int(found[1]) if found else 1
