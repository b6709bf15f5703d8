"""The command attribute: which training images made a picture, for anyone's own model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.table import Table

from ...errors import UserError
from ...leaderboard.rows.row import Row
from ...methods.view import Progress
from ..attribution.answer import Answer, answer
from ..attribution.budget import fitted, spent
from ..attribution.cells import Cells, check, default_results, sized
from ..attribution.copies import said
from ..attribution.found import found, unknowns
from ..attribution.outputs.folder import PAGE, alone, check_out, write
from ..attribution.problem import make
from ..attribution.request import Request
from ..attribution.self_check import Check, SelfCheck
from ..attribution.shortlist import known, ran
from ..metrics.removal.similarities import parse_encoders
from ..run.forecast import start_up
from ..run.plan import PlannedCell
from ..run.results import Results
from .terminal import Bar, RunDisplay, console, duration, plain


def attribute(
    request: Request,
    out: Path,
    results: Path | None = None,
    plugins: tuple[Path, ...] = (),
    device: str = "cpu",
    jobs: int = 0,
    micro_batch: int = 0,
    precision: str = "float32",
    encoders: str = "none",
    dry_run: bool = False,
) -> int:
    """Answer a request into the folder ``out``, and return the exit code: 1 where a method that could run failed.

    The other arguments are those of ``check`` and ``Cells``. Raises UserError for what cannot be answered.
    """
    options = check(request, device, jobs, micro_batch, precision, plugins)
    with nullcontext() if dry_run else alone(out):
        check_out(out, request)
        given = parse_encoders(encoders) or {}
        with reading() as report:
            made = make(request, options.device, report)
        for name, line in found(made).items():
            plain.print(f"{name}: {line}", soft_wrap=True)
        cells = fitted(Cells(made, sized(options, made), Results(results or default_results()), plugins, given))
        announce(cells, dry_run)
        self_check = announced_check(cells) if request.self_check else None
        if dry_run:
            return 0
        scored = ran(cells, lambda planned: run(cells, planned))
        return finish(answer(cells, scored, self_check and run_check(self_check)), cells, out)


def run(cells: Cells, planned: list[PlannedCell]) -> list[Row]:
    """Run cells with their progress shown, and return their rows."""
    with RunDisplay(len(planned)) as display:
        cells.runner.on_event, cells.runner.on_row = display.event, display.row
        return cells.runner.run(planned)


def announced_check(cells: Cells) -> Check:
    """Return the self-check, and say what it will cost; raises UserError where its images are not what it needs."""
    check = Check(cells)
    with reading():
        seconds = check.seconds()
    count = len(check.truth.cases)
    plain.print(f"self-check: {count} copies of the model tuned, about {duration(seconds)} more", soft_wrap=True)
    return check


def run_check(check: Check) -> SelfCheck:
    """Make what is missing of a self-check, run it, and return what it found."""
    with reading() as report:
        check.tune(report)
    return check.found(run(check.cells, check.planned))


@contextmanager
def reading() -> Iterator[Progress]:
    """Show how far reading, embedding and encoding are, a bar for each."""
    bars: dict[str, Bar] = {}

    def report(label: str, done: int, total: int) -> None:
        if label not in bars:
            for bar in bars.values():
                bar.progress.stop()
            bars[label] = Bar(label)
            bars[label].progress.start()
        bars[label].update(done, total)

    try:
        yield report
    finally:
        for bar in bars.values():
            bar.progress.stop()


def announce(cells: Cells, dry_run: bool = False) -> None:
    """Say what each method will cost, which cannot run and why, and which others there are.

    Raises UserError where none can run.
    """
    if not cells.possible:
        reasons = "; ".join(f"{entry} {reason}" for entry, reason in cells.obstacles.items())
        raise UserError(f"no method can run: {reasons}")
    for line in (*cells.remarks, *unknowns(cells.made, [cell.cls for cell in cells.possible])):
        plain.print(line, soft_wrap=True)
    due = set(cells.runner.due(known(cells)))
    seconds = costs(cells) if due else []
    for line in (*(sharing(cells) if due else ()), *reasons_of(cells)):
        plain.print(line, soft_wrap=True)
    if not due:
        plain.print("all scores are there from before: nothing to run")
        return
    left = spent([seconds[i] or 0.0 for i in due], cells.options.jobs) + (0.0 if dry_run else start_up())
    plain.print(f"about {duration(left)}, {cells.options.jobs} at a time; interrupted, it goes on when run again")


def costs(cells: Cells) -> list[float | None]:
    """Print a table of what each method will cost, with all its seeds, and return the seconds of each cell."""
    count, seeds = len(cells.made.assets.manifest["queries"]), len(cells.made.request.seeds)
    device = ",".join(cells.options.devices) or cells.options.device
    table = Table(title=f"{count} pictures{f', {seeds} seeds' if seeds > 1 else ''}, {device}")
    for name in ("method", "memory beside the model", "time"):
        table.add_column(name, justify="left" if name == "method" else "right")
    forecasts = cells.forecasts()
    for item in [item for item in forecasts if item.planned.key.seed == cells.made.request.seeds[0]]:
        size = "unknown" if item.estimate is None else f"{item.estimate.bytes / 2**20:,.0f} MiB"
        took = "unknown" if item.seconds is None else duration(item.seconds * seeds)
        table.add_row(str(item.planned.entry), size, took)
    console.print(table)
    return [item.seconds for item in forecasts]


def sharing(cells: Cells) -> Iterator[str]:
    """Yield what several devices share, and which methods run on the first alone."""
    if cells.options.devices:
        estimates = {str(item.planned.entry): item.estimate for item in cells.forecasts()}
        alone = [entry for entry, estimate in estimates.items() if estimate is None or not estimate.per_sample]
        yield f"{len(cells.options.devices)} devices share features of training images, a block of 1,024 at a time"
        if alone:
            yield f"on {cells.options.device} alone, since they keep no features: {', '.join(alone)}"


def reasons_of(cells: Cells) -> Iterator[str]:
    """Yield which of the methods asked for are left out and why, and which others could run or could not."""
    for entry, reason in cells.obstacles.items():
        yield f"not run: {entry}: {reason}"
    others = cells.others()
    if able := [name for name, reason in others.items() if reason is None]:
        yield f"could run as well: {', '.join(able)}"
    for name, reason in others.items():
        if reason is not None:
            yield f"cannot run here: {name}: {reason}"


def finish(found: Answer, cells: Cells, out: Path) -> int:
    """Write the answer, say what stands out, and return the exit code; raises UserError where no method has scores."""
    failed = {entry: reason for entry, reason in found.missing.items() if entry not in cells.obstacles}
    if not found.scores:
        raise UserError(f"no method has scores: {'; '.join(f'{entry} {reason}' for entry, reason in failed.items())}")
    write(found, out)
    for line in summary(found):
        plain.print(line, soft_wrap=True)
    plain.print(f"{out / PAGE}", soft_wrap=True)
    return int(bool(failed))


def summary(found: Answer) -> list[str]:
    """Return what stands out: near-copies, and how far methods agree."""
    check = [found.self_check.line] if found.self_check else []
    lines = [*check, *found.notes, *said(found.queries, found.copies, found.items)]
    for pair in found.agreements:
        if pair.overlap is not None:
            shared = f"{100 * pair.overlap:.0f} % of their top {found.made.request.top}"
            lines.append(f"{pair.one} and {pair.other} share {shared} (by chance {100 * pair.chance:.1f} %)")
    return lines
