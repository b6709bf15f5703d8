"""From a cell's record to its row: metrics, costs, provenance and diagnostics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ...datasets.truth import Assets, GroupTruth, Role, Truth
from ...errors import printable
from ...leaderboard.rows.files import row_bytes
from ...leaderboard.rows.row import Cost, Metrics, Row, Source, Status
from ...methods.base import Unit
from ..metrics.groups import group_metrics
from ..metrics.scores import Blocks, lds_metrics, top_items
from ..sandbox.enclosure import shelter
from ..sandbox.isolation import NONE
from ..tasks.find import find_task
from .costs import add_up, own_cost
from .described import adapter_of
from .due import Inspector
from .environment import git_state
from .plan import PlannedCell, command_line
from .record import Record

TRUTH_OF: dict[str, Role] = {"dev": "open", "test": "report"}
LOG_TAIL, LONGEST_REASON = 2000, 1000  # characters
LONGEST_CHARACTER = 4  # bytes in UTF-8


@dataclass(frozen=True)
class Ending:
    """How a cell ended: status with the reason, when it started, and whether slices of an earlier start were kept."""

    status: Status
    reason: str | None
    started_utc: str
    outcome: dict[str, Any] | None = None
    resumed: bool = False


class Asked(NamedTuple):
    """What scores are of: a task's assets, all queries of a set, the method's unit, and how many top items are kept."""

    assets: Assets
    query_ids: tuple[str, ...]
    query_set: str
    unit: Unit
    top_k: int


def metrics_of(asked: Asked, truth: Truth | None, groups: GroupTruth | None, blocks: Callable[[], Blocks]) -> Metrics:
    """Return all metrics that follow from scores, which ``blocks`` yields anew at each call, and truths alone."""
    assets, ids, query_set, unit, k = asked
    found = lds_metrics(assets, truth, blocks(), ids) if truth is not None and unit == "item" else Metrics()
    if truth is not None and groups is not None:
        found = found.model_copy(update={"groups": group_metrics(assets, groups, blocks(), ids, unit)})
    if query_set != "test" or unit == "group":
        return found
    return found.model_copy(update={"top": top_items(assets, blocks(), ids, k)})


@dataclass
class Reporter:
    """Writes the rows of cells; ``on_row`` sees (cell, row, whether it is new)."""

    inspector: Inspector
    on_row: Callable[[PlannedCell, Row, bool], None] = lambda cell, row, fresh: None
    _truths: dict[tuple[str, Role], Truth] = field(default_factory=dict)
    _groups: dict[str, GroupTruth] = field(default_factory=dict)

    def known(self, planned: PlannedCell) -> Row:
        """Return the row that a cell has already."""
        row = self.inspector.results.row(planned.key)
        assert row is not None
        self.on_row(planned, row, False)
        return row

    def write(self, planned: PlannedCell, end: Ending) -> Row:
        """Write and return the row of a cell that ended, or that could not start."""
        return self.written(planned, self.row(planned, end))

    def row(self, planned: PlannedCell, end: Ending) -> Row:
        """Return the row of a cell; raises whatever comes of a record that its method wrote into."""
        record = self.inspector.record(planned)
        metrics = self._metrics(planned, record) if end.status != "skipped" and record.parts() else None
        status, reason = status_by(end.status, end.reason, metrics)
        row = Row(
            status=status,
            reason=reason and printable(reason[:LONGEST_REASON]),
            log_tail=None if status == "ok" else self._log_tail(planned),
            key=planned.key,
            metrics=metrics,
            cost=self._cost(planned, record, end) if status in ("ok", "partial") else None,
            environment=self.inspector.environment(),
            source=self._source(planned, record, end.started_utc, metrics is not None),
            diagnostics=self._diagnostics(planned, record),
        )
        row_bytes(row)  # raises here for what no file can hold
        return row

    def rescore(self, planned: PlannedCell) -> Row:
        """Write and return a cell's row with its metrics computed again from complete scores."""
        row, record = self.inspector.results.row(planned.key), self.inspector.record(planned)
        assert row is not None
        old, metrics = row.metrics or Metrics(), self._metrics(planned, record)
        metrics = metrics.model_copy(update={"removal": old.removal, "sanity": old.sanity, "exemplars": old.exemplars})
        source = row.source.model_copy(update={"truth_sha256": planned.assets.sha256})
        return self.written(planned, row.model_copy(update={"metrics": metrics, "source": source}))

    def truth(self, planned: PlannedCell) -> Truth | None:
        """Return the truth that a cell is measured against, read once; None for query sets and tasks without any."""
        role = TRUTH_OF.get(planned.key.query_set)
        if role is None or not planned.assets.has(role):
            return None
        where = planned.assets.sha256, role
        if where not in self._truths:
            self._truths[where] = planned.assets.truth(role)
        return self._truths[where]

    def _group_truth(self, assets: Assets) -> GroupTruth:
        if assets.sha256 not in self._groups:
            self._groups[assets.sha256] = assets.group_truth()
        return self._groups[assets.sha256]

    def written(self, planned: PlannedCell, row: Row) -> Row:
        """Store and return a row; raises UserError where the folder cannot be written."""
        self.inspector.results.write(row)
        self.on_row(planned, row, True)
        return row

    def _metrics(self, planned: PlannedCell, record: Record) -> Metrics:
        assets, truth = planned.assets, self.truth(planned)
        groups = self._group_truth(assets) if truth is not None and assets.has_groups else None
        k = self._top_k(planned) if planned.key.query_set == "test" else 0
        asked = Asked(assets, planned.query_ids, planned.key.query_set, planned.cls.unit, k)
        return metrics_of(asked, truth, groups, lambda: record.blocks(planned.attributed_ids))

    def _top_k(self, planned: PlannedCell) -> int:
        task = find_task(planned.key.task, planned.plugin_paths)
        return task.removal.top_k(planned.assets.manifest["n_train"])

    def _cost(self, planned: PlannedCell, record: Record, end: Ending) -> Cost | None:
        if end.outcome is None:
            return None
        rows = [self.inspector.results.row(member.key) for member in planned.members.values()]
        own = own_cost(
            end.outcome | {"resumed": end.resumed, "micro_batch": self.inspector.options.micro_batch},
            fit=record.read("fit")["fit"],
            slices=[record.costs(part)["attribute"] for part in record.parts()],
            n_queries=len(planned.attributed_ids),
        )
        return add_up(own, [row.cost for row in rows if row and row.cost])

    def _source(self, planned: PlannedCell, record: Record, started: str, scored: bool) -> Source:
        revision, dirty = git_state()
        return Source(
            kind="measured",
            command=printable(command_line()),
            started_utc=started,
            git_revision=revision,
            git_dirty=dirty,
            truth_sha256=planned.assets.sha256,
            problem_sha256=planned.problem_sha256,
            scores_sha256=record.scores_hash() if scored else None,
            code_sha256=planned.code,
            adapter_sha256=adapter_of(planned.cls),
            isolation=self._isolation(planned) if scored else None,
            notes=[note for preset, note in planned.cls.notes.items() if preset == planned.key.preset],
        )

    def _isolation(self, planned: PlannedCell) -> str:
        """Return by what a cell was shut in: by nothing where it reads scores of one that was not."""
        rows = [self.inspector.results.row(member.key) for member in planned.members.values()]
        in_the_open = any(row is not None and row.source.isolation == NONE for row in rows)
        return NONE if in_the_open else shelter(self.inspector.options.encloses)

    def _diagnostics(self, planned: PlannedCell, record: Record) -> dict[str, Any]:
        """Return what the method noted in fit and in each slice, and the runner's own facts, which have precedence."""
        merged: dict[str, Any] = {}
        for name, value in (item for noted in record.notes() for item in noted.items()):
            old = merged.get(name)
            merged[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        own = {"identity": planned.identity, "limits": self.inspector.limits()}
        kept = [note for part in record.kept() for note in part.values()]
        own |= {"kept": kept} if any(map(_is_told, kept)) else {}
        return own | {f"method-{name}" if name in own else name: value for name, value in merged.items()}

    def _log_tail(self, planned: PlannedCell) -> str | None:
        path = self.inspector.results.log(planned.key)
        return printable(tail_of(path, LOG_TAIL)) if path.is_file() else None


def tail_of(path: Path, length: int) -> str:
    """Return the last characters of a text, however long it is."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LONGEST_CHARACTER * length))
        return file.read(LONGEST_CHARACTER * length).decode(errors="replace").replace("\r\n", "\n")[-length:]


def _is_told(note: dict[str, Any]) -> bool:
    """Say whether rows were not simply computed by the cell itself."""
    return bool(note["reused"] or note["rebuilt"] or note.get("devices"))


def status_by(status: Status, reason: str | None, metrics: Metrics | None) -> tuple[Status, str | None]:
    """Return a cell's status and reason in the light of its metrics: ``partial`` where queries have none."""
    missing = sum(result.n_nan for result in metrics.lds.values()) if metrics else 0
    if status == "ok" and missing:
        return "partial", f"{missing} queries have no LDS: not attributed, or scores that are NaN or all equal"
    ranked = [result.scores["spearman"] for result in metrics.groups.values()] if metrics and not metrics.lds else []
    missing = sum(score.values.count(None) for score in ranked)
    if status == "ok" and missing:
        return "partial", f"{missing} queries have no ranking of groups: not attributed, or scores NaN or all equal"
    return status, reason


def now() -> str:
    """Return the time as rows record it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
