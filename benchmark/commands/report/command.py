"""The command report: writes the page, badges and figures, or serves the page while rows appear."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ....errors import unknown
from ....leaderboard.page.badges import badges
from ....leaderboard.page.build import payload, render_page, sections
from ....leaderboard.page.figures.drawing import stylesheet
from ....leaderboard.page.task_sections import Section
from ....leaderboard.rows.files import load_rows
from ....leaderboard.rows.row import Row
from ....store import FolderStore
from ..leaderboard import rows_folder
from ..terminal import Bar, console
from .facts import PICTURES, known_facts

PAGE = "index.html"


@dataclass(frozen=True)
class Asked:
    """From which rows, with which pictures (one of PICTURES), and by which plugins tasks and methods are known."""

    results: Path | None
    pictures: str
    plugins: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        """Where the rows lie."""
        return rows_folder(self.results)

    def check(self) -> None:
        """Raise UserError for a word that is none of PICTURES."""
        if self.pictures not in PICTURES:
            raise unknown("--pictures", self.pictures, PICTURES)


def write(asked: Asked, site: Path | None, figures: Path | None) -> None:
    """Write the page and badges into ``site`` and all figures into ``figures``, whichever are given."""
    asked.check()
    rows, found = _found(asked, None if site is None else PAGE)
    if site is not None:
        _write_site(site, rows, found, asked)
    if figures is not None:
        _write_figures(figures, found)


def page(asked: Asked, live: bool = False) -> str:
    """Return the page of the rows that are there now; raises UserError where there are none."""
    rows, found = _found(asked, None)
    return _page(rows, found, asked, live)


def _found(asked: Asked, label: str | None) -> tuple[list[Row], list[Section]]:
    rows = load_rows(asked.folder)
    facts = known_facts(rows, asked.pictures, asked.plugins)
    if label is None:
        return rows, sections(rows, facts)
    with Bar("tasks") as bar:
        return rows, sections(rows, facts, bar.update)


def _page(rows: Sequence[Row], found: Sequence[Section], asked: Asked, live: bool = False) -> str:
    facts = known_facts(rows, "none", asked.plugins)
    return render_page(payload(rows, facts, found), {one.label: one.figures for one in found}, live)


def _write_site(site: Path, rows: Sequence[Row], found: Sequence[Section], asked: Asked) -> None:
    store = FolderStore(site)
    for one in found:
        for name, text in badges(one.ranked).items() if one.ranked else ():
            store.put(f"badges/{name}", text.encode())
    text = _page(rows, found, asked).encode()
    path = store.put(PAGE, text)
    console.print(f"{path}: {len(rows)} rows, {len(text) / 1e6:.1f} MB; badges beside it", soft_wrap=True)


def _write_figures(folder: Path, found: Sequence[Section]) -> None:
    store, written = FolderStore(folder), 0
    for one in found:
        for drawn in one.figures.values():
            for figure in drawn:
                for name, data in _files(figure.name, figure.drawing):
                    store.put(name, data)
                    written += 1
    kind = "SVG and PDF" if _has_matplotlib() else "SVG (install matplotlib for PDF too)"
    console.print(f"{store.root}: {written} figures as {kind}", soft_wrap=True)


def _files(name: str, drawing: object) -> Iterator[tuple[str, bytes]]:
    from ....leaderboard.page.figures.drawing import Drawing

    assert isinstance(drawing, Drawing)
    yield f"{name}.svg", drawing.svg(stylesheet()).encode()
    if _has_matplotlib():
        from ....leaderboard.page.figures.pdf import pdf

        yield f"{name}.pdf", pdf(drawing)


def _has_matplotlib() -> bool:
    return importlib.util.find_spec("matplotlib") is not None
