"""Which epochs of a pack are recorded, and which of them get spectra."""

from collections.abc import Sequence

import numpy as np

from spectral_dd import probe
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
    """The recorded epochs of a pack that get spectra: those from `spectrum_from_epoch` on, but always the last; of them
    all, or as many, evenly spread, as keep their share of the work to `spectrum_budget`.

    The work is counted in passes of an example through the network, not measured: the same command records the same.
    """
    config = configs[0]
    budget, recorded = config.spectrum.budget, recorded_epochs(config, ends)
    if not config.spectrum.examples:
        return []
    targets = [epoch for epoch in recorded if epoch >= min(config.spectrum.from_epoch, config.epochs)]
    training = sum(3 * c.steps * c.batch_size for c in configs)
    training += len(recorded) * sum(c.train_size + len(dataset.test_labels) for c in configs)
    affordable = np.inf if budget == 1 else budget / (1 - budget)
    affordable *= training / (len(configs) * _passes(config, dataset, draws))
    if affordable < 1:
        return []
    # From the last one back.
    kept = np.linspace(len(targets) - 1, 0, int(min(affordable, len(targets)))).round().astype(int)
    return [targets[i] for i in kept[::-1]]


def _passes(config: Config, dataset: Dataset, draws: Sequence[Draws]) -> int:
    """Passes of an example through the network that spectra and measures of one member and epoch take."""
    asked = config.spectrum
    sizes = (
        max(len(d.index) for d in draws),
        max(int(d.relabelled.sum()) for d in draws),
        len(dataset.test_labels),
    )
    passes = asked.directions * asked.points * sum(min(size, asked.examples) for size in sizes)
    if asked.measures:
        # What units choose along the segment and on the hull, there and back; a row of the Jacobian for each class; the
        # outputs of the updated networks.
        each = 3 * asked.directions * (asked.points + 2 * probe.HULL_DIRECTIONS) + 1 + dataset.num_classes
        each += asked.updates
        passes += each * sum(min(size, asked.examples, asked.measures) for size in sizes)
        passes += 3 * asked.updates * config.batch_size
        of_planes = probe.PLANES * probe.PLANE_POINTS * -(-probe.PLANE_POINTS // asked.points)
        passes += asked.points * (of_planes + probe.NOISE_EXAMPLES * len(sizes))
    return passes


def thinning(configs: Sequence[Config], dataset: Dataset, draws: Sequence[Draws], ends: Sequence[int] = ()) -> str:
    """What `spectrum_from_epoch` and `spectrum_budget` cost a pack, in words; empty if nothing."""
    asked, recorded = configs[0].spectrum, recorded_epochs(configs[0], ends)
    kept = spectrum_epochs(configs, dataset, draws, ends)
    if not asked.examples or len(kept) == len(recorded):
        return ""
    first = f"--spectrum_from_epoch={asked.from_epoch}, " if asked.from_epoch else ""
    return f"{first}--spectrum_budget={asked.budget:g}: spectra at {len(kept)} of {len(recorded)} recorded epochs"
