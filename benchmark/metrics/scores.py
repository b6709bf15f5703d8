"""From stored scores and truth to a row's metrics; needs no model and no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from ...datasets.truth import Assets, Truth
from ...leaderboard.rows.row import LdsResult, Metrics
from ...leaderboard.rows.top import TopK
from . import lds

Blocks = Iterable[tuple[tuple[str, ...], np.ndarray]]  # (query ids, their scores [q, N], or [q, G] of groups)


def query_ids(manifest: dict[str, Any], query_set: str) -> tuple[str, ...]:
    """Return the ids of a query set: all attributed queries of a role (``dev`` or ``test``)."""
    return tuple(query["id"] for query in manifest["queries"] if query["role"] == query_set)


def of_kinds(manifest: dict[str, Any], ids: tuple[str, ...], kinds: Collection[str]) -> tuple[str, ...]:
    """Return those of ``ids`` whose kind is among ``kinds``: what a method that takes these attributes."""
    found = {query["id"]: query["kind"] for query in manifest["queries"]}
    return tuple(query for query in ids if found[query] in kinds)


def by_kind(manifest: dict[str, Any], ids: tuple[str, ...]) -> dict[str, list[int]]:
    """Return the positions in ``ids`` of the queries of each kind, kinds in order of name."""
    kinds = {query["id"]: query["kind"] for query in manifest["queries"]}
    return {
        kind: [i for i, query in enumerate(ids) if kinds[query] == kind]
        for kind in sorted({kinds[query] for query in ids})
    }


def lds_metrics(assets: Assets, truth: Truth, blocks: Blocks, ids: tuple[str, ...]) -> Metrics:
    """Return the LDS of the queries ``ids`` by kind; those without scores count as missing, never as absent."""
    predicted = _predicted(truth, blocks, ids)
    manifest, results = assets.manifest, {}
    for kind, rows in by_kind(manifest, ids).items():
        names = tuple(ids[i] for i in rows)
        plan = lds.resampling(manifest["task"], manifest["version"], kind, len(rows), len(truth.masks))
        results[kind] = _lds(predicted[:, rows], truth.replicates(names), names, plan)
    return Metrics(lds=results)


def top_items(assets: Assets, blocks: Blocks, ids: tuple[str, ...], k: int) -> TopK:
    """Return the ids of each query's ``k`` best items; None for a query whose scores are missing or not finite."""
    orders: dict[str, tuple[int, ...] | None] = dict.fromkeys(ids)
    for names, scores in blocks:
        orders |= zip(names, map(ranked, scores), strict=True)
    kinds = {query["id"]: query["kind"] for query in assets.manifest["queries"]}
    top = [None if order is None else list(order[:k]) for order in orders.values()]
    n_train = assets.manifest["n_train"]
    return TopK(k=k, n_train=n_train, query_ids=list(ids), kinds=[kinds[query] for query in ids], ids=top)


def ranked(scores: np.ndarray) -> tuple[int, ...] | None:
    """Return training ids by falling score, ties by id, or None for scores [N] that are not all finite."""
    if not np.isfinite(scores).all():
        return None
    return tuple(np.argsort(-scores.astype(np.float64), kind="stable").tolist())


def _predicted(truth: Truth, blocks: Blocks, ids: tuple[str, ...]) -> np.ndarray:
    predicted = np.full((len(truth.masks), len(ids)), np.nan)
    for names, scores in blocks:
        predicted[:, [ids.index(query) for query in names]] = lds.subset_scores(scores, truth.masks)
    return predicted


def _lds(predicted: np.ndarray, replicates: np.ndarray, ids: tuple[str, ...], plan: lds.Resampling) -> LdsResult:
    target = replicates.mean(0)
    values, resampled = lds.lds(predicted, target), lds.bootstrap_lds(predicted, target, plan)
    low, high = lds.interval(resampled)
    ceilings = lds.interval(lds.bootstrap_ceiling(replicates, plan)) if len(replicates) > 1 else (None, None)
    some = bool(np.isfinite(values).any())
    return LdsResult(
        query_ids=list(ids),
        values=[number(value) for value in values],
        mean=number(float(np.nanmean(values))) if some else None,
        low=number(low),
        high=number(high),
        replicates=[number(value) for value in resampled],
        n_nan=int(np.isnan(values).sum()),
        n_subsets=len(target),
        ceiling=number(lds.ceiling(replicates)) if len(replicates) > 1 else None,
        ceiling_low=number(ceilings[0]),
        ceiling_high=number(ceilings[1]),
        shuffled_mean=number(float(np.nanmean(lds.shuffled_control(predicted, target)))) if some else None,
    )


def number(value: Any) -> float | None:
    """Return a value as rows keep it: None for what is not finite."""
    return None if value is None or not np.isfinite(value) else float(value)
