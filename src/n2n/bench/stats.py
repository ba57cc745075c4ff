"""Numbers from samples: what is said of a set of times.

A percentile is defined here as in most programs (R's type 7, numpy's default, ``statistics.quantiles`` with
``method="inclusive"``): of n samples in order, counted from 0, the p-th percentile lies at the place (n - 1) * p / 100,
and between two samples in proportion to the distance from each.  So percentile 0 is the lowest sample, 100 the highest,
and 50 the median.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["NOTHING", "Summary", "jitter", "percentile", "summarize"]


@dataclass(frozen=True, slots=True)
class Summary:
    """What is said of some samples; the numbers have the samples' unit.

    Args:
        count: how many samples there were; with none, all other numbers are NaN.
        min: the lowest.
        mean: the arithmetic mean.
        median: half of them are below.
        p95: 95 in 100 are below.
        p99: 99 in 100 are below.
        max: the highest.
    """

    count: int
    min: float
    mean: float
    median: float
    p95: float
    p99: float
    max: float


#: Of no samples at all.
NOTHING = Summary(0, *[math.nan] * 6)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """A percentile of samples that are in order already; the definition is at the head of this module.

    Args:
        ordered: at least one sample, the lowest first.
        percent: 0 to 100.

    Raises:
        ValueError: there is no sample, or `percent` is outside of its range.

    >>> percentile([10, 20, 30, 40], 50), percentile([10, 20, 30, 40], 95)
    (25.0, 38.5)
    """
    if not ordered:
        raise ValueError("there is no percentile of no samples")
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent} is not between 0 and 100")
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summarize(samples: Iterable[float]) -> Summary:
    """Count, lowest, mean, median, percentiles and highest.

    >>> summarize([3, 1, 2])
    Summary(count=3, min=1, mean=2.0, median=2.0, p95=2.9, p99=2.98, max=3)
    """
    ordered = sorted(samples)
    if not ordered:
        return NOTHING
    middle, p95, p99 = (percentile(ordered, percent) for percent in (50, 95, 99))
    return Summary(len(ordered), ordered[0], math.fsum(ordered) / len(ordered), middle, p95, p99, ordered[-1])


def jitter(samples: Sequence[float]) -> float:
    """How much one sample differs from the next: the mean of the absolute differences, in the order of the samples.

    (RFC 3550, 6.4.1 smooths the same differences; the mean does not depend on where one stops.)

    Returns:
        In the samples' unit; NaN for less than two.

    >>> jitter([10, 12, 9])
    2.5
    """
    if len(samples) < 2:
        return math.nan
    return math.fsum(abs(b - a) for a, b in itertools.pairwise(samples)) / (len(samples) - 1)
