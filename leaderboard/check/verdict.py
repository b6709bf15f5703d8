"""The verdict on current rows against a baseline: every comparison, and which of them are worse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..rows.row import Row
from ..views.selection import status_of
from .costs import Limits, other_hardware, passes, time_and_memory
from .finding import Finding
from .pairing import Pair, label, paired
from .quality import FRACTION, Change, changes

ALPHA = 0.05
MEASURED = ("ok", "partial")


class Judged(NamedTuple):
    """A pair with all that was compared of it; notes: what was not."""

    pair: Pair
    findings: list[Finding]
    notes: list[str]

    @property
    def name(self) -> str:
        """The cell in words."""
        queries = "" if self.pair.entry.query_set == "test" else f" {self.pair.entry.query_set} queries,"
        return f"{label(self.pair.entry)},{queries} seed {self.pair.seeds}"


@dataclass(frozen=True)
class Verdict:
    """All pairs as judged, and notes on cells that were not compared."""

    cells: list[Judged]
    notes: list[str]

    @property
    def worse(self) -> list[tuple[Judged, Finding]]:
        """The comparisons that are worse."""
        return [(cell, finding) for cell in self.cells for finding in cell.findings if finding.worse]

    @property
    def compared(self) -> int:
        """How many comparisons there were."""
        return sum(len(cell.findings) for cell in self.cells)

    @property
    def passed(self) -> bool:
        """Say whether something was compared and nothing is worse."""
        return self.compared > 0 and not self.worse

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        if not self.compared:
            return "nothing compared: no cell of the current rows is in the baseline, so that nothing is known"
        ends = f"{len(self.worse)} worse" if self.worse else "nothing is worse"
        return f"{len(self.cells)} cells compared with the baseline in {self.compared} numbers: {ends}"


def judge(baseline: Iterable[Row], current: Iterable[Row], limits: Limits) -> Verdict:
    """Return the verdict on current rows: falls of metrics are tested together, at 5 % for all of them (Holm, 1979)."""
    pairs, notes = paired(baseline, current)
    measured = [changes(pair) if _measured(pair) and not pair.same_scores else [] for pair in pairs]
    adjusted = iter(holm([change.p for tested in measured for change in tested]))
    cells = []
    for pair, tested in zip(pairs, measured, strict=True):
        quality = [_quality(change, next(adjusted), limits) for change in tested]
        cells.append(Judged(pair, [*_status(pair), *quality, *_costs(pair, limits)], list(_notes(pair, tested))))
    return Verdict(cells, notes)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted for their number by Holm's step-down method; what has none stays so."""
    order = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[i] = largest
    return adjusted


def _quality(change: Change, adjusted: float | None, limits: Limits) -> Finding:
    least = limits.fall if change.scale == FRACTION else 0.0
    worse = adjusted is not None and adjusted < ALPHA and -change.difference > least
    low, high = change.interval
    numbers = {"scale": change.scale, "low": low, "high": high, "p": change.p, "adjusted": adjusted}
    return Finding("quality", change.what, change.before, change.after, worse, "", **numbers)


def _status(pair: Pair) -> Iterator[Finding]:
    old, new = status_of(pair.before), status_of(pair.after)
    if old not in MEASURED:
        return
    worse = new != "ok" and (old == "ok" or (old == "partial" and new != "partial"))
    reason = next((row.reason for row in pair.after if row.status != "ok" and row.reason), "")
    yield Finding("status", "status", old, new, worse, reason if worse else "an end worse than before fails")


def _costs(pair: Pair, limits: Limits) -> Iterator[Finding]:
    if all(row.cost is not None for row in (*pair.before, *pair.after)):
        yield from passes(pair)
        if other_hardware(pair) is None:
            yield from time_and_memory(pair, limits)


def _measured(pair: Pair) -> bool:
    return all(row.metrics is not None and row.status in MEASURED for row in (*pair.before, *pair.after))


def _notes(pair: Pair, tested: Sequence[Change]) -> Iterator[str]:
    if status_of(pair.before) not in MEASURED:
        yield f"status {status_of(pair.before)} in the baseline, {status_of(pair.after)} now"
    if pair.same_scores:
        yield "the scores are the same bits"
    elif not tested and _measured(pair):
        yield "no metric that both sides have"
    if (differing := other_hardware(pair)) is not None:
        yield f"time and memory not compared, other hardware: {differing}"
    versions = {str(row.environment.get("tdabench")) for row in pair.before} ^ {
        str(row.environment.get("tdabench")) for row in pair.after
    }
    if versions:
        yield f"run by other versions of tdabench: {', '.join(sorted(versions))}"
