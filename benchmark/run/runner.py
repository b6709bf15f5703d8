"""The runner: one killable process per cell, every outcome a row, nothing done twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from ...errors import UserError, brief
from ...leaderboard.rows.row import Row, Status
from ...methods.kept import in_use
from ...store import LONG_CLAIM_S, home, remove_tree
from ..sandbox.enclosure import closed_to_methods, shelter
from ..sandbox.fork_server import forkserver, start_guard, temporary_of_process
from ..sandbox.frames import Inbox
from ..sandbox.isolation import NONE
from ..sandbox.lifetime import kill_cell, out_of_memory_kills, server_of
from ..sandbox.tampering import Watch
from . import worker
from .code import engine_hashes
from .described import Described
from .due import Due, Inspector, reads_any
from .plan import Options, PlannedCell
from .record import Record
from .reporting import Ending, Reporter, now
from .results import Results, folder_of

OnEvent = Callable[[PlannedCell, str, int, int], None]


MOST = 2**53  # of what a cell counts, which whoever shows it computes with
LONGEST_EVENT = 4096  # bytes; a longer one ends what is heard from its cell


def parse_event(data: bytes) -> tuple[str, int, int] | None:
    """Return (label, done, total) of what a cell sent, or None: a method may send anything."""
    try:
        label, done, total = json.loads(data)
    except (ValueError, TypeError, RecursionError):
        return None
    if not (isinstance(label, str) and type(done) is int and type(total) is int and 0 <= done <= total <= MOST):
        return None
    return brief(label), done, total


def _signal(number: int) -> str:
    """Return the name of a signal; most of the real-time ones have none."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def nothing(cell: PlannedCell, label: str, done: int, total: int) -> None:
    """Report to nobody."""


@dataclass
class Running:
    """A live cell process; server: what it was forked from; memory_kills: of the kernel, before it started.

    watch: notices what it changes that is not its own, where nothing keeps it from that.
    """

    planned: PlannedCell
    process: Any
    inbox: Inbox
    resumed: bool
    temporary: str
    watch: Watch | None = None
    server: int | None = None
    started: float = field(default_factory=time.monotonic)
    started_utc: str = field(default_factory=now)
    memory_kills: int | None = field(default_factory=out_of_memory_kills)

    def kill(self) -> None:
        """End it with all that it started."""
        kill_cell(self.process, self.server)
        remove_tree(self.temporary)


class Busy(UserError):
    """A cell is being run by another process; ``holder``: which, as people say it."""

    def __init__(self, results: Results, key: str) -> None:
        self.holder = results.store.holder(key) or "it has just ended"
        task, method = key.split("/")[1:3]
        super().__init__(
            f"another tdabench is running {method} on {task} into {results.folder} ({self.holder}): --wait for it, or "
            "use another --results"
        )


def claims_of(cells: Iterable[PlannedCell]) -> dict[str, None]:
    """Return, in order, the keys of the claims on cells and on those whose scores they read.

    In the same order for everybody, so that of several who want the same cells at once somebody gets them.
    """
    read = [one for planned in cells for one in (planned, *planned.members.values())]
    return dict.fromkeys(sorted(f"{folder_of(one.key)}/run" for one in read))


@dataclass
class Runner:
    """Runs planned cells into a results folder; ``on_event`` sees (cell, label, done, total), ``on_row`` each row."""

    results: Results
    options: Options
    on_event: OnEvent = nothing
    on_row: Callable[[PlannedCell, Row, bool], None] = lambda cell, row, fresh: None
    _live: dict[int, Running] = field(default_factory=dict)
    _claimed: frozenset[str] = frozenset()

    @cached_property
    def inspector(self) -> Inspector:
        """Says what is due."""
        return Inspector(self.results, self.options)

    @cached_property
    def reporter(self) -> Reporter:
        """Writes rows."""
        return Reporter(self.inspector, lambda *seen: self.on_row(*seen))

    def due(self, cells: list[PlannedCell]) -> dict[int, Due]:
        """Return what is due by position in ``cells``; positions for which nothing is are left out."""
        return self.inspector.all_due(cells)

    def run(self, cells: Iterable[PlannedCell]) -> list[Row]:
        """Return the row of every cell, running those that are missing, stale or due again.

        Raises Busy where another process is running one of these, or one that they read: both would write the same
        slices. Others may be run by other processes meanwhile.
        """
        cells = list(cells)
        due = self.due(cells)
        if not due:
            return [self.reporter.known(planned) for planned in cells]  # also where nothing may be written
        for i in due:
            self.reporter.truth(cells[i])  # a damaged one is found before anything is computed
        claims = claims_of(cells[i] for i in due)
        with ExitStack() as stack:
            for key in claims:
                if not stack.enter_context(self.results.store.claim(key, LONG_CLAIM_S)):
                    raise Busy(self.results, key)
            waiting = self.due(cells)
            if claims_of(cells[i] for i in waiting).keys() <= claims.keys():
                stack.enter_context(in_use(self.results.kept))
                self._claimed = frozenset(key.removesuffix("/run") for key in claims)
                return self._run(cells, list(waiting))
        return self.run(cells)  # another process has just made more of them due

    def busy(self, cells: list[PlannedCell]) -> Busy | None:
        """Return why ``run`` would be refused now, if it would."""
        claims = claims_of(cells[i] for i in self.due(cells))
        return next((Busy(self.results, key) for key in claims if self.results.store.holder(key)), None)

    def _run(self, cells: list[PlannedCell], waiting: list[int]) -> list[Row]:
        rows = {i: self.reporter.known(cells[i]) for i in range(len(cells)) if i not in waiting}
        try:
            while waiting or self._live:
                self._start_ready(cells, waiting, rows)
                for index in self._poll():
                    rows[index] = self._finish(self._live.pop(index))
        finally:
            for running in self._live.values():
                running.kill()
            self._live.clear()
        return [rows[i] for i in range(len(cells))]

    def _start_ready(self, cells: list[PlannedCell], waiting: list[int], rows: dict[int, Row]) -> None:
        for index in list(waiting):
            planned = cells[index]
            unfinished = [cells[i].key for i in waiting if i != index] + [r.planned.key for r in self._live.values()]
            if len(self._live) >= self.options.jobs or reads_any(planned, unfinished):
                continue
            waiting.remove(index)
            for watch in filter(None, (running.watch for running in self._live.values())):
                watch.expected.add(folder_of(planned.key))
            if (reason := self.inspector.obstacle(planned)) is not None:
                rows[index] = self.reporter.write(planned, Ending("skipped", reason, now()))
            elif self.inspector.due(planned) == "metrics":
                rows[index] = self.reporter.rescore(planned)
            else:
                self._live[index] = self._start(planned)

    def _start(self, planned: PlannedCell) -> Running:
        temporary = tempfile.mkdtemp(prefix="cell-", dir=temporary_of_process())
        try:
            return self._started(planned, temporary)
        except BaseException:
            remove_tree(temporary)
            raise

    def _started(self, planned: PlannedCell, temporary: str) -> Running:
        record = self.inspector.record(planned)
        spec = self._spec(planned, record, temporary)
        self._prepare(planned, record, spec)
        resumed, watch = bool(record.parts()), self._watch(planned)
        receive, send = multiprocessing.Pipe(duplex=False)
        words = str(record.store.root), str(self.results.new_log(planned.key)), send, str(home())
        process = forkserver().Process(target=worker.main, args=words, daemon=True)
        start_guard()
        process.start()
        send.close()
        inbox, server = Inbox(receive, LONGEST_EVENT), server_of(process.pid, os.getpid())
        return Running(planned, process, inbox, resumed, temporary, watch, server)

    def _watch(self, planned: PlannedCell) -> Watch | None:
        """Return what notices that a cell changes what is not its own; nothing where it is kept from that."""
        if shelter(self.options.encloses) != NONE:
            return None
        expected = {folder_of(one.key) for one in (planned, *(running.planned for running in self._live.values()))}
        return Watch(planned.assets, planned.plugins, self.results.folder, self._claimed, expected)

    def _prepare(self, planned: PlannedCell, record: Record, spec: worker.Spec) -> None:
        """Leave of the record what this start goes on with, and say what is asked for."""
        if (damage := record.damage()) is not None:
            print(f"{record.store.root} is damaged, so its cell starts anew: {damage}", file=sys.stderr, flush=True)
        if damage is not None or not self.inspector.continues(planned, spec):
            self.results.forget(planned.key)  # or a kill would leave a row without its scores
            record.clear()
        record.store.delete("outcome.json")
        record.store.put_json("spec.json", spec.to_json(), sealed=True)
        record.store.put_json("inputs.json", self.inspector.inputs(planned), sealed=True)

    def _spec(self, planned: PlannedCell, record: Record, temporary: str) -> worker.Spec:
        members = {name: str(self.inspector.record(one).store.root) for name, one in planned.members.items()}
        return worker.Spec(
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
            member_ids={name: one.attributed_ids for name, one in planned.members.items()} or None,
            memory_bytes=self.options.memory_bytes,
            open_truth="open-truth" in planned.cls.needs,
            kept=self._kept(planned),
            encoders={name: weights.source for name, weights in planned.encoders.items()} or None,
            precision=planned.key.precision,
            closed=self._closed(planned),
            temporary=temporary,
            devices=self.options.devices,
        )

    def _closed(self, planned: PlannedCell) -> tuple[str, ...]:
        return closed_to_methods(planned.assets.folder) if self.options.encloses else ()

    def _kept(self, planned: PlannedCell) -> dict[str, Any] | None:
        """Return where rows are kept and what they depend on; a forced cell measures everything anew."""
        if self.options.force:
            return None
        encoders = {name: weights.identity for name, weights in planned.encoders.items()}
        inputs = {"problem": planned.assets.training_sha256, "environment": self.inspector.environment()}
        inputs |= {"precision": planned.key.precision, "encoders": encoders}
        code = {"code": engine_hashes(), "method_code": f"{planned.key.method} {planned.code}"}
        return {"folder": str(self._keeps(planned)), "inputs": inputs, **code}

    def _keeps(self, planned: PlannedCell) -> Path:
        """Return where a cell's rows are kept: of code from outside apart, which others' rows are closed to."""
        outside = issubclass(planned.cls, Described)
        return self.results.kept / f"outside-{planned.code}" if outside else self.results.kept

    def _poll(self) -> list[int]:
        """Wait a moment for events, and return the positions of cells that ended or ran out of time."""
        live = self._live.values()
        heard = [running.inbox.connection for running in live if not running.inbox.connection.closed]
        ready = wait(heard + [running.process.sentinel for running in live], timeout=0.2)
        for running in live:
            if running.inbox.connection in ready:
                self._drain(running)
        late = [i for i, running in self._live.items() if self._is_late(running)]
        for index in late:
            self._live[index].kill()
        return [i for i, running in self._live.items() if i in late or not running.process.is_alive()]

    def _is_late(self, running: Running) -> bool:
        return time.monotonic() - running.started > self.options.timeout_s

    def _drain(self, running: Running) -> None:
        for message in running.inbox.take():
            if (event := parse_event(message)) is not None:
                self.on_event(running.planned, *event)

    def _finish(self, running: Running) -> Row:
        running.kill()  # it has ended; what it started may not have
        if running.watch is not None and (complaint := running.watch.complaint()) is not None:
            return self._disowned(running, complaint)
        try:
            outcome = self.inspector.record(running.planned).read("outcome")
            status, reason = self._verdict(running, outcome)
            end = Ending(status, reason, running.started_utc, outcome, running.resumed)
            row = self.reporter.row(running.planned, end)
        except Exception as error:  # a method writes into its record what it likes
            what = f"{type(error).__name__}: {brief(str(error))}"
            return self._disowned(running, f"what it left behind is no record of a cell ({what})")
        return self.reporter.written(running.planned, row)

    def _disowned(self, running: Running, reason: str) -> Row:
        """Write and return the row of a cell of whose record nothing is believed."""
        self.inspector.record(running.planned).clear()
        return self.reporter.write(running.planned, Ending("error", reason, running.started_utc))

    def _verdict(self, running: Running, outcome: dict[str, Any] | None) -> tuple[Status, str | None]:
        if isinstance(outcome, dict) and outcome.get("status") in ("ok", "oom", "error"):
            return outcome["status"], outcome.get("reason")
        if self._is_late(running):
            return "timeout", f"killed after {self.options.timeout_s:g} s (--timeout)"
        code = running.process.exitcode
        if code == -signal.SIGKILL and running.memory_kills != out_of_memory_kills():
            return "oom", "killed by the system, as it does to processes that use up the memory"
        name = _signal(-code) if code and code < 0 else f"code {code}"
        return "error", f"the process ended with {name} and no result"
