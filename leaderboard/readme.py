"""The leaderboard's views in the README, each between two markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import UserError
from .rows.row import Row
from .views.catalogue import QUERY_SETS, SIMILARITY, VIEWS, build_view
from .views.sheet import render

QUERY_SET = "test"
SECTIONS = {
    "leaderboard": ("lds", SIMILARITY),
    **{view: (view, SIMILARITY) for view in VIEWS if view != "lds"},
    "removal-loss": ("removal", "loss"),
    "per-query-loss": ("per-query", "loss"),
}


def update_readme(text: str, rows: Iterable[Row]) -> str:
    """Return ``text`` with Markdown tables of the rows between the markers of each section that it has.

    Markers: ``<!-- leaderboard:begin -->`` and ``<!-- leaderboard:end -->`` for the LDS, and likewise for the other
    SECTIONS, each a view with what it compares images by. Raises UserError without any pair, or for half a one.
    """
    rows = list(rows)
    if not any(marker in text for section in SECTIONS for marker in markers(section)):
        begin, end = markers("leaderboard")
        raise UserError(f"the file has no section to fill: add a line {begin} and below it one line {end}, say")
    for section, (view, _) in SECTIONS.items():
        query_set = QUERY_SETS.get(view, QUERY_SET)
        text = _filled(text, section, [row for row in rows if row.key.query_set == query_set], rows)
    return text


def markers(section: str) -> tuple[str, str]:
    """Return the lines between which a section's tables stand."""
    return f"<!-- {section}:begin -->", f"<!-- {section}:end -->"


def _filled(text: str, section: str, rows: Sequence[Row], beside: Sequence[Row]) -> str:
    begin, end = markers(section)
    counts = text.count(begin), text.count(end)
    if counts == (0, 0):
        return text
    if counts != (1, 1) or text.index(begin) > text.index(end):
        raise UserError(f"the file needs one line {begin} and below it one line {end}; add them where the table goes")
    before, rest = text.split(begin)
    view, similarity = SECTIONS[section]
    tables = render(build_view(view, rows, similarity, beside), "markdown")
    return f"{before}{begin}\n{tables}{end}{rest.split(end)[1]}"
