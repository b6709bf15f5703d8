"""The command run: cells, then the metrics that were asked for, then their views."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import UserError, unknown
from ...leaderboard.rows.row import Row
from ...leaderboard.views.catalogue import build_view
from ..run.plan import PlannedCell
from .exemplars.metric import announce, exemplars
from .removal import PARTS, Part, Removing, Settings, parse_settings
from .sanity import plan_sanity, sanity
from .session import Session, failed
from .terminal import console, print_sheets

METRICS = ("lds", "groups", "removal", "union", "per-query", "sanity", "exemplars")
REMOVAL: dict[str, tuple[Part, ...]] = {"removal": PARTS, "union": ("union",), "per-query": ("per-query",)}
VIEWS = {
    "lds": ("lds",),
    "groups": ("groups",),
    "union": ("removal", "overlap"),
    "per-query": ("per-query",),
    "sanity": ("sanity",),
    "exemplars": ("exemplars",),
}


def parse_metrics(metrics: list[str], encoders: str, budget: int, dry_run: bool) -> tuple[set[str], Settings]:
    """Return the wanted metrics, those of removal by part, and how it is measured; raises UserError."""
    for name in metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    parts: tuple[Part, ...] = tuple(part for part in PARTS if any(part in REMOVAL.get(name, ()) for name in metrics))
    wanted = {name for name in metrics if name not in REMOVAL} | set(parts)
    return wanted or {"lds"}, parse_settings(parts, encoders, budget, dry_run)


def run(session: Session, cells: list[PlannedCell], metrics: set[str], removal: Settings) -> int:
    """Run the cells that need it, measure what was asked for, print its views, and return the exit code."""
    if "groups" in metrics and not session.assets.has_groups:
        raise UserError(f"{session.spec.label} leaves no groups out: take `groups` out of --metrics")
    removing = Removing(session, removal) if removal.parts else None
    rows = session.run(cells, removal.dry_run)
    if removing is not None:
        removing.measure(cells)
    if "sanity" in metrics and not removal.dry_run:
        sanity(session, cells)
    elif "sanity" in metrics:
        planned = plan_sanity(cells)
        session.announce(planned, planned)
    if "exemplars" in metrics:
        (announce if removal.dry_run else exemplars)(session, cells)
    if removal.dry_run:
        return 0
    found = session.results.all_rows(session.spec.label)
    show(found, [view for name, views in VIEWS.items() if name in metrics for view in views])
    console.print(f"rows, scores and logs: {session.results.folder}", soft_wrap=True, markup=False)
    return failed(rows)


def show(rows: list[Row], views: Sequence[str]) -> None:
    """Print views of the rows on test queries as wide as the terminal, and in a line why one cannot be shown."""
    test = [row for row in rows if row.key.query_set == "test"]
    for view in views:
        try:
            print_sheets(build_view(view, test, beside=rows))
        except UserError as error:
            console.print(f"no {view} view: {error}", soft_wrap=True, markup=False)
