"""How well scores find exemplars among all training items: ties are averaged over all their orders, in closed form.

Shapes: n training items, of which R are exemplars; the others are distractors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...leaderboard.rows.exemplars import ExemplarMeasure, ExemplarScores
from .lds import nan_mean
from .scores import number

Floats = NDArray[np.float64]
TOP = 10


def cuts(n: int, k: int) -> dict[str, int]:
    """Return where recall is cut, by name: at the number of exemplars, at 10 items, and at 1 % of all items.

    At the first, only a perfect ranking has 1, whatever k; 10 is what a person looks through; a share of the items is
    what compares tasks of different size. No cut is below k, so that a perfect ranking has 1 in each.
    """
    return {"recall-k": k, "recall-10": max(k, min(TOP, n)), "recall-1pct": max(k, math.ceil(0.01 * n))}


def measures(scores: ArrayLike, exemplars: ArrayLike) -> dict[str, float]:
    """Return the measures of one query's scores [n] by name, of exemplars by id [R]; NaN where scores are not finite.

    ap: average precision; recall at each of ``cuts``; percentile: the share of distractors ranked below an exemplar.
    """
    scores, exemplars = np.asarray(scores, dtype=np.float64), np.asarray(exemplars, dtype=np.int64)
    if not np.isfinite(scores).all():
        return dict.fromkeys(chances(len(scores), len(exemplars)), math.nan)
    blocks = _tied(scores, exemplars)
    recalls = {name: _recall(blocks, cut) for name, cut in cuts(len(scores), len(exemplars)).items()}
    return {"ap": _average_precision(blocks), **recalls, "percentile": _percentile(blocks, len(scores))}


def chances(n: int, k: int) -> dict[str, float]:
    """Return what random scores get on average: of the average precision, a + (1 - a) H_n / n, a = (k - 1) / (n - 1).

    H_n is the n-th harmonic number: given an exemplar at rank j, each rank before it holds one with probability a.
    """
    a = (k - 1) / (n - 1)
    recalls = {name: cut / n for name, cut in cuts(n, k).items()}
    return {"ap": a + (1 - a) * float((1 / np.arange(1, n + 1)).sum()) / n, **recalls, "percentile": 0.5}


def _tied(scores: Floats, exemplars: NDArray[np.int64]) -> list[tuple[int, int, int, int]]:
    """Return the blocks of equal scores that hold exemplars, best first.

    Each as (items above, exemplars above, items in it, exemplars in it).
    """
    own = scores[exemplars]
    return [
        (int((scores > s).sum()), int((own > s).sum()), int((scores == s).sum()), int((own == s).sum()))
        for s in np.unique(own)[::-1]
    ]


def _average_precision(blocks: Sequence[tuple[int, int, int, int]]) -> float:
    """Return the mean precision at the exemplars' ranks, averaged over all orders of tied items.

    At place j of a block of m items with r exemplars, below n0 items with r0: (r0 + 1 + (j-1)(r-1)/(m-1)) / (n0 + j).
    """
    total = 0.0
    for n0, r0, m, r in blocks:
        place = np.arange(1, m + 1)
        before = (place - 1) * ((r - 1) / (m - 1) if m > 1 else 0.0)
        total += r * float(((r0 + 1 + before) / (n0 + place)).mean())
    return total / sum(r for *_, r in blocks)


def _recall(blocks: Sequence[tuple[int, int, int, int]], cut: int) -> float:
    found = sum(r * min(max(cut - n0, 0), m) / m for n0, _, m, r in blocks)
    return found / sum(r for *_, r in blocks)


def _percentile(blocks: Sequence[tuple[int, int, int, int]], n: int) -> float:
    k = sum(r for *_, r in blocks)
    above = sum(r * (n0 - r0 + (m - r) / 2) for n0, r0, m, r in blocks)
    return 1 - above / (k * (n - k))


def exemplar_scores(
    k: int,
    steps: int,
    n: int,
    cases: Mapping[str, int],
    controls: Mapping[str, str],
    values: Mapping[str, Mapping[str, float]],
) -> ExemplarScores:
    """Return what a row keeps of the cases of one k and strength.

    n: training items of each; cases: each query's case; controls: each query's control; values: measures by query, of
    those that have scores.
    """
    chance = chances(n, k)
    own, control = (
        {
            name: _measure([values.get(query, {}).get(name, math.nan) for query in asked], chance[name])
            for name in chance
        }
        for asked in (list(cases), [controls[query] for query in cases])
    )
    return ExemplarScores(
        k=k, steps=steps, query_ids=list(cases), cases=list(cases.values()), measures=own, controls=control
    )


def _measure(column: Sequence[float], chance: float) -> ExemplarMeasure:
    mean = number(nan_mean(np.array(column), None))
    return ExemplarMeasure(values=[number(value) for value in column], mean=mean, chance=chance)
