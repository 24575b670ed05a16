"""A mean over runs with its interval: three numbers that are written as one."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Num

RESAMPLES = 1000


class Estimate(NamedTuple):
    """A statistic of independent values and the ends of its 95 % interval.

    A format is that of each number: ``f"{estimate:.2f}"`` is ``0.50 [0.25, 0.75]``.

    Attributes:
      value: The statistic.
      low: The lower end of its interval; NaN where `bootstrap` has none.
      high: The upper end.
    """

    value: float
    low: float
    high: float

    def map(self, function: Callable[[float], float]) -> "Estimate":
        """An increasing function of the three numbers: what was estimated in logarithms, say."""
        return Estimate(*(float(function(number)) for number in self))

    def __format__(self, spec: str) -> str:
        """Writes each number in the format of one."""
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def estimate(
    values: Num[np.ndarray, " runs"], statistic: Callable[[np.ndarray], float] = np.mean
) -> Estimate:
    """A statistic of independent values, the mean by default, with its interval by `bootstrap`."""
    values = np.asarray(values)
    return Estimate(float(statistic(values)), *bootstrap(values, statistic))


def bootstrap(
    values: np.ndarray, statistic: Callable[[np.ndarray], float] = np.mean
) -> tuple[float, float]:
    """The 95 % interval of a statistic of independent values, by the percentile bootstrap.

    NaN for fewer than two values, or where one is not finite.

    Source: Efron 1979, doi:10.1214/aos/1176344552.
    """
    if len(values) < 2 or not np.all(np.isfinite(values)):
        return np.nan, np.nan
    draws = np.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
    low, high = np.quantile([statistic(draw) for draw in draws], [0.025, 0.975])
    return float(low), float(high)
