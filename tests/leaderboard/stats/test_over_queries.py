"""Intervals over queries: their coverage, and pairs by brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from tdabench.leaderboard.stats import over_queries as resampling


def test_intervals_over_few_queries_cover_the_mean() -> None:
    values = np.random.default_rng(0).exponential(size=(600, 9)) ** 0.5
    truth = 0.5 * np.sqrt(np.pi)
    bounds = [resampling.over_queries(one, "coverage", i) for i, one in enumerate(values)]
    covered = np.mean([low <= truth <= high for _, low, high in bounds])  # type: ignore[operator]
    assert covered == pytest.approx(0.95, abs=0.025)


def test_two_queries_have_no_interval() -> None:
    assert resampling.over_queries([1.0, 2.0]) == (1.5, None, None)


def test_pairs_of_a_query_with_itself_are_left_out_of_replicates() -> None:
    values = np.random.default_rng(1).random((6, 6))
    values += values.T
    counts = resampling.query_counts(6, "x").astype(int)
    replicates = []
    for count in counts:
        drawn = np.repeat(np.arange(6), count)
        pairs = [values[i, j] for i, j in combinations(drawn, 2) if i != j]
        replicates += [np.mean(pairs)] if pairs else []
    mean, low, high = resampling.over_pairs(values, "x")
    assert mean == pytest.approx(np.mean([values[i, j] for i, j in combinations(range(6), 2)]))
    tail = stats.norm.cdf(np.sqrt(6 / 5) * stats.t.ppf(0.025, 5))
    np.testing.assert_allclose((low, high), np.quantile(replicates, [tail, 1 - tail]))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [3, 8, 40])
def test_percentiles_of_resampled_means_are_the_t_interval(size: int) -> None:
    values = stats.norm.ppf((np.arange(size) + 0.5) / size)
    found = np.quantile(resampling.resampled_means(values, "t", size), [0.025, 0.975])
    expected = stats.t.interval(0.95, size - 1, values.mean(), values.std(ddof=1) / np.sqrt(size))
    np.testing.assert_allclose(found, expected, rtol=0.15)


def test_differences_of_resampled_means_are_resampled_means_of_differences() -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 9))
    both = resampling.resampled_means(one, "x") - resampling.resampled_means(other, "x")
    np.testing.assert_allclose(resampling.resampled_means(one - other, "x"), both, atol=1e-12)


def test_what_is_unknown_is_left_out_of_resampled_means() -> None:
    values = np.array([1.0, np.nan, 3.0, 8.0, np.nan])
    counts = resampling.query_counts(5, "x")[:, [0, 2, 3]]
    known, mean = counts.sum(1) > 0, 4.0
    expected = (counts[known] @ [1.0, 3.0, 8.0]) / counts[known].sum(1)
    stretch = np.sqrt(3 / 2) * stats.t.ppf(0.975, 2) / stats.norm.ppf(0.975)
    found = resampling.resampled_means(values, "x")
    np.testing.assert_allclose(found[known], mean + stretch * (expected - mean))
    assert np.isnan(found[~known]).all()
    assert len(resampling.resampled_means([1.0, np.nan], "x")) == 0
