"""The commands that run methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.table import Table

from ...errors import UserError, unknown
from ...leaderboard.rows.row import Row
from ...leaderboard.views.catalogue import build_view
from ...leaderboard.views.sheet import render
from ...models.problem import read_problem
from ..metrics.removal.similarities import parse_encoders
from ..processes import cores, one_thread
from ..run.forecast import Forecast, calibrate, forecast
from ..run.plan import Options, PlannedCell, parse_entries, plan_cells
from ..run.results import Results
from ..run.runner import Runner
from ..tasks.spec import TaskSpec, find_task, open_assets
from .leaderboard import registered
from .removal import PARTS, Part, Removing, Settings
from .terminal import RunDisplay, console, duration


@dataclass(frozen=True)
class Selection:
    """What the user asked for: entries of methods on a task."""

    task: str
    methods: list[str]
    excluded: list[str]
    preset: str
    seeds: list[int]
    plugins: tuple[Path, ...]

    def cells(self, query_set: str = "test") -> list[PlannedCell]:
        """Return the planned cells; raises UserError for unknown names."""
        spec = find_task(self.task)
        known = registered(self.plugins)
        entries = parse_entries(self.methods, self.excluded, self.preset, known)
        if not entries:
            raise UserError("no methods left to run: check --methods and --exclude")
        return plan_cells(spec, open_assets(spec), entries, self.seeds, query_set, self.plugins)


def options(
    device: str, jobs: int, timeout: float, memory: float, micro_batch: int, force: bool, retry: bool
) -> Options:
    """Return checked options; raises UserError for a device that is not there."""
    check_device(device)
    if not (jobs >= 0 and 0 < timeout < math.inf and 0 <= memory < math.inf and micro_batch >= 1):
        raise UserError("--jobs and --memory must not be negative, --timeout and --micro-batch must be positive")
    jobs = jobs or (cores() if device == "cpu" else 1)
    limit = int(memory * 2**30) or int(0.8 * psutil.virtual_memory().available / jobs)
    return Options(device, micro_batch, max(1, cores() // jobs), jobs, timeout, limit, memory > 0, force, retry)


def check_device(device: str) -> None:
    """Raise UserError unless ``device`` can be computed on."""
    import torch

    try:
        kind, index = torch.device(device).type, torch.device(device).index
    except RuntimeError:
        raise UserError(f"--device {device!r} is no device: use cpu, cuda or cuda:N") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {device}: no CUDA device is available here; use --device cpu")
    if kind == "cuda" and (index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {device}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    if kind != "cuda" and device != "cpu":
        raise UserError(f"--device {device!r} is not supported: use cpu, cuda or cuda:N")


METRICS = ("lds", "removal", "union", "per-query", "sanity")
REMOVAL: dict[str, tuple[Part, ...]] = {"removal": PARTS, "union": ("union",), "per-query": ("per-query",)}
VIEWS = {"lds": ("lds",), "union": ("removal", "overlap"), "per-query": ("per-query",), "sanity": ("sanity",)}


def settings(metrics: list[str], encoders: str, budget: int, dry_run: bool) -> tuple[set[str], Settings]:
    """Return the wanted metrics, those of removal by part, and how it is measured; raises UserError."""
    for name in metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    if budget < -1:
        raise UserError("--budget must not be negative; leave it out for no limit")
    parts: tuple[Part, ...] = tuple(part for part in PARTS if any(part in REMOVAL.get(name, ()) for name in metrics))
    wanted = {name for name in metrics if name not in REMOVAL} | set(parts)
    return wanted or {"lds"}, Settings(parts, parse_encoders(encoders), None if budget == -1 else budget, dry_run)


def run(selection: Selection, chosen: Options, folder: Path, metrics: set[str], removal: Settings) -> int:
    """Run the cells that need it, measure what was asked for, print its views, and return the exit code."""
    cells, results, spec = selection.cells(), Results(folder), find_task(selection.task)
    removing = Removing(spec, cells[0].assets, results, chosen, removal) if removal.parts else None
    rows = run_cells(cells, results, chosen, removal.dry_run)
    if removing is not None:
        removing.measure(cells)
    if "sanity" in metrics:
        _sanity(cells, results, chosen, spec, removal.dry_run)
    if removal.dry_run:
        return 0
    test = [row for row in results.all_rows(spec.label) if row.key.query_set == "test"]
    show(test, [view for name, views in VIEWS.items() if name in metrics for view in views])
    console.print(f"rows, scores and logs: {results.folder}", soft_wrap=True, markup=False)
    return 1 if any(row.status in ("timeout", "oom", "error") for row in rows) else 0


def _sanity(cells: list[PlannedCell], results: Results, chosen: Options, spec: TaskSpec, dry_run: bool) -> None:
    from .sanity import plan_sanity, sanity

    if dry_run:
        planned = plan_sanity(cells)
        announce(planned, planned, chosen)
    else:
        sanity(cells, results, chosen, spec)


def run_cells(cells: list[PlannedCell], results: Results, chosen: Options, dry_run: bool = False) -> list[Row]:
    """Run the cells that need it, with an estimate before and progress meanwhile, and return all rows.

    A dry run ends after the estimate, and returns none.
    """
    runner = Runner(results, chosen)
    announce(cells, [cell for i in runner.due(cells) if not runner.rescorable(cell := cells[i])], chosen)
    if dry_run:
        return []
    with RunDisplay(len(cells)) as display:
        runner.on_event, runner.on_row = display.event, display.row
        return runner.run(cells)


def announce(cells: list[PlannedCell], due: list[PlannedCell], chosen: Options) -> None:
    """Say what will be run and about how long it takes."""
    label = f"{cells[0].key.task}@{cells[0].key.task_version}"
    if not due:
        console.print(f"{label}: all {len(cells)} cells have their rows, nothing to run")
        return
    forecasts = forecasts_of(due, chosen.device)
    seconds = sum(item.seconds or 0.0 for item in forecasts) / chosen.jobs
    console.print(
        f"{label}: {len(due)} of {len(cells)} cells to run, {chosen.jobs} at a time, about {duration(seconds)}"
    )


def forecasts_of(cells: list[PlannedCell], device: str) -> list[Forecast]:
    """Return forecasts after a short calibration."""
    problem = read_problem(cells[0].assets.folder)
    with one_thread():
        return forecast(cells, problem, calibrate(problem, device))


def show(rows: list[Row], views: Sequence[str]) -> None:
    """Print views of the rows as wide as the terminal, and in a line why one cannot be shown."""
    for view in views:
        try:
            print(render(build_view(view, rows), "table", max(console.width, 100)))
        except UserError as error:
            console.print(f"no {view} view: {error}", soft_wrap=True, markup=False)


def plan(selection: Selection, device: str) -> None:
    """Print what each cell would cost."""
    check_device(device)
    cells = selection.cells()
    table = Table(title=f"{cells[0].key.task}@{cells[0].key.task_version}, {len(cells[0].query_ids)} queries, {device}")
    for name in ("cell", "forward", "trained", "per-sample gradients", "memory", "time"):
        table.add_column(name, justify="left" if name == "cell" else "right")
    forecasts = forecasts_of(cells, device)
    for item in forecasts:
        table.add_row(*_plan_line(item))
    console.print(table)
    total = sum(item.seconds or 0.0 for item in forecasts)
    console.print(f"about {duration(total)} on one core or device; passes are images through the network")


def _plan_line(item: Forecast) -> list[str]:
    name = str(item.planned.entry)
    if item.estimate is None or item.seconds is None:
        return [name, *["unknown"] * 5]
    counts = [f"{count:,}" for count in (item.estimate.forward, item.estimate.trained, item.estimate.per_sample)]
    return [name, *counts, f"{item.estimate.bytes / 2**20:,.0f} MiB", duration(item.seconds)]


def check_method(name: str, preset: str, plugins: tuple[Path, ...]) -> int:
    """Run the contract suite on a method and return the exit code."""
    from ..contract import rules as contract

    checks = contract.check_method(Path(name) if name.endswith(".py") else name, preset, plugins)
    console.print(contract.render(checks))
    console.print(contract.summary(checks))
    return 1 if any(check.status == "fail" for check in checks) else 0
