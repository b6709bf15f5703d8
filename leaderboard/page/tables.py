"""Tables of the page: a view's own cells, each with the numbers that are in its text, to sort by and to draw."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..views.sheet import MISSING, Failure, Sheet

NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
SUFFIXES = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
SCORE = re.compile(rf"({NUMBER})([kMGT]?)(?: \[({NUMBER}), ({NUMBER})\])?(?: ± ({NUMBER}))?(?: \(.*\))?(?:, .*)?")
RANK = re.compile(r"(\d+)(?:-(\d+))?")
Cell = list[Any]  # text, and if it holds a number: the number, and if it holds an interval: its bounds


class Column(NamedTuple):
    """A column: its heading, what its cells are (``text``, ``number``, ``interval`` or ``rank``), and a line in it.

    limit: a number in the cells' unit that is drawn across intervals, such as a noise ceiling.
    """

    name: str
    kind: str
    limit: float | None = None

    def payload(self) -> dict[str, Any]:
        """Return the column as the page gets it."""
        return {"name": self.name, "kind": self.kind} | ({} if self.limit is None else {"limit": self.limit})


class Line(NamedTuple):
    """A table's line: its cells, and what filters ask of it by name."""

    cells: Sequence[str]
    about: dict[str, Any]


def table_of(
    sheet: Sheet, about: Sequence[dict[str, Any]] = (), limits: dict[str, float] | None = None
) -> dict[str, Any]:
    """Return a view's sheet as the page gets it; ``about``: what filters ask of each line, else nothing.

    limits: of a heading, the number that is drawn across its intervals. What failed comes last, with its status.
    """
    names = [heading.replace("\n", " ") for heading in sheet.headings]
    lines = [Line(cells, dict(about[i]) if about else {}) for i, cells in enumerate(sheet.rows)]
    lines += [_failed(failure, names) for failure in sheet.failures]
    columns = [
        Column(name, _kind(name, [line.cells[i] for line in lines]), (limits or {}).get(name))
        for i, name in enumerate(names)
    ]
    return {
        "title": sheet.title,
        "columns": [column.payload() for column in columns],
        "lines": [_payload(line, columns) for line in lines],
        "notes": list(sheet.notes),
        "failures": [failure.text() for failure in sheet.failures],
    }


def cell(text: str, kind: str) -> Cell:
    """Return a cell with the numbers of its text: ``40.7 [35.2, 45.9]``, ``6.16k``, ``448 (29.9%)``, ``1-4``.

    A range of ranks counts as its best and, among equals, its worst.
    """
    if kind == "text":
        return [text]
    if kind == "rank":
        found = RANK.fullmatch(text)
        return [text, int(found[1]) + int(found[2] or found[1]) / 1e6] if found else [text]
    found = SCORE.fullmatch(text)
    if found is None:
        return [text]
    value = _number(found[1]) * SUFFIXES.get(found[2], 1)
    if found[3]:
        return [text, value, _number(found[3]), _number(found[4])]
    return [text, value, value - _number(found[5]), value + _number(found[5])] if found[5] else [text, value]


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _kind(name: str, texts: Sequence[str]) -> str:
    if name == "Rank":
        return "rank"
    cells = [cell(text, "number") for text in texts if text not in (MISSING, "")]
    if not cells or any(len(one) == 1 for one in cells):
        return "text"
    return "interval" if any(len(one) > 2 for one in cells) else "number"


def _failed(failure: Failure, names: Sequence[str]) -> Line:
    said = {"Method": failure.method, "Preset": failure.preset, "Status": failure.status}
    about = {"status": failure.status, "source": "none", "why": failure.reason}
    return Line([said.get(name, MISSING) for name in names], about)


def _payload(line: Line, columns: Sequence[Column]) -> dict[str, Any]:
    cells = [cell(text, column.kind) for text, column in zip(line.cells, columns, strict=True)]
    return {"cells": cells, **line.about}
