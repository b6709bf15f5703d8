"""The linear datamodelling score (LDS) with its bootstrap, its noise ceiling and its control.

Shapes: N training ids, M retraining subsets, Q queries, R retrainings of each subset, B bootstrap replicates.
Everything returned is float64; correlations are fractions in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from ...seeds import numpy_generator

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Resampling(NamedTuple):
    """Bootstrap indices with replacement: ``query`` [B, Q] and ``subset`` [B, M]."""

    query: Ints
    subset: Ints


def subset_scores(scores: ArrayLike, masks: ArrayLike) -> Floats:
    """Return how much each subset's model should lose on each query: the sum of scores over the ids it never saw.

    ``scores`` [Q, N], ``masks`` [M, N] bool (True = trained on) -> [M, Q]. Raises ValueError where shapes disagree.
    """
    scores = np.asarray(scores)
    return accumulate_subset_scores([(slice(0, scores.shape[-1]), scores)], masks)


def accumulate_subset_scores(blocks: Iterable[tuple[slice, ArrayLike]], masks: ArrayLike) -> Floats:
    """Return :func:`subset_scores` of a matrix that comes as (train slice, block [Q, n]) pairs, in any order.

    ``masks`` [M, N] bool -> [M, Q]. Raises ValueError where a training id is missing, or comes twice.
    """
    excluded = 1.0 - np.asarray(masks, dtype=bool)
    seen = np.zeros(excluded.shape[1], dtype=int)
    total: Floats | None = None
    for where, block in blocks:
        part = _excluded_sum(excluded[:, where], np.asarray(block, dtype=np.float64))
        seen[where] += 1
        total = part if total is None else total + part
    if total is None or (seen != 1).any():
        raise ValueError(f"{int((seen != 1).sum())} of {len(seen)} training ids do not come exactly once in the blocks")
    return _merge_rounding(total)


def _excluded_sum(excluded: Floats, block: Floats) -> Floats:
    if block.ndim != 2 or block.shape[1] != excluded.shape[1]:
        raise ValueError(f"a block of shape {block.shape} does not hold {excluded.shape[1]} training ids")
    with np.errstate(invalid="ignore"):  # a query whose scores hold inf or NaN becomes NaN as a whole
        return excluded @ block.T


def _merge_rounding(sums: Floats) -> Floats:
    # The order of a summation must not rank subsets whose sums are equal, e.g. those of constant scores.
    step = np.abs(sums).max(axis=0, initial=0.0) * 2.0**-40
    step = np.where(step > 0, step, 1.0)
    with np.errstate(invalid="ignore"):
        return np.round(sums / step) * step


def lds(predicted: ArrayLike, outputs: ArrayLike) -> Floats:
    """Return each query's Spearman correlation over subsets of predicted and retrained losses, ties by average rank.

    Both [M, Q], ``outputs`` averaged over retrainings -> [Q]; NaN where a column holds NaN or inf, or is constant.
    """
    return (unit_ranks(predicted) * unit_ranks(outputs)).sum(axis=0)


def unit_ranks(values: ArrayLike) -> Floats:
    """Return average ranks of each column of [M, Q], centred and of length 1: two columns' product is Spearman's.

    NaN where a column holds NaN or inf, or is constant.
    """
    values = np.asarray(values, dtype=np.float64)
    ranks = rankdata(values, axis=0) - (len(values) + 1) / 2
    norm = np.sqrt((ranks**2).sum(axis=0))
    return ranks / np.where(np.isfinite(values).all(axis=0) & (norm > 0), norm, np.nan)


def shuffled_control(predicted: ArrayLike, outputs: ArrayLike) -> Floats:
    """Return each query's mean LDS under the predictions made for the other queries.

    Both [M, Q] -> [Q]. What the LDS has above this is specific to the query; NaN for a single query.
    """
    crossed = unit_ranks(predicted).T @ unit_ranks(outputs)
    np.fill_diagonal(crossed, np.nan)
    return nan_mean(crossed, axis=0)


def resampling(
    task: str, task_version: int, kind: str, n_query: int, n_subset: int, replicates: int = 1000
) -> Resampling:
    """Return the bootstrap indices that every method on this task version shares.

    The subsets' indices do not depend on the query ``kind``, so that averages over kinds are valid replicates too.
    """
    axes = ("bootstrap", task, task_version)
    query = numpy_generator(*axes, "query", kind).integers(n_query, size=(replicates, n_query))
    subset = numpy_generator(*axes, "subset").integers(n_subset, size=(replicates, n_subset))
    return Resampling(query, subset)


def bootstrap_lds(predicted: ArrayLike, outputs: ArrayLike, resampling: Resampling) -> Floats:
    """Return the mean LDS of each replicate of a crossed bootstrap over subsets and queries.

    Both [M, Q] -> [B]; queries without an LDS are left out of a replicate's mean. Raises ValueError on other sizes.
    """
    spearman = _resampled_spearman(unit_ranks(predicted), unit_ranks(outputs), resampling)
    return _resampled_mean(spearman, resampling)


def interval(replicates: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of the replicates that are not NaN; (nan, nan) where there are none."""
    values = np.asarray(replicates, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def reliability(outputs: ArrayLike) -> float:
    """Return the Spearman-Brown reliability of the R-averaged retrained losses.

    ``outputs`` [R, M, Q]; rank correlations of pairs of retrainings are averaged over pairs and queries, then stepped
    up to R. 0.0 where they are not positive on average, NaN for R = 1.
    """
    outputs = np.asarray(outputs, dtype=np.float64)
    pairs = [lds(one, other) for one, other in combinations(outputs, 2)]
    return float(step_up(nan_mean(np.array(pairs), axis=None), len(outputs)))


def ceiling(outputs: ArrayLike) -> float:
    """Return the noise ceiling of an LDS against ``outputs`` [R, M, Q]: the square root of their reliability."""
    return float(np.sqrt(reliability(outputs)))


def bootstrap_ceiling(outputs: ArrayLike, resampling: Resampling) -> Floats:
    """Return the noise ceiling in each replicate, ``outputs`` [R, M, Q] -> [B]; the same indices as the LDS uses."""
    outputs = np.asarray(outputs, dtype=np.float64)
    ranks = [unit_ranks(one) for one in outputs]
    pairs = [_resampled_spearman(one, other, resampling) for one, other in combinations(ranks, 2)]
    if not pairs:
        return np.full(len(resampling.query), np.nan)
    single = _resampled_mean(nan_mean(np.array(pairs), axis=0), resampling)
    return np.sqrt(step_up(single, len(outputs)))


def step_up(single: Floats, count: int) -> Floats:
    """Return the reliability of a mean of ``count`` from that of one, by Spearman-Brown; 0 where it is negative."""
    single = np.maximum(single, 0.0)
    return count * single / (1 + (count - 1) * single)


def _resampled_spearman(one: Floats, other: Floats, resampling: Resampling) -> Floats:
    if one.shape != (sizes := (resampling.subset.shape[1], resampling.query.shape[1])):
        raise ValueError(f"the resampling is for [subsets, queries] = {sizes}, the values are {one.shape}")
    counts = _counts(resampling.subset)
    columns = [_weighted_spearman(x, y, counts) for x, y in zip(one.T, other.T, strict=True)]
    return np.stack(columns, axis=1)


def _counts(subset: Ints) -> Floats:
    counts = np.zeros(subset.shape)
    np.add.at(counts, (np.arange(len(subset))[:, None], subset), 1.0)
    return counts


def _weighted_spearman(x: Floats, y: Floats, counts: Floats) -> Floats:
    x, y = _resampled_ranks(x, counts), _resampled_ranks(y, counts)
    weighted = counts * x
    covariance, variance = _row_dot(weighted, y), _row_dot(weighted, x) * _row_dot(counts * y, y)
    return covariance / np.sqrt(np.where(variance > 0, variance, np.nan))


def _row_dot(one: Floats, other: Floats) -> Floats:
    return np.einsum("bm,bm->b", one, other)


def _resampled_ranks(values: Floats, counts: Floats) -> Floats:
    # An average rank less its mean is half of (how many lie below minus how many above): one product, ties included.
    return counts @ (0.5 * np.sign(values[None, :] - values[:, None]))


def _resampled_mean(values: Floats, resampling: Resampling) -> Floats:
    return nan_mean(np.take_along_axis(values, resampling.query, axis=1), axis=1)


def nan_mean(values: Floats, axis: int | None) -> Floats:
    """Return the mean of what is not NaN, and NaN where nothing is."""
    count = (~np.isnan(values)).sum(axis=axis)
    return np.nansum(values, axis=axis) / np.where(count > 0, count, np.nan)
