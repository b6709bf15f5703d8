"""All tasks at one glance: each entry's LDS and rank on each task, and how far any method could get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import mean
from typing import NamedTuple

from ....errors import UserError
from ...rows.row import Row
from ..lds import Line, Table, build_tables
from ..selection import preset_labels
from ..sheet import MISSING, Interval, Sheet, rank_text

CEILING = "noise ceiling"
NOTES = (
    "LDS×100, mean over the kinds of queries, with its 95 % interval, and the range of ranks among all entries of that "
    "task, from paired differences: ranks of different tasks are among different entries. Noise ceiling: the mean over "
    "kinds of what a perfect method could expect. Entries on more tasks come first, then by the mean share of it.",
)


class Name(NamedTuple):
    """An entry across tasks."""

    method: str
    preset: str
    params_hash: str


def task_sheets(rows: Iterable[Row]) -> list[Sheet]:
    """Return one table of all entries by all tasks, of each task the truth that most entries share.

    Raises UserError where no row has an LDS.
    """
    tables = _largest(build_tables(rows))
    if not tables:
        raise UserError("no row holds an LDS: run `tdabench run TASK`")
    lines: dict[Name, dict[str, Line]] = {}
    for table in tables:
        for line in table.lines:
            lines.setdefault(Name(line.method, line.preset, line.params_hash), {})[table.task] = line
    ceilings = {table.task: table.ceiling for table in tables}
    order = sorted(lines, key=lambda name: (*_order(lines[name], ceilings), name))
    return [_sheet(order, lines, ceilings)]


def _largest(tables: Sequence[Table]) -> list[Table]:
    """Return each task's table with the most entries, tasks in order of name."""
    by_task: dict[str, list[Table]] = {}
    for table in tables:
        if table.lines:
            by_task.setdefault(table.task, []).append(table)
    return [max(by_task[task], key=lambda table: len(table.lines)) for task in sorted(by_task)]


def _order(found: Mapping[str, Line], ceilings: Mapping[str, float | None]) -> tuple[int, float]:
    shares = [
        line.overall.mean / (ceilings[task] or 1) for task, line in found.items() if line.overall.mean is not None
    ]
    return -len(found), -mean(shares) if shares else 0.0


def _sheet(
    order: Sequence[Name], lines: Mapping[Name, Mapping[str, Line]], ceilings: Mapping[str, float | None]
) -> Sheet:
    presets = preset_labels(order)
    cells = [[MISSING, CEILING, *(Interval(value).text() for value in ceilings.values())]]
    for name, preset in zip(order, presets, strict=True):
        cells.append([name.method, preset, *(_cell(lines[name].get(task)) for task in ceilings)])
    records = [{**name._asdict(), "lds": {task: _record(line) for task, line in lines[name].items()}} for name in order]
    shared = {"view": "tasks", "ceilings": dict(ceilings)}
    return Sheet.of("All tasks", ["Method", "Preset", *ceilings], cells, NOTES, shared, records)


def _cell(line: Line | None) -> str:
    if line is None:
        return MISSING
    return f"{line.overall.text()}, {rank_text(line.rank_best, line.rank_worst)}"


def _record(line: Line) -> dict[str, float | int | None]:
    return {**asdict(line.overall), "rank_best": line.rank_best, "rank_worst": line.rank_worst}
