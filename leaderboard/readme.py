"""The leaderboard's views in the README, each between two markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import UserError
from .rows import Row
from .sheet import render
from .views import QUERY_SETS, SIMILARITY, VIEWS, build_view

QUERY_SET = "test"
REQUIRED = "leaderboard"
SECTIONS = {
    REQUIRED: ("lds", SIMILARITY),
    **{view: (view, SIMILARITY) for view in VIEWS if view != "lds"},
    "removal-loss": ("removal", "loss"),
    "per-query-loss": ("per-query", "loss"),
}


def update_readme(text: str, rows: Iterable[Row]) -> str:
    """Return ``text`` with Markdown tables of the rows between the markers of each section that it has.

    Markers: ``<!-- leaderboard:begin -->`` and ``<!-- leaderboard:end -->`` for the LDS, without one pair of which a
    UserError is raised, and likewise those of the other SECTIONS, each a view with what it compares images by.
    """
    rows = list(rows)
    for section, (view, _) in SECTIONS.items():
        query_set = QUERY_SETS.get(view, QUERY_SET)
        text = _filled(text, section, [row for row in rows if row.key.query_set == query_set])
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
    view, similarity = SECTIONS[section]
    return f"{before}{begin}\n{render(build_view(view, rows, similarity), 'markdown')}{end}{rest.split(end)[1]}"
