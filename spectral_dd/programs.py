"""The programs of a pack: what one member does, mapped over members and sharded over devices.

They are made from shapes alone, so a device need not be there to compile for it. The arrays that they work on are in
`family.py`. Nothing else maps over members or shards over devices.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spectral_dd import models, own_measures, probe
from spectral_dd.config import Config
from spectral_dd.errors import InputError
from spectral_dd.kernels.packed import FULL_CHANNELS
from spectral_dd.sweeps import Lowering
from spectral_dd.training import INITIALISATION, Images, Member, State, evaluate, initial_state, train_epochs

# Inputs of all members of a device that go through the networks at once for spectra; bounds the memory. A core of a
# server CPU is up to 30 % faster with 128 than with 256, since more of a layer stays in its caches.
SPECTRUM_BATCH = {"cpu": 128}
ACCELERATOR_SPECTRUM_BATCH = 256

# The programs of so many packs are kept for the next that is like one of them.
PACKS_KEPT = 8


def lowerings(platform: str, config: Config) -> list[Lowering]:
    """The lowerings that are worth timing on a platform, the usual choice first.

    On a CPU one member after another, on each core, beats batched products over members (benchmarks/). For the others
    docs/accelerators.md has what one GPU did and what compilers say.
    """
    if platform == "cpu":
        return [Lowering("winograd", 1), Lowering("im2col", 1)]
    if not models.declared(models.find(config.model), "convolutional"):
        return [Lowering("lax", None), Lowering("lax", 1)]
    together = [Lowering("packed", max(1, FULL_CHANNELS // config.width)), Lowering("lax", None)]
    # The compilers of TPUs move half the bytes for grouped convolutions, those of GPUs are slow with them.
    return [*(reversed(together) if platform == "tpu" else together), Lowering("lax", 1)]


class Arrays(NamedTuple):
    """What the programs of a pack work on, or its shapes: leaves of `members` and `probed` are (member, ...)."""

    members: Member
    probed: probe.Probed
    images: Images

    def shapes(self) -> "Arrays":
        def shape(leaf):
            return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))

        return jax.tree.map(shape, self)


class Program(NamedTuple):
    """A compiled program."""

    call: Any  # jax.stages.Compiled
    at_once: int  # members that a device computes at once
    memory: int  # bytes that a device needs for it


class Programs:
    """The programs of the members of a pack, each compiled when it is first asked for.

    They are "training", "evaluation", "spectra" and "logits", see the functions of `training.py` and `probe.py`. Packs
    that differ only in what their members are given have equal programs, and a process compiles them once.
    """

    def __init__(
        self,
        configs: Sequence[Config],
        num_classes: int,
        shapes: Arrays,
        on: Sequence[jax.Device],
        *,
        lowering: Lowering | None = None,
        memory_limit: int | None = None,
    ):
        """
        Args:
          configs: members that agree on their static fields.
          num_classes: of the data set.
          shapes: of what the programs work on.
          on: the devices that the member axis is sharded over, as far as there are members.
          lowering: by default the usual one of the platform.
          memory_limit: bytes that a device may use; by default what it has.
        """
        self.config = configs[0].replace(width=max(c.width for c in configs))
        on = list(on)[: len(configs)]
        self.lowering = lowering or lowerings(on[0].platform, self.config)[0]
        self.memory_limit = memory_limit or memory(on[0])
        self._spectrum_batch = SPECTRUM_BATCH.get(on[0].platform, ACCELERATOR_SPECTRUM_BATCH)
        network = models.build_model(self.config, num_classes)
        self.model = models.with_fields(network, convolution=self.lowering.convolution)
        on_each = -(-len(configs) // len(on))
        # Groups of equal size, so that one program serves them all.
        groups = -(-on_each // (self.lowering.at_once or on_each))
        self._at_once = -(-on_each // groups)
        # The members as they lie on the devices, one device after another.
        self.dealt = deal([c.steps_per_epoch for c in configs], len(on), groups * self._at_once)
        self._on_each = len(self.dealt) // len(on)
        mesh = Mesh(np.array(on), ("member",))
        self.by_member = NamedSharding(mesh, PartitionSpec("member"))
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self._shapes = shapes
        self.abstract_variables = functools.cache(self._trace_variables)
        leaves, structure = jax.tree.flatten(shapes)
        own = own_measures.find(self.config.measure) if self.config.measure else ()
        self._identity = (
            models.find(self.config.model), own, *self.config.static().items(), self.config.width, num_classes,
            structure, *((leaf.shape, leaf.dtype) for leaf in leaves), *on, self.lowering, self.memory_limit,
            self._at_once, self._on_each, jax.config.read("jax_enable_x64"),
        )  # fmt: skip
        self._compiled = _compiled(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Programs) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __getitem__(self, name: str) -> Program:
        """The program of that name, compiled, with fewer members at once until it fits into memory.

        Raises:
          InputError: not even one member fits into the memory of a device.
        """
        if name not in self._compiled:
            self._compiled[name] = self._compile_within_memory(name)
        return self._compiled[name]

    def _compile_within_memory(self, name: str) -> Program:
        at_once, needed = self._at_once, None
        while at_once:
            try:
                compiled = self.lower(name, at_once).compile()
            except jax.errors.JaxRuntimeError as error:  # TPU compilers refuse what does not fit
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
            else:
                needed = _memory_needed(compiled)
                if needed <= self.memory_limit:
                    return Program(compiled, at_once, needed)
            at_once //= 2
        config, gib = self.config, 2**30
        flag, value = "--spectrum_points", config.spectrum.points
        if name in ("training", "evaluation"):
            flag, value = "--batch_size", config.batch_size
        amount = "more memory than" if needed is None else f"{needed / gib:.2f} GiB of"
        raise InputError(
            f"--width={config.width}: {name} of one {config.model} with {flag}={value} needs {amount} a device that "
            f"has {self.memory_limit / gib:.2f}; choose a smaller --width or {flag}, or a device with more"
        )

    def lower(self, name: str, at_once: int) -> jax.stages.Lowered:
        """A program that computes so many members of a device at once, not compiled yet."""
        return self.trace(name, at_once).lower()

    def trace(self, name: str, at_once: int) -> jax.stages.Traced:
        """The same, not lowered yet."""
        config, number = self.config, jax.ShapeDtypeStruct((), jnp.int32)
        per_member, images = self._dealt(self._shapes.members), _like(self._shapes.images, self.replicated)
        state = self._dealt(self.abstract_state())
        # Spectra are of parameters and logits in their own type and precision, whatever the layers compute in.
        exact = models.with_fields(self.model, dtype=jnp.dtype(config.param_dtype))
        max_batch = max(1, self._spectrum_batch // self._at_once)
        function: Callable[..., Any]
        match name:
            case "training":
                function, scalars = functools.partial(train_epochs, self.model, config), [number] * 3
            case "evaluation":
                function, scalars = functools.partial(evaluate, self.model, config), []
            case _:
                planes = jax.ShapeDtypeStruct((probe.PLANES, 3), jnp.int32)
                of_name: dict[str, tuple[Callable[..., Any], list[Any]]]
                of_name = {"spectra": (probe.spectra, [number, planes]), "logits": (probe.logits, [number])}
                measure, scalars = of_name[name]
                function = functools.partial(measure, exact, config, max_batch)
                per_member = self._dealt(self._shapes.probed)
                state = state._replace(optimizer=None)
        donated = (1,) if name == "training" else ()
        mapped = jax.jit(self.over_members(function, at_once, len(scalars)), donate_argnums=donated)
        precision = config.matmul_precision if name in ("training", "evaluation") else "float32"
        with jax.default_matmul_precision(precision):
            return mapped.trace(per_member, state, images, *scalars)

    def over_members(self, f: Callable[..., Any], at_once: int, scalars: int) -> Callable[..., Any]:
        """Maps `f(member, state, images, *scalars)` over the members, sharded over the devices."""
        on_each = self._on_each

        def on_a_device(members, states, images, *scalars):
            def one(member_and_state):
                return f(*member_and_state, images, *scalars)

            if at_once == on_each > 1:
                return jax.vmap(one)((members, states))
            return lax.map(one, (members, states), batch_size=at_once if at_once > 1 else None)

        by_member, replicated = self.by_member.spec, self.replicated.spec
        return jax.shard_map(
            on_a_device,
            mesh=self.by_member.mesh,
            in_specs=(by_member, by_member, replicated, *[replicated] * scalars),
            out_specs=by_member,
            check_vma=False,
        )

    def _trace_variables(self) -> Any:
        """Shapes of the padded variables of one member."""
        return jax.eval_shape(functools.partial(init_variables, self.model), 0, self.image())

    def abstract_state(self) -> State:
        """Shapes of the states of all members, leaves `(member, ...)`."""
        members = self._shapes.members
        member = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), members)
        state = jax.eval_shape(functools.partial(initial_state, self.config), member, self.abstract_variables())
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((len(members.seed), *leaf.shape), leaf.dtype), state)

    def image(self) -> jax.Array:
        """A black image, as networks take it."""
        return jnp.zeros((1, *self._shapes.images.train.shape[1:]), self.config.param_dtype)

    def _dealt(self, shapes: Any) -> Any:
        """Shapes of what has leaves `(member, ...)` as it lies on the devices."""
        dealt = len(self.dealt)
        resized = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((dealt, *leaf.shape[1:]), leaf.dtype), shapes)
        return _like(resized, self.by_member)


@functools.lru_cache(maxsize=PACKS_KEPT)
def _compiled(programs: Programs) -> dict[str, Program]:
    """What is compiled of equal programs, by name; each of them holds it as long as it lives."""
    return {}


def _like(shapes: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)


def init_variables(model: nn.Module, seed, image):
    variables = model.init(jax.random.fold_in(jax.random.key(seed), INITIALISATION), image, train=False)
    # BatchNorm starts its statistics in float32 whatever its type.
    return jax.tree.map(lambda leaf: leaf.astype(image.dtype), variables)


def deal(work: Sequence[float], num_devices: int, rows: int | None = None) -> list[int]:
    """Deals members to devices, as many to each, the longest first and in turn, so that none waits long for another.

    Args:
      work: of each member.
      num_devices: that they are dealt to.
      rows: places on a device; by default as many as are needed.

    Returns:
      Member numbers, device after device. Devices with fewer members are filled up with one of their own.
    """
    order = sorted(range(len(work)), key=lambda i: -work[i])
    rows = rows or -(-len(order) // num_devices)
    dealt: list[int] = []
    for device in range(num_devices):
        mine = order[device::num_devices]
        dealt += mine + [mine[-1]] * (rows - len(mine))
    return dealt


def memory(device: jax.Device) -> int:
    """Bytes that a device has for this process; the virtual devices of a CPU share the machine's memory."""
    statistics = device.memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return machine // jax.local_device_count(device.platform)


def _memory_needed(compiled: Any) -> int:
    """Bytes on a device, from the compiler's own analysis; 0 where it has none."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return held + analysis.temp_size_in_bytes
