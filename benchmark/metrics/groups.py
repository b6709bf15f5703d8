"""Whether scores of groups foretell what leaving a group out does: Spearman, NDCG and the top group, query by query.

Shapes: G groups, Q queries, R retrainings without each group, N training ids. An effect is by how much a query's loss
grows without a group. Item methods are judged by the sum of their scores over each group's items, as the LDS sums them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from ...datasets.truth import Assets, GroupTruth
from ...leaderboard.rows.groups import GroupScore, GroupsResult
from ...leaderboard.stats.over_queries import resampled_means
from .lds import ceiling, interval, nan_mean, step_up, unit_ranks
from .scores import Blocks, by_kind, number

Floats = NDArray[np.float64]
Unit = Literal["item", "group"]


def group_sums(scores: ArrayLike, assignment: ArrayLike, n_groups: int) -> Floats:
    """Return scores [q, N] summed over the items of each group, [q, G]; a query with NaN or inf has NaN throughout."""
    scores = np.asarray(scores, dtype=np.float64)
    sums = np.stack([np.bincount(np.asarray(assignment), weights=row, minlength=n_groups) for row in scores])
    return np.where(np.isfinite(scores).all(axis=1, keepdims=True), sums, np.nan)


def spearman(scores: ArrayLike, effects: ArrayLike) -> Floats:
    """Return Spearman's correlation over groups of every query's scores with every query's effects, ties averaged.

    Both [G, Q] -> [Q of scores, Q of effects]; NaN where either is constant or not finite.
    """
    return unit_ranks(scores).T @ unit_ranks(effects)


def ndcg(scores: ArrayLike, effects: ArrayLike) -> Floats:
    """Return the normalised discounted cumulative gain (Järvelin & Kekäläinen 2002) over all G groups, as ``spearman``.

    A group's gain is its effect, or 0 where leaving it out helped: what counts is to name first the groups that the
    query needed, the more the more it needed them, while the order of those that it did not need is noise, to which
    ranks as gains would give as much weight. Discount 1 / log2(1 + rank), averaged over ties (McSherry & Najork 2008).
    NaN where no group was needed.
    """
    gains = np.maximum(_finite(effects), 0.0)
    discounts = 1.0 / np.log2(np.arange(2, len(gains) + 2))
    ideal = discounts @ np.sort(gains, axis=0)[::-1]
    return _tied_means(_finite(scores), discounts).T @ gains / np.where(ideal > 0, ideal, np.nan)


def _tied_means(scores: Floats, discounts: Floats) -> Floats:
    """Return each group's discount, averaged over the places that it shares with groups of equal score, [G, Q]."""
    known, total = np.nan_to_num(scores), np.concatenate([[0.0], discounts.cumsum()])
    first, last = (rankdata(-known, method=which, axis=0).astype(int) for which in ("min", "max"))
    return np.where(np.isnan(scores), np.nan, (total[last] - total[first - 1]) / (last - first + 1))


def top1(scores: ArrayLike, effects: ArrayLike) -> Floats:
    """Return whether the best group by score is that of the largest effect, as ``spearman``; shared out among ties."""
    named, needed = _best(_finite(scores)), _best(_finite(effects))
    return (named / named.sum(axis=0)).T @ needed


def _best(values: Floats) -> Floats:
    return np.where(np.isnan(values), np.nan, values == values.max(axis=0))


def _finite(values: ArrayLike) -> Floats:
    """Return values [G, Q] with NaN throughout a query that has NaN or inf."""
    values = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(values).all(axis=0), values, np.nan)


MEASURES: dict[str, Callable[[ArrayLike, ArrayLike], Floats]] = {"spearman": spearman, "ndcg": ndcg, "top1": top1}


def pair_correlations(effects: ArrayLike) -> Floats:
    """Return each query's mean Spearman correlation of two retrainings, ``effects`` [R, G, Q] -> [Q]."""
    pairs = [np.diag(spearman(one, other)) for one, other in combinations(np.asarray(effects), 2)]
    return nan_mean(np.array(pairs), axis=0)


def half_against_half(measure: str, effects: ArrayLike) -> Floats:
    """Return what the mean effects of one half of the retrainings get against those of the other, [R, G, Q] -> [Q].

    Averaged over the R ways to take neighbours in a ring as one half, in both directions, so that all count alike.
    """
    effects = np.asarray(effects, dtype=np.float64)
    count, found = len(effects), []
    for start in range(count):
        ring = np.roll(effects, start, axis=0)
        halves = ring[: count // 2].mean(0), ring[count // 2 :].mean(0)
        found += [np.diag(MEASURES[measure](one, other)) for one, other in (halves, halves[::-1])]
    return nan_mean(np.array(found), axis=0)


def group_metrics(
    assets: Assets, truth: GroupTruth, blocks: Blocks, ids: tuple[str, ...], unit: Unit
) -> dict[str, GroupsResult]:
    """Return the measures of the queries ``ids`` by kind; those without scores count as missing, never as absent."""
    scores, sizes = _by_group(truth, blocks, ids, unit), group_sizes(truth)
    manifest, results = assets.manifest, {}
    for kind, rows in by_kind(manifest, ids).items():
        names = tuple(ids[i] for i in rows)
        axes = manifest["task"], manifest["version"], "groups", kind
        effects = truth.effects(names)
        results[kind] = GroupsResult(
            query_ids=list(names),
            unit=unit,
            names=list(truth.names),
            n_replicates=len(effects),
            scores={name: _score(name, scores[:, rows], effects, sizes, axes) for name in MEASURES},
        )
    return results


def _by_group(truth: GroupTruth, blocks: Blocks, ids: tuple[str, ...], unit: Unit) -> Floats:
    scores = np.full((len(truth.names), len(ids)), np.nan)
    for names, block in blocks:
        found = block if unit == "group" else group_sums(block, truth.assignment, len(truth.names))
        scores[:, [ids.index(query) for query in names]] = found.T
    return scores


def group_sizes(truth: GroupTruth) -> Floats:
    """Return each group's number of items [G], the sums of scores that tell no item from another."""
    return np.bincount(truth.assignment, minlength=len(truth.names)).astype(np.float64)


def _score(name: str, scores: Floats, effects: Floats, sizes: Floats, axes: tuple[str | int, ...]) -> GroupScore:
    crossed = MEASURES[name](scores, effects.mean(0))
    values = np.diag(crossed)
    others = crossed[~np.eye(len(crossed), dtype=bool)]
    limit = _ceiling(name, effects, axes) if len(effects) > 1 else (None, None, None)
    return GroupScore(
        values=[number(value) for value in values],
        mean=number(nan_mean(values, axis=None)),
        shuffled=number(nan_mean(others, axis=None)),
        sizes=list(map(number, MEASURES[name](sizes[:, None], effects.mean(0))[0])),
        **dict(zip(("ceiling", "ceiling_low", "ceiling_high"), map(number, limit), strict=True)),
    )


def _ceiling(name: str, effects: Floats, axes: tuple[str | int, ...]) -> tuple[float, float, float]:
    """Return the noise ceiling with its interval over queries.

    Of Spearman, the square root of the reliability, as of the LDS: with ten groups 0.02 to 0.04 above what the true
    effects would get. The others have no such formula: there it is what half of the retrainings gets against the other
    half, which is less than the true effects would get.
    """
    if name == "spearman":
        resampled = resampled_means(pair_correlations(effects), *axes)
        return ceiling(effects), *interval(np.sqrt(step_up(resampled, len(effects))))
    halves = half_against_half(name, effects)
    low, high = interval(resampled_means(halves, *axes))
    return float(nan_mean(halves, axis=None)), max(low, 0.0), min(high, 1.0)
