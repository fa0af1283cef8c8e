"""Which epochs of a pack are recorded, and which of them get spectra."""

import itertools
from collections.abc import Sequence

import numpy as np

from spectral_dd.config import Config
from spectral_dd.data import Dataset, Draws


def recorded_epochs(config: Config, ends: Sequence[int] = ()) -> list[int]:
    """0, then epochs at even distances of their logarithm, then the last one, no nearer than half a distance.

    Args:
      config: of a member.
      ends: last epochs that it had before its sweep was extended. Up to each, the epochs are those that it had then.
    """
    per_decade, found = config.records_per_decade, [0]
    for last in (*ends, config.epochs):
        steps = np.arange(0, np.log10(last) * per_decade)
        spaced = np.rint(10 ** (steps / per_decade)).astype(int)
        within = {last, *spaced[spaced < last * 10 ** (-0.5 / per_decade)].tolist()}
        found += sorted(epoch for epoch in within if epoch > found[-1])
    return found


def spectrum_epochs(
    configs: Sequence[Config], dataset: Dataset, draws: Sequence[Draws], ends: Sequence[int] = ()
) -> list[int]:
    """The recorded epochs of a pack that get spectra: all, or every second, third ... from the last one back, so that
    their share of the work is at most `spectrum_budget`.

    The work is counted in passes of an example through the network, not measured: the same command records the same.
    """
    config = configs[0]
    budget, targets = config.spectrum.budget, recorded_epochs(config, ends)
    if not config.spectrum.examples:
        return []
    training = sum(3 * c.steps * c.batch_size for c in configs)
    training += len(targets) * sum(c.train_size + len(dataset.test_labels) for c in configs)
    affordable = np.inf if budget == 1 else budget / (1 - budget)
    affordable *= training / (len(configs) * _passes(config, dataset, draws))
    if affordable < 1:
        return []
    every = next(n for n in itertools.count(1) if -(-len(targets) // n) <= affordable)
    return targets[::-1][::every][::-1]


def _passes(config: Config, dataset: Dataset, draws: Sequence[Draws]) -> int:
    """Passes of an example through the network that spectra and measures of one member and epoch take."""
    asked, segment = config.spectrum, config.spectrum.directions * config.spectrum.points
    sizes = (
        max(len(d.index) for d in draws),
        max(int(d.relabelled.sum()) for d in draws),
        len(dataset.test_labels),
    )
    passes = segment * sum(min(size, asked.examples) for size in sizes)
    if asked.measures:
        # The derivative along the segment, a row of the Jacobian for each class, the outputs of the updated networks.
        each = 2 * segment + 3 * dataset.num_classes + asked.updates
        passes += each * sum(min(size, asked.examples, asked.measures) for size in sizes)
        passes += 3 * asked.updates * config.batch_size
    return passes


def thinning(configs: Sequence[Config], dataset: Dataset, draws: Sequence[Draws], ends: Sequence[int] = ()) -> str:
    """What `spectrum_budget` costs a pack, in words; empty if nothing."""
    recorded, kept = recorded_epochs(configs[0], ends), spectrum_epochs(configs, dataset, draws, ends)
    if not configs[0].spectrum.examples or len(kept) == len(recorded):
        return ""
    return (
        f"--spectrum_budget={configs[0].spectrum.budget:g}: spectra at {len(kept)} of {len(recorded)} recorded epochs"
    )
