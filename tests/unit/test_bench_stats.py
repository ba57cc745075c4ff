"""Percentiles and jitter against values known from elsewhere."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from n2n.bench.stats import jitter, percentile, summarize


@pytest.mark.parametrize(
    ("samples", "percent", "value"),
    [
        # R: quantile(c(15, 20, 35, 40, 50), c(.05, .30, .40, .50, 1)), which is its type 7
        ([15, 20, 35, 40, 50], 5, 16.0),
        ([15, 20, 35, 40, 50], 30, 23.0),
        ([15, 20, 35, 40, 50], 40, 29.0),
        ([15, 20, 35, 40, 50], 50, 35.0),
        ([15, 20, 35, 40, 50], 100, 50.0),
        ([15, 20, 35, 40, 50], 0, 15.0),
        # 1 to 100: the p-th lies at 1 + 0.99 p
        (range(1, 101), 95, 95.05),
        (range(1, 101), 99, 99.01),
        ([7], 99, 7),
        ([1, 2], 25, 1.25),
    ],
)
def test_percentiles_are_those_of_type_7(samples, percent, value):
    assert percentile(list(samples), percent) == pytest.approx(value)


@pytest.mark.parametrize("count", [2, 3, 10, 997])
def test_percentiles_agree_with_the_standard_library(count):
    rng = random.Random(count)
    samples = sorted(rng.expovariate(1e-3) for _ in range(count))
    cuts = statistics.quantiles(samples, n=100, method="inclusive")
    for percent in range(1, 100):
        assert percentile(samples, percent) == pytest.approx(cuts[percent - 1])


@pytest.mark.parametrize("percent", [-1, 100.1, math.nan])
def test_a_percentage_has_a_range(percent):
    with pytest.raises(ValueError, match="between 0 and 100"):
        percentile([1], percent)


def test_there_is_no_percentile_of_nothing():
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


def test_a_summary_is_of_samples_in_any_order():
    found = summarize([5, 1, 4, 2, 3])
    assert (found.count, found.min, found.mean, found.median, found.max) == (5, 1, 3, 3, 5)
    assert (found.p95, found.p99) == (pytest.approx(4.8), pytest.approx(4.96))


def test_the_summary_of_nothing_is_no_number():
    found = summarize([])
    assert found.count == 0
    assert all(math.isnan(getattr(found, name)) for name in ("min", "mean", "median", "p95", "p99", "max"))


def test_jitter_is_the_mean_difference_of_neighbours():
    assert jitter([10, 10, 10]) == 0
    assert jitter([1, 4, 2]) == 2.5
    assert jitter([1, 2, 4]) == 1.5  # the same samples in another order
    assert math.isnan(jitter([1]))
