"""Many members at once: the only module that knows that there is more than one member, or device.

A `Family` stacks the members of a pack, padded to the widest, along a leading member axis, maps the functions
of `train.py` and `spectrum.py` over it and shards it over the local devices with `jax.shard_map`. Members
never communicate, so there is no collective anywhere.
"""

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spectral_dd import data, measures, padding, spectrum
from spectral_dd.config import Config, InputError
from spectral_dd.models import build_model, with_fields
from spectral_dd.segments import on_segments
from spectral_dd.train import (
    Around,
    Images,
    Member,
    State,
    evaluate,
    initial_state,
    train_epochs,
)

SPLITS = ("train", "noisy", "test")

# Inputs of all members of a device that go through the networks at once for spectra; bounds the memory. A core of a
# server CPU is up to 30 % faster with 128 than with 256, since more of a layer stays in its caches.
SPECTRUM_BATCH = {"cpu": 128}
ACCELERATOR_SPECTRUM_BATCH = 256

# Every draw comes from the member's seed, folded with its purpose; see train.py for the others.
_SPECTRUM_KEY = 1
_INITIAL_KEY = 2


@dataclasses.dataclass(frozen=True)
class Lowering:
    """How a pack becomes a program. All ways compute the same, and which is fastest depends on device and shapes."""

    convolution: str  # one of kernels.convolution.CONVOLUTIONS
    at_once: int | None  # members of a device that one batched operation computes (vmap), group after group; None: all


# The ways that are worth measuring on a platform, the usual choice first. On a CPU one member after another, a stream a
# core, beats batched products over members (benchmarks/).
LOWERINGS = {"cpu": [Lowering("winograd", 1), Lowering("im2col", 1)]}
ACCELERATOR_LOWERINGS = [Lowering("im2col", None), Lowering("lax", None), Lowering("lax", 1)]


def lowerings(platform: str) -> list[Lowering]:
    return LOWERINGS.get(platform, ACCELERATOR_LOWERINGS)


class Family:
    """The members of one pack, on the devices.

    Trees of the host have leaves `(member, ...)` in the order of `configs`; on the devices the members are
    dealt to the shards so that each gets its share of the steps, and shards are filled up with copies.
    """

    def __init__(
        self,
        configs: Sequence[Config],
        dataset: data.Dataset,
        devices: Sequence[jax.Device] | None = None,
        *,
        lowering: Lowering | None = None,
        memory_limit: int | None = None,
    ):
        """
        Args:
          configs: members that agree on their static fields.
          dataset: the data set that they name.
          devices: the member axis is sharded over them; by default all local ones.
          lowering: by default the usual one of the platform.
          memory_limit: bytes that a device may use; by default what it has.
        """
        self.configs = list(configs)
        self.config = dataclasses.replace(self.configs[0], width=max(c.width for c in self.configs))
        self.dataset = dataset
        devices = list(devices or jax.local_devices())
        self.lowering = lowering or lowerings(devices[0].platform)[0]
        self._spectrum_batch = SPECTRUM_BATCH.get(devices[0].platform, ACCELERATOR_SPECTRUM_BATCH)
        self.memory_limit = memory_limit or _memory(devices[0])
        model = build_model(self.config, dataset.num_classes)
        self.model = with_fields(model, convolution=self.lowering.convolution)
        devices = devices[: len(self.configs)]
        self.slots = deal([c.steps_per_epoch for c in self.configs], len(devices))
        mesh = Mesh(np.array(devices), ("member",))
        self._by_member = NamedSharding(mesh, PartitionSpec("member"))
        self._replicated = NamedSharding(mesh, PartitionSpec())

        images = (dataset.train_images, dataset.test_images, dataset.test_labels)
        self._sets = [data.training_set(dataset, c) for c in self.configs]
        self._images = Images(*jax.device_put(images, self._replicated))
        examples, self._relabelled = around(self.configs, dataset, self._sets, epoch=0)
        self._members = self.place(member_arrays(self.configs, self._sets, examples))
        self._on_each = len(self.slots) // len(devices)
        self._train: Any = None
        self._make_programs(min(self.lowering.at_once or self._on_each, self._on_each))

    def _make_programs(self, at_once: int) -> None:
        """Programs that compute so many members of a device at once; nothing is compiled yet."""
        model, config, self._at_once = self.model, self.config, at_once
        self._train_jit = self._over_members(functools.partial(train_epochs, model, config), scalars=3, donate=True)
        self._evaluate = self._over_members(functools.partial(evaluate, model, config))
        # Spectra are of parameters and logits in their own type, whatever the layers compute in.
        exact = with_fields(model, dtype=jnp.dtype(config.param_dtype))
        at_a_time = max(1, self._spectrum_batch // at_once)
        self._spectra = self._over_members(functools.partial(_spectra, exact, config, at_a_time), scalars=1)
        self._outputs = self._over_members(functools.partial(_outputs, exact, config, at_a_time), scalars=1)

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
        x64 = jax.config.read("jax_enable_x64")  # which may hold for this thread alone

        def draw_members(width):
            with jax.enable_x64(x64):
                for i, config in enumerate(self.configs):
                    if config.width == width:
                        model = build_model(config, self.dataset.num_classes)
                        padded[i] = padding.pad(init(model, config.seed, self._image()), wide)

        # Every width is a program; they are compiled side by side.
        with concurrent.futures.ThreadPoolExecutor() as threads:
            list(threads.map(draw_members, {c.width for c in self.configs}))
        in_order = [padded[i] for i in range(len(self.configs))]
        variables = self.place(jax.tree.map(lambda *leaves: np.stack(leaves), *in_order))
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
        """See `train.evaluate`; arrays `(member,)` on the host."""
        return self.fetch(self._evaluate(self._members, state, self._images))

    def spectra(self, state: State, epoch: int) -> dict[str, np.ndarray]:
        """What `spectrum.LineSpectra` and, with `spectrum_measures`, `measures.py` name, and `relabelled`:
        `(member, split, example, ...)` on the host, splits as in `SPLITS`.

        Examples that a split does not have (fewer relabelled ones than asked for) are NaN. What is drawn depends on
        the epoch only with `spectrum_resample`.
        """
        if self.config.spectrum_resample:
            examples, self._relabelled = around(self.configs, self.dataset, self._sets, epoch)
            self._members = self._members._replace(around=self.place(examples))
        arguments = (self._images, jnp.int32(epoch))
        spectra = self.fetch(self._spectra(self._members, state, *arguments)) | {"relabelled": self._relabelled}
        if not self.config.spectrum_measures:
            return spectra
        # Single steps from here, each with the first batch of an epoch that training never comes to.
        last, updated = self.config.epochs, []
        for i in range(last, last + self.config.spectrum_updates):
            after = self.train(_copy(state), i, i + 1, max_steps=1)
            updated.append(self.fetch(self._outputs(self._members, after, *arguments))["outputs"])
        outputs = self.fetch(self._outputs(self._members, state, *arguments))
        del outputs["outputs"]
        variance = jax.jit(measures.optimization_variance)(np.stack(updated))
        return spectra | outputs | {"optimization_variance": np.asarray(variance)}

    def place(self, tree: Any) -> Any:
        """Puts a tree of the host, leaves `(member, ...)`, onto the devices."""
        dealt = jax.tree.map(lambda leaf: np.asarray(leaf)[self.slots], tree)
        return jax.device_put(dealt, self._by_member)

    def fetch(self, tree: Any) -> Any:
        """The inverse of `place`."""
        places = [self.slots.index(i) for i in range(len(self.configs))]
        return jax.tree.map(lambda leaf: np.asarray(leaf)[places], jax.device_get(tree))

    def save_tree(self, state: State) -> dict[str, Any]:
        """The state as nested dictionaries of host arrays `(member, ...)`, for a checkpoint."""
        return _as_tree(self.fetch(state))

    def load_tree(self, tree: dict[str, Any]) -> State:
        """The inverse of `save_tree`, on however many devices this family has."""
        structure = jax.tree.structure(self._abstract_state().optimizer)
        leaves = [tree["optimizer"][name] for name in sorted(tree["optimizer"], key=int)]
        return self.place(State(tree["variables"], jax.tree.unflatten(structure, leaves), tree["step"]))

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
    variables = model.init(jax.random.fold_in(jax.random.key(seed), _INITIAL_KEY), image, train=False)
    # BatchNorm starts its statistics in float32 whatever its type.
    return jax.tree.map(lambda leaf: leaf.astype(image.dtype), variables)


def _spectra(model, config, max_batch, member, state, images, epoch):
    """The spectra of one member around its examples of each split, and what else is measured along their segments or
    by derivatives, `max_batch` inputs at a time.

    Examples of all splits go through one program: compiling it is what a short sweep spends most on.
    """
    seed, inputs = _examples(config, member, images, epoch)
    sizes, x = [len(split) for split in inputs], jnp.concatenate(inputs)

    def logits(inputs, model=model):
        return model.apply(state.variables, inputs, train=False)

    def directions():
        match config.spectrum_direction:
            case "random":
                keys, num = [jax.random.fold_in(seed, i) for i in range(len(inputs))], config.spectrum_directions
                drawn = [spectrum.random_directions(key, num, split) for key, split in zip(keys, inputs, strict=True)]
                return jnp.concatenate(drawn)
            case "adversarial":
                return spectrum.in_chunks(functools.partial(spectrum.adversarial_directions, logits), x, max_batch)
        partners = jnp.concatenate([around.partners for around in member.around])
        targets = data.to_unit(images.train[jnp.maximum(partners, 0)], x.dtype)
        missing = (partners < 0).reshape(*partners.shape, *(1,) * (x.ndim - 1))
        return jnp.where(missing, jnp.nan, spectrum.directions_towards(x, targets))

    def sample(x, v, t):
        outputs = on_segments(model, state.variables, x, v, t)
        return jax.nn.softmax(outputs) if config.spectrum_output == "softmax" else outputs

    v, segment = directions(), {"num_points": config.spectrum_points, "half_width": config.spectrum_half_width}
    window = config.spectrum_window
    spectra = spectrum.sampled_spectra(sample, x, v, **segment, window=window, max_batch=max_batch)
    results = _by_split(config, member, spectra._asdict(), sizes)
    if config.spectrum_measures:
        measured = [min(size, config.spectrum_measures) for size in sizes]
        places = np.concatenate([np.arange(n) + sum(sizes[:i]) for i, n in enumerate(measured)])
        forwards = functools.partial(logits, model=with_fields(model, convolution="im2col"))
        others = {
            "jacobian_norm": measures.jacobian_norm(logits, x[places], max_batch=max_batch),
            "linear_regions": measures.linear_regions(forwards, x[places], v[places], **segment, max_batch=max_batch),
        }
        results |= _by_split(config, member, others, measured)
    return results


def _outputs(model, config, max_batch, member, state, images, epoch):
    """The logits of one member for the examples that `spectrum_measures` are taken of, and what follows from them."""
    _, inputs = _examples(config, member, images, epoch)
    inputs = [split[: config.spectrum_measures] for split in inputs]
    labels = jnp.concatenate([a.labels[: len(x)] for a, x in zip(member.around, inputs, strict=True)])
    logits = functools.partial(model.apply, state.variables, train=False)
    z = spectrum.in_chunks(logits, jnp.concatenate(inputs), max_batch)
    results = {
        "outputs": z,
        "logit_norm": jnp.linalg.norm(z, axis=-1),
        "loss": optax.softmax_cross_entropy_with_integer_labels(z, labels),
        "margin": measures.margin(z, labels),
    }
    return _by_split(config, member, results, [len(x) for x in inputs])


def _examples(config, member, images, epoch):
    """The key of a member's draws for spectra, and the inputs of each split that they are measured around."""
    seed = jax.random.fold_in(jax.random.key(member.seed), _SPECTRUM_KEY)
    if config.spectrum_resample:
        seed = jax.random.fold_in(seed, epoch)
    inputs = []
    for split, pool, around in zip(SPLITS, (images.train, images.train, images.test), member.around, strict=True):
        x = pool[jnp.maximum(around.images, 0)]
        if config.spectrum_augment and split == "train":
            x = data.augment(jax.random.fold_in(seed, len(SPLITS)), x, config.shift, config.flip)
        inputs.append(data.to_unit(x, jnp.dtype(config.param_dtype)))
    return seed, inputs


def _by_split(config, member, results, sizes):
    """Cuts what was computed for so many examples of all splits: leaves `(split, example, ...)`."""

    def cut(values):
        parts = jnp.split(values, np.cumsum(sizes)[:-1])
        there = (around.images for around in member.around)
        return jnp.stack([_with_missing(*p, config.spectrum_examples) for p in zip(parts, there, strict=True)])

    return jax.tree.map(cut, results)


def _with_missing(values, images, num: int):
    """NaN for the examples that are not there, and as many more as make `num`."""
    is_there = images[: len(values)].reshape(-1, *(1,) * (values.ndim - 1)) >= 0
    rest = [(0, 0)] * (values.ndim - 1)
    return jnp.pad(jnp.where(is_there, values, jnp.nan), [(0, num - len(values)), *rest], constant_values=jnp.nan)


def deal(work: Sequence[float], shards: int) -> list[int]:
    """Deals members to equal shards, the longest first and in turn, so that no shard waits long for another.

    Returns:
      Member numbers, shard after shard. Short shards are filled up with one of their own members.
    """
    order = sorted(range(len(work)), key=lambda i: -work[i])
    rows = -(-len(order) // shards)
    slots: list[int] = []
    for shard in range(shards):
        mine = order[shard::shards]
        slots += mine + [mine[-1]] * (rows - len(mine))
    return slots


def member_arrays(configs: Sequence[Config], sets: Sequence[data.TrainingSet], examples: tuple[Around, ...]) -> Member:
    """`Member` with a leading member axis, on the host."""
    dtype = configs[0].param_dtype
    capacity = max(len(s.index) for s in sets)

    def padded(name):
        return np.stack([np.pad(getattr(s, name), (0, capacity - len(s.index))) for s in sets])

    def rates(name):
        return np.array([getattr(c, name) for c in configs], dtype)

    # On the host yet, though Member speaks of the arrays that `place` makes of them.
    arrays: dict[str, Any] = dict(
        seed=np.array([c.seed for c in configs], np.uint32),
        learning_rate=rates("learning_rate"),
        weight_decay=rates("weight_decay"),
        momentum=rates("momentum"),
        size=np.array([len(s.index) for s in sets], np.int32),
        example=padded("index"),
        labels=padded("labels"),
        true_labels=padded("true_labels"),
        around=examples,
    )
    return Member(**arrays)


def around(
    configs: Sequence[Config], dataset: data.Dataset, sets: Sequence[data.TrainingSet], epoch: int
) -> tuple[tuple[Around, ...], np.ndarray]:
    """The examples that the spectra of an epoch are measured around, with a leading member axis, on the host.

    They are the first of the (shuffled) training set, of its relabelled ones and of the shuffled test set; with
    `spectrum_resample` any, drawn anew for each epoch.

    Returns:
      `Around` for each split, with as many examples as the member has that has most; and which are relabelled,
      `(member, split, example)`: 1 or 0, NaN where there is no example.
    """
    limit = configs[0].spectrum_examples
    relabelled = np.full((len(configs), len(SPLITS), limit), np.nan, np.float32)
    by_member = []
    for member, (config, own) in enumerate(zip(configs, sets, strict=True)):
        drawn = epoch if config.spectrum_resample else 0
        test = data.test_order(dataset, config.seed)
        splits = (
            own,
            data.TrainingSet(*(a[own.relabelled] for a in own)),
            data.TrainingSet(test, dataset.test_labels[test], dataset.test_labels[test]),
        )
        rows = []
        for number, split in enumerate(splits):
            order = np.arange(len(split.index))
            if config.spectrum_resample:
                order = data.resample(order, config.seed, drawn)
            chosen = data.TrainingSet(*(a[order[:limit]] for a in split))
            relabelled[member, number, : len(chosen.index)] = chosen.relabelled
            partners = np.full((len(chosen.index), config.spectrum_directions), -1)
            if config.spectrum_direction in ("same_class", "other_class"):
                partners = data.partners(
                    own,
                    own_index=np.full(len(partners), -1) if SPLITS[number] == "test" else chosen.index,
                    classes=chosen.true_labels,
                    same=config.spectrum_direction == "same_class",
                    num=config.spectrum_directions,
                    seed=(config.seed, drawn, number),
                )
            rows.append((chosen.index, chosen.labels, partners))
        by_member.append(rows)

    def stacked(arrays):
        size = max(1, *map(len, arrays))
        filled = [np.pad(a, [(0, size - len(a)), *[(0, 0)] * (a.ndim - 1)], constant_values=-1) for a in arrays]
        return np.stack(filled).astype(np.int32)

    by_split = zip(*by_member, strict=True)
    return tuple(Around(*map(stacked, zip(*rows, strict=True))) for rows in by_split), relabelled
