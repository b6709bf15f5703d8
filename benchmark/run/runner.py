"""The runner: one killable process per cell, every outcome a row, nothing done twice."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from ...datasets.truth import Role, Truth
from ...errors import UserError
from ...leaderboard.rows.row import Cost, Metrics, Row, Source, Status
from ...methods.support import unsupported
from ...models.problem import Problem, read_problem
from ...store import LONG_CLAIM_S
from ..metrics.scores import lds_metrics, top_items
from ..processes import forkserver, kill_group
from ..tasks.spec import find_task
from . import worker as cell_module
from .costs import add_up, own_cost
from .environment import environment, git_state
from .plan import Options, PlannedCell, command_line
from .results import Cell, Results

TRUTH_OF: dict[str, Role] = {"dev": "open", "test": "report"}
LOG_TAIL = 2000
OnEvent = Callable[[PlannedCell, str, int, int], None]


def nothing(cell: PlannedCell, label: str, done: int, total: int) -> None:
    """Report to nobody."""


@dataclass
class Running:
    """A live cell process."""

    planned: PlannedCell
    process: Any
    connection: Any  # one class on POSIX, another on Windows
    started: float
    started_utc: str
    resumed: bool


@dataclass
class Runner:
    """Runs planned cells into a results folder; ``on_event`` sees (cell, label, done, total), ``on_row`` each row."""

    results: Results
    options: Options
    on_event: OnEvent = nothing
    on_row: Callable[[PlannedCell, Row, bool], None] = lambda cell, row, fresh: None
    _truths: dict[tuple[str, Role], Truth] = field(default_factory=dict)
    _problems: dict[Path, Problem] = field(default_factory=dict)

    def run(self, cells: Iterable[PlannedCell]) -> list[Row]:
        """Return the row of every cell, running those that are missing, stale or due again.

        Raises UserError where another process is running cells into this folder: both would write the same slices.
        """
        cells = list(cells)
        for i in self.due(cells):
            if cells[i].key.query_set in TRUTH_OF:
                self._truth(cells[i])  # a damaged one is found before anything is computed
        with self.results.store.claim("run", LONG_CLAIM_S) as held:
            if not held:
                raise UserError(
                    f"another tdabench is running cells into {self.results.folder}: wait, or use another --results"
                )
            return self._run(cells)

    def _run(self, cells: list[PlannedCell]) -> list[Row]:
        rows: dict[int, Row] = {}
        waiting = self.due(cells)
        for i in set(range(len(cells))) - set(waiting):
            rows[i] = self._known(cells[i])
        live: dict[int, Running] = {}
        try:
            while waiting or live:
                self._start_ready(cells, waiting, live, rows)
                for index in self._poll(live):
                    running = live.pop(index)
                    rows[index] = self._finish(running)
        finally:
            for running in live.values():
                kill_group(running.process)
        return [rows[i] for i in range(len(cells))]

    def due(self, cells: list[PlannedCell]) -> list[int]:
        """Return the positions of the cells to run: without a row that holds, or skipped for a member that is due."""
        found: list[int] = []
        for i, planned in enumerate(cells):
            row, running = self.results.row(planned.key), [cells[j].key for j in found]
            again = any(member.key in running for member in planned.members.values())
            if row is None or not self._current(planned, row) or again:
                found.append(i)
        return found

    def _known(self, planned: PlannedCell) -> Row:
        row = self.results.row(planned.key)
        assert row is not None
        self.on_row(planned, row, False)
        return row

    def _current(self, planned: PlannedCell, row: Row) -> bool:
        if self.options.force or row.diagnostics.get("identity") != planned.identity:
            return False
        if row.metrics is not None and (row.source.truth_sha256 != planned.assets.sha256 or _lacks_top(row)):
            return False
        if row.status == "ok":
            return self._stored_inputs(planned) == self._inputs(planned)
        if row.status == "skipped":
            return not self.options.retry and row.reason == self._obstacle(planned)
        return (
            not self.options.retry
            and row.environment == self._environment()
            and row.diagnostics.get("limits") == _limits(self.options)
        )

    def _start_ready(
        self, cells: list[PlannedCell], waiting: list[int], live: dict[int, Running], rows: dict[int, Row]
    ) -> None:
        for index in list(waiting):
            planned = cells[index]
            if len(live) >= self.options.jobs or self._depends_on_live(planned, cells, waiting, live):
                continue
            waiting.remove(index)
            reason = self._obstacle(planned)
            if reason is not None:
                rows[index] = self._store(planned, "skipped", reason, _now())
            elif (row := self._rescored(planned)) is not None:
                rows[index] = row
            else:
                live[index] = self._start(planned)

    def _inputs(self, planned: PlannedCell) -> dict[str, Any]:
        """Return what scores and costs depend on besides the identity: device, packages and the members' scores."""
        here = self._environment()
        rows = {name: self.results.row(member.key) for name, member in planned.members.items()}
        members = {name: row.source.scores_sha256 if row else None for name, row in rows.items()}
        return {"device": here["device"], "packages": here["packages"], "members": members}

    def _stored_inputs(self, planned: PlannedCell) -> Any:
        store = self.results.cell(planned.key, planned.identity).store
        return store.get_json("inputs.json") if store.exists("inputs.json") else None

    def _continues(self, planned: PlannedCell, record: Cell, spec: cell_module.Spec) -> bool:
        """Say whether the stored slices are what this start would compute: another start's sums may round otherwise."""
        if self.options.force or self._stored_inputs(planned) != self._inputs(planned):
            return False
        before = record.store.get_json("spec.json")
        return before["threads"] == spec.threads and before["micro_batch"] == spec.micro_batch

    def rescorable(self, planned: PlannedCell) -> bool:
        """Say whether complete scores are stored, and only the truth is new or the top items are due."""
        row, record = self.results.row(planned.key), self.results.cell(planned.key, planned.identity)
        return not (
            row is None
            or row.status not in ("ok", "partial")
            or self.options.force
            or row.diagnostics.get("identity") != planned.identity
            or (row.source.truth_sha256 == planned.assets.sha256 and not _lacks_top(row))
            or row.source.scores_sha256 != record.scores_hash()
            or self._stored_inputs(planned) != self._inputs(planned)
        )

    def _rescored(self, planned: PlannedCell) -> Row | None:
        """Return the row with its metrics computed again from complete scores, where that is all that is due."""
        row, record = self.results.row(planned.key), self.results.cell(planned.key, planned.identity)
        if row is None or not self.rescorable(planned):
            return None
        old, metrics = row.metrics or Metrics(), self._metrics(planned, record)
        metrics = metrics.model_copy(update={"removal": old.removal, "sanity": old.sanity})
        source = row.source.model_copy(update={"truth_sha256": planned.assets.sha256})
        fresh = row.model_copy(update={"metrics": metrics, "source": source})
        self.results.write(fresh)
        self.on_row(planned, fresh, True)
        return fresh

    def _depends_on_live(
        self, planned: PlannedCell, cells: list[PlannedCell], waiting: list[int], live: dict[int, Running]
    ) -> bool:
        unfinished = [cells[i].key for i in waiting if cells[i] is not planned] + [r.planned.key for r in live.values()]
        return any(member.key in unfinished for member in planned.members.values())

    def _obstacle(self, planned: PlannedCell) -> str | None:
        for member in planned.members.values():
            row, state = self.results.row(member.key), None
            if row is None:
                state = "no row here: run it too"
            elif row.diagnostics.get("identity") != member.identity:
                state = "a row of other code or data: run it too"
            elif row.status != "ok":
                state = f"status {row.status}: {row.reason}"
            if state is not None:
                return f"member {member.entry} has {state}"
        members = set(planned.members)
        return unsupported(planned.cls, self._problem(planned), stored=members, members=members)

    def _problem(self, planned: PlannedCell) -> Problem:
        folder = planned.assets.folder
        if folder not in self._problems:
            self._problems[folder] = read_problem(folder)
        return self._problems[folder]

    def _start(self, planned: PlannedCell) -> Running:
        record = self.results.cell(planned.key, planned.identity)
        spec = self._spec(planned, record)
        if not self._continues(planned, record, spec):
            self.results.forget(planned.key)  # or a kill would leave a row without its scores
            record.clear()
        resumed = bool(record.parts())
        record.store.delete("outcome.json")
        record.store.put_json("spec.json", spec.to_json())
        record.store.put_json("inputs.json", self._inputs(planned))
        receive, send = multiprocessing.Pipe(duplex=False)
        log = self.results.log(planned.key)
        process = forkserver().Process(
            target=cell_module.main, args=(str(record.store.root), str(log), send), daemon=True
        )
        process.start()
        send.close()
        return Running(planned, process, receive, time.monotonic(), _now(), resumed)

    def _spec(self, planned: PlannedCell, record: Cell) -> cell_module.Spec:
        records = {name: self.results.cell(member.key, member.identity) for name, member in planned.members.items()}
        members = {name: str(record.store.root) for name, record in records.items()}
        return cell_module.Spec(
            method=planned.key.method,
            params=planned.key.params,
            assets=str(planned.assets.folder),
            folder=str(record.store.root),
            query_ids=planned.attributed_ids,
            seed=planned.key.seed,
            device=self.options.device,
            micro_batch=self.options.micro_batch,
            slice_size=planned.cls.slice_size,
            threads=self.options.threads,
            plugins=planned.plugins,
            members=members or None,
            memory_bytes=self.options.memory_bytes,
        )

    def _poll(self, live: dict[int, Running]) -> list[int]:
        objects = [running.connection for running in live.values()] + [r.process.sentinel for r in live.values()]
        ready = wait(objects, timeout=0.2)
        for running in live.values():
            if running.connection in ready:
                self._drain(running)
        late = [i for i, r in live.items() if time.monotonic() - r.started > self.options.timeout_s]
        for index in late:
            kill_group(live[index].process)
        return [i for i, r in live.items() if i in late or not r.process.is_alive()]

    def _drain(self, running: Running) -> None:
        with suppress(EOFError, OSError):
            while running.connection.poll():
                self.on_event(running.planned, *running.connection.recv())

    def _finish(self, running: Running) -> Row:
        kill_group(running.process)  # it has ended; what it started may not have
        planned = running.planned
        record = self.results.cell(planned.key, planned.identity)
        outcome = record.store.get_json("outcome.json") if record.store.exists("outcome.json") else None
        status, reason = self._verdict(running, outcome)
        return self._store(planned, status, reason, running.started_utc, outcome, running)

    def _verdict(self, running: Running, outcome: dict[str, Any] | None) -> tuple[Status, str | None]:
        if outcome is not None:
            return outcome["status"], outcome.get("reason")
        if time.monotonic() - running.started > self.options.timeout_s:
            return "timeout", f"killed after {self.options.timeout_s:g} s (--timeout)"
        code = running.process.exitcode
        if code == -signal.SIGKILL:
            return "oom", "killed by the system, as it does to processes that use up the memory"
        name = signal.Signals(-code).name if code and code < 0 else f"code {code}"
        return "error", f"the process ended with {name} and no result"

    def _store(
        self,
        planned: PlannedCell,
        status: Status,
        reason: str | None,
        started: str,
        outcome: dict[str, Any] | None = None,
        running: Running | None = None,
    ) -> Row:
        record = self.results.cell(planned.key, planned.identity)
        metrics = self._metrics(planned, record) if status != "skipped" and record.parts() else None
        status, reason = _partial(status, reason, metrics)
        row = Row(
            status=status,
            reason=reason,
            log_tail=None if status == "ok" else self._log_tail(planned),
            key=planned.key,
            metrics=metrics,
            cost=self._cost(planned, record, outcome, running) if outcome and status in ("ok", "partial") else None,
            environment=self._environment(),
            source=self._source(planned, record, started, metrics is not None),
            diagnostics=self._diagnostics(planned, record),
        )
        self.results.write(row)
        self.on_row(planned, row, True)
        return row

    def _metrics(self, planned: PlannedCell, record: Cell) -> Metrics:
        if planned.key.query_set not in TRUTH_OF:
            return Metrics()
        ids, attributed = planned.query_ids, planned.attributed_ids
        found = lds_metrics(planned.assets, self._truth(planned), record, ids, attributed)
        if planned.key.query_set != "test":
            return found
        k = find_task(planned.key.task).removal.top_k(planned.assets.manifest["n_train"])
        return found.model_copy(update={"top": top_items(planned.assets, record, ids, attributed, k)})

    def _truth(self, planned: PlannedCell) -> Truth:
        role = TRUTH_OF[planned.key.query_set]
        where = planned.assets.sha256, role
        if where not in self._truths:
            self._truths[where] = planned.assets.truth(role)
        return self._truths[where]

    def _cost(self, planned: PlannedCell, record: Cell, outcome: dict[str, Any], running: Running | None) -> Cost:
        rows = [self.results.row(member.key) for member in planned.members.values()]
        members = [row.cost for row in rows if row and row.cost]
        resumed = bool(running and running.resumed)
        slices = [record.record(part)["attribute"] for part in record.parts()]
        return add_up(
            own_cost(outcome, slices, len(planned.attributed_ids), self.options.micro_batch, resumed), members
        )

    def _source(self, planned: PlannedCell, record: Cell, started: str, scored: bool) -> Source:
        revision, dirty = git_state()
        return Source(
            kind="measured",
            command=command_line(),
            started_utc=started,
            git_revision=revision,
            git_dirty=dirty,
            truth_sha256=planned.assets.sha256,
            problem_sha256=planned.assets.manifest["files"]["problem.safetensors"]["sha256"],
            scores_sha256=record.scores_hash() if scored else None,
            code_sha256=planned.code,
            notes=[note for preset, note in planned.cls.notes.items() if preset == planned.key.preset],
        )

    def _diagnostics(self, planned: PlannedCell, record: Cell) -> dict[str, Any]:
        merged: dict[str, Any] = {"identity": planned.identity, "limits": _limits(self.options)}
        for part in record.parts():
            for name, value in record.record(part)["diagnostics"].items():
                merged.setdefault(name, {}).update(value) if isinstance(value, dict) else merged.update({name: value})
        return merged

    def _environment(self) -> dict[str, Any]:
        return environment(self.options.device, self.options.threads, self.options.jobs)

    def _log_tail(self, planned: PlannedCell) -> str | None:
        path = self.results.log(planned.key)
        return path.read_text(errors="replace")[-LOG_TAIL:] if path.is_file() else None


def _partial(status: Status, reason: str | None, metrics: Metrics | None) -> tuple[Status, str | None]:
    if metrics is None or not any(result.n_nan for result in metrics.lds.values()):
        return status, reason
    if status == "ok":
        missing = sum(result.n_nan for result in metrics.lds.values())
        return "partial", f"{missing} queries have no LDS: not attributed, or scores that are NaN or all equal"
    return status, reason


def _lacks_top(row: Row) -> bool:
    return row.key.query_set == "test" and row.metrics is not None and row.metrics.top is None


def _limits(options: Options) -> dict[str, Any]:
    return {"timeout_s": options.timeout_s, "memory_bytes": options.memory_bytes if options.memory_asked else None}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
