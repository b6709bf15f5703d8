"""What the page says first: all entries by all tasks and truths, and in a sentence a task who can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import UserError
from ..rows.row import Row
from ..views.across.tasks import CEILING
from ..views.by_similarity import unit_of
from ..views.catalogue import build_view
from ..views.sheet import MISSING, Interval, Sheet, rank_text
from .entries import Entry, Ranked
from .figures.pareto import mean_ceiling
from .view_cache import ViewCache

SIMILARITIES = ("loss", "ssim")  # of which the first that was measured stands in the overview
NOTE = (
    "Removal: how much more the targets change when a method's items go than when as many random ones do, with its "
    "95 % interval and the range of ranks. Exemplars: mAP×100 after the strongest tuning. Groups: Spearman×100."
)
Key = tuple[str, str]  # method and preset, as the overview names an entry
Column = dict[Key, str]


class Truth(NamedTuple):
    """A column of the overview beyond the LDS: its heading and the text of its entries."""

    heading: str
    cells: Column


def overview(rows: Sequence[Row], views: Mapping[str, ViewCache]) -> Sheet | None:
    """Return the view of all tasks with a column for each further truth; None where no row has an LDS."""
    try:
        (sheet,) = build_view("tasks", rows)
    except UserError:
        return None
    truths = [truth for label, own in views.items() for truth in _truths(label, own)]
    headings = [*sheet.headings[:2], *(f"{name}\nLDS×100" for name in sheet.headings[2:])]
    cells = [[*line, *(truth.cells.get((line[0], line[1]), MISSING) for truth in truths)] for line in sheet.rows]
    notes = [*sheet.notes, *([NOTE] if truths else [])]
    return Sheet(sheet.title, [*headings, *(t.heading for t in truths)], cells, notes, [], sheet.data, sheet.records)


def _truths(label: str, views: ViewCache) -> list[Truth]:
    found = [_removal(label, views), _exemplars(label, views), _groups(label, views)]
    return [truth for truth in found if truth is not None]


def _removal(label: str, views: ViewCache) -> Truth | None:
    for similarity in SIMILARITIES:
        for sheet in views.sheets("removal", similarity):
            unit = unit_of(similarity)
            heading = f"{label}\nremoval, {unit.name}"
            lines = zip(sheet.data["lines"], sheet.rows, strict=True)
            return Truth(heading, {(c[1], c[2]): _cell(unit.text(Interval(**r["above_random"])), r) for r, c in lines})
    return None


def _exemplars(label: str, views: ViewCache) -> Truth | None:
    found = views.sheets("exemplars")
    if not found:
        return None
    sheet = found[-1]  # of the most exemplars
    shown = "above_control" if "above_control" in sheet.data["lines"][0] else "map"
    strongest = list(sheet.data["lines"][0][shown])[-1]
    lines = zip(sheet.data["lines"], sheet.rows, strict=False)  # the view's last row is chance
    cells = {(c[1], c[2]): _cell(Interval(**r[shown][strongest]).text(), r) for r, c in lines}
    return Truth(f"{label}\nexemplars, mAP×100{' above control' if shown != 'map' else ''}", cells)


def _groups(label: str, views: ViewCache) -> Truth | None:
    found = views.sheets("groups")
    if not found:
        return None
    sheet = found[-1]  # of held-out queries, whose truth is told better from noise
    lines = zip(sheet.data["lines"], sheet.rows, strict=False)  # the view's last row is that of the groups' sizes
    cells = {(c[1], c[2]): _cell(Interval(**r["spearman"]).text(), r) for r, c in lines}
    return Truth(f"{label}\ngroups, {sheet.data['kind']}", cells)


def _cell(text: str, record: Mapping[str, Any]) -> str:
    return f"{text}, {rank_text(record['rank_best'], record['rank_worst'])}"


def finding(ranked: Ranked) -> dict[str, Any] | None:
    """Return what a task says in short: the ceiling, who shares the first place, what the cheapest of them costs."""
    first = [one for one in ranked.entries if one.line.rank_best == 1]
    if not first:
        return None
    ceiling, best = mean_ceiling(ranked), first[0].line.overall
    known = [one for one in first if one.passes is not None]
    cheapest = min(known, key=lambda one: one.passes or 0.0, default=None)
    return {
        "task": ranked.table.task,
        "first": [one.label for one in first],
        "best": best.text(),
        "share": None if ceiling is None or best.mean is None else round(max(0.0, 1e4 * best.mean / ceiling), 1),
        CEILING: None if ceiling is None else f"{ceiling:.1f}",
        "cheapest": cheapest.label if cheapest else None,
        "passes": f"{cheapest.passes:,.0f}" if cheapest else None,
        "dearest": _dearest(known),
        "ranked": sum(one.standing.rankable for one in ranked.entries),
    }


def _dearest(known: Sequence[Entry]) -> str | None:
    """Return the most passes that an entry of the first place takes, where these differ."""
    counts = {one.passes or 0.0 for one in known}
    return f"{max(counts):,.0f}" if len(counts) > 1 else None
