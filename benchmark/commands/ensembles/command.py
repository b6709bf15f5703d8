"""The command ensembles, from the members' dev cells to the chosen ensembles' removal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import from_numpy

from ....errors import UserError
from ....leaderboard.stats.ranking import standings
from ....methods.ensemble import Ensemble
from ....methods.registry import Entry
from ...run.plan import PlannedCell
from ..removal import Removing, Settings
from ..session import Session
from ..terminal import Bar, console, print_sheets
from .judging import Verdict, corrected, judge
from .search import SIZES, Candidate, Found, choose, parse_members, search
from .tables import report_sheet, search_record, search_sheets, verdict_record

MOST = 3


@dataclass(frozen=True)
class Reported:
    """A chosen ensemble with its test cell and what the cell says of it."""

    found: Found
    planned: PlannedCell
    verdict: Verdict


def ensembles(session: Session, methods: list[str], preset: str, keep: int, removal: Settings) -> list[PlannedCell]:
    """Search ensembles; run, report and take to removal the best ``keep``; return their test cells (dry run: none)."""
    if not 1 <= keep <= MOST:
        raise UserError(f"--keep {keep}: keep 1 to {MOST}, since each one kept weakens the evidence for the others")
    entries = parse_members(methods, preset, session.planner.known)
    if removal.dry_run:
        _say_what_would_run(session, entries)
        return []
    candidates, left_out = measured(session, entries)
    with Bar("ensembles tried") as bar:
        found = search(session.assets, candidates, preset, bar.update)
    chosen = choose(found, keep)
    record = search_record(session.assets, candidates, left_out, found, chosen)
    _write(session, record)
    print_sheets(search_sheets(found, candidates))
    reported = report(session, chosen)
    _write(session, record | {"report": [verdict_record(one.found.label, one.verdict) for one in reported]})
    print_sheets([report_sheet([(one.found.label, one.verdict) for one in reported])])
    cells = [one.planned for one in reported]
    Removing(session, removal).measure(cells)
    return cells


def measured(session: Session, entries: Sequence[Entry]) -> tuple[list[Candidate], dict[str, str]]:
    """Run the dev cells and return those that have all scores, and why others do not.

    Raises UserError where fewer than two are left.
    """
    cells = session.planner.cells(entries, "dev")
    candidates, left_out = [], {}
    for planned, row in zip(cells, session.run(cells), strict=True):
        if row.status == "ok":
            scores = from_numpy(np.stack(list(session.results.scores(planned).values())))
            candidates.append(Candidate(planned, row, standings([row])[0], scores))
        else:
            left_out[str(planned.entry)] = f"{row.status}: {row.reason}"
    for entry, reason in left_out.items():
        console.print(f"left out: {entry}: {reason}", soft_wrap=True, markup=False)
    if len(candidates) < min(SIZES):
        raise UserError(f"{len(candidates)} of {len(cells)} methods have all dev scores, and an ensemble needs two")
    return candidates, left_out


def report(session: Session, chosen: Sequence[Found]) -> list[Reported]:
    """Run the chosen ensembles on test queries, after their members, and return what they show."""
    entries = list(dict.fromkeys(entry for one in chosen for entry in one.members))
    own = [_test_cell(session, one) for one in chosen]
    cells = [*session.planner.cells(entries, "test"), *own]
    row_of = {cell.entry: row for cell, row in zip(cells, session.run(cells), strict=True)}
    verdicts = corrected([judge(row_of[_entry(one)], [row_of[entry] for entry in one.members]) for one in chosen])
    return [Reported(*parts) for parts in zip(chosen, own, verdicts, strict=True)]


def _entry(one: Found) -> Entry:
    return Entry(Ensemble.name, one.label)


def _test_cell(session: Session, one: Found) -> PlannedCell:
    return session.planner.cells([_entry(one)], "test", params={Ensemble.name: one.params})[0]


def _say_what_would_run(session: Session, entries: list[Entry]) -> None:
    for query_set in ("dev", "test"):
        cells = session.planner.cells(entries, query_set)
        due = session.to_compute(cells)
        session.announce(cells, due)
        names = ", ".join(str(cell.entry) for cell in due) or "none"
        console.print(f"{query_set} queries: {names}", soft_wrap=True, markup=False)
    console.print("test cells: only of members of chosen ensembles, and the ensembles, which take no pass of a model")


def _write(session: Session, record: dict[str, Any]) -> None:
    session.results.store.put_json(f"ensembles/{session.spec.label}.json", record)
