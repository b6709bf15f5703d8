"""Progress of long work on a terminal (rich), or as plain lines where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from ...leaderboard.rows.row import Row
    from ...leaderboard.views.sheet import Sheet
    from ..run.plan import PlannedCell

console = Console(highlight=False)
plain = Console(highlight=False, markup=False, emoji=False)
STYLE = {"ok": "green", "partial": "yellow", "skipped": "yellow"}


def text_width() -> int:
    """Return how wide text may be: as the terminal, or 120 where output goes elsewhere."""
    return max(plain.width, 100) if sys.stdout.isatty() else 120


def total(seconds: Sequence[float | None], jobs: int = 1, started: float = 0.0) -> str:
    """Return about how long cells take, ``jobs`` at a time after ``started`` seconds, and how many do not say."""
    known = [one for one in seconds if one is not None]
    silent = len(seconds) - len(known)
    but = f" without {silent:,} of which no time is known," if silent else ""
    return f"about {duration(sum(known) / jobs + started)}{but}"


def duration(seconds: float) -> str:
    """Return seconds as people say them: 42 s, 3.5 min, 2.1 h, 1,200 days."""
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (100 * 3600, 3600, "h"), (float("inf"), 86400, "days")):
        if seconds < limit:
            return f"{seconds / unit:,.{1 if name in ('min', 'h') else 0}f} {name}"
    raise AssertionError("unreachable")


def amount(size: int) -> str:
    """Return bytes as people say them: 42 MiB, 3.5 GiB."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"


def print_sheets(sheets: Sequence[Sheet]) -> None:
    """Print tables as wide as the terminal."""
    from ...leaderboard.views.sheet import render

    print(render(sheets, "table", max(console.width, 100)))


class _Shown:
    """Something with a progress display that is on the terminal inside a ``with`` block."""

    progress: Progress

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()


class Bar(_Shown):
    """A progress bar for counted work, as a context manager; ``update(done, total)`` may start anywhere."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.progress = _progress()
        self.task: TaskID | None = None
        self.last = 0.0

    def update(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` are done."""
        if self.task is None:
            self.task = self.progress.add_task(self.label, total=total, completed=done)
        self.progress.update(self.task, completed=done, total=total)
        if not console.is_terminal and (time.monotonic() - self.last > 30 or done == total):
            self.last = time.monotonic()
            console.print(f"{self.label}: {done} of {total}")


class RunDisplay(_Shown):
    """The progress of a run: one bar for all cells, one for each that is running, a line for each that ended."""

    def __init__(self, total: int) -> None:
        self.progress = _progress()
        self.whole = self.progress.add_task("cells", total=total)
        self.bars: dict[str, TaskID] = {}

    def event(self, planned: PlannedCell, label: str, done: int, total: int) -> None:
        """Show what a cell is doing."""
        name = _name(planned)
        if name not in self.bars:
            self.bars[name] = self.progress.add_task(name)
        self.progress.update(self.bars[name], description=escape(f"  {name}: {label}"), completed=done, total=total)

    def row(self, planned: PlannedCell, row: Row, fresh: bool) -> None:
        """Show that a cell has its row."""
        self.progress.advance(self.whole)
        bar = self.bars.pop(_name(planned), None)
        if bar is not None:
            self.progress.remove_task(bar)
        if fresh:
            time_taken = f" in {duration(row.cost.wall_s)}{_told(row)}" if row.cost else ""
            reason = f": {row.reason}" if row.reason else ""
            style = STYLE.get(row.status, "red")
            text = Text.assemble((row.status, style), f" {_name(planned)}{time_taken}{reason}")
            self.progress.console.print(text, soft_wrap=True)


def _told(row: Row) -> str:
    """Return what else there is to say of a cell's time."""
    notes = row.diagnostics.get("kept", [])
    reused = any(note["reused"] or note["rebuilt"] for note in notes)
    kept = " as if alone, part of which was kept from before" if reused else ""
    shared = [note for note in notes if note.get("devices")]
    spent = sum(note["wall_s"] for note in shared)
    return kept + (f" of {len(shared[0]['devices'])} devices, {duration(spent)} of it together" if shared else "")


def _name(planned: PlannedCell) -> str:
    seed = f" seed {planned.key.seed}" if planned.key.seed else ""
    queries = f" {planned.key.query_set}" if planned.key.query_set != "test" else ""
    return f"{planned.entry}{queries}{seed}"


def _progress(**options: Any) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal, **options)
