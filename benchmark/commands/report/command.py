"""The command report: writes the page, badges and figures from rows."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ....errors import unknown
from ....leaderboard.page.badges import badges
from ....leaderboard.page.build import page_of, sections
from ....leaderboard.page.facts import Facts
from ....leaderboard.page.figures.drawing import Drawing, stylesheet
from ....leaderboard.page.task_sections import Section
from ....leaderboard.rows.files import load_rows
from ....leaderboard.rows.reported import Reported, load_reported
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


class Content(NamedTuple):
    """What the page is made of."""

    rows: list[Row]
    facts: Facts
    sections: list[Section]

    def page(self, live: bool = False) -> str:
        """Return the page; ``live``: it asks its server whether rows have changed."""
        return page_of(*self, live)


def content(asked: Asked, on_task: Callable[[int, int], None] = lambda done, total: None) -> Content:
    """Return what the page of the rows that are there now is made of; raises UserError where there are none."""
    rows = load_rows(asked.folder)
    facts = known_facts(rows, asked.pictures, asked.plugins, _reported(asked, rows))
    return Content(rows, facts, sections(rows, facts, on_task))


def _reported(asked: Asked, rows: Sequence[Row]) -> list[Reported]:
    """Return what others published: about all tasks beside the committed rows, else about those with rows."""
    labels = {row.key.label for row in rows}
    return [one for one in load_reported() if asked.results is None or one.label in labels]


def write(asked: Asked, site: Path | None, figures: Path | None) -> None:
    """Write the page and badges into ``site`` and all figures into ``figures``, whichever are given."""
    asked.check()
    with Bar("tasks") as bar:
        found = content(asked, bar.update)
    if site is not None:
        _write_site(FolderStore(site), found)
    if figures is not None:
        _write_figures(FolderStore(figures), found)


def _write_site(store: FolderStore, found: Content) -> None:
    for one in found.sections:
        for name, text in badges(one.ranked).items() if one.ranked else ():
            store.put(f"badges/{name}", text.encode())
    text = found.page().encode()
    path = store.put(PAGE, text)
    console.print(f"{path}: {len(found.rows)} rows, {len(text) / 1e6:.1f} MB; badges beside it", soft_wrap=True)


def _write_figures(store: FolderStore, found: Content) -> None:
    figures = [figure for one in found.sections for drawn in one.figures.values() for figure in drawn]
    for figure in figures:
        for name, data in _files(figure.name, figure.drawing):
            store.put(name, data)
    kind = "as SVG and PDF" if _has_matplotlib() else "as SVG; install matplotlib for PDF too"
    console.print(f"{store.root}: {len(figures)} figures {kind}", soft_wrap=True)


def _files(name: str, drawing: Drawing) -> Iterator[tuple[str, bytes]]:
    yield f"{name}.svg", drawing.svg(stylesheet()).encode()
    if _has_matplotlib():
        from ....leaderboard.page.figures.pdf import pdf

        yield f"{name}.pdf", pdf(drawing)


def _has_matplotlib() -> bool:
    return importlib.util.find_spec("matplotlib") is not None
