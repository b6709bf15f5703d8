"""Published numbers as tables of their own: apart from every ranking, with where they are from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..rows.reported import Kind, Reported, ReportedEntry
from .sheet import MISSING, Sheet

DECIMALS = 6  # of a fraction: all that is printed of a percentage
KINDS: tuple[Kind, ...] = ("generated", "heldout")


def reported_sheets(tables: Sequence[Reported]) -> list[Sheet]:
    """Return one sheet a table, its entries in their authors' order, since nothing here ranks them."""
    return [_sheet(table) for table in tables]


def _sheet(table: Reported) -> Sheet:
    kinds: list[Kind] = [kind for kind in KINDS if any(kind in entry.lds for entry in table.entries)]
    headings = ["Method", "Setting", "Here", *(f"LDS×100\n{kind}" for kind in kinds)]
    shared = {
        "view": "reported",
        "task": table.label,
        "measured_here": False,
        **{name: getattr(table, name) for name in ("authors", "paper", "source")},
    }
    rows = [_row(entry, kinds) for entry in table.entries]
    lines = [_record(entry) for entry in table.entries]
    title = f"{table.label}, reported by its authors and not measured here: {table.title}"
    return Sheet.of(title, headings, rows, list(_notes(table)), shared, lines)


def _record(entry: ReportedEntry) -> dict[str, Any]:
    record = entry.model_dump(mode="json")
    scores = {kind: {name: _fraction(value) for name, value in score.items()} for kind, score in record["lds"].items()}
    return {**record, "lds": scores}


def _fraction(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, DECIMALS)


def _row(entry: ReportedEntry, kinds: Sequence[Kind]) -> list[str]:
    return [entry.name, entry.setting or MISSING, entry.method or MISSING, *(_score(entry, kind) for kind in kinds)]


def _score(entry: ReportedEntry, kind: Kind) -> str:
    score = entry.lds.get(kind)
    if score is None:
        return MISSING
    return f"{score.mean:.2f}" + (f" ± {score.std:.2f}" if score.std is not None else "")


def _notes(table: Reported) -> Iterator[str]:
    yield f"The numbers of {table.authors} ({table.paper}), from {table.source} ({table.source_note})."
    yield f"Theirs: {table.protocol}"
    yield f"{table.label} differs, so these are no rows of it and have no rank: {table.differs}"
    yield "Here: the method of this package that is nearest to theirs."
