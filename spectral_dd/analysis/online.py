"""Says during training, from the past of one measure alone, when the second descent started.

*Online*, a second descent has started once a measure of the training set has risen by the factor 1 + `PROMINENCE`
from its lowest value and then fallen by that factor from its highest since; it started at that highest value.

It is for curves whose noise from record to record is below 3 %: around a constant, white noise of 5 % is taken for a
second descent in about one curve of six.
"""

import collections
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from spectral_dd.analysis.alike import alike

# A tenth: what `curves.THRESHOLD` is of an error of 30 %. Not fitted to the results of any sweep.
PROMINENCE = 0.1

# Recorded epochs that are averaged; odd.
WINDOW = 3


class Start(NamedTuple):
    """The second descent started at `epoch`, which was noticed at epoch `noticed`."""

    epoch: int
    noticed: int


class OnlineStart:
    """Takes a measure epoch by epoch. What it said is final.

    The smoothing is that of `curves.smooth`, but causal: the mean over `WINDOW` records is known `WINDOW // 2` records
    after its middle, and not used earlier. It is compared on a log scale. Epoch 0 is ignored: a rise from the network
    as initialised is no end of a first descent.
    """

    def __init__(self) -> None:
        self.start: Start | None = None
        self._recent: collections.deque[tuple[int, float]] = collections.deque(maxlen=WINDOW)
        self._lowest = math.inf
        self._highest: tuple[float, int] | None = None  # value and epoch, since the rise

    def update(self, epoch: int, value: float) -> Start | None:
        """Takes the measure at the next recorded epoch; returns the start, or None as long as it is not noticed.

        Values that are not positive and finite have no logarithm and are passed over, like epoch 0.

        Raises:
          ValueError: `epoch` is not after the last one that was not passed over.
        """
        if self._recent and epoch <= self._recent[-1][0]:
            raise ValueError(f"epoch={epoch}: must be after {self._recent[-1][0]}, the last one")
        if self.start is None and epoch > 0 and math.isfinite(value) and value > 0:
            self._recent.append((int(epoch), float(value)))
            if len(self._recent) > WINDOW // 2:
                middle = self._recent[-1 - WINDOW // 2][0]
                mean = sum(v for _, v in self._recent) / len(self._recent)
                self._follow(middle, math.log(mean), int(epoch))
        return self.start

    def _follow(self, epoch: int, level: float, now: int) -> None:
        if self._highest is None:
            self._lowest = min(self._lowest, level)
            if _is_step(level - self._lowest):
                self._highest = (level, epoch)
        elif level > self._highest[0]:
            self._highest = (level, epoch)
        elif _is_step(self._highest[0] - level):
            self.start = Start(self._highest[1], now)


_STEP = math.log1p(PROMINENCE)


def _is_step(difference: float) -> bool:
    return round(difference - _STEP, 9) >= 0  # a step of exactly the prominence counts


def online_starts(values: Float[np.ndarray, "curve record"], epochs: Int[np.ndarray, "record"]) -> np.ndarray:
    """What `OnlineStart` has said by the end of each curve: the start and when it was noticed, [curve, 2]; -1: nothing.

    Args:
      values: a measure of the training set; what `OnlineStart` passes over is passed over.
      epochs: increasing.
    """
    found = np.full((len(values), 2), -1, int)
    epochs = np.asarray(epochs)
    if not (np.diff(epochs) > 0).all():
        raise ValueError(f"epochs={epochs}: must increase")
    with np.errstate(invalid="ignore"):
        own = np.isfinite(values) & (values > 0) & (epochs > 0)
    for curves, records in alike(own):
        found[curves] = _starts(values[np.ix_(curves, records)], epochs[records])
    return found


def _starts(values: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    """`online_starts` of curves that have all records. It follows all of them as `OnlineStart._follow` does one."""
    found = np.full((len(values), 2), -1, int)
    lowest, highest, peak = np.full(len(values), np.inf), np.full(len(values), -np.inf), np.zeros(len(values), int)
    for now in range(WINDOW // 2, len(epochs)):
        level = np.log(values[:, max(0, now - WINDOW + 1) : now + 1].mean(axis=1))
        risen, going = np.isfinite(highest), found[:, 0] < 0
        lowest = np.where(risen, lowest, np.minimum(lowest, level))
        higher = np.where(risen, level > highest, (level - lowest - _STEP).round(9) >= 0)
        fallen = going & risen & ~higher & ((highest - level - _STEP).round(9) >= 0)
        highest, peak = np.where(higher, level, highest), np.where(higher, epochs[now - WINDOW // 2], peak)
        found[fallen, 0], found[fallen, 1] = peak[fallen], epochs[now]
    return found
