"""A table as text with the records behind it, rendered for a terminal, as Markdown, as JSON or as CSV."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import unknown

MISSING = "-"
LEFT_ALIGNED = ("Method", "Preset", "Scores", "Status", "Setting", "Here", "Truth", "Other truth")


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval, unscaled."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None

    def text(self, scale: float = 100, decimals: int = 1) -> str:
        """Return ``mean [low, high]``, as far as known, times ``scale``."""
        if self.mean is None:
            return MISSING
        mean, *bounds = (None if v is None else f"{scale * v:.{decimals}f}" for v in (self.mean, self.low, self.high))
        return f"{mean} [{bounds[0]}, {bounds[1]}]" if None not in bounds else f"{mean}"


@dataclass(frozen=True)
class Failure:
    """A cell without all its scores, and why."""

    method: str
    preset: str
    params_hash: str
    seed: int
    status: str
    reason: str

    def text(self) -> str:
        """Return one line that names the cell and the reason."""
        return f"{self.method} {self.preset} (seed {self.seed}): {self.status}: {self.reason}"


@dataclass(frozen=True)
class Sheet:
    """One table: headings (a line break says where to fold) and cells as text, notes, and what failed.

    ``data`` is the JSON object, ``records`` are the CSV lines; both hold unscaled numbers.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    failures: Sequence[Failure]
    data: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]

    @classmethod
    def of(
        cls,
        title: str,
        headings: Sequence[str],
        rows: Sequence[Sequence[str]],
        notes: Sequence[str],
        shared: Mapping[str, Any],
        lines: Sequence[Mapping[str, Any]],
        failures: Sequence[Failure] = (),
    ) -> Sheet:
        """Return the sheet with the records ``lines`` behind ``rows``; in CSV each of them holds ``shared`` too."""
        failed = [asdict(failure) for failure in failures]
        data = {**shared, "lines": list(lines), "failures": failed, "notes": list(notes)}
        records = [flat({**shared, **line}) for line in (*lines, *failed)]
        return cls(title, headings, rows, notes, failures, data, records)


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a CSV line: lists joined by blanks, and nested mappings, which come last, as ``name_part``."""
    plain = {name: value for name, value in record.items() if not isinstance(value, Mapping)}
    joined = {k: " ".join(map(str, v)) if isinstance(v, list | tuple) else v for k, v in plain.items()}
    nested = [(name, flat(value)) for name, value in record.items() if isinstance(value, Mapping)]
    return joined | {f"{name}_{part}": value for name, parts in nested for part, value in parts.items()}


def rank_text(best: int | None, worst: int | None) -> str:
    """Return a range of ranks."""
    if best is None:
        return MISSING
    return str(best) if best == worst else f"{best}-{worst}"


def yes_no(value: bool | None) -> str:
    """Return an answer, which may be missing."""
    return MISSING if value is None else "yes" if value else "no"


def render(sheets: Sequence[Sheet], format: str = "table", width: int = 100) -> str:
    """Return the sheets as text in one of FORMATS.

    ``width`` in characters: a wider terminal table gets narrow gaps, then two lines an entry; no number is ever cut.
    Raises UserError for an unknown format.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    return FORMATS[format](sheets, width)


def _terminal(sheets: Sequence[Sheet], width: int) -> str:
    return "\n".join(_terminal_one(sheet, width) for sheet in sheets) or "No rows yet.\n"


def _terminal_one(sheet: Sheet, width: int) -> str:
    drawn = ""
    for squeeze in range(3):
        drawn = _draw(sheet, squeeze)
        if max(map(len, drawn.splitlines())) <= width:
            break
    notes = [textwrap.fill(note, width, break_on_hyphens=False) for note in sheet.notes]  # an address stays whole
    failures = [textwrap.fill(failure.text(), width, subsequent_indent="  ") for failure in sheet.failures]
    return "\n".join([sheet.title, drawn, *notes, *_headed(failures)]) + "\n"


def _draw(sheet: Sheet, squeeze: int) -> str:
    # Squeezed once, gaps and headings get narrower; twice, intervals and the like move below what they belong to.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0 if squeeze else 1, 0, 0))
    for name in sheet.headings:
        header = name.replace(" ", "\n", 1) if squeeze and "\n" not in name else name
        grid.add_column(header, justify="left" if name in LEFT_ALIGNED else "right", no_wrap=True)
    for cells in sheet.rows:
        grid.add_row(*(re.sub(r" (?=[\[(±])", "\n", cell) if squeeze > 1 else cell for cell in cells))
    console = Console(file=io.StringIO(), width=10_000, color_system=None, markup=False, emoji=False, highlight=False)
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().strip("\n").splitlines())


def _headed(failures: list[str]) -> list[str]:
    return ["", "Without scores:", "", *failures] if failures else []


def _markdown(sheets: Sequence[Sheet], width: int) -> str:
    return "\n".join(map(_markdown_one, sheets)) or "No rows yet.\n"


def _markdown_one(sheet: Sheet) -> str:
    return "\n".join([f"### {sheet.title}", "", *_markdown_lines(sheet)]) + "\n"


def _markdown_lines(sheet: Sheet) -> Iterator[str]:
    names = [name.replace("\n", " ") for name in sheet.headings]
    rules = ["---" if name in LEFT_ALIGNED else "---:" for name in names]
    yield from (f"| {' | '.join(map(_escape, cells))} |" for cells in (names, rules, *sheet.rows))
    yield from ("", *(f"- {_escape(note)}" for note in sheet.notes))
    yield from _headed([f"- {_escape(failure.text())}" for failure in sheet.failures])


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _json(sheets: Sequence[Sheet], width: int) -> str:
    return json.dumps([sheet.data for sheet in sheets], indent=1, allow_nan=False) + "\n"


def _csv(sheets: Sequence[Sheet], width: int) -> str:
    records = [record for sheet in sheets for record in sheet.records]
    names = list(dict.fromkeys(name for record in records for name in record))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[Sequence[Sheet], int], str]] = {
    "table": _terminal,
    "markdown": _markdown,
    "json": _json,
    "csv": _csv,
}
