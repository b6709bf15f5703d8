"""What is due for a planned cell: nothing, its metrics, or its scores; and what stands in its way."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...errors import CorruptFile, UserError
from ...leaderboard.rows.row import Key, Row
from ...methods.support import unsupported
from ...models.problem import Problem, read_problem
from .environment import environment
from .plan import Options, PlannedCell
from .record import Record
from .results import Results
from .worker import Spec

HEADER = 2**16  # bytes of a file of scores beside them, and more
Due = Literal["nothing", "metrics", "scores"]


@dataclass
class Inspector:
    """Compares what a results folder holds of cells with what would be computed now."""

    results: Results
    options: Options
    _problems: dict[Path, Problem] = field(default_factory=dict)

    def due(self, planned: PlannedCell) -> Due:
        """Say what is due for a cell: ``metrics`` where complete scores are stored and only they are missing or old."""
        row = self.results.row(planned.key)
        if row is None or self.options.force or row.diagnostics.get("identity") != planned.identity:
            return "scores"
        if _metrics_are_old(planned, row):
            return "metrics" if self._complete(planned, row) else "scores"
        return "nothing" if self._holds(planned, row) else "scores"

    def all_due(self, cells: list[PlannedCell]) -> dict[int, Due]:
        """Return what is due by position, without those for which nothing is; who reads a due cell is due as well."""
        found: dict[int, Due] = {}
        for i, planned in enumerate(cells):
            due = self.due(planned)
            if due == "nothing" and reads_any(planned, [cells[j].key for j in found]):
                due = "scores"
            if due != "nothing":
                found[i] = due
        return found

    def obstacle(self, planned: PlannedCell) -> str | None:
        """Return why a cell cannot run now: what is wrong with a member's row, or what the problem lacks."""
        for member in planned.members.values():
            if (state := self._member_state(member)) is not None:
                return f"member {member.entry} has {state}"
        if planned.unmet is not None:
            return planned.unmet
        members, is_open = set(planned.members), planned.assets.has("open")
        if "open-truth" in planned.cls.needs and planned.key.query_set == "dev":
            return "learns from dev queries and open subsets, so that scores there would say nothing"
        given = {"stored": members, "open_truth": is_open, "encoders": planned.encoders}
        return unsupported(planned.cls, self._problem(planned), members=members, compares=planned.compares, **given)

    def continues(self, planned: PlannedCell, spec: Spec) -> bool:
        """Say whether the stored slices are what this start would compute: other sums may round otherwise."""
        record = self.record(planned)
        before = record.read("spec")
        if self.options.force or not self._same_inputs(planned) or not isinstance(before, dict):
            return False
        same = before.get("threads") == spec.threads and before.get("micro_batch") == spec.micro_batch
        return same and bool(before.get("closed")) == bool(spec.closed)

    def inputs(self, planned: PlannedCell) -> dict[str, Any]:
        """Return what scores and costs depend on besides the identity: device, packages and the members' scores."""
        here = self.environment()
        rows = {name: self.results.row(member.key) for name, member in planned.members.items()}
        members = {name: row.source.scores_sha256 if row else None for name, row in rows.items()}
        return {"device": here["device"], "packages": here["packages"], "members": members}

    def record(self, planned: PlannedCell) -> Record:
        """Return the cell's record."""
        longest = HEADER + 4 * len(planned.attributed_ids) * int(planned.assets.manifest["n_train"])
        return self.results.record(planned.key, planned.identity, longest)

    def environment(self) -> dict[str, Any]:
        """Return the machine and packages as a row records them."""
        return environment(self.options.device, self.options.threads, self.options.jobs)

    def limits(self) -> dict[str, Any]:
        """Return the limits that a failed cell failed under; memory only where it was asked for."""
        memory = self.options.memory_bytes if self.options.memory_asked else None
        return {"timeout_s": self.options.timeout_s, "memory_bytes": memory}

    def _complete(self, planned: PlannedCell, row: Row) -> bool:
        if row.status not in ("ok", "partial") or not self._same_inputs(planned):
            return False
        with suppress(Exception):  # a method writes into its record what it likes
            return row.source.scores_sha256 == self.record(planned).scores_hash()
        return False

    def _same_inputs(self, planned: PlannedCell) -> bool:
        now = self.inputs(planned)
        with suppress(UserError, OSError):
            return self.record(planned).read("inputs") == now
        return False

    def _holds(self, planned: PlannedCell, row: Row) -> bool:
        if row.status == "ok":
            return self._same_inputs(planned)
        if self.options.retry:
            return False
        if row.status == "skipped":
            return row.reason == self.obstacle(planned)
        return row.environment == self.environment() and row.diagnostics.get("limits") == self.limits()

    def _member_state(self, member: PlannedCell) -> str | None:
        row = self.results.row(member.key)
        if row is None:
            return "no row here: run it too"
        if row.diagnostics.get("identity") != member.identity:
            return "a row of other code or data: run it too"
        if row.status != "ok":
            return f"status {row.status}: {row.reason}"
        try:
            self.results.scored_record(member)
        except CorruptFile as error:
            return f"scores that cannot be used: {error}"
        return None

    def _problem(self, planned: PlannedCell) -> Problem:
        folder = planned.assets.folder
        if folder not in self._problems:
            self._problems = {folder: read_problem(folder, planned.plugin_paths)}  # one in memory: cases may be many
        return self._problems[folder]


def reads_any(planned: PlannedCell, keys: Collection[Key]) -> bool:
    """Say whether an ensemble reads the scores of one of these cells."""
    return any(member.key in keys for member in planned.members.values())


def _metrics_are_old(planned: PlannedCell, row: Row) -> bool:
    if row.metrics is None:
        return False
    lacks_top = row.key.query_set == "test" and row.metrics.top is None and planned.cls.unit == "item"
    lacks_groups = planned.assets.has_groups and not row.metrics.groups
    return lacks_top or lacks_groups or row.source.truth_sha256 != planned.assets.sha256
