"""The leaderboard's views by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...errors import unknown
from ..rows.row import Row
from .ablations import QUERY_SET, ablation_sheets
from .across.tasks import task_sheets
from .lds import lds_sheets
from .sanity import sanity_sheets
from .sheet import Sheet

VIEWS = (
    *("lds", "tasks", "agreement", "groups", "removal", "published", "per-query"),
    *("overlap", "sanity", "exemplars", "ablations"),
)
SIMILARITY = "ssim"
QUERY_SETS = {"ablations": QUERY_SET}  # of the views that do not show test queries


def build_view(view: str, rows: Sequence[Row], similarity: str = SIMILARITY, beside: Sequence[Row] = ()) -> list[Sheet]:
    """Return the tables of one of VIEWS; ``similarity`` is for those on removal.

    beside: rows that are not shown, of other queries, by which the LDS' may be marked.
    Raises UserError for an unknown view or similarity, and where no row holds what the view shows.
    """
    if view not in VIEWS:
        raise unknown("view", view, VIEWS)
    return lds_sheets(rows, beside) if view == "lds" else _views(similarity)[view](rows)


def _views(similarity: str) -> dict[str, Callable[[Sequence[Row]], list[Sheet]]]:
    # Imported here since their intervals need scipy, without which the LDS is shown at once.
    from .across.agreement import agreement_sheets
    from .exemplars import exemplar_sheets
    from .groups import group_sheets
    from .overlap import overlap_sheets
    from .per_query import per_query_sheets
    from .removal import published_sheets, removal_sheets

    return {
        "tasks": task_sheets,
        "agreement": agreement_sheets,
        "groups": group_sheets,
        "removal": lambda rows: removal_sheets(rows, similarity),
        "published": lambda rows: published_sheets(rows, similarity),
        "per-query": lambda rows: per_query_sheets(rows, similarity),
        "overlap": overlap_sheets,
        "sanity": sanity_sheets,
        "exemplars": exemplar_sheets,
        "ablations": ablation_sheets,
    }
