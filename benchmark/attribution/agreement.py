"""How far methods agree, where no truth says which of them is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ..metrics.lds import lds
from ..metrics.scores import ranked

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """Two entries: the mean share of top images that they have in common, and Spearman's correlation over all images.

    Of the images that both score, which are fewer than all where one has a shortlist. chance: what share two random
    choices have in common; each is a mean over queries, None where scores are missing.
    """

    one: str
    other: str
    overlap: float | None
    correlation: float | None
    chance: float


def agreements(scores: Mapping[str, Scores], k: int) -> list[Agreement]:
    """Return the agreement of each pair of entries on their k top images, of scores [Q, N] by entry."""
    return [_pair(one, other, scores[one], scores[other], k) for one, other in combinations(scores, 2)]


def _pair(one: str, other: str, first: Scores, second: Scores, k: int) -> Agreement:
    known = np.isfinite(first).any(1) & np.isfinite(second).any(1)
    both = np.isfinite(first[known]).all(0) & np.isfinite(second[known]).all(0)
    a, b = first[known][:, both], second[known][:, both]
    if not a.size:
        return Agreement(one, other, None, None, k / first.shape[1])
    k = min(k, a.shape[1])
    shared = [len({*top(x, k)} & {*top(y, k)}) / k for x, y in zip(a, b, strict=True)]
    correlated = np.nan_to_num(lds(a.T.astype(np.float64), b.T.astype(np.float64)))
    return Agreement(one, other, float(np.mean(shared)), float(correlated.mean()), k / a.shape[1])


def top(scores: Scores, k: int) -> tuple[int, ...]:
    """Return the ids of the k best items of one query among those that have scores [N], not NaN; ties by id."""
    scored = np.flatnonzero(~np.isnan(scores))
    return tuple(scored[list((ranked(scores[scored]) or ())[:k])].tolist())
