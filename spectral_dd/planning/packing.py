"""Configs -> packs: which members share a program, at the least total time.

Members that agree on the static fields are sorted by width and cut into runs. A run costs one compilation, and every
member in it costs as much as its widest; dynamic programming finds the cheapest cuts.
"""

import collections
import itertools
from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from spectral_dd import models
from spectral_dd.config import Config
from spectral_dd.sweeps import Lowering, Pack


class StepCost(Protocol):
    compile_seconds: float

    def step_seconds(self, config: Config, width: int, members: Any = 1) -> Any:
        """Time of a step of the member at a padded width, its share of it if so many are on one device."""


class Plan(NamedTuple):
    packs: list[Pack]
    apart: bool  # as many packs at a time as there are devices, one on each; else each pack on all devices
    compile_seconds: float  # of each pack

    def seconds(self, num_devices: int) -> float:
        """Until the last pack has ended, compilations included."""
        seconds = [pack.cost + self.compile_seconds for pack in self.packs]
        by_device = shares(seconds, num_devices if self.apart else 1)
        return max(sum(seconds[pack] for pack in packs) for packs in by_device)


def plan(
    configs: Sequence[Config],
    cost: StepCost,
    lowering_for: Callable[[Config], Lowering],
    num_devices: int,
    min_packs: int = 1,
    exact: Container[str] = models.MODELS,
) -> Plan:
    """The faster way to use the devices: packs one after another, each on all devices, or a pack a device.

    All members of a pack run the same program, so that members of different widths on the devices wait for the widest;
    packs apart need none of each other, but there must be enough of them to keep all devices busy.

    Args:
      configs: the members.
      cost: of a step.
      lowering_for: the lowering of a pack, from its widest member.
      num_devices: that members or packs are spread over.
      min_packs: packs are halved until there are so many, as far as there are members, so that as many tasks find work.
      exact: models that zero padding changes nothing of; members of others share a pack only if their width is one.
    """
    plans = []
    for apart in (False, True):
        on = 1 if apart else num_devices
        packs = []
        for members in cut(configs, cost, on, min_packs, exact):
            own = [configs[i] for i in members]
            packs.append(Pack(tuple(members), lowering_for(widest(own)), pack_seconds(own, cost, on)))
        plans.append(Plan(packs, apart, cost.compile_seconds))
    return min(plans, key=lambda plan: plan.seconds(num_devices))


def cut(
    configs: Sequence[Config],
    cost: StepCost,
    num_devices: int = 1,
    min_packs: int = 1,
    exact: Container[str] = models.MODELS,
) -> list[list[int]]:
    """Cuts the members into packs, each a list of indices into `configs`; see `plan`."""
    groups = collections.defaultdict(list)
    for i, config in enumerate(configs):
        groups[*config.static().values(), None if config.model in exact else config.width].append(i)

    packs = []
    for group in groups.values():
        group.sort(key=lambda i: (configs[i].width, i))
        # Members of one width have no reason to part: cut between widths only.
        cuts = [p for p in range(1, len(group)) if configs[group[p]].width > configs[group[p - 1]].width]
        places = [0, *cuts, len(group)]
        bounds = cheapest_cuts(_run_seconds([configs[i] for i in group], places, cost, num_devices))
        packs += [group[places[start] : places[stop]] for start, stop in itertools.pairwise(bounds)]

    while len(packs) < min_packs and any(len(pack) > 1 for pack in packs):
        divisible = (pack for pack in packs if len(pack) > 1)
        longest = max(divisible, key=lambda pack: pack_seconds([configs[i] for i in pack], cost, num_devices))
        packs.remove(longest)
        packs += [longest[: len(longest) // 2], longest[len(longest) // 2 :]]
    return sorted(packs)


def cheapest_cuts(run_seconds: np.ndarray) -> list[int]:
    """Cuts a sequence of n parts into runs at the least total cost.

    Exact, by dynamic programming over the last cut. Of equal solutions the one with fewer runs wins.

    Args:
      run_seconds: [n + 1, n + 1], the cost of a run from the start of part i to the start of part j > i.

    Returns:
      Where the runs begin, and n.
    """
    best: list[tuple[float, int, int]] = [(0.0, 0, 0)]  # cost, runs, start of the last run
    for j in range(1, len(run_seconds)):
        column = run_seconds[:j, j].tolist()
        best.append(min((best[i][0] + column[i], best[i][1] + 1, i) for i in range(j)))
    bounds = [len(best) - 1]
    while bounds[-1]:
        bounds.append(best[bounds[-1]][2])
    return bounds[::-1]


def _run_seconds(configs: Sequence[Config], places: Sequence[int], cost: StepCost, num_devices: int) -> np.ndarray:
    """[place, place]: compilation and training of the members between two places, which are sorted by width."""
    steps, kind = np.unique([-c.steps for c in configs], return_inverse=True)
    of_kind = np.zeros((len(configs) + 1, len(steps)), int)
    np.add.at(of_kind, (np.arange(1, len(configs) + 1), kind), 1)
    before = of_kind.cumsum(axis=0)[list(places)]  # members of each number of steps before each place
    seconds = np.zeros((len(places), len(places)))
    for j in range(1, len(places)):
        counts, config = before[j] - before[:j], configs[places[j] - 1]
        step_seconds = cost.step_seconds(config, config.width, -(-counts.sum(axis=1) // num_devices))
        seconds[:j, j] = cost.compile_seconds + _longest(counts, -steps, num_devices) * step_seconds
    return seconds


def _longest(counts: np.ndarray, steps: np.ndarray, num_devices: int) -> np.ndarray:
    """Steps of the busiest device when members are dealt, the longest first and in turn.

    Args:
      counts: [..., kind], members of each number of steps.
      steps: [kind], descending.
    """
    last = counts.cumsum(axis=-1)
    devices = np.minimum(num_devices, last[..., -1:])
    on_the_first = -(-last // devices) - -(-(last - counts) // devices)
    return (on_the_first * steps).sum(axis=-1)


def pack_seconds(configs: Sequence[Config], cost: StepCost, num_devices: int) -> float:
    """Time to train a pack: every member at the widest's cost, on the busiest device."""
    steps = sorted((c.steps for c in configs), reverse=True)
    busiest = sum(steps[:: min(num_devices, len(steps))])
    config = widest(configs)
    return busiest * cost.step_seconds(config, config.width, -(-len(configs) // num_devices))


def widest(configs: Sequence[Config]) -> Config:
    return max(configs, key=lambda c: c.width)


def padding_waste(configs: Sequence[Config], cost: StepCost) -> float:
    """Share of a pack's work that its narrower members would not cost alone."""
    alone = sum(c.steps * cost.step_seconds(c, c.width) for c in configs)
    width = widest(configs).width
    return 1 - alone / sum(c.steps * cost.step_seconds(c, width) for c in configs)


def shares(costs: Sequence[float], num_tasks: int) -> list[list[int]]:
    """Deals packs to tasks (or devices): the costliest first, each to the one with the least so far."""
    tasks: list[list[int]] = [[] for _ in range(num_tasks)]
    loads = [0.0] * num_tasks
    for pack in sorted(range(len(costs)), key=lambda i: -costs[i]):
        task = loads.index(min(loads))
        tasks[task].append(pack)
        loads[task] += costs[pack]
    return [sorted(task) for task in tasks]
