"""Scores that are too good: what a method that saw the truth would have, and hardly one that did not."""

from __future__ import annotations

from ..rows.row import LdsResult, Row


def above_ceiling(row: Row) -> bool:
    """Say whether the interval of a row's LDS lies wholly above the noise ceiling's, for queries of any kind.

    Only knowing the noise itself would explain that.
    """
    return any(
        one.low is not None and one.ceiling_high is not None and one.low > one.ceiling_high
        for one in (row.metrics.lds if row.metrics else {}).values()
    )


def above_open(row: Row, dev: Row) -> bool:
    """Say whether a row's LDS is a far larger share of the ceiling than on dev queries and open subsets, of any kind.

    Each share is taken with the end of its interval, and of the ceiling's, that favours the method.
    """
    known = dev.metrics.lds if dev.metrics else {}
    pairs = ((one, known[kind]) for kind, one in (row.metrics.lds if row.metrics else {}).items() if kind in known)
    return any(_larger_share(one, other) for one, other in pairs)


def _larger_share(one: LdsResult, dev: LdsResult) -> bool:
    if one.low is None or dev.high is None or not one.ceiling_high or not dev.ceiling_low:
        return False
    return one.low / one.ceiling_high > max(dev.high, 0.0) / dev.ceiling_low
