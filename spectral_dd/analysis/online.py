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


# Plain numbers here and below: of ten thousand curves, NumPy's of single values would take minutes.
_STEP = math.log1p(PROMINENCE)


def _is_step(difference: float) -> bool:
    return round(difference - _STEP, 9) >= 0  # a step of exactly the prominence counts


def online_start(values: np.ndarray, epochs: np.ndarray) -> Start | None:
    """What `OnlineStart` has said by the end of a curve.

    Args:
      values: (epoch,), a measure of the training set; NaN and the value at epoch 0 are passed over.
      epochs: (epoch,), increasing.

    Raises:
      ValueError: as `OnlineStart`, or `values` and `epochs` differ in length.
    """
    online = OnlineStart()
    for epoch, value in zip(np.asarray(epochs).tolist(), np.asarray(values).tolist(), strict=True):
        online.update(epoch, value)
    return online.start
