"""What the views on the LDS have in common: how standings and their differences are shown."""

from __future__ import annotations

from ..stats.ranking import Score, Standing, bounds, paired_difference
from .sheet import Interval


def interval(score: Score) -> Interval:
    """Return a score without its replicates."""
    return Interval(score.mean, score.low, score.high)


def paired_gain(one: Standing, other: Standing) -> Interval:
    """Return by how much ``one`` has the better mean over kinds, with the paired 95 % interval.

    Unknown where either misses queries: means over different queries do not compare.
    """
    if not one.rankable or not other.rankable or one.overall.mean is None or other.overall.mean is None:
        return Interval()
    return Interval(one.overall.mean - other.overall.mean, *bounds(paired_difference(one, other)))
