"""Sanity checks of scores: copies found, noise that does not decide, and a model that does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from ...leaderboard.rows.sanity import SanityCheck
from .lds import lds

CHECKS = {
    "planted": ("planted-recall-1", "planted-mean-rank"),
    "self": ("self-recall-1", "self-mean-rank"),
    "randomised": ("randomised",),
    "stability": ("stability",),
}


Scores = dict[str, np.ndarray]


class Undecided(Exception):
    """A check says nothing about a method; the message says why."""


def copy_checks(variant: str, scores: Scores, items: dict[str, int]) -> dict[str, SanityCheck]:
    """Return recall@1 and the rank of each query's copy, given scores [N] and the copy's training id by query.

    Ranks are averaged over ties, and recall@1 is shared out among ties at the top, so that equal scores are at chance.
    """
    queries, n_train = list(scores), len(next(iter(scores.values())))
    recall_name, rank_name = CHECKS[variant]
    recalls = [_recall(scores[query], items[query]) for query in queries]
    ranks = [float(rankdata(-scores[query].astype(np.float64))[items[query]]) for query in queries]
    return {
        recall_name: _check(queries, recalls, 1 / n_train),
        rank_name: _check(queries, ranks, (n_train + 1) / 2),
    }


def agreement(variant: str, reference: Scores, scores: Scores) -> dict[str, SanityCheck]:
    """Return Spearman's correlation over training items between two score vectors [N] of each query in ``scores``.

    Scores that become all equal agree with nothing and count as 0, as a ranking that vanishes with the model should.
    Raises Undecided where those of the reference are all equal.
    """
    queries = list(scores)
    one, other = (np.stack([part[query] for query in queries], axis=1) for part in (reference, scores))
    constant = int((one == one[0]).all(axis=0).sum())
    if constant:
        raise Undecided(f"{constant} of {len(queries)} queries have scores that are all equal")
    values = lds(one, other)  # the same correlation per column, over items instead of subsets
    return {CHECKS[variant][0]: _check(queries, np.nan_to_num(values).tolist(), 0.0)}


def _check(queries: list[str], values: Sequence[float], chance: float) -> SanityCheck:
    return SanityCheck(query_ids=queries, values=list(values), mean=float(np.mean(values)), chance=chance)


def _recall(scores: np.ndarray, item: int) -> float:
    top = scores == scores.max()
    return float(top[item] / top.sum())
