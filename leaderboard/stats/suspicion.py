"""Scores that may come from the truth: too good for a method that did not see it, or of one that could have."""

from __future__ import annotations

from collections.abc import Sequence

from ..rows.row import LdsResult, Row, row_key

OPEN, REPORT = "dev", "test"  # the query sets that are measured on open subsets, and on those that are reported


def above_ceiling(row: Row) -> bool:
    """Say whether the interval of a row's LDS lies wholly above the noise ceiling's, for queries of any kind.

    Only knowing the noise itself would explain that.
    """
    return any(
        one.low is not None and one.ceiling_high is not None and one.low > one.ceiling_high
        for one in (row.metrics.lds if row.metrics else {}).values()
    )


def in_the_open(rows: Sequence[Row]) -> set[str]:
    """Return the keys of the rows whose scores a method from outside made without isolation.

    Those of ensembles among them, as far as the rows of their members are here.
    """
    unshut = [row for row in rows if row.source.adapter_sha256 and row.source.isolation == "none"]
    return {row_key(row.key) for row in (*unshut, *(row for row in rows if any(_reads(row, one) for one in unshut)))}


def _reads(row: Row, other: Row) -> bool:
    """Say whether a row is of an ensemble that names the other's entry, with its preset or without."""
    members = row.key.params.get("members")
    alike = all(getattr(row.key, name) == getattr(other.key, name) for name in ("label", "query_set", "seed"))
    names = (other.key.method, f"{other.key.method}:{other.key.preset}")
    return alike and isinstance(members, list) and any(name in members for name in names)


def far_above_open(rows: Sequence[Row], beside: Sequence[Row]) -> set[str]:
    """Return the keys of the rows that are ``above_open``, as far as rows of the same cells on dev queries are there.

    beside: all rows of a folder, among which those are.
    """
    known = {_cell(row): row for row in beside if row.key.query_set == OPEN}
    reported = [row for row in rows if row.key.query_set == REPORT and _cell(row) in known]
    return {row_key(row.key) for row in reported if above_open(row, known[_cell(row)])}


def _cell(row: Row) -> tuple[str, str | None]:
    """Return what two rows share that differ in their queries alone."""
    return row_key(row.key.model_copy(update={"query_set": OPEN})), row.source.truth_sha256


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
