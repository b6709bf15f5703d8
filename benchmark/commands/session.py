"""What commands that run cells share: a task, a results folder, options, and an estimate before anything runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ...datasets.truth import Assets
from ...errors import UserError
from ...leaderboard.rows.row import Row
from ...methods.base import Method
from ...store import FolderStore, home
from ..metrics.removal.similarities import parse_encoders
from ..processes import one_thread
from ..run.forecast import Forecast, calibrate, forecast, start_up
from ..run.plan import Options, PlannedCell, Planner
from ..run.results import Results, close_results
from ..run.runner import Busy, Runner
from ..tasks.find import find_task, has_assets, open_assets
from ..tasks.spec import TaskSpec
from ..truth.build import find_base
from .terminal import RunDisplay, console, total

POLL_S = 1.0


@dataclass(frozen=True)
class Session:
    """Where cells of one task are planned and run; wait: until no other process runs the same cells."""

    planner: Planner
    folder: Path
    options: Options
    wait: bool = False

    @property
    def spec(self) -> TaskSpec:
        """The task."""
        return self.planner.spec

    @property
    def assets(self) -> Assets:
        """The task's truth."""
        return self.planner.assets

    @property
    def plugins(self) -> tuple[Path, ...]:
        """The plugin files, as absolute paths."""
        return tuple(path.resolve() for path in self.planner.plugins)

    @cached_property
    def results(self) -> Results:
        """The results folder, made when it is first needed, so that a mistake leaves none behind."""
        return Results(self.folder)

    @cached_property
    def runner(self) -> Runner:
        """What runs cells into the folder."""
        return Runner(self.results, self.options)

    def run(self, cells: list[PlannedCell], dry_run: bool = False) -> list[Row]:
        """Run the cells that need it, with an estimate before and progress meanwhile, and return all rows.

        A dry run ends after the estimate, and returns none.
        """
        if self.wait and not dry_run:
            self._queue(cells)
        due = self.to_compute(cells)
        self.announce(cells, due, start_up() if due and not dry_run else None)
        if dry_run:
            return []
        with RunDisplay(len(cells)) as display:
            self.runner.on_event, self.runner.on_row = display.event, display.row
            return self._run(cells)

    def _run(self, cells: list[PlannedCell]) -> list[Row]:
        """Run cells; with ``wait``, again and again where one that waited too was quicker."""
        while True:
            try:
                return self.runner.run(cells)
            except Busy:
                if not self.wait:
                    raise
                self._queue(cells)

    def _queue(self, cells: list[PlannedCell]) -> None:
        """Wait while another process runs one of the cells that are due."""
        said = None
        while (busy := self.runner.busy(cells)) is not None:
            if busy.holder != said:
                said = busy.holder
                console.print(f"waiting for {said}, which runs cells into {self.folder}", soft_wrap=True, markup=False)
            time.sleep(POLL_S)

    def to_compute(self, cells: list[PlannedCell]) -> list[PlannedCell]:
        """Return the cells whose scores are due."""
        return [cells[i] for i, due in self.runner.due(cells).items() if due == "scores"]

    def announce(self, cells: list[PlannedCell], due: list[PlannedCell], started: float | None = None) -> None:
        """Say what will be run and about how long it takes; ``started``: seconds that starting up took already."""
        label = cells[0].key.label
        if not due:
            console.print(f"{label}: all {len(cells)} cells have their rows, nothing to run")
            return
        jobs = self.options.jobs
        times = [item.seconds for item in forecasts(due, self.options.device)]
        said = total(times, jobs, started or 0.0)
        when = "once started" if started is None else "with starting"
        console.print(f"{label}: {len(due)} of {len(cells)} cells to run, {jobs} at a time, {said} {when}")


def open_planner(task: str, plugins: tuple[Path, ...], problem_only: bool = False, encoders: str = "none") -> Planner:
    """Return the planner of a task; raises UserError where it is unknown or has no truth here.

    problem_only: what is asked for takes the base model and no subset truth; encoders: what methods may compare images
    by, as ``--encoders`` says it; ``auto`` is none.
    """
    given = parse_encoders(encoders) or {}
    spec = find_task(task, plugins)
    alone = problem_only and not has_assets(spec)
    return Planner(spec, _base_of(spec, plugins) if alone else open_assets(spec), plugins, encoders=given)


def _base_of(spec: TaskSpec, plugins: tuple[Path, ...]) -> Assets:
    base = find_base(spec, FolderStore(home()), plugins)
    if base is None:
        raise UserError(f"{spec.label} has no base model here: run `tdabench truth build {spec.name} --kind exemplars`")
    return base


def open_session(
    task: str,
    folder: Path,
    plugins: tuple[Path, ...],
    options: Options,
    encoders: str = "none",
    problem_only: bool = False,
    wait: bool = False,
) -> Session:
    """Return a session on a task; ``problem_only`` and ``encoders`` as ``open_planner`` has them, raises as it does."""
    close_results(folder)
    planner = open_planner(task, plugins, problem_only, encoders)
    planner = replace(planner, precision=options.precision, isolated=options.isolated)
    return Session(planner, folder, options, wait)


def forecasts(cells: list[PlannedCell], device: str) -> list[Forecast]:
    """Return what cells will cost, after a short calibration."""
    with one_thread():
        return forecast(cells, *calibrate(cells[0].assets.folder, device, cells[0].plugin_paths))


def check_items(cls: type[Method], command: str) -> None:
    """Raise UserError for a method of groups, which has no LDS for the command to go by."""
    if cls.unit != "item":
        raise UserError(f"`tdabench {command}` compares by LDS, and {cls.name!r} scores groups: name another method")


def failed(rows: list[Row]) -> int:
    """Return the exit code of a command that ran these rows' cells: 1 where one failed."""
    return int(any(row.status in ("timeout", "oom", "error") for row in rows))
