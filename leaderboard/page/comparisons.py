"""Every two entries of a task: the paired difference of their scores, and each query's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from ..stats.ranking import paired_p
from ..views.lds import paired_gain
from .entries import Entry

DECIMALS = 2  # of scores x 100


def comparisons(entries: Sequence[Entry]) -> list[list[Any]]:
    """Return [i, j, difference x 100, low, high, p] of entries i < j that miss no query; positive: i is better."""
    found = []
    for (i, one), (j, other) in combinations(enumerate(entries), 2):
        gain = paired_gain(one.standing, other.standing)
        if gain.mean is not None:
            bounds = [_hundredfold(value) for value in (gain.mean, gain.low, gain.high)]
            found.append([i, j, *bounds, paired_p(one.standing, other.standing)])
    return found


def scores_by_query(entry: Entry, query_ids: Sequence[str]) -> list[float | None]:
    """Return an entry's LDS x 100 on each query, the mean over its seeds; None where one of them has none."""
    found: dict[str, list[float | None]] = {}
    for row in entry.standing.rows:
        for result in row.metrics.lds.values() if row.metrics else ():
            for query, value in zip(result.query_ids, result.values, strict=True):
                found.setdefault(query, []).append(value)
    return [_hundredfold(_mean(found.get(query, []))) for query in query_ids]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _hundredfold(value: float | None) -> float | None:
    return None if value is None else round(100 * value, DECIMALS)
