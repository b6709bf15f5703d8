"""One task's part of the page: its tables, its figures, and what its panels need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..rows.row import Row
from ..views.catalogue import QUERY_SETS
from ..views.lds import lds_sheets, sheet_of
from ..views.reported import reported_sheets
from ..views.sheet import Sheet
from .comparisons import comparisons
from .entries import READABLE, Entry, Ranked, ranked_tables
from .facts import Facts, MethodFacts, TaskFacts
from .figures.ceiling import ceiling_figure
from .figures.drawing import Drawing
from .figures.overlap import overlap_figure
from .figures.pareto import pareto_figures
from .figures.removal import alone_figure, union_figure
from .queries import drill_down
from .tables import table_of
from .view_cache import ViewCache

SPLIT = 24  # entries in figures of which each has a part of its own


class Figure(NamedTuple):
    """A drawing with its name in files, and by which choice of the page it is shown (none: always)."""

    name: str
    drawing: Drawing
    choice: str = ""


@dataclass(frozen=True)
class Section:
    """A task's part of the page; tables and figures by where they stand, ``similarities`` are those measured."""

    label: str
    facts: TaskFacts
    views: ViewCache
    ranked: Ranked | None
    tables: dict[str, list[dict[str, Any]]]
    figures: dict[str, list[Figure]]
    similarities: tuple[str, ...]
    panels: dict[str, Any]


def section(label: str, rows: Sequence[Row], facts: Facts) -> Section:
    """Return a task's part of the page, from all its rows; what others reported is in a table of its own."""
    test = [row for row in rows if row.key.query_set == "test"]
    reported = [row for row in test if row.source.kind == "reported"]
    views = ViewCache([row for row in test if row.source.kind != "reported"])
    ranked = ranked_tables(views.rows, rows)
    main = ranked[0] if ranked and ranked[0].entries else None
    similarities = _similarities(views.rows)
    about = facts.tasks.get(label, TaskFacts(label))
    ablated = ViewCache([row for row in rows if row.key.query_set == QUERY_SETS["ablations"]])
    published = [table for table in facts.reported if table.label == label]
    tables = {
        "scores": [scores_table(one, facts.methods) for one in ranked],
        "reported": [table_of(sheet) for sheet in (*lds_sheets(reported, rows), *reported_sheets(published))],
        **_tables(views, similarities),
        "ablations": [table_of(sheet) for sheet in ablated.sheets("ablations")],
    }
    figures = _figures(label, views, main, similarities)
    present = {name: found for name, found in tables.items() if found}
    return Section(label, about, views, main, present, figures, similarities, _panels(main, about))


def _similarities(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return what regenerated images were compared by, the queries' own loss first."""
    found: dict[str, None] = {}
    for row in rows:
        removal = row.metrics.removal if row.metrics else None
        for part in (removal.union, removal.per_query) if removal else ():
            found |= dict.fromkeys(part.similarities if part else ())
    return tuple(sorted(found, key=lambda name: (name != "loss", name)))


def _tables(views: ViewCache, similarities: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    by_similarity = {"removal": "removal", "alone": "per-query", "published": "published"}
    found = {
        place: [table_of(sheet) | {"choice": name} for name in similarities for sheet in views.sheets(view, name)]
        for place, view in by_similarity.items()
    }
    plain = ("groups", "exemplars", "agreement", "sanity")
    found |= {view: [table_of(sheet) for sheet in views.sheets(view)] for view in plain}
    within = [sheet for sheet in views.sheets("overlap") if sheet.data["view"] == "overlap-within"]
    return found | {"overlap": [table_of(sheet) for sheet in within]}


def scores_table(ranked: Ranked, methods: Mapping[str, MethodFacts]) -> dict[str, Any]:
    """Return the LDS table with the mean over kinds, who is tied with whom, coverage and source for each entry."""
    sheet = _with_more(sheet_of(ranked.table), ranked)
    limits = {f"LDS×100 {kind}": _percent(one.mean) for kind, one in ranked.table.ceilings.items()}
    about = [_about(one, methods) for one in ranked.entries]
    table = table_of(sheet, about, {name: value for name, value in limits.items() if value is not None})
    return table | {"truth": (ranked.table.truth_sha256 or "unknown")[:12]}


def _with_more(sheet: Sheet, ranked: Ranked) -> Sheet:
    headings = [*sheet.headings[:3], "Mean", *sheet.headings[3:-1], "Queries", "Source", sheet.headings[-1]]
    cells = [
        [*line[:3], one.line.overall.text(), *line[3:-1], f"{one.line.done} of {one.line.asked}", one.source, line[-1]]
        for line, one in zip(sheet.rows, ranked.entries, strict=True)
    ]
    return replace(sheet, headings=headings, rows=cells)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _about(entry: Entry, methods: Mapping[str, MethodFacts]) -> dict[str, Any]:
    known = methods.get(entry.method)
    needs = (list(known.needs) or ["images only"]) if known else ["unknown"]
    about = {"status": entry.line.status, "source": entry.source, "needs": needs, "method": entry.method}
    return about | ({} if entry.tie is None else {"tie": entry.tie})


def _figures(
    label: str, views: ViewCache, ranked: Ranked | None, similarities: Sequence[str]
) -> dict[str, list[Figure]]:
    found: dict[str, list[Figure]] = {}
    if ranked is not None:
        for axis, drawings in pareto_figures(ranked).items():
            names = [f"{label}-cost-{axis}" + (f"-{i + 1}" if i else "") for i in range(len(drawings))]
            found.setdefault("cost", []).extend(Figure(*pair, axis) for pair in zip(names, drawings, strict=True))
        if ceiling := ceiling_figure(ranked):
            found["ceiling"] = [Figure(f"{label}-ceiling", ceiling)]
    for name, figure in _removal_figures(label, views, similarities):
        found.setdefault(name, []).append(figure)
    between = [sheet for sheet in views.sheets("overlap") if sheet.data["view"] == "overlap-across"]
    if between:
        found["overlap"] = [Figure(f"{label}-overlap", overlap_figure(between[0], SPLIT))]
    return found


def _removal_figures(label: str, views: ViewCache, similarities: Sequence[str]) -> Iterator[tuple[str, Figure]]:
    for similarity in similarities:
        for sheet in views.sheets("removal", similarity)[:1]:
            drawing = union_figure(sheet, views.rows, SPLIT)
            yield "removal", Figure(f"{label}-removal-{similarity}", drawing, similarity)
        for sheet in views.sheets("per-query", similarity)[:1]:
            if drawing := alone_figure(sheet, SPLIT):
                yield "alone", Figure(f"{label}-removal-one-{similarity}", drawing, similarity)


def _panels(ranked: Ranked | None, about: TaskFacts) -> dict[str, Any]:
    """Return what comparing two entries and looking at one query need."""
    if ranked is None:
        return {}
    shown = ranked.readable
    return {
        "entries": [[one.label, one.method, one.tie, one.line.overall.text()] for one in shown],
        "left_out": len(ranked.entries) - len(shown),
        "readable": READABLE,
        "pairs": comparisons(shown),
        **drill_down(shown, about.sprite, about.no_pictures),
    }
