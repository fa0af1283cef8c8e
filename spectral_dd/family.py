"""Many members at once: the only module that knows that there is more than one member, or device.

A `Family` stacks the members of a pack, padded to the widest, along a leading member axis, maps the functions of
`training.py` and `probe.py` over it and shards it over the local devices with `jax.shard_map`. Members never
communicate, so there is no collective anywhere.
"""

import concurrent.futures
import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spectral_dd import devices, measures, models, padding, probe
from spectral_dd.config import Config
from spectral_dd.data import Dataset, Draws
from spectral_dd.errors import InputError
from spectral_dd.sweeps import Lowering
from spectral_dd.training import INITIALISATION, Images, Member, State, evaluate, initial_state, train_epochs

# Inputs of all members of a device that go through the networks at once for spectra; bounds the memory. A core of a
# server CPU is up to 30 % faster with 128 than with 256, since more of a layer stays in its caches.
SPECTRUM_BATCH = {"cpu": 128}
ACCELERATOR_SPECTRUM_BATCH = 256

# The lowerings that are worth timing on a platform, the usual choice first. On a CPU one member after another, on each
# core, beats batched products over members (benchmarks/).
LOWERINGS = {"cpu": [Lowering("winograd", 1), Lowering("im2col", 1)]}
ACCELERATOR_LOWERINGS = [Lowering("im2col", None), Lowering("lax", None), Lowering("lax", 1)]


def lowerings(platform: str) -> list[Lowering]:
    return LOWERINGS.get(platform, ACCELERATOR_LOWERINGS)


class Family:
    """The members of one pack, on the devices.

    Trees of the host have leaves `(member, ...)` in the order of `configs`; on the devices the members are dealt so
    that each device gets its share of the steps, and devices with fewer members get copies.
    """

    def __init__(
        self,
        configs: Sequence[Config],
        dataset: Dataset,
        draws: Sequence[Draws],
        on: Sequence[jax.Device] | None = None,
        *,
        lowering: Lowering | None = None,
        memory_limit: int | None = None,
    ):
        """
        Args:
          configs: members that agree on their static fields.
          dataset: the data set that they name.
          draws: of each member.
          on: the devices that the member axis is sharded over; by default all local ones.
          lowering: by default the usual one of the platform.
          memory_limit: bytes that a device may use; by default what it has.
        """
        self.configs, self.dataset, self._draws = list(configs), dataset, list(draws)
        self.config = self.configs[0].replace(width=max(c.width for c in self.configs))
        on = list(on or jax.local_devices())
        self.lowering = lowering or lowerings(on[0].platform)[0]
        self._spectrum_batch = SPECTRUM_BATCH.get(on[0].platform, ACCELERATOR_SPECTRUM_BATCH)
        self.memory_limit = memory_limit or _memory(on[0])
        network = models.build_model(self.config, dataset.num_classes)
        self.model = models.with_fields(network, convolution=self.lowering.convolution)
        on = on[: len(self.configs)]
        # The members as they lie on the devices, one device after another.
        self.dealt = deal([c.steps_per_epoch for c in self.configs], len(on))
        mesh = Mesh(np.array(on), ("member",))
        self._by_member = NamedSharding(mesh, PartitionSpec("member"))
        self._replicated = NamedSharding(mesh, PartitionSpec())

        images = (dataset.train_images, dataset.test_images, dataset.test_labels)
        self._images = Images(*jax.device_put(images, self._replicated))
        self._members = self.to_devices(member_arrays(self.configs, self._draws))
        self._choose_probes(epoch=0)
        self._on_each = len(self.dealt) // len(on)
        self._train: Any = None
        self._make_programs(min(self.lowering.at_once or self._on_each, self._on_each))

    def _make_programs(self, at_once: int) -> None:
        """Programs that compute so many members of a device at once; nothing is compiled yet."""
        model, config, self._at_once = self.model, self.config, at_once
        self._train_jit = self._over_members(functools.partial(train_epochs, model, config), scalars=3, donate=True)
        self._evaluate = self._over_members(functools.partial(evaluate, model, config))
        # Spectra are of parameters and logits in their own type, whatever the layers compute in.
        exact = models.with_fields(model, dtype=jnp.dtype(config.param_dtype))
        max_batch = max(1, self._spectrum_batch // at_once)
        self._spectra = self._over_members(functools.partial(probe.spectra, exact, config, max_batch), scalars=1)
        self._outputs = self._over_members(functools.partial(probe.outputs, exact, config, max_batch), scalars=1)

    def _over_members(self, f, scalars: int = 0, donate: bool = False):
        """Maps `f(member, state, images, *scalars)` over the members, sharded over the devices."""
        at_once, on_each = self._at_once, self._on_each

        def on_a_device(members, states, images, *scalars):
            def one(member_and_state):
                return f(*member_and_state, images, *scalars)

            if at_once == on_each > 1:
                return jax.vmap(one)((members, states))
            return lax.map(one, (members, states), batch_size=at_once if at_once > 1 else None)

        by_member, replicated = self._by_member.spec, self._replicated.spec
        mapped = jax.shard_map(
            on_a_device,
            mesh=self._by_member.mesh,
            in_specs=(by_member, by_member, replicated, *[replicated] * scalars),
            out_specs=by_member,
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=(1,) if donate else ())

    def initial_state(self) -> State:
        """The state before the first epoch: each member is drawn at its own width, then padded."""
        init, wide = jax.jit(_init_variables, static_argnums=0), self._abstract_variables()
        padded: dict[int, Any] = {}
        x64 = jax.config.read("jax_enable_x64")

        def draw_members(width):
            with devices.numerics(x64):  # of this thread
                for i, config in enumerate(self.configs):
                    if config.width == width:
                        model = models.build_model(config, self.dataset.num_classes)
                        padded[i] = padding.pad(init(model, config.seed, self._image()), wide)

        # Every width is a program; they are compiled side by side.
        with concurrent.futures.ThreadPoolExecutor() as threads:
            list(threads.map(draw_members, {c.width for c in self.configs}))
        in_order = [padded[i] for i in range(len(self.configs))]
        variables = self.to_devices(jax.tree.map(lambda *leaves: np.stack(leaves), *in_order))
        initial = jax.vmap(functools.partial(initial_state, self.config))
        return jax.jit(initial, out_shardings=self._by_member)(self._members, variables)

    def train(self, state: State, start: int, stop: int, max_steps: int = np.iinfo(np.int32).max) -> State:
        """Trains epochs `start` to `stop` - 1, or the first steps of each. The buffers of `state` are reused: it must
        not be used again.

        Raises:
          InputError: not even one member fits into the memory of a device.
        """
        arguments = (self._members, state, self._images, *map(jnp.int32, (start, stop, max_steps)))
        if self._train is None:
            self._train = self._compile_within_memory(arguments)
        return self._train(*arguments)

    def _compile_within_memory(self, arguments: Any) -> Any:
        """Compiles the training program, with fewer members at once until it fits."""
        while True:
            compiled = self._train_jit.lower(*arguments).compile()
            needed = _memory_needed(compiled)
            if needed <= self.memory_limit:
                return compiled
            if self._at_once == 1:
                config, gib = self.config, 2**30
                raise InputError(
                    f"--width={config.width}: {config.model} with --batch_size={config.batch_size} needs "
                    f"{needed / gib:.2f} GiB of a device that has {self.memory_limit / gib:.2f}; "
                    "choose a smaller --width or --batch_size, or more devices"
                )
            self._make_programs(self._at_once // 2)

    def evaluate(self, state: State) -> dict[str, np.ndarray]:
        """See `training.evaluate`; arrays `(member,)` on the host."""
        return self.to_host(self._evaluate(self._members, state, self._images))

    def probe(self, state: State, epoch: int) -> dict[str, np.ndarray]:
        """What `probe.spectra` and, with `spectrum_measures`, `probe.outputs` name, `optimization_variance`, and what
        `probe.probes` says of the examples: `(member, split, example, ...)` on the host, splits as in `records.SPLITS`.

        Examples that a split does not have (fewer relabelled ones than asked for) are NaN. What is drawn depends on
        the epoch only with `spectrum_resample`. Without the optimiser's state there is no `optimization_variance`.
        """
        if self.config.spectrum.resample:
            self._choose_probes(epoch)
        arguments = (self._images, jnp.int32(epoch))
        spectra = self.to_host(self._spectra(self._probed, state, *arguments)) | self._examples
        if not self.config.spectrum.measures:
            return spectra
        outputs = self.to_host(self._outputs(self._probed, state, *arguments))
        del outputs["outputs"]
        if state.optimizer is None:  # no step can be taken
            return spectra | outputs
        # Single steps from here, each with the first batch of an epoch that training never comes to.
        last, updated = self.config.epochs, []
        for i in range(last, last + self.config.spectrum.updates):
            after = self.train(_copy(state), i, i + 1, max_steps=1)
            updated.append(self.to_host(self._outputs(self._probed, after, *arguments))["outputs"])
        variance = jax.jit(measures.optimization_variance)(np.stack(updated))
        return spectra | outputs | {"optimization_variance": np.asarray(variance)}

    def _choose_probes(self, epoch: int) -> None:
        pairs = zip(self.configs, self._draws, strict=True)
        chosen = [probe.probes(config, draws, self.dataset, epoch) for config, draws in pairs]
        self._examples = jax.tree.map(lambda *members: np.stack(members), *[examples for _, examples in chosen])
        stacked = jax.tree.map(lambda *arrays: _stack(arrays, missing=-1), *[probes for probes, _ in chosen])
        self._probed = self.to_devices((np.array([c.seed for c in self.configs], np.uint32), stacked))

    def to_devices(self, tree: Any) -> Any:
        """Puts a tree of the host, leaves `(member, ...)`, onto the devices."""
        dealt = jax.tree.map(lambda leaf: np.asarray(leaf)[self.dealt], tree)
        return jax.device_put(dealt, self._by_member)

    def to_host(self, tree: Any) -> Any:
        """The inverse of `to_devices`."""
        places = [self.dealt.index(i) for i in range(len(self.configs))]
        return jax.tree.map(lambda leaf: np.asarray(leaf)[places], jax.device_get(tree))

    def save_tree(self, state: State) -> dict[str, Any]:
        """The state as nested dictionaries of host arrays `(member, ...)`, for a checkpoint."""
        return _as_tree(self.to_host(state))

    def load_tree(self, tree: dict[str, Any]) -> State:
        """The inverse of `save_tree`, on however many devices this family has."""
        structure = jax.tree.structure(self._abstract_state().optimizer)
        leaves = [tree["optimizer"][name] for name in sorted(tree["optimizer"], key=int)]
        return self.to_devices(State(tree["variables"], jax.tree.unflatten(structure, leaves), tree["step"]))

    def load_variables(self, variables: dict[str, Any]) -> State:
        """A state of recorded variables `(member, ...)`: without the optimiser's, so that it cannot be trained."""
        return self.to_devices(State(variables, None, jnp.zeros(len(self.configs), jnp.int32)))

    def abstract_tree(self) -> dict[str, Any]:
        """Shapes and types of `save_tree`."""
        return _as_tree(self._abstract_state())

    def _abstract_state(self) -> State:
        members, variables = len(self.configs), self._abstract_variables()
        member = jax.eval_shape(lambda m: jax.tree.map(lambda leaf: leaf[0], m), self._members)
        state = jax.eval_shape(functools.partial(initial_state, self.config), member, variables)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape), leaf.dtype), state)

    def _abstract_variables(self) -> Any:
        return jax.eval_shape(functools.partial(_init_variables, self.model), 0, self._image())

    def _image(self) -> jax.Array:
        return jnp.zeros((1, *self.dataset.train_images.shape[1:]), self.config.param_dtype)


@jax.jit
def _copy(tree):
    return jax.tree.map(jnp.copy, tree)


def _stack(arrays: Sequence[np.ndarray], missing: int) -> np.ndarray:
    """Arrays along a new member axis, int32, filled up to the longest (and to at least one entry) with `missing`."""
    size = max(1, *map(len, arrays))
    filled = [
        np.pad(a, [(0, size - len(a)), *[(0, 0)] * (a.ndim - 1)], constant_values=missing)
        for a in map(np.asarray, arrays)
    ]
    return np.stack(filled).astype(np.int32)


def _memory(device: jax.Device) -> int:
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


def _as_tree(state: State) -> dict[str, Any]:
    # The optimiser's state is made of optax's own classes, which a checkpoint should not depend on.
    leaves = {f"{i:04d}": leaf for i, leaf in enumerate(jax.tree.leaves(state.optimizer))}
    return {"variables": state.variables, "optimizer": leaves, "step": state.step}


def _init_variables(model: nn.Module, seed, image):
    variables = model.init(jax.random.fold_in(jax.random.key(seed), INITIALISATION), image, train=False)
    # BatchNorm starts its statistics in float32 whatever its type.
    return jax.tree.map(lambda leaf: leaf.astype(image.dtype), variables)


def deal(work: Sequence[float], num_devices: int) -> list[int]:
    """Deals members to devices, as many to each, the longest first and in turn, so that none waits long for another.

    Returns:
      Member numbers, device after device. Devices with fewer members are filled up with one of their own.
    """
    order = sorted(range(len(work)), key=lambda i: -work[i])
    rows = -(-len(order) // num_devices)
    dealt: list[int] = []
    for device in range(num_devices):
        mine = order[device::num_devices]
        dealt += mine + [mine[-1]] * (rows - len(mine))
    return dealt


def member_arrays(configs: Sequence[Config], draws: Sequence[Draws]) -> Member:
    """`Member` with a leading member axis, on the host."""

    def rates(name):
        return np.array([getattr(c, name) for c in configs], configs[0].param_dtype)

    # On the host yet, though Member speaks of the arrays that `to_devices` makes of them.
    arrays: dict[str, Any] = dict(
        seed=np.array([c.seed for c in configs], np.uint32),
        learning_rate=rates("learning_rate"),
        weight_decay=rates("weight_decay"),
        momentum=rates("momentum"),
        size=np.array([len(d.index) for d in draws], np.int32),
        example=_stack([d.index for d in draws], missing=0),
        labels=_stack([d.labels for d in draws], missing=0),
        true_labels=_stack([d.true_labels for d in draws], missing=0),
        noisy=_stack([d.noisy for d in draws], missing=0).astype(bool),
    )
    return Member(**arrays)
