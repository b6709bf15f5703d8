"""Views of one task's rows, each computed once: tables, figures and the overview show the same."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import UserError
from ..rows.row import Row
from ..views.catalogue import SIMILARITY, build_view
from ..views.sheet import Sheet


class ViewCache:
    """The views of these rows."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.known: dict[tuple[str, str], list[Sheet]] = {}

    def sheets(self, view: str, similarity: str = SIMILARITY) -> list[Sheet]:
        """Return a view's tables, none where no row holds what it shows."""
        key = view, similarity
        if key not in self.known:
            try:
                self.known[key] = build_view(view, self.rows, similarity)
            except UserError:
                self.known[key] = []
        return self.known[key]
