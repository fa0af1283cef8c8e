"""Many members at once: their arrays, on the devices.

A `Family` stacks the members of a pack, padded to the widest, along a leading member axis, puts it onto the devices and
calls the programs of `programs.py` on it. Members never communicate, so there is no collective anywhere.
"""

import concurrent.futures
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spectral_dd import devices, measures, models, padding, probe
from spectral_dd.config import Config
from spectral_dd.data import Dataset, Draws
from spectral_dd.programs import PACKS_KEPT, Arrays, Programs, init_variables
from spectral_dd.sweeps import Lowering
from spectral_dd.training import Images, Member, State, initial_state


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
        arrays, self._examples = host_arrays(self.configs, dataset, self._draws)
        self.programs = Programs(
            self.configs,
            dataset.num_classes,
            arrays.shapes(),
            on or jax.local_devices(),
            lowering=lowering,
            memory_limit=memory_limit,
        )
        self.config, self.model = self.programs.config, self.programs.model
        self._images = jax.device_put(arrays.images, self.programs.replicated)
        self._members, self._probed = self.to_devices(arrays.members), self.to_devices(arrays.probed)
        self._initial: Any = None  # parameters
        self._distance = _distance(self.programs)

    def initial_state(self) -> State:
        """The state before the first epoch: each member is drawn at its own width, then padded."""
        init, wide = jax.jit(init_variables, static_argnums=0), self.programs.abstract_variables()
        padded: dict[int, Any] = {}
        x64 = jax.config.read("jax_enable_x64")

        def draw_members(width):
            with devices.numerics(x64):  # of this thread
                for i, config in enumerate(self.configs):
                    if config.width == width:
                        model = models.build_model(config, self.dataset.num_classes)
                        padded[i] = padding.pad(init(model, config.seed_of("init"), self.programs.image()), wide)

        # Every width is a program; they are compiled side by side.
        with concurrent.futures.ThreadPoolExecutor() as threads:
            list(threads.map(draw_members, {c.width for c in self.configs}))
        in_order = [padded[i] for i in range(len(self.configs))]
        variables = self.to_devices(jax.tree.map(lambda *leaves: np.stack(leaves), *in_order))
        self._initial = _copy(variables["params"])  # because training reuses the buffers
        return _initial_state(self.programs)(self._members, variables)

    def began_at(self, variables: dict[str, Any]) -> None:
        """Takes what is recorded of epoch 0, leaves `(member, ...)`, for what `initial_state` would draw."""
        self._initial = self.to_devices(variables["params"])

    def train(self, state: State, start: int, stop: int, max_steps: int = np.iinfo(np.int32).max) -> State:
        """Trains epochs `start` to `stop` - 1, or the first steps of each. The buffers of `state` are reused: it must
        not be used again.

        Raises:
          InputError: not even one member fits into the memory of a device.
        """
        arguments = (self._members, state, self._images, *map(jnp.int32, (start, stop, max_steps)))
        return self.programs["training"].call(*arguments)

    def evaluate(self, state: State) -> dict[str, np.ndarray]:
        """What `training.evaluate` gives, and the distance from the first parameters; `(member,)` on the host."""
        if self._initial is None:
            self.initial_state()
        found = self.programs["evaluation"].call(self._members, state, self._images)
        distance = self._distance(state.variables["params"], self._initial, None)
        return self.to_host(found | {"distance_from_initialisation": distance})

    def probe(self, state: State, epoch: int) -> dict[str, np.ndarray]:
        """What `probe.spectra` names, with `spectrum_measures` `optimization_variance`, and what `probe.probes` says of
        the examples: `(member, split, example, ...)` on the host, splits as in `records.SPLITS`; but for `plane_label`.

        Examples that a split does not have (fewer relabelled ones than asked for) are NaN. What is drawn depends on
        the epoch only with `spectrum_resample`. Without the optimiser's state there is no `optimization_variance`.
        """
        if self.config.spectrum.resample:
            probed, self._examples = _choose_probes(self.configs, self.dataset, self._draws, epoch)
            self._probed = self.to_devices(probed)
        arguments = (self._images, jnp.int32(epoch))
        # Spectra need no optimiser's state.
        at = (self._probed, state._replace(optimizer=None), *arguments)
        spectra = self.to_host(self.programs["spectra"].call(*at, probe.planes(self.dataset))) | self._examples
        if not self.config.spectrum.measures or state.optimizer is None:  # no step can be taken
            return spectra
        # Single steps from here, each with the first batch of an epoch that training never comes to.
        last, updated = self.config.epochs, []
        for i in range(last, last + self.config.spectrum.updates):
            after = self.train(_copy(state), i, i + 1, max_steps=1)
            at = (self._probed, after._replace(optimizer=None), *arguments)
            updated.append(self.to_host(self.programs["logits"].call(*at)))
        variance = jax.jit(measures.optimization_variance)(np.stack(updated))
        return spectra | {"optimization_variance": np.asarray(variance)}

    def to_devices(self, tree: Any) -> Any:
        """Puts a tree of the host, leaves `(member, ...)`, onto the devices."""
        dealt = jax.tree.map(lambda leaf: np.asarray(leaf)[self.programs.dealt], tree)
        return jax.device_put(dealt, self.programs.by_member)

    def to_host(self, tree: Any) -> Any:
        """The inverse of `to_devices`."""
        places = [self.programs.dealt.index(i) for i in range(len(self.configs))]
        return jax.tree.map(lambda leaf: np.asarray(leaf)[places], jax.device_get(tree))

    def save_tree(self, state: State) -> dict[str, Any]:
        """The state as nested dictionaries of host arrays `(member, ...)`, for a checkpoint."""
        return _as_tree(self.to_host(state))

    def load_tree(self, tree: dict[str, Any]) -> State:
        """The inverse of `save_tree`, on however many devices this family has."""
        structure = jax.tree.structure(self.programs.abstract_state().optimizer)
        leaves = [tree["optimizer"][name] for name in sorted(tree["optimizer"], key=int)]
        return self.to_devices(State(tree["variables"], jax.tree.unflatten(structure, leaves), tree["step"]))

    def load_variables(self, variables: dict[str, Any]) -> State:
        """A state of recorded variables `(member, ...)`: without the optimiser's, so that it cannot be trained."""
        return self.to_devices(State(variables, None, jnp.zeros(len(self.configs), jnp.int32)))

    def abstract_tree(self) -> dict[str, Any]:
        """Shapes and types of `save_tree`."""
        return _as_tree(self.programs.abstract_state())


@functools.lru_cache(maxsize=PACKS_KEPT)
def _initial_state(programs: Programs) -> Any:
    """The states of all members from what they are given and their first variables."""
    return jax.jit(jax.vmap(functools.partial(initial_state, programs.config)), out_shardings=programs.by_member)


@functools.lru_cache(maxsize=PACKS_KEPT)
def _distance(programs: Programs) -> Any:
    """Distances of parameters, member by member, so that the number of devices does not change the order of sums."""
    return jax.jit(programs.over_members(lambda a, b, _: measures.distance(a, b), 1, 0))


def host_arrays(
    configs: Sequence[Config], dataset: Dataset, draws: Sequence[Draws]
) -> tuple[Arrays, dict[str, np.ndarray]]:
    """What the programs of a pack work on, on the host yet, and what `probe.probes` says of the examples."""
    probed, examples = _choose_probes(configs, dataset, draws, epoch=0)
    images: Any = (dataset.train_images, dataset.test_images, dataset.test_labels)
    return Arrays(member_arrays(configs, draws), probed, Images(*images)), examples


def _choose_probes(configs: Sequence[Config], dataset: Dataset, draws: Sequence[Draws], epoch: int) -> tuple[Any, Any]:
    chosen = [probe.probes(config, drawn, dataset, epoch) for config, drawn in zip(configs, draws, strict=True)]
    stacked = jax.tree.map(lambda *arrays: _stack(arrays, missing=-1), *[probes for probes, _ in chosen])
    seeds = np.array([c.seed for c in configs], np.uint32)
    return (seeds, stacked), jax.tree.map(lambda *members: np.stack(members), *[examples for _, examples in chosen])


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


def _as_tree(state: State) -> dict[str, Any]:
    # The optimiser's state is made of optax's own classes, which a checkpoint should not depend on.
    leaves = {f"{i:04d}": leaf for i, leaf in enumerate(jax.tree.leaves(state.optimizer))}
    return {"variables": state.variables, "optimizer": leaves, "step": state.step}


def member_arrays(configs: Sequence[Config], draws: Sequence[Draws]) -> Member:
    """`Member` with a leading member axis, on the host."""

    def rates(name):
        return np.array([getattr(c, name) for c in configs], configs[0].param_dtype)

    # On the host yet, though Member speaks of the arrays that `to_devices` makes of them.
    arrays: dict[str, Any] = dict(
        seed=np.array([c.seed_of("order") for c in configs], np.uint32),
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
