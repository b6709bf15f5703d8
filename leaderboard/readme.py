"""The leaderboard's views in the README, each between two markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import UserError
from .rows import Row
from .sheet import render
from .views import VIEWS, build_view

QUERY_SET = "test"
REQUIRED = "leaderboard"
SECTIONS = {REQUIRED: "lds", **{view: view for view in VIEWS if view != "lds"}}


def update_readme(text: str, rows: Iterable[Row]) -> str:
    """Return ``text`` with Markdown tables of the test rows between the markers of each section that it has.

    Markers: ``<!-- leaderboard:begin -->`` and ``<!-- leaderboard:end -->`` for the LDS, without one pair of which a
    UserError is raised, and likewise ``removal``, ``published``, ``per-query``, ``overlap`` and ``sanity``.
    """
    shown = [row for row in rows if row.key.query_set == QUERY_SET]
    for section in SECTIONS:
        text = _filled(text, section, shown)
    return text


def markers(section: str) -> tuple[str, str]:
    """Return the lines between which a section's tables stand."""
    return f"<!-- {section}:begin -->", f"<!-- {section}:end -->"


def _filled(text: str, section: str, rows: Sequence[Row]) -> str:
    begin, end = markers(section)
    counts = text.count(begin), text.count(end)
    if counts == (0, 0) and section != REQUIRED:
        return text
    if counts != (1, 1) or text.index(begin) > text.index(end):
        raise UserError(f"the README needs one line {begin} and below it one line {end}; add them where the table goes")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{render(build_view(SECTIONS[section], rows), 'markdown')}{end}{rest.split(end)[1]}"
