"""Configs -> packs: which members share a compiled program.

Members that agree on the static fields are sorted by width and cut into runs. A run costs one compilation, and
every member in it costs as much as its widest; dynamic programming finds the cheapest cuts.
"""

import collections
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spectral_dd.config import Config
from spectral_dd.models import build_model

# The cost model, seconds of one device and its rates of what the network takes by `im2col`. Fitted on a core of a
# server CPU to cnn5 at 8x8 and 32x32, widths 1 to 32, which it gives to within a third; only ratios matter, and not
# much: a wrong cut costs a compilation or some padding, never a result. Where a sweep is long enough, `tune.py`
# measures instead.
COMPILE_SECONDS = 16.0
STEP_SECONDS = 2e-5
FLOPS_PER_SECOND = 95e9
BYTES_PER_SECOND = 65e9


class Plan(NamedTuple):
    packs: list[list[int]]  # indices of configs
    costs: list[float]  # seconds of each pack, on the devices that it runs on
    apart: bool  # as many packs at a time as there are devices, one on each, rather than each pack on all of them

    def seconds(self, num_devices: int) -> float:
        """Until the last pack has ended, compilations included."""
        with_compilation = [cost + COMPILE_SECONDS for cost in self.costs]
        streams = shares(with_compilation, num_devices if self.apart else 1)
        return max(sum(with_compilation[pack] for pack in stream) for stream in streams)


def plan_for(
    configs: Sequence[Config],
    member_seconds: Callable[[Config, int], float],
    num_devices: int,
    min_packs: int = 1,
) -> Plan:
    """The faster way to use the devices: packs one after another, each on all devices, or a pack a device.

    All members of a pack run the same program, so that members of different widths on the devices wait for the widest;
    packs apart need none of each other, but there must be enough of them to keep all devices busy.
    """
    plans = []
    for apart in (False, True):
        on = 1 if apart else num_devices
        packs = plan(configs, member_seconds, on, min_packs)
        costs = [pack_seconds([configs[i] for i in pack], member_seconds, on) for pack in packs]
        plans.append(Plan(packs, costs, apart))
    return min(plans, key=lambda plan: plan.seconds(num_devices))


def plan(
    configs: Sequence[Config],
    member_seconds: Callable[[Config, int], float],
    num_devices: int = 1,
    min_packs: int = 1,
) -> list[list[int]]:
    """Cuts the members into packs, each a list of indices into `configs`.

    Args:
      configs: the members.
      member_seconds: time to train a member at a (padded) width.
      num_devices: devices that the members of a pack are spread over.
      min_packs: packs are cut further until there are so many, as far as there are members, so that several
        processes find work.
    """
    groups = collections.defaultdict(list)
    for i, config in enumerate(configs):
        groups[tuple(config.static().items())].append(i)

    packs = []
    for group in groups.values():
        group.sort(key=lambda i: (configs[i].width, i))

        def run_seconds(start: int, stop: int, group: list[int] = group) -> float:
            return COMPILE_SECONDS + pack_seconds([configs[i] for i in group[start:stop]], member_seconds, num_devices)

        # Members of one width have no reason to part: cut between widths only.
        cuts = [p for p in range(1, len(group)) if configs[group[p]].width > configs[group[p - 1]].width]
        bounds = cheapest_cuts([0, *cuts, len(group)], run_seconds)
        packs += [group[start:stop] for start, stop in itertools.pairwise(bounds)]

    def seconds(pack: list[int]) -> float:
        return pack_seconds([configs[i] for i in pack], member_seconds, num_devices)

    while len(packs) < min_packs and any(len(pack) > 1 for pack in packs):
        longest = max((pack for pack in packs if len(pack) > 1), key=seconds)
        packs.remove(longest)
        packs += [longest[: len(longest) // 2], longest[len(longest) // 2 :]]
    return sorted(packs)


def cheapest_cuts(places: Sequence[int], run_cost: Callable[[int, int], float]) -> list[int]:
    """Cuts a sequence into runs at some of the `places` (its two ends among them), at the least total cost.

    Exact, by dynamic programming over the last cut. Of equal solutions the one with fewer runs wins.
    """
    best: list[tuple[float, int, list[int]]] = [(0.0, 0, [places[0]])]
    for j in range(1, len(places)):
        best.append(
            min(
                (best[i][0] + run_cost(places[i], places[j]), best[i][1] + 1, [*best[i][2], places[j]])
                for i in range(j)
            )
        )
    return best[-1][2]


def pack_seconds(configs: Sequence[Config], member_seconds: Callable[[Config, int], float], num_devices: int) -> float:
    """Time to train a pack: the longest sum over a device, every member at the widest's cost."""
    width = max(c.width for c in configs)
    seconds = sorted((member_seconds(c, width) for c in configs), reverse=True)
    return sum(seconds[:: min(num_devices, len(configs))])


def padding_waste(configs: Sequence[Config], member_seconds: Callable[[Config, int], float]) -> float:
    """Share of a pack's work that its narrower members would not cost alone."""
    width = max(c.width for c in configs)
    return 1 - sum(member_seconds(c, c.width) for c in configs) / sum(member_seconds(c, width) for c in configs)


def shares(costs: Sequence[float], num_tasks: int) -> list[list[int]]:
    """Deals packs to tasks: the costliest first, each to the task with the least so far."""
    tasks: list[list[int]] = [[] for _ in range(num_tasks)]
    loads = [0.0] * num_tasks
    for pack in sorted(range(len(costs)), key=lambda i: -costs[i]):
        task = loads.index(min(loads))
        tasks[task].append(pack)
        loads[task] += costs[pack]
    return [sorted(task) for task in tasks]


class Work:
    """Size and cost of networks, from traced programs.

    Layers grow with the product of two widths at most, so what is traced at three widths gives all others.
    """

    def __init__(self, image_shapes: dict[str, tuple[int, ...]], num_classes: dict[str, int]):
        """
        Args:
          image_shapes: height, width and channels of each data set.
          num_classes: classes of each data set.
        """
        self._image_shapes = image_shapes
        self._num_classes = num_classes
        self._traced = functools.cache(self._trace)

    def _trace(self, model: str, dataset: str, width: int) -> tuple[int, float, float]:
        """Trainable parameters; FLOPs of a forward pass for an example, and bytes that it reads and writes."""
        network = build_model(Config(model=model, width=width), self._num_classes[dataset])

        def images(examples: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((examples, *self._image_shapes[dataset]), jnp.float32)

        variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images(1))
        forward = jax.jit(lambda variables, x: network.apply(variables, x, train=False))
        one, two = (forward.lower(variables, images(n)).cost_analysis() or {} for n in (1, 2))
        # What a second example adds: the rest is work on parameters.
        flops, traffic = (float(two.get(k, 0.0)) - float(one.get(k, 0.0)) for k in ("flops", "bytes accessed"))
        return sum(leaf.size for leaf in jax.tree.leaves(variables["params"])), flops, traffic

    def _at_width(self, config: Config, width: int) -> list[float]:
        first, second, third = (self._traced(config.model, config.dataset, w) for w in (1, 2, 3))
        # Newton's form of the parabola through the three.
        return [
            a + (width - 1) * (b - a) + (width - 1) * (width - 2) // 2 * (c - 2 * b + a)
            for a, b, c in zip(first, second, third, strict=True)
        ]

    def parameters(self, config: Config) -> int:
        return int(self._at_width(config, config.width)[0])

    def train_flops(self, config: Config, width: int | None = None) -> float:
        """FLOPs of the member's training, at its own width or padded to `width`; a backward pass counts twice."""
        steps = config.epochs * config.steps_per_epoch
        forward = self._at_width(config, width or config.width)[1]
        return 3 * forward * config.batch_size * steps

    def seconds(self, config: Config, width: int) -> float:
        """Estimated time to train the member at a padded width on one device."""
        steps = config.epochs * config.steps_per_epoch
        traffic = 3 * self._at_width(config, width)[2] * config.batch_size * steps
        return steps * STEP_SECONDS + self.train_flops(config, width) / FLOPS_PER_SECOND + traffic / BYTES_PER_SECOND
