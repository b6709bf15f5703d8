"""Whether a chosen ensemble is better than its best member, on data that chose nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ....leaderboard.rows.row import Row
from ....leaderboard.stats.ranking import Standing, paired_difference, standings
from ....leaderboard.views.lds import paired_gain
from ....leaderboard.views.sheet import Interval
from .search import mean

ALPHA = 0.05


@dataclass(frozen=True)
class Verdict:
    """A chosen ensemble on test queries and report subsets, against its best member there.

    p is 1 for an ensemble that could not be measured, so that it still counts in Holm's correction.
    """

    row: Row
    standing: Standing | None
    best: Standing | None
    gain: Interval
    p: float
    holm: float

    @property
    def better(self) -> bool:
        """Say whether it is better than its best member at 5 % after the correction."""
        return self.holm <= ALPHA


def judge(row: Row, members: Sequence[Row]) -> Verdict:
    """Return an ensemble's row against the best of its members' rows, before any correction."""
    if row.status != "ok":
        return Verdict(row, None, None, Interval(), 1.0, 1.0)
    own = standings([row])[0]
    best = max((standings([member])[0] for member in members), key=mean)
    p = one_sided_p(paired_difference(own, best))
    return Verdict(row, own, best, paired_gain(own, best), p, p)


def corrected(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts with their p-values adjusted over all of them."""
    adjusted = holm([one.p for one in verdicts])
    return [replace(one, holm=value) for one, value in zip(verdicts, adjusted, strict=True)]


def one_sided_p(replicates: NDArray[np.float64]) -> float:
    """Return (1 + replicates [B] that are not above 0) / (B + 1); one without a value counts as not above."""
    return (1 + int((~(replicates > 0)).sum())) / (len(replicates) + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (1979, step-down), in the given order."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()
