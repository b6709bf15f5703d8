"""From stored scores and truth to a row's metrics; needs no model and no torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...datasets.truth import Assets, Truth
from ...leaderboard.rows.removal import TopK
from ...leaderboard.rows.row import LdsResult, Metrics
from ..run.results import Cell
from . import lds as metrics


def query_ids(manifest: dict[str, Any], query_set: str) -> tuple[str, ...]:
    """Return the ids of a query set: all attributed queries of a role (``dev`` or ``test``)."""
    return tuple(query["id"] for query in manifest["queries"] if query["role"] == query_set)


def lds_metrics(assets: Assets, truth: Truth, cell: Cell, ids: tuple[str, ...], attributed: tuple[str, ...]) -> Metrics:
    """Return the LDS of ``ids`` by query kind; a cell's slices hold the scores of ``attributed``, in that order.

    Queries without scores count as missing, never as absent.
    """
    predicted = _predicted(truth, cell, ids, attributed)
    kinds = {query["id"]: query["kind"] for query in assets.manifest["queries"]}
    manifest = assets.manifest
    results = {}
    for kind in sorted({kinds[query] for query in ids}):
        rows = [i for i, query in enumerate(ids) if kinds[query] == kind]
        names = tuple(ids[i] for i in rows)
        plan = metrics.resampling(manifest["task"], manifest["version"], kind, len(rows), len(truth.masks))
        results[kind] = _lds(predicted[:, rows], truth.replicates(names), names, plan)
    return Metrics(lds=results)


def top_items(assets: Assets, cell: Cell, ids: tuple[str, ...], attributed: tuple[str, ...], k: int) -> TopK:
    """Return the ids of each query's ``k`` best items; None for a query whose scores are missing or not finite."""
    orders: dict[str, tuple[int, ...] | None] = dict.fromkeys(ids)
    for part in cell.parts():
        orders |= zip(attributed[part], map(ranked, cell.scores(part)), strict=True)
    kinds = {query["id"]: query["kind"] for query in assets.manifest["queries"]}
    top = [None if order is None else list(order[:k]) for order in orders.values()]
    n_train = assets.manifest["n_train"]
    return TopK(k=k, n_train=n_train, query_ids=list(ids), kinds=[kinds[query] for query in ids], ids=top)


def ranked(scores: np.ndarray) -> tuple[int, ...] | None:
    """Return training ids by falling score, ties by id, or None for scores [N] that are not all finite."""
    if not np.isfinite(scores).all():
        return None
    return tuple(np.argsort(-scores.astype(np.float64), kind="stable").tolist())


def _predicted(truth: Truth, cell: Cell, ids: tuple[str, ...], attributed: tuple[str, ...]) -> np.ndarray:
    predicted = np.full((len(truth.masks), len(ids)), np.nan)
    for part in cell.parts():
        columns = [ids.index(query) for query in attributed[part]]
        predicted[:, columns] = metrics.subset_scores(cell.scores(part), truth.masks)
    return predicted


def _lds(predicted: np.ndarray, replicates: np.ndarray, ids: tuple[str, ...], plan: metrics.Resampling) -> LdsResult:
    target = replicates.mean(0)
    values, resampled = metrics.lds(predicted, target), metrics.bootstrap_lds(predicted, target, plan)
    low, high = metrics.interval(resampled)
    ceilings = metrics.interval(metrics.bootstrap_ceiling(replicates, plan)) if len(replicates) > 1 else (None, None)
    some = bool(np.isfinite(values).any())
    return LdsResult(
        query_ids=list(ids),
        values=[_number(value) for value in values],
        mean=_number(float(np.nanmean(values))) if some else None,
        low=_number(low),
        high=_number(high),
        replicates=[_number(value) for value in resampled],
        n_nan=int(np.isnan(values).sum()),
        n_subsets=len(target),
        ceiling=_number(metrics.ceiling(replicates)) if len(replicates) > 1 else None,
        ceiling_low=_number(ceilings[0]),
        ceiling_high=_number(ceilings[1]),
        shuffled_mean=_number(float(np.nanmean(metrics.shuffled_control(predicted, target)))) if some else None,
    )


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
