"""Intervals over queries alone, by a bootstrap whose resampled queries are the same for all methods."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit

from ...seeds import numpy_generator
from .over_seeds_and_queries import LEVEL, REPLICATES, Estimate

Floats = NDArray[np.float64]


def over_queries(values: ArrayLike, *axes: str | int) -> Estimate:
    """Return the mean of ``values`` [Q] with its interval; ``axes`` name the resampling."""
    values = np.asarray(values, dtype=np.float64)
    counts = query_counts(len(values), *axes)
    return Estimate(float(values.mean()), *_bounds(counts @ values / len(values), len(values)))


def over_pairs(values: ArrayLike, *axes: str | int) -> Estimate:
    """Return the mean of ``values`` [Q, Q], symmetric, over pairs of different queries, with its interval.

    Queries are resampled, not pairs, which share queries; a replicate leaves out the pairs of a query with itself.
    """
    values = np.asarray(values, dtype=np.float64)
    size = len(values)
    different = 1.0 - np.eye(size)
    counts = query_counts(size, *axes)
    total = np.einsum("bi,ij,bj->b", counts, values * different, counts)
    pairs = np.einsum("bi,ij,bj->b", counts, different, counts)
    mean = float((values * different).sum() / different.sum())
    return Estimate(mean, *_bounds(total[pairs > 0] / pairs[pairs > 0], size))


def resampled_means(values: ArrayLike, *axes: str | int) -> Floats:
    """Return the mean of ``values`` [Q] in each replicate of the bootstrap, [B]; empty for fewer than two values.

    Values that are NaN are left out. Deviations from the mean are stretched, the same for all methods, so that their
    percentiles are those of the t interval (Hesterberg, 2015): differences of replicates have t intervals then, too.
    """
    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    size = int(known.sum())
    if size < 2:
        return np.empty(0)
    counts = query_counts(len(values), *axes)[:, known]
    drawn, mean = counts.sum(1), values[known].mean()
    means = counts @ values[known] / np.where(drawn > 0, drawn, np.nan)
    stretch = np.sqrt(size / (size - 1)) * stdtrit(size - 1, (1 + LEVEL) / 2) / ndtri((1 + LEVEL) / 2)
    return mean + stretch * (means - mean)


@lru_cache(maxsize=64)
def query_counts(size: int, *axes: str | int) -> Floats:
    """Return how often each replicate of the bootstrap draws each query, [B, Q]."""
    chances = np.full(size, 1 / size)
    return numpy_generator("queries", *axes, size).multinomial(size, chances, REPLICATES).astype(np.float64)


def _bounds(replicates: Floats, size: int) -> tuple[float | None, float | None]:
    # Percentiles of few values are too close to the mean: Hesterberg (What Teachers Should Know about the Bootstrap,
    # 2015) takes those at which the percentile interval of normal values is the t interval. Below three there are none.
    if size < 3:
        return None, None
    tail = ndtr(np.sqrt(size / (size - 1)) * stdtrit(size - 1, (1 - LEVEL) / 2))
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return float(low), float(high)
