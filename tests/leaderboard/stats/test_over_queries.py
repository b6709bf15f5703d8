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
