"""The leaderboard in the README, between two markers."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import UserError
from .rows import Row
from .table import build_tables, render

BEGIN, END = "<!-- leaderboard:begin -->", "<!-- leaderboard:end -->"


def update_readme(text: str, rows: Iterable[Row]) -> str:
    """Return ``text`` with the Markdown tables of ``rows`` between the markers; raises UserError without one pair."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(f"the README needs one line {BEGIN} and below it one line {END}; add them where the table goes")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{render(build_tables(rows), 'markdown')}{END}{rest.split(END)[1]}"
